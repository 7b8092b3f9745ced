"""NATs of the simulated internet (RFC 4787), and the STUN that tells what they do."""

from __future__ import annotations

from typing import Literal, TypeAlias

from discovery.nat import stun
from fastpath.types import Endpoint

Kind: TypeAlias = Literal["restricted", "symmetric", "full-cone"]

STUN = (("192.0.2.1", 3478), ("192.0.2.1", 3479))
MARKER = bytes(4)


class Nat:
    """One router; those behind it have addresses of ``inside``, and ``address`` is outside."""

    def __init__(self, address: str, kind: Kind) -> None:
        self.address, self.kind = address, kind
        self._ports: dict[tuple[Endpoint, Endpoint | None], int] = {}
        self._flows: dict[int, Endpoint] = {}
        self._let_in: set[tuple[int, Endpoint]] = set()
        self._next = 50_000

    def out(self, source: Endpoint, target: Endpoint) -> Endpoint:
        """Where a datagram from inside seems to come from."""
        key = (source, target if self.kind == "symmetric" else None)
        if key not in self._ports:
            self._ports[key] = self._next
            self._flows[self._next] = source
            self._next += 1
        port = self._ports[key]
        self._let_in.add((port, target))
        return (self.address, port)

    def into(self, source: Endpoint, target: Endpoint) -> Endpoint | None:
        """For whom inside a datagram from outside is, if it is let in."""
        if self.kind != "full-cone" and (target[1], source) not in self._let_in:
            return None
        return self._flows.get(target[1])

    def reboot(self) -> None:
        """All flows are forgotten; new ones get new ports."""
        self._ports.clear()
        self._flows.clear()
        self._let_in.clear()


def answer_stun(data: bytes, source: Endpoint) -> bytes | None:
    """What the rendezvous says to a question behind the non-ESP marker."""
    reply = stun.answer(data[len(MARKER) :], source) if data.startswith(MARKER) else None
    return None if reply is None else MARKER + reply
