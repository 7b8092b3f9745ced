"""NATs of the simulated internet (RFC 4787), and the STUN that tells what they do."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from discovery.nat import stun
from fastpath.types import Endpoint

Kind: TypeAlias = Literal["restricted", "symmetric", "full-cone", "blocked"]

STUN = (("192.0.2.1", 3478), ("192.0.2.1", 3479))
MARKER = bytes(4)


@dataclass(slots=True)
class _Flow:
    """An outer port: whose it is, and who was sent to from it, and when."""

    source: Endpoint
    used: float
    let_in: dict[Endpoint, float] = field(default_factory=dict)


class Nat:
    """One router; those behind it have addresses of its own, and ``address`` is outside.

    ``timeout`` is for how many seconds it remembers a flow; packets of both directions renew it.
    ``outer`` is the next router on the way out: then ``address`` is known to that one alone.
    """

    def __init__(
        self,
        address: str,
        kind: Kind,
        *,
        timeout: float = float("inf"),
        outer: Nat | None = None,
    ) -> None:
        self.address, self.kind, self.timeout, self.outer = address, kind, timeout, outer
        self.down = False
        self._ports: dict[tuple[Endpoint, Endpoint | None], int] = {}
        self._flows: dict[int, _Flow] = {}
        self._forwarded: dict[int, Endpoint] = {}
        self._next = 50_000

    def forward(self, port: int, inside: Endpoint) -> Endpoint:
        """Open a port for everybody, as a host inside has asked for; where that is outside."""
        self._forwarded[port] = inside
        return (self.address, port)

    def out(self, source: Endpoint, target: Endpoint, now: float = 0.0) -> Endpoint | None:
        """Where a datagram from inside seems to come from; ``None`` if it does not get out."""
        if self.kind == "blocked" or self.down:
            return None
        for port, inside in self._forwarded.items():
            if inside == source:
                return (self.address, port)
        key = (source, target if self.kind == "symmetric" else None)
        port = self._ports.get(key, 0)
        if port not in self._flows or self._flows[port].used + self.timeout < now:
            self._flows.pop(port, None)
            port = self._ports[key] = self._next
            self._flows[port] = _Flow(source, now)
            self._next += 1
        flow = self._flows[port]
        flow.used = flow.let_in[target] = now
        return (self.address, port)

    def into(self, source: Endpoint, target: Endpoint, now: float = 0.0) -> Endpoint | None:
        """For whom inside a datagram from outside is, if it is let in."""
        if self.down:
            return None
        if target[1] in self._forwarded:
            return self._forwarded[target[1]]
        flow = self._flows.get(target[1])
        if flow is None or flow.used + self.timeout < now:
            return None
        if self.kind != "full-cone":
            last = flow.let_in.get(source)
            if last is None or last + self.timeout < now:
                return None
            flow.let_in[source] = now
        flow.used = now
        return flow.source

    def reboot(self, address: str | None = None) -> None:
        """All flows are forgotten; new ones get new ports. ``address``: the one it has then."""
        self.address = address or self.address
        self._ports.clear()
        self._flows.clear()
        self._forwarded.clear()


def delay_of(data: bytes) -> int:
    """For how long its answer shall wait."""
    return stun.delay_of(data[len(MARKER) :])


def answer_stun(data: bytes, source: Endpoint) -> bytes | None:
    """What the rendezvous says to a question behind the non-ESP marker."""
    reply = stun.answer(data[len(MARKER) :], source) if data.startswith(MARKER) else None
    return None if reply is None else MARKER + reply
