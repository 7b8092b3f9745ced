"""PCP (RFC 6887): a MAP of one UDP port at one gateway, over IPv4 or as an IPv6 firewall's pinhole.

The nonce proves that a renewal or a delete comes from who made the mapping. Every answer carries
the gateway's clock; one that does not fit ours says that the gateway lost its state (§8.5).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from discovery.nat import natpmp
from discovery.nat.types import (
    SERVER_PORT,
    UNSPECIFIED,
    Doubted,
    Endpoint,
    Mapped,
    Mapping,
    NatCommand,
    NotMapped,
    OtherVersion,
    SendNat,
    is_reachable,
)

VERSION = 2
ANNOUNCE, MAP = 0, 1
UDP = 17
LARGEST = 1100  # octets of a message (§7)
FIRST_WAIT = 3.0  # seconds: IRT (§8.1.1)
LONGEST_WAIT = 1024.0  # MRT
LIFETIME = 7200  # seconds that we ask for
LONGEST = 86_400  # seconds that we believe (§15: a cap of a day)
SHORTEST = 60
JUST_BEGUN = 10  # seconds of a gateway's clock
BETWEEN_RENEWALS = 4.0  # seconds at least (§11.2.1)
RECREATE_WITHIN = 5.0  # seconds after an ANNOUNCE (§14.1.3)
SILENT_AFTER = 4  # transmissions: some 20 s; nobody is told before, and we go on asking
DELETES = 2

_HEADER = struct.Struct("!BBHI")
_RESULTS = {
    1: "it does not know PCP's version 2",
    2: "it refuses mappings (switch on PCP in the router)",
    3: "it calls our request malformed",
    4: "it does not know MAP",
    5: "it does not know an option",
    6: "it calls an option malformed",
    7: "it has no network outside (it may be behind another NAT, or offline)",
    8: "it has no more mappings to give",
    9: "it does not map UDP",
    10: "our quota of mappings is used up",
    11: "it cannot give this external port",
    12: "another NAT stands between it and us",
    13: "it knows too many remote peers",
}
_UNSUPPORTED_VERSION = 1


def mapped(address: str) -> bytes:
    """An address as PCP writes it: IPv4 as ``::ffff:a.b.c.d`` (§5)."""
    where = ip_address(address)
    if isinstance(where, IPv4Address):
        return bytes(10) + b"\xff\xff" + where.packed
    return where.packed


def address_text(octets: bytes) -> str:
    """The other way round."""
    where = IPv6Address(octets)
    return str(where.ipv4_mapped or where)


def _anywhere(local: Endpoint) -> str:
    """The address that says "any" in ``local``'s family."""
    return UNSPECIFIED if "." in local[0] else "::"


@dataclass(frozen=True, slots=True)
class Reply:
    """A gateway's answer. ``lifetime`` and ``epoch`` in seconds; the rest stands in MAPs."""

    opcode: int
    result: int
    lifetime: int
    epoch: int
    nonce: bytes = b""
    protocol: int = 0
    internal_port: int = 0
    external: Endpoint = ("::", 0)


def map_request(
    local: Endpoint, nonce: bytes, lifetime: int, external: Endpoint | None = None
) -> bytes:
    """A MAP of our UDP endpoint (§11.1), 60 octets; ``external`` is what we would like."""
    wish = external or (_anywhere(local), 0)
    header = _HEADER.pack(VERSION, MAP, 0, lifetime) + mapped(local[0])
    ports = struct.pack("!BxxxHH", UDP, local[1], wish[1])
    return header + nonce + ports + mapped(wish[0])


def read_reply(data: bytes) -> Reply | None:
    """A gateway's datagram, or ``None`` for anything else (§8.3)."""
    if not 24 <= len(data) <= LARGEST or len(data) % 4 or data[0] != VERSION or not data[1] & 0x80:
        return None
    opcode, result, lifetime, epoch = struct.unpack_from("!xBxBII", data)
    opcode &= 0x7F
    if opcode != MAP:
        return Reply(opcode, result, lifetime, epoch)
    if len(data) < 60:
        return None
    protocol, inner, outer = struct.unpack_from("!BxxxHH", data, 36)
    external = (address_text(data[44:60]), outer)
    return Reply(opcode, result, lifetime, epoch, data[24:36], protocol, inner, external)


