"""Which packets between two host ids an SA is for: protocol and ports (RFC 4301 §4.4.1.1).

The upper layer is found behind extension headers. What has no ports is held only by traffic with
any port, and so is a fragment that shows none when it goes out. One that comes in is taken: it is
of no use without its first, which was held against the ports.
"""

from __future__ import annotations

from dataclasses import dataclass

from fastpath.types import ANY_PORT, Traffic

EXTENSIONS = 8  # headers that are looked past: no host sends as many
_FIXED_HEADER = 40
_OPTIONS = frozenset((0, 43, 60))  # hop-by-hop, routing, destination options
_FRAGMENT = 44
_WITH_PORTS = frozenset((6, 17, 33, 132, 136))  # TCP, UDP, DCCP, SCTP, UDP-Lite
_ICMPV6, _MOBILITY = 58, 135


@dataclass(frozen=True, slots=True)
class Upper:
    """What stands behind the IPv6 headers of a packet; ``ports`` are source and destination.
    ``later``: of a fragment that is not the first."""

    protocol: int
    ports: tuple[int, int] | None
    later: bool = False


def upper_of(packet: bytes) -> Upper:
    """The upper layer of a packet with a whole IPv6 header."""
    kind, at = packet[6], _FIXED_HEADER
    for _ in range(EXTENSIONS):
        if (kind != _FRAGMENT and kind not in _OPTIONS) or at + 8 > len(packet):
            break
        following = packet[at]
        if kind == _FRAGMENT and int.from_bytes(packet[at + 2 : at + 4], "big") >> 3:
            return Upper(following, None, later=True)
        at += 8 if kind == _FRAGMENT else 8 * (packet[at + 1] + 1)
        kind = following
    return Upper(kind, _ports(kind, packet[at : at + 4]))


def _ports(kind: int, start: bytes) -> tuple[int, int] | None:
    if len(start) < 4:
        return None
    first, second = int.from_bytes(start[:2], "big"), int.from_bytes(start[2:], "big")
    if kind in _WITH_PORTS:
        return first, second
    if kind == _ICMPV6:
        return first, first
    if kind == _MOBILITY:
        return start[2] << 8, start[2] << 8
    return None


def holds(traffic: Traffic, upper: Upper, *, outgoing: bool) -> bool:
    """Whether a packet, which goes out or came in, is of ``traffic``."""
    if traffic.protocol not in (0, upper.protocol):
        return False
    if upper.ports is None:
        any_port = traffic.local_ports == traffic.peer_ports == ANY_PORT
        return any_port or (upper.later and not outgoing)
    ours, theirs = upper.ports if outgoing else upper.ports[::-1]
    return (
        traffic.local_ports[0] <= ours <= traffic.local_ports[1]
        and traffic.peer_ports[0] <= theirs <= traffic.peer_ports[1]
    )
