"""Traffic selectors (RFC 7296 §3.13) between two host ids, and narrowing (§2.9).

Our tunnels carry everything between exactly two host ids, so that what we offer is always one
/128 with any protocol and port; peers may offer wider or several, which a responder narrows.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address

from keys.ike.errors import InvalidSyntaxError

IPV6_RANGE = 8
_LIST = struct.Struct(">B3x")
_SELECTOR = struct.Struct(">BBHHH")
_IPV6_OCTETS = _SELECTOR.size + 32  # 40
MAX_SELECTORS = 64
_ANY_PORT = (0, 65535)


@dataclass(frozen=True, slots=True)
class Selector:
    """One IPv6 range with a protocol (0 any) and ports. Other kinds are dropped when read."""

    first: IPv6Address
    last: IPv6Address
    protocol: int = 0
    ports: tuple[int, int] = _ANY_PORT

    @property
    def is_everything_of_one_host(self) -> bool:
        """Whether this is one address with any protocol and port: a host id."""
        return self.first == self.last and self.protocol == 0 and self.ports == _ANY_PORT

    def holds(self, host_id: IPv6Address) -> bool:
        """Whether all traffic of ``host_id`` is inside."""
        whole = self.protocol == 0 and self.ports == _ANY_PORT
        return whole and self.first <= host_id <= self.last

    def encode(self) -> bytes:
        """The selector substructure."""
        return (
            _SELECTOR.pack(IPV6_RANGE, self.protocol, _IPV6_OCTETS, *self.ports)
            + self.first.packed
            + self.last.packed
        )


def host(host_id: IPv6Address) -> tuple[Selector, ...]:
    """The selector list that means exactly this host id."""
    return (Selector(host_id, host_id),)


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


def hold(selectors: Iterable[Selector], host_id: IPv6Address) -> bool:
    """Whether one of these selectors holds all traffic of ``host_id``: then narrowing to it is
    a subset of what the peer offered."""
    return any(s.holds(host_id) for s in selectors)


def describe(selectors: Iterable[Selector]) -> str:
    """For a sentence."""
    texts = [str(s.first) if s.first == s.last else f"{s.first}-{s.last}" for s in selectors]
    return ", ".join(texts[:4]) or "no IPv6 address"