def other_version(data: bytes) -> bool:
    """Whether it says "I speak version 0 only", in any of the shapes that gateways use.

    RFC 6886 prints it with 8 octets and without the response bit, so that this must be asked
    before :func:`read_reply`, which drops such messages (RFC 6887 §9 against §8.3).
    """
    return len(data) >= 4 and data[0] == 0 and int.from_bytes(data[2:4], "big") == 1


class Epoch:
    """The gateway's clock against ours (§8.5)."""

    def __init__(self) -> None:
        self._last: tuple[int, float] | None = None

    def lost(self, epoch: int, now: float) -> bool:
        """Whether the gateway forgot its mappings since its last word."""
        before, self._last = self._last, (epoch, now)
        if before is None:
            return False
        if epoch < before[0] - 1:
            return True
        ours, theirs = int(now - before[1]), epoch - before[0]
        return ours + 2 < theirs - theirs // 16 or theirs + 2 < ours - ours // 16


class PcpClient:
    """One mapping at one gateway. ``local`` is our endpoint; ``wish`` an external one."""

    def __init__(
        self,
        gateway: str,
        local: Endpoint,
        random: Callable[[int], bytes],
        *,
        lifetime: int = LIFETIME,
        wish: Endpoint | None = None,
    ) -> None:
        self.gateway, self.local = gateway, local
        self._random, self._lifetime = random, lifetime
        self._wish = wish or (_anywhere(local), local[1])
        self._nonce = random(12)
        self._epoch = Epoch()
        self._mapping: Mapping | None = None
        self._granted = self._expires = 0.0
        self._waiting = False  # for an answer
        self._sent = 0  # transmissions of this request
        self._wait = 0.0
        self._due: float | None = None
        self._leaving = self._told = False
        self._lost = False  # the gateway forgot: the mapping is made anew, not renewed

    @property
    def mapping(self) -> Mapping | None:
        """What the gateway granted last."""
        return self._mapping

    def next_timer(self) -> float | None:
        """When :meth:`advance` has something to do."""
        return self._due

    def start(self, now: float) -> list[NatCommand]:
        """Ask, now."""
        self._waiting, self._leaving, self._sent = True, False, 0
        return self._transmit(now)

    def stop(self, now: float) -> list[NatCommand]:
        """Delete the mapping (§15); a request that is still open may have made one, too."""
        if self._mapping is None and not self._waiting:
            self._due = None
            return []
        self._waiting, self._leaving, self._mapping, self._sent = True, True, None, 0
        return self._transmit(now)

    def refused(self, now: float) -> list[NatCommand]:
        """An ICMP error came: nobody listens at the gateway."""
        return self._none(now, 1800.0, "nothing listens there (no PCP)", silent=True)

    def advance(self, now: float) -> list[NatCommand]:
        """Retransmits, renews, gives up what has run out."""
        if self._due is None or now < self._due:
            return []
        if self._leaving and self._sent >= DELETES:
            self._due = None
            return []
        if self._mapping is not None and now >= self._expires:
            gone = self._none(now, 0.0, "it did not renew the mapping in time")
            return [*gone, *self.start(now)]
        if self._mapping is not None and not self._lost:
            return self._renew(now)
        return [*self._transmit(now), *self._silence()]

    def receive(self, data: bytes, source: Endpoint, now: float) -> list[NatCommand]:
        """A datagram that came to our asking socket, or an announcement to the group."""
        if source != (self.gateway, SERVER_PORT):
            return []
        if other_version(data):
            return self._elder(now)
        if self._tells_another_address(data):
            return self._again(now)
        reply = read_reply(data)
        if reply is None or (reply.opcode == MAP and not self._is_ours(reply)):
            return []
        lost = self._epoch.lost(reply.epoch, now)
        if reply.opcode == MAP:
            return self._refusal(reply, now) if reply.result else self._took(reply, now)
        # Of a gateway that restarted just after it started, §8.5 alone would not notice it.
        if reply.opcode == ANNOUNCE and (lost or reply.epoch < JUST_BEGUN):
            return self._again(now)
        return []

    # --- Inside -----------------------------------------------------------------------------

    def _is_ours(self, reply: Reply) -> bool:
        mine = (self._nonce, UDP, self.local[1])
        return (reply.nonce, reply.protocol, reply.internal_port) == mine

    def _again(self, now: float) -> list[NatCommand]:
        """The gateway lost its state: the mapping is made again, but not by everybody at once."""
        if not self._leaving and not self._lost and self._mapping is not None:
            share = int.from_bytes(self._random(2), "big") / 0xFFFF
            self._lost, self._sent, self._due = True, 0, now + RECREATE_WITHIN * share
            return [Doubted(self.gateway)]
        return []

    def _tells_another_address(self, data: bytes) -> bool:
        """Whether it is NAT-PMP's announcement of another address: miniupnpd announces a change in
        that protocol alone."""
        reply = natpmp.read_reply(data)
        if reply is None or reply.address is None or reply.result or self._mapping is None:
            return False
        return ":" not in self.gateway and reply.address != self._mapping.external[0]

    def _elder(self, now: float) -> list[NatCommand]:
        """It speaks NAT-PMP; a better firmware may come, so that we ask again in half an hour."""
        if not self._waiting or self._leaving:
            return []
        self._waiting, self._mapping, self._due = False, None, now + 1800
        return [OtherVersion(self.gateway)]

    def _took(self, reply: Reply, now: float) -> list[NatCommand]:
        """An answer, or an update that nobody asked for (§11.3), which counts the same."""
        if self._leaving:
            self._due, self._waiting = None, False
            return []
        if not reply.lifetime or not reply.external[1]:
            return [] if self._mapping is None else self.start(now)
        lifetime = max(SHORTEST, min(reply.lifetime, LONGEST))
        self._waiting = self._told = self._lost = False
        self._wish, self._sent = reply.external, 0
        self._granted, self._expires = now, now + lifetime
        self._due = now + self._share(1 / 2, 1 / 8) * lifetime
        self._mapping = Mapping("pcp", self.gateway, self.local, reply.external, lifetime)
        return [Mapped(self._mapping)]

    def _renew(self, now: float) -> list[NatCommand]:
        """One packet at 1/2 … 5/8 of the lifetime, the next at 3/4 …, then 7/8 … (§11.2.1)."""
        lifetime = self._expires - self._granted
        self._sent += 1
        part = 1 - 0.5 ** (self._sent + 1)
        at = self._granted + lifetime * self._share(part, 0.5 ** (self._sent + 3))
        self._due = min(max(at, now + BETWEEN_RENEWALS), self._expires)
        self._waiting = True
        return [self._request()]

    def _refusal(self, reply: Reply, now: float) -> list[NatCommand]:
        text = _RESULTS.get(reply.result, f"it answered with the unknown result {reply.result}")
        outside = reply.external[0]
        if outside not in ("::", UNSPECIFIED) and not is_reachable(outside):
            text = f"its own address is {outside}: another NAT stands before it"
        if self._leaving:
            self._due, self._waiting = None, False
            return []
        if reply.result == _UNSUPPORTED_VERSION:
            return self._none(now, min(1800.0, float(reply.lifetime)), text)
        return self._none(now, float(min(reply.lifetime, LONGEST)), text)

    def _none(
        self, now: float, pause: float, reason: str, *, silent: bool = False
    ) -> list[NatCommand]:
        """No mapping; the same request is not repeated for so long (§8.3)."""
        self._waiting, self._mapping, self._told = False, None, True
        self._sent = 0
        self._due = None if self._leaving else now + max(pause, FIRST_WAIT)
        return [] if self._leaving else [NotMapped("pcp", self.gateway, reason, silent)]

    def _silence(self) -> list[NatCommand]:
        if self._leaving or self._told or self._sent < SILENT_AFTER:
            return []
        self._told = True
        return [NotMapped("pcp", self.gateway, "it does not answer PCP", silent=True)]

    def _transmit(self, now: float) -> list[NatCommand]:
        """RT = (1 + RAND) × min(2 × RT before, MRT), RAND in ±0.1 (§8.1.1)."""
        base = FIRST_WAIT if not self._sent else min(2 * self._wait, LONGEST_WAIT)
        self._wait = base * self._share(0.9, 0.2)
        self._sent += 1
        self._waiting, self._due = True, now + self._wait
        return [self._request()]

    def _request(self) -> SendNat:
        lifetime, wish = (0, None) if self._leaving else (self._lifetime, self._wish)
        message = map_request(self.local, self._nonce, lifetime, wish)
        return SendNat(message, (self.gateway, SERVER_PORT))

    def _share(self, begin: float, width: float) -> float:
        """A uniformly random share between ``begin`` and ``begin + width``."""
        return begin + width * int.from_bytes(self._random(2), "big") / 0xFFFF
