"""NAT-PMP (RFC 6886, B26–B32): one UDP port of this host, opened at one gateway.

Requests are serial: the external address first, then the mapping. A gateway that lost its state
shows it by its clock, the seconds since its start of epoch; the mapping is then made again, with
the same external port asked for (B28).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address

from discovery.nat.types import (
    SERVER_PORT,
    Doubted,
    Endpoint,
    Mapped,
    Mapping,
    NatCommand,
    NotMapped,
    SendNat,
)

FIRST_WAIT = 0.25  # seconds (RFC 6886 §3.1, B26); doubling
ATTEMPTS = 9  # the last waits 64 s: 127.75 s in all
LIFETIME = 7200  # seconds (RFC 6886 §3.3)
SHORTEST = 60  # seconds: no gateway makes us renew more often than every 30 s
LONGEST = 86_400
DELETES = 2  # transmissions at most of a good-bye (RFC 6886 §3.4)
RECREATE_WITHIN = 5.0  # seconds, uniformly random (RFC 6886 §3.7)
AGAIN = 300.0  # seconds after a refusal

_UDP = 1
_ADDRESS, _MAPPING = 0x80, 0x80 + _UDP
_RESULTS = {
    1: "it does not know NAT-PMP's version 0",
    2: "it refuses mappings (switch on NAT-PMP or PCP in the router)",
    3: "it has no external address (it may be behind another NAT, or offline)",
    4: "it has no more mappings to give",
    5: "it does not know this request",
}


@dataclass(frozen=True, slots=True)
class Reply:
    """A gateway's answer. ``address`` is its external one where it told it, ``lifetime`` and the
    ports stand in answers about mappings. ``epoch`` in seconds."""

    opcode: int
    result: int
    epoch: int
    address: str | None = None
    internal_port: int = 0
    external_port: int = 0
    lifetime: int = 0


def address_request() -> bytes:
    """The question for the external address (RFC 6886 §3.2, B31)."""
    return b"\0\0"


def mapping_request(internal_port: int, external_port: int, lifetime: int) -> bytes:
    """A mapping of a UDP port (RFC 6886 §3.3); ``lifetime`` in seconds, 0 deletes it."""
    return struct.pack("!BBHHHI", 0, _UDP, 0, internal_port, external_port, lifetime)


def read_reply(data: bytes) -> Reply | None:
    """A gateway's datagram, or ``None`` for anything else."""
    if len(data) < 8 or data[0] != 0:
        return None
    opcode, result, epoch = struct.unpack_from("!xBHI", data)
    if opcode == _ADDRESS and len(data) >= 12:
        return Reply(opcode, result, epoch, address=str(IPv4Address(data[8:12])))
    if opcode == _MAPPING and len(data) >= 16:
        inner, outer, lifetime = struct.unpack_from("!HHI", data, 8)
        return Reply(opcode, result, epoch, None, inner, outer, lifetime)
    if result == 1 or (opcode >= 0x80 and result):  # RFC 6886 §3.5: errors may be short
        return Reply(opcode, result, epoch)
    return None


class Epoch:
    """The gateway's clock, which tells when it lost its state (RFC 6886 §3.6)."""

    def __init__(self) -> None:
        self._last: tuple[int, float] | None = None

    def lost(self, epoch: int, now: float) -> bool:
        """Whether the gateway forgot its mappings since its last word."""
        before, self._last = self._last, (epoch, now)
        if before is None:
            return False
        return epoch < before[0] + (now - before[1]) * 7 / 8 - 2


