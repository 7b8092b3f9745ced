"""How a large frame of TUN becomes inner packets (TSO, USO): the law of ``fastpath/_segment.pyx``.

A frame of a device with IFF_VNET_HDR is ``struct virtio_net_hdr`` (10 octets: flags u8, gso_type
u8, hdr_len, gso_size, csum_start, csum_offset u16, this machine's byte order) and one packet,
which may stand for up to 64 KB of one TCP or UDP flow with a single header.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from fastpath.reference.inner import IPV6_HEADER_OCTETS, is_ipv6

VNET_OCTETS = 10
NEEDS_CSUM = 1
GSO_NONE, GSO_TCPV6, GSO_UDP_L4, GSO_ECN = 0, 4, 5, 0x80
TCP, UDP = 6, 17
TCP_HEADER_OCTETS, UDP_HEADER_OCTETS = 20, 8
UDP_CHECKSUM = 6
MAX_HEADERS = 256
FIN, PSH, CWR = 0x01, 0x08, 0x80


@dataclass(frozen=True, slots=True)
class Vnet:
    """``struct virtio_net_hdr``. ``hdr_len`` is a hint that some kernels get wrong; not used."""

    flags: int = 0
    gso_type: int = GSO_NONE
    hdr_len: int = 0
    gso_size: int = 0
    csum_start: int = 0
    csum_offset: int = 0

    def pack(self) -> bytes:
        """The 10 octets."""
        return struct.pack(
            "=BBHHHH",
            self.flags,
            self.gso_type,
            self.hdr_len,
            self.gso_size,
            self.csum_start,
            self.csum_offset,
        )


def checksum(octets: bytes | bytearray) -> int:
    """The Internet checksum (RFC 1071)."""
    padded = octets + bytes(len(octets) % 2)
    total: int = sum(struct.unpack(f">{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def upper_checksum(packet: bytes | bytearray, upper: int, protocol: int) -> int:
    """Of what stands at ``upper`` in an IPv6 packet, its checksum field being 0 (RFC 8200 §8.1)."""
    body = packet[upper:]
    value = checksum(packet[8:40] + struct.pack(">II", len(body), protocol) + body)
    return 0xFFFF if protocol == UDP and value == 0 else value


def cut(frame: bytes, mtu: int) -> list[bytes]:
    """The inner packets of ``frame``. TCP is cut smaller than asked where ``mtu`` wants it.

    Raises :class:`ValueError` when virtio header and packet do not fit together.
    """
    if len(frame) < VNET_OCTETS:
        raise ValueError("shorter than a virtio header")
    vnet = Vnet(*struct.unpack_from("=BBHHHH", frame))
    packet = frame[VNET_OCTETS:]
    gso = vnet.gso_type & ~GSO_ECN
    if gso == GSO_NONE:
        return [_filled(vnet, packet) if vnet.flags & NEEDS_CSUM else packet]
    if not is_ipv6(packet) or vnet.csum_start < IPV6_HEADER_OCTETS or vnet.gso_size == 0:
        raise ValueError("a large frame is IPv6, and says where its upper layer starts")
    if gso == GSO_TCPV6:
        return _cut_tcp(vnet, packet, mtu)
    if gso == GSO_UDP_L4:
        return _cut_udp(vnet, packet)
    raise ValueError(f"GSO type {gso} was not asked for")


def _filled(vnet: Vnet, packet: bytes) -> bytes:
    """The pseudo-header's sum stands in the field already; the rest is added."""
    start, place = vnet.csum_start, vnet.csum_start + vnet.csum_offset
    if start >= len(packet) or place + 2 > len(packet):
        raise ValueError("the checksum lies outside the packet")
    value = checksum(packet[start:])
    if vnet.csum_offset == UDP_CHECKSUM and value == 0:
        value = 0xFFFF
    return packet[:place] + struct.pack(">H", value) + packet[place + 2 :]


def _cut_tcp(vnet: Vnet, packet: bytes, mtu: int) -> list[bytes]:
    upper = vnet.csum_start
    if upper + TCP_HEADER_OCTETS > len(packet):
        raise ValueError("no room for a TCP header")
    end = upper + (packet[upper + 12] >> 4) * 4
    if end < upper + TCP_HEADER_OCTETS or end >= mtu or end > min(len(packet), MAX_HEADERS):
        raise ValueError("the TCP header does not fit")
    head, payload = packet[:end], packet[end:]
    (sequence,) = struct.unpack_from(">I", head, upper + 4)
    packets = []
    for offset, part in _parts(payload, min(vnet.gso_size, mtu - end)):
        one = bytearray(head + part)
        struct.pack_into(">H", one, 4, len(one) - IPV6_HEADER_OCTETS)
        struct.pack_into(">I", one, upper + 4, (sequence + offset) & 0xFFFF_FFFF)
        if offset > 0:
            one[upper + 13] &= ~CWR  # RFC 3168 §6.1.2: the first one only
        if offset + len(part) < len(payload):
            one[upper + 13] &= ~(FIN | PSH)
        struct.pack_into(">H", one, upper + 16, 0)
        struct.pack_into(">H", one, upper + 16, upper_checksum(one, upper, TCP))
        packets.append(bytes(one))
    return packets


def _cut_udp(vnet: Vnet, packet: bytes) -> list[bytes]:
    upper, end = vnet.csum_start, vnet.csum_start + UDP_HEADER_OCTETS
    if end > min(len(packet), MAX_HEADERS):
        raise ValueError("no room for a UDP header")
    packets = []
    for _, part in _parts(packet[end:], vnet.gso_size):
        one = bytearray(packet[:end] + part)
        struct.pack_into(">H", one, 4, len(one) - IPV6_HEADER_OCTETS)
        struct.pack_into(">HH", one, upper + 4, len(one) - upper, 0)
        struct.pack_into(">H", one, upper + 6, upper_checksum(one, upper, UDP))
        packets.append(bytes(one))
    return packets


def _parts(payload: bytes, size: int) -> list[tuple[int, bytes]]:
    """Pieces of ``size`` with their offsets; a single empty one where there is no payload."""
    return [(at, payload[at : at + size]) for at in range(0, len(payload) or 1, size)]
