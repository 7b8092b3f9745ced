"""Between an inner IPv6 packet and what an SA carries of it (RFC 4303 §3.1).

Tunnel mode carries the packet whole. Transport mode between two host ids leaves the 40-octet
header away, since the SPI already says both addresses (DESIGN §4): traffic class and flow
label arrive as 0, the hop limit as :data:`HOP_LIMIT`.
"""

from __future__ import annotations

import struct

from fastpath.reference.esp import NEXT_HEADER_IPV6
from fastpath.types import Drop, Mode, Opened, SaParams

IPV6_HEADER_OCTETS = 40
HOP_LIMIT = 64
_VERSION_6 = 6


def is_ipv6(packet: bytes) -> bool:
    """Whether ``packet`` is one whole IPv6 packet, by its version and its length field."""
    return (
        len(packet) >= IPV6_HEADER_OCTETS
        and packet[0] >> 4 == _VERSION_6
        and length_of(packet) == len(packet)
    )


def length_of(packet: bytes) -> int:
    """Octets of the IPv6 packet, its header included, as its length field has it."""
    return IPV6_HEADER_OCTETS + int.from_bytes(packet[4:6], "big")


def source_of(packet: bytes) -> bytes:
    """The 16 octets of an IPv6 packet's source."""
    return packet[8:24]


def destination_of(packet: bytes) -> bytes:
    """The 16 octets of an IPv6 packet's destination."""
    return packet[24:40]


def never_tunnelled(destination: bytes) -> bool:
    """Multicast (ff00::/8) and link-local (fe80::/10): the TUN device's own chatter."""
    return destination[0] == 0xFF or (destination[0] == 0xFE and destination[1] & 0xC0 == 0x80)


def wrap(params: SaParams, packet: bytes) -> tuple[bytes, int]:
    """The payload and next header that an outbound SA seals for a whole IPv6 ``packet``."""
    if params.mode is Mode.TUNNEL:
        return packet, NEXT_HEADER_IPV6
    return packet[IPV6_HEADER_OCTETS:], packet[6]


def unwrap(params: SaParams, opened: Opened) -> bytes | Drop:
    """The inner IPv6 packet of an authenticated payload, held against the SA's selectors.

    Octets behind the inner packet's own length are traffic-flow padding (RFC 4303 §2.7) and cut.
    """
    if params.mode is Mode.TRANSPORT:
        return _rebuild(params, opened)
    if opened.next_header != NEXT_HEADER_IPV6:
        return Drop.SELECTOR
    packet = opened.payload
    if len(packet) < IPV6_HEADER_OCTETS or packet[0] >> 4 != _VERSION_6:
        return Drop.MALFORMED
    if length_of(packet) > len(packet):
        return Drop.MALFORMED
    if source_of(packet) != params.peer_id or destination_of(packet) != params.local_id:
        return Drop.SELECTOR
    return packet[: length_of(packet)]


def _rebuild(params: SaParams, opened: Opened) -> bytes | Drop:
    if len(opened.payload) > 0xFFFF:
        return Drop.MALFORMED
    header = struct.pack(
        ">IHBB", _VERSION_6 << 28, len(opened.payload), opened.next_header, HOP_LIMIT
    )
    return header + params.peer_id + params.local_id + opened.payload
