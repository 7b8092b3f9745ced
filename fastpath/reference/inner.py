"""Between an inner IPv6 packet and what an SA carries of it (RFC 4303 §3.1).

Tunnel mode carries the packet whole. Transport mode between two host ids leaves the 40-octet
header away, since the SPI already says both addresses (DESIGN §4): traffic class and flow
label arrive as 0, the hop limit as :data:`HOP_LIMIT`.
"""

from __future__ import annotations

import struct

from fastpath.reference import traffic
from fastpath.reference.esp import NEXT_HEADER_IPV6
from fastpath.types import MINIMUM_MTU, Drop, Mode, Opened, SaParams

IPV6_HEADER_OCTETS = 40
HOP_LIMIT = 64
FRAGMENT, FRAGMENT_OCTETS = 44, 8  # RFC 8200 §4.5
_BEFORE_FRAGMENTS = frozenset((0, 43, 60))  # hop-by-hop, routing, destination options
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


def split(packet: bytes, mtu: int, identification: int) -> list[bytes]:
    """``packet`` as fragments that fit ``mtu`` octets, and 1280; whole where it fits by itself.

    IPv6 is fragmented at its source only (RFC 8200 §4.5), which is this host; the peer's kernel
    joins the pieces. A fragment becomes smaller fragments. A packet with other extension headers
    before its fragmentable part is left whole: hosts do not send them.
    """
    kind, start, field = packet[6], IPV6_HEADER_OCTETS, 0
    if len(packet) <= mtu or kind in _BEFORE_FRAGMENTS:
        return [packet]
    if kind == FRAGMENT:
        if len(packet) < IPV6_HEADER_OCTETS + FRAGMENT_OCTETS:
            return [packet]
        kind, _, field, identification = struct.unpack_from(">BBHI", packet, IPV6_HEADER_OCTETS)
        start += FRAGMENT_OCTETS
    room = (min(mtu, MINIMUM_MTU) - IPV6_HEADER_OCTETS - FRAGMENT_OCTETS) // 8 * 8
    pieces = []
    for at in range(start, len(packet), room):
        part = packet[at : at + room]
        more = at + room < len(packet) or field & 1
        offset = (field & 0xFFF8) + at - start
        header = struct.pack(">BBHI", kind, 0, offset | more, identification)
        length = struct.pack(">H", FRAGMENT_OCTETS + len(part))
        pieces.append(packet[:4] + length + bytes((FRAGMENT,)) + packet[7:40] + header + part)
    return pieces


def unwrap(params: SaParams, opened: Opened) -> bytes | Drop:
    """The inner IPv6 packet of an authenticated payload, held against the SA's selectors.

    Octets behind the inner packet's own length are traffic-flow padding (RFC 4303 §2.7) and cut.
    """
    packet = _bare(params, opened)
    if isinstance(packet, Drop) or params.traffic is None:
        return packet
    inside = traffic.holds(params.traffic, traffic.upper_of(packet), outgoing=False)
    return packet if inside else Drop.SELECTOR


def _bare(params: SaParams, opened: Opened) -> bytes | Drop:
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
