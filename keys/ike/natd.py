"""NAT detection (RFC 7296 §2.23), and why we always say that there is a NAT.

Back to My Mac carries everything in UDP (RFC 6281 §2), and so do we: a path that is clear
today is not tomorrow. So our SOURCE hash is random and can never match: the peer takes us
for a host behind a NAT and encapsulates. Our DESTINATION hash is true, so the peer learns of
its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from ipaddress import ip_address

from keys.ike.notify import Notify, NotifyType
from keys.ike.payloads import Contents
from keys.ike.types import Endpoint

_HASH_OCTETS = 20


def nat_hash(spi_i: bytes, spi_r: bytes, endpoint: Endpoint) -> bytes:
    """SHA-1(SPIi | SPIr | address | port); SPIr is zero in the first request."""
    address = ip_address(endpoint[0].partition("%")[0]).packed
    data = spi_i + spi_r + address + endpoint[1].to_bytes(2, "big")
    return hashlib.sha1(data, usedforsecurity=False).digest()


def notifies(
    spi_i: bytes, spi_r: bytes, remote: Endpoint, random: Callable[[int], bytes]
) -> list[Notify]:
    """What we send: a SOURCE that never matches, and the truth about the DESTINATION."""
    return [
        Notify(NotifyType.NAT_DETECTION_SOURCE_IP, random(_HASH_OCTETS)),
        Notify(NotifyType.NAT_DETECTION_DESTINATION_IP, nat_hash(spi_i, spi_r, remote)),
    ]


def peer_behind_nat(
    contents: Contents, spi_i: bytes, spi_r: bytes, remote: Endpoint
) -> bool | None:
    """Whether the peer is behind a NAT, or says so to get encapsulation; None if it is silent."""
    sources = [n.data for n in contents.notifies if n.kind == NotifyType.NAT_DETECTION_SOURCE_IP]
    if not sources:
        return None
    return nat_hash(spi_i, spi_r, remote) not in sources


def we_are_behind_nat(
    contents: Contents, spi_i: bytes, spi_r: bytes, locals_: Iterable[Endpoint]
) -> bool | None:
    """Whether the peer sees us at none of our own endpoints; None if it or we cannot tell."""
    seen = contents.notify(NotifyType.NAT_DETECTION_DESTINATION_IP)
    endpoints = tuple(locals_)
    if seen is None or not endpoints:
        return None
    return all(nat_hash(spi_i, spi_r, endpoint) != seen.data for endpoint in endpoints)
