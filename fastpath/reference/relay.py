"""Nested packets: what two hosts send each other through a home agent (I10, I47, I48).

``IPv6(host id -> host id, hop limit 64)``, and then the end-to-end ESP packet as it is (next header
50), or UDP 500 -> 500 with an IKE message without marker. It travels as payload of a *relay SA*:
transport mode, next header 41 (RFC 3884), so that the header between host and home agent is not
sent. What is inside an authentic packet of a relay SA is not yet to be trusted.
"""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass
from functools import lru_cache

from fastpath.reference import inner, segment
from fastpath.reference.classify import looks_like_ike
from fastpath.reference.esp import MIN_PACKET_OCTETS, NEXT_HEADER_IPV6
from fastpath.types import (
    RELAY_BURST_OCTETS,
    RELAY_PORT,
    RELAY_SHARES,
    Drop,
    Endpoint,
    Mode,
    Opened,
    SaParams,
)

ESP = 50
NESTED_OCTETS = inner.IPV6_HEADER_OCTETS
HOP_LIMIT = 64
_FLOW_LABEL = 0xFFFFF
_PROBE_LABEL = 1
_UDP = 17
_UDP_HEADER = struct.Struct(">HHHH")


@dataclass(frozen=True, slots=True)
class Nested:
    """A nested packet: whole, and what it carries (``body``: an ESP packet or an IKE message)."""

    packet: bytes
    is_ike: bool
    body: bytes

    @property
    def source(self) -> bytes:
        """Who it says to be from."""
        return inner.source_of(self.packet)

    @property
    def destination(self) -> bytes:
        """Whom it is for."""
        return inner.destination_of(self.packet)

    @property
    def whole(self) -> bool:
        """Whether it must not be fragmented on its way: a probe (RFC 8899), told by any flow
        label, which nothing else has."""
        return int.from_bytes(self.packet[:4], "big") & _FLOW_LABEL != 0

    @property
    def hop_limit(self) -> int:
        """At 1 it goes no further."""
        return self.packet[7]


@dataclass(slots=True)
class Share:
    """What one host took of the limit lately: ``octets``, which its share of the rate takes off."""

    octets: float = 0.0
    since: float = 0.0


class Limit:
    """A token bucket of octets, full at first; at ``rate`` 0 it lets everything pass.

    Its lower half is for modest hosts: those that took no more than their share lately. So whoever
    floods it competes for the upper half with others that do.
    """

    def __init__(self, rate: int = 0) -> None:
        self._rate = rate
        self._most = max(rate / 10, RELAY_BURST_OCTETS)
        self._tokens = 2 * self._most
        self._since: float | None = None

    def allows(self, octets: int, now: float, share: Share | None = None) -> bool:
        """Takes so many octets, if they are there; ``share``: of a host that is registered."""
        if self._rate == 0:
            return True
        since = now if self._since is None else self._since
        self._tokens = min(2 * self._most, self._tokens + max(now - since, 0.0) * self._rate)
        self._since = max(since, now)  # the times of several threads come out of order
        modest = share is not None and self._is_modest(share, now)
        if octets > self._tokens - (0 if modest else self._most):
            return False
        self._tokens -= octets
        if share is not None:
            share.octets = min(share.octets, self._most / RELAY_SHARES) + octets
        return True

    def _is_modest(self, share: Share, now: float) -> bool:
        if now > share.since:
            leak = (now - share.since) * self._rate / RELAY_SHARES
            share.octets, share.since = max(share.octets - leak, 0.0), now
        return share.octets <= self._most / RELAY_SHARES


def is_relay(params: SaParams) -> bool:
    """Whether an SA carries nested packets."""
    traffic = params.traffic
    return (
        params.mode is Mode.TRANSPORT
        and traffic is not None
        and traffic.protocol == NEXT_HEADER_IPV6
    )


@lru_cache(maxsize=4096)
def host_of(address: str) -> bytes | None:
    """The 16 octets of an endpoint's address that may be a host id: global IPv6 (no scope)."""
    try:
        parsed = ipaddress.IPv6Address(address)
    except ValueError:
        return None
    return None if parsed.scope_id else parsed.packed


def endpoint_of(host_id: bytes) -> Endpoint:
    """The relay endpoint of a host."""
    return str(ipaddress.IPv6Address(host_id)), RELAY_PORT


def around_esp(source: bytes, destination: bytes, packet: bytes, whole: bool = False) -> bytes:
    """The nested packet that carries an ESP packet; ``whole`` as :attr:`Nested.whole`."""
    return _header(source, destination, ESP, len(packet), _PROBE_LABEL * whole) + packet


def around_ike(source: bytes, destination: bytes, message: bytes) -> bytes:
    """The nested packet that carries an IKE message."""
    octets = _UDP_HEADER.size + len(message)
    head = _header(source, destination, _UDP, octets)
    bare = head + _UDP_HEADER.pack(RELAY_PORT, RELAY_PORT, octets, 0) + message
    sum_ = segment.upper_checksum(bare, NESTED_OCTETS, _UDP)
    return head + _UDP_HEADER.pack(RELAY_PORT, RELAY_PORT, octets, sum_) + message


def read(opened: Opened) -> Nested | Drop:
    """The nested packet in the payload of a relay SA, or why it is none.

    Octets behind its own length are traffic-flow padding (RFC 4303 §2.7) and cut.
    """
    if opened.next_header != NEXT_HEADER_IPV6:
        return Drop.SELECTOR
    payload = opened.payload
    if len(payload) < NESTED_OCTETS or payload[0] >> 4 != 6:
        return Drop.MALFORMED
    packet = payload[: inner.length_of(payload)]
    if inner.length_of(payload) > len(payload):
        return Drop.MALFORMED
    body = packet[NESTED_OCTETS:]
    if packet[6] == ESP:
        whole = len(body) >= MIN_PACKET_OCTETS
        return Nested(packet, is_ike=False, body=body) if whole else Drop.MALFORMED
    if packet[6] == _UDP:
        return _ike(packet, body)
    return Drop.NOT_RELAYED


def next_hop(nested: Nested) -> bytes:
    """The packet as it is forwarded."""
    return nested.packet[:7] + bytes((nested.hop_limit - 1,)) + nested.packet[8:]


def is_host_id(address: bytes) -> bool:
    """Whether these 16 octets may be one: a ULA (RFC 6281 §6.3, RFC 4193)."""
    return address[0] & 0xFE == 0xFC


def _ike(packet: bytes, body: bytes) -> Nested | Drop:
    if len(body) < _UDP_HEADER.size:
        return Drop.MALFORMED
    source, target, octets, given = _UDP_HEADER.unpack_from(body)
    if (source, target) != (RELAY_PORT, RELAY_PORT):
        return Drop.NOT_RELAYED
    message = body[_UDP_HEADER.size :]
    if octets != len(body) or given == 0 or not looks_like_ike(message):
        return Drop.MALFORMED
    pseudo = packet[8:40] + struct.pack(">II", len(body), _UDP)
    if segment.checksum(pseudo + body) != 0:
        return Drop.MALFORMED
    return Nested(packet, is_ike=True, body=message)


def _header(
    source: bytes, destination: bytes, next_header: int, octets: int, label: int = 0
) -> bytes:
    first = struct.pack(">IHBB", 6 << 28 | label, octets, next_header, HOP_LIMIT)
    return first + source + destination
