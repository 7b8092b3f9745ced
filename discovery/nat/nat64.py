"""NAT64: how a host without IPv4 reaches IPv4 endpoints (RFC 6052, RFC 7050).

The network's resolver, if it does DNS64, answers the AAAA of ``ipv4only.arpa`` with the two
well-known IPv4 addresses embedded in its prefix (RFC 7050 §3): where they are says which prefix it
is. The name is nobody's but the resolver's own, and says nothing of us.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, IPv6Network
from typing import Final

NAME: Final = "ipv4only.arpa"
WELL_KNOWN: Final = (IPv4Address("192.0.0.170"), IPv4Address("192.0.0.171"))
LENGTHS: Final = (96, 64, 56, 48, 40, 32)  # RFC 6052 §2.2, the usual one first
_RESERVED: Final = 8  # octet 8 ("u") is zero in all forms, and holds nothing


def embed(prefix: IPv6Network, address: IPv4Address) -> IPv6Address:
    """The IPv6 address by which a NAT64 with this prefix is told the IPv4 one (RFC 6052 §2.2).

    Raises ValueError for a prefix of another length than the RFC has.
    """
    octets = bytearray(prefix.network_address.packed)
    for place, octet in zip(_places(prefix.prefixlen), address.packed, strict=True):
        octets[place] = octet
    return IPv6Address(bytes(octets))


def extract(prefix: IPv6Network, address: IPv6Address) -> IPv4Address | None:
    """The IPv4 address inside; ``None`` for one that this NAT64 has not made."""
    inside = IPv4Address(bytes(address.packed[place] for place in _places(prefix.prefixlen)))
    return inside if embed(prefix, inside) == address else None


def prefix_of(answers: Iterable[IPv6Address]) -> IPv6Network | None:
    """The prefix that the AAAA records of :data:`NAME` show; ``None``: there is no NAT64."""
    for answer in answers:
        for length in LENGTHS:
            found = IPv6Network((answer, length), strict=False)
            if extract(found, answer) in WELL_KNOWN:
                return found
    return None


def _places(length: int) -> list[int]:
    """Where in the IPv6 address the four octets stand: behind the prefix, and never at "u"."""
    if length not in LENGTHS:
        raise ValueError(f"a NAT64 has no prefix of length {length}")
    behind = (place for place in range(length // 8, 16) if place != _RESERVED)
    return [next(behind) for _ in range(4)]
