"""Traffic selectors (RFC 7296 §3.13) between two host ids, and narrowing (§2.9).

The first child with a peer carries everything between exactly two host ids: one /128 with any
protocol and port; others are for one protocol, or some ports of it. Peers may offer wider ones or
several, which a responder narrows.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address

from keys.ike.errors import InvalidSyntaxError
from keys.ike.types import ANY_PORT, EVERYTHING, Traffic

IPV6_RANGE = 8
_LIST = struct.Struct(">B3x")
_SELECTOR = struct.Struct(">BBHHH")
_IPV6_OCTETS = _SELECTOR.size + 32  # 40
MAX_SELECTORS = 64


@dataclass(frozen=True, slots=True)
class Selector:
    """One IPv6 range with a protocol (0 any) and ports. Other kinds are dropped when read."""

    first: IPv6Address
    last: IPv6Address
    protocol: int = 0
    ports: tuple[int, int] = ANY_PORT

    @property
    def is_everything_of_one_host(self) -> bool:
        """Whether this is one address with any protocol and port: a host id."""
        return self.first == self.last and self.protocol == 0 and self.ports == ANY_PORT

    def holds(
        self, host_id: IPv6Address, protocol: int = 0, ports: tuple[int, int] = ANY_PORT
    ) -> bool:
        """Whether all traffic of ``host_id``, or this part of it, is inside."""
        return (
            self.first <= host_id <= self.last
            and self.protocol in (0, protocol)
            and self.ports[0] <= ports[0]
            and ports[1] <= self.ports[1]
        )

    def encode(self) -> bytes:
        """The selector substructure."""
        return (
            _SELECTOR.pack(IPV6_RANGE, self.protocol, _IPV6_OCTETS, *self.ports)
            + self.first.packed
            + self.last.packed
        )


def host(
    host_id: IPv6Address, protocol: int = 0, ports: tuple[int, int] = ANY_PORT
) -> tuple[Selector, ...]:
    """The selector list that means exactly this host id, or this part of its traffic."""
    return (Selector(host_id, host_id, protocol, ports),)


def local_side(host_id: IPv6Address, traffic: Traffic) -> tuple[Selector, ...]:
    """The selector list of our own end of a child."""
    return host(host_id, traffic.protocol, traffic.local_ports)


def peer_side(host_id: IPv6Address, traffic: Traffic) -> tuple[Selector, ...]:
    """The selector list of the peer's end of a child."""
    return host(host_id, traffic.protocol, traffic.peer_ports)


def widest(
    theirs: Iterable[Selector],
    ours: Iterable[Selector],
    peer_id: IPv6Address,
    local_id: IPv6Address,
) -> Traffic | None:
    """The widest traffic between two host ids that a pair of selectors means, and that holds the
    first such; None if none does.

    A responder chooses it: what stands first may be the one packet that made the peer ask, and has
    to be inside (§2.9).
    """
    found = [
        Traffic(max(a.protocol, b.protocol), b.ports, a.ports)
        for a in theirs
        for b in ours
        if a.first <= peer_id <= a.last and b.first <= local_id <= b.last and _fit(a, b)
    ]
    return min((t for t in found if _holds(t, found[0])), key=narrowness, default=None)


def _holds(one: Traffic, other: Traffic) -> bool:
    pairs = ((one.local_ports, other.local_ports), (one.peer_ports, other.peer_ports))
    inside = all(wide[0] <= slim[0] and slim[1] <= wide[1] for wide, slim in pairs)
    return inside and one.protocol in (0, other.protocol)


def _fit(one: Selector, other: Selector) -> bool:
    if one.protocol != other.protocol and 0 not in (one.protocol, other.protocol):
        return False
    named = one.protocol or other.protocol
    both_any = one.ports == other.ports == ANY_PORT
    # OPAQUE ports (first above last) are those of fragments alone, and none without a protocol.
    ordered = one.ports[0] <= one.ports[1] and other.ports[0] <= other.ports[1]
    return ordered and (bool(named) or both_any)