class NatPmpClient:
    """One mapping at one gateway. ``local`` is our endpoint; ``wish`` the external port."""

    def __init__(
        self,
        gateway: str,
        local: Endpoint,
        random: Callable[[int], bytes],
        *,
        lifetime: int = LIFETIME,
        wish: int | None = None,
    ) -> None:
        self.gateway, self.local = gateway, local
        self._random, self._lifetime = random, lifetime
        self._wish = local[1] if wish is None else wish
        self._epoch = Epoch()
        self._address: str | None = None
        self._mapping: Mapping | None = None
        self._asked: bytes | None = None  # the one outstanding request
        self._left = 0  # transmissions of it
        self._wait = FIRST_WAIT
        self._due: float | None = None
        self._expires = 0.0  # of the mapping
        self._leaving = False

    @property
    def mapping(self) -> Mapping | None:
        """What the gateway granted last."""
        return self._mapping

    def next_timer(self) -> float | None:
        """When :meth:`advance` has something to do."""
        return self._due

    def start(self, now: float) -> list[NatCommand]:
        """Ask for all anew, now."""
        self._leaving = False
        return self._ask(address_request(), now)

    def stop(self, now: float) -> list[NatCommand]:
        """Delete the mapping (B30): at least one message, and one more if nobody answers."""
        if self._mapping is None and self._asked in (None, address_request()):
            self._due = self._asked = None
            return []
        self._leaving, self._mapping = True, None
        return self._ask(mapping_request(self.local[1], 0, 0), now, DELETES)

    def refused(self, now: float) -> list[NatCommand]:
        """An ICMP error came: nobody listens at the gateway."""
        return self._give_up(now, "nothing listens there (no NAT-PMP)", silent=True)

    def advance(self, now: float) -> list[NatCommand]:
        """Retransmits, renews, begins again."""
        if self._due is None or now < self._due:
            return []
        if self._asked is None:
            return self.start(now)
        if not self._left:
            if self._leaving:
                self._due = self._asked = None
                return []
            return self._unanswered(now)
        return self._transmit(now)

    def receive(self, data: bytes, source: Endpoint, now: float) -> list[NatCommand]:
        """A datagram that came to our asking socket, or an announcement to the group (B32)."""
        reply = read_reply(data) if source == (self.gateway, SERVER_PORT) else None
        if reply is None:
            return []
        if self._leaving:
            return self._left_behind(reply)
        lost = self._epoch.lost(reply.epoch, now)
        if self._answers(reply):
            self._asked = self._due = None
            return self._refusal(reply, now) if reply.result else self._took(reply, now)
        return self._announced(reply, lost, now)

    # --- Inside -----------------------------------------------------------------------------

    def _answers(self, reply: Reply) -> bool:
        if self._asked is None:
            return False
        if self._asked == address_request():
            return reply.opcode in (_ADDRESS, 0)
        return reply.opcode in (_MAPPING, 0) and (
            bool(reply.result) or reply.internal_port == self.local[1]
        )

    def _left_behind(self, reply: Reply) -> list[NatCommand]:
        """After a good-bye, its acknowledgement is all that we wait for."""
        if reply.opcode == _MAPPING and reply.lifetime == 0:
            self._due = self._asked = None
        return []

    def _took(self, reply: Reply, now: float) -> list[NatCommand]:
        if reply.address is not None:
            self._address = reply.address
            return self._ask(mapping_request(self.local[1], self._wish, self._lifetime), now)
        if not reply.external_port or not reply.lifetime:
            return self._give_up(now, "it granted a mapping of no port or no time")
        assert self._address is not None  # the address is asked for first
        lifetime = max(SHORTEST, min(reply.lifetime, LONGEST))
        self._wish = reply.external_port  # asked for again after a crash of the NAT, B28
        self._expires, self._due = now + lifetime, now + lifetime / 2  # B29
        return self._have((self._address, reply.external_port), lifetime)

    def _have(self, external: Endpoint, lifetime: int) -> list[NatCommand]:
        self._mapping = Mapping("nat-pmp", self.gateway, self.local, external, lifetime)
        return [Mapped(self._mapping)]

    def _announced(self, reply: Reply, lost: bool, now: float) -> list[NatCommand]:
        """A word that we did not ask for: a changed address counts at once, and a clock that went
        back means that the mapping must be made again, though not by everybody at once."""
        if self._mapping is None or reply.result:
            return []
        out: list[NatCommand] = []
        moved = reply.address not in (None, self._mapping.external[0])
        if moved and reply.address is not None:
            self._address = reply.address
            out += self._have((reply.address, self._wish), self._mapping.lifetime)
        if (lost or moved) and self._asked is None:
            share = int.from_bytes(self._random(2), "big") / 0xFFFF
            self._due = now + RECREATE_WITHIN * share
            out += [] if moved else [Doubted(self.gateway)]
        return out

    def _refusal(self, reply: Reply, now: float) -> list[NatCommand]:
        text = _RESULTS.get(reply.result, f"it answered with the unknown result {reply.result}")
        return self._give_up(now, text)

    def _unanswered(self, now: float) -> list[NatCommand]:
        """A gateway that is silent for a while may still forward: the mapping holds to its end."""
        if self._mapping is not None and now < self._expires:
            self._asked = None
            self._due = min(self._expires, now + max(SHORTEST, (self._expires - now) / 2))
            return []
        return self._give_up(now, "it does not answer NAT-PMP", silent=True)

    def _give_up(self, now: float, reason: str, *, silent: bool = False) -> list[NatCommand]:
        self._asked, self._mapping = None, None
        self._due = None if self._leaving else now + AGAIN
        return [] if self._leaving else [NotMapped("nat-pmp", self.gateway, reason, silent)]

    def _ask(self, request: bytes, now: float, attempts: int = ATTEMPTS) -> list[NatCommand]:
        self._asked, self._left, self._wait = request, attempts, FIRST_WAIT
        return self._transmit(now)

    def _transmit(self, now: float) -> list[NatCommand]:
        assert self._asked is not None
        self._left -= 1
        self._due, self._wait = now + self._wait, self._wait * 2
        return [SendNat(self._asked, (self.gateway, SERVER_PORT))]