def narrowness(traffic: Traffic) -> tuple[bool, int]:
    """A key to sort by: the widest first."""
    first, second = traffic.local_ports, traffic.peer_ports
    return traffic.protocol != 0, -(first[1] - first[0] + second[1] - second[0])


def covers(
    theirs: Iterable[Selector],
    ours: Iterable[Selector],
    peer_id: IPv6Address,
    local_id: IPv6Address,
    traffic: Traffic,
) -> bool:
    """Whether narrowing to ``traffic`` gives a subset of what a peer offers."""
    far = (peer_id, traffic.protocol, traffic.peer_ports)
    near = (local_id, traffic.protocol, traffic.local_ports)
    return any(s.holds(*far) for s in theirs) and any(s.holds(*near) for s in ours)


def encode_selectors(selectors: Sequence[Selector]) -> bytes:
    """The body of a TSi or TSr payload."""
    return _LIST.pack(len(selectors)) + b"".join(s.encode() for s in selectors)


def decode_selectors(body: bytes) -> tuple[Selector, ...]:
    """Reads the body of a TSi or TSr payload; raises InvalidSyntaxError.

    Selector types other than IPv6 ranges are left out (RFC 7296 §2.9: unknown types are
    narrowed away), and so are ranges that end before they begin.
    """
    if len(body) < _LIST.size:
        raise InvalidSyntaxError("a traffic selector payload is shorter than its header")
    (count,) = _LIST.unpack_from(body)
    rest = body[_LIST.size :]
    if not 1 <= count <= MAX_SELECTORS:
        raise InvalidSyntaxError(f"a traffic selector payload says that it holds {count} selectors")
    selectors: list[Selector] = []
    for _ in range(count):
        if len(rest) < _SELECTOR.size:
            raise InvalidSyntaxError("a traffic selector is shorter than its header")
        kind, protocol, length, low, high = _SELECTOR.unpack_from(rest)
        if not _SELECTOR.size <= length <= len(rest):
            raise InvalidSyntaxError("a traffic selector is longer than its payload")
        if kind == IPV6_RANGE:
            if length != _IPV6_OCTETS:
                raise InvalidSyntaxError("an IPv6 traffic selector is not 40 octets long")
            first, last = IPv6Address(rest[8:24]), IPv6Address(rest[24:40])
            if first <= last:
                selectors.append(Selector(first, last, protocol, (low, high)))
        rest = rest[length:]
    if rest:
        raise InvalidSyntaxError("octets follow the last traffic selector")
    return tuple(selectors)


def claimed_host(selectors: Iterable[Selector]) -> IPv6Address:
    """The host id that a peer claims: its first single address, or ``::`` when it names none."""
    for selector in selectors:
        if selector.first == selector.last:
            return selector.first
    return IPv6Address(0)


def describe(selectors: Iterable[Selector]) -> str:
    """For a sentence."""
    texts = [
        f"{s.first}{'' if s.first == s.last else f'-{s.last}'}{_detail(s.protocol, s.ports)}"
        for s in selectors
    ]
    return ", ".join(texts[:4]) or "no IPv6 address"


def describe_traffic(traffic: Traffic) -> str:
    """What a child is for, in a word: ``everything``, ``protocol 17 to ports 53-53``, …"""
    if traffic == EVERYTHING:
        return "everything"
    ends = ((" from", traffic.local_ports), (" to", traffic.peer_ports))
    named = "".join(f"{word}{_ports(ports)}" for word, ports in ends if ports != ANY_PORT)
    return f"protocol {traffic.protocol or 'any'}{named}"


def _detail(protocol: int, ports: tuple[int, int]) -> str:
    named = _ports(ports) if ports != ANY_PORT else ""
    return f" (protocol {protocol}{named})" if protocol or named else ""


def _ports(ports: tuple[int, int]) -> str:
    return f" port {ports[0]}" if ports[0] == ports[1] else f" ports {ports[0]}-{ports[1]}"
