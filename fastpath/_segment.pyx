# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Cuts large frames into inner packets (TSO, USO), and fills in checksums; see ``_segment.pxd``.

The frame comes from our own kernel, yet nothing in it is believed without a look at the bounds.
"""

from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from fastpath._bytes cimport load32, store16, store32
from fastpath._checksum cimport (
    CWR, FIN, PSH, TCP, TCP_CHECKSUM, TCP_FLAGS, TCP_HEADER, TCP_SEQUENCE, UDP, UDP_CHECKSUM,
    UDP_HEADER, UDP_LENGTH, checksum_add, checksum_store, pseudo_sum,
)
from fastpath._inner cimport IPV6_HEADER, is_ipv6


cdef bint cut_begin(
    Cut *cut, const Vnet *vnet, uint8_t *packet, size_t octets, size_t mtu
) noexcept nogil:
    """Makes ready to cut ``packet``; false when frame and virtio header do not fit together.

    TCP is cut smaller than the kernel asked where ``mtu`` octets a packet want it; a datagram
    is never cut.
    """
    cdef int gso = vnet.gso_type & ~GSO_ECN
    cut.packet = packet
    cut.octets = octets
    cut.done = False
    cut.whole = gso == GSO_NONE
    if cut.whole:
        return not vnet.flags & NEEDS_CSUM or _fill_checksum(vnet, packet, octets)
    if not is_ipv6(packet, octets) or gso not in (GSO_TCPV6, GSO_UDP_L4):
        return False
    cut.upper = vnet.csum_start
    if cut.upper < IPV6_HEADER or vnet.gso_size == 0:
        return False
    if gso == GSO_TCPV6:
        if cut.upper + TCP_HEADER > octets:
            return False
        cut.protocol = TCP
        cut.header = cut.upper + (packet[cut.upper + 12] >> 4) * 4
        if cut.header < cut.upper + TCP_HEADER or cut.header >= mtu:
            return False
        cut.size = min(<size_t>vnet.gso_size, mtu - cut.header)
        cut.sequence = load32(packet + cut.upper + TCP_SEQUENCE)
    else:
        cut.protocol = UDP
        cut.header = cut.upper + UDP_HEADER
        cut.size = vnet.gso_size
    if cut.header > octets or cut.header > MAX_HEADERS:
        return False
    memcpy(cut.template, packet, cut.header)
    cut.offset = cut.header
    return True


cdef bint _fill_checksum(const Vnet *vnet, uint8_t *packet, size_t octets) noexcept nogil:
    """The kernel left the pseudo-header's sum in the field; the rest is added here."""
    cdef size_t start = vnet.csum_start
    cdef size_t place = start + vnet.csum_offset
    if start >= octets or place + 2 > octets:
        return False
    checksum_store(packet + place, checksum_add(packet + start, octets - start, 0),
                   vnet.csum_offset == UDP_CHECKSUM)
    return True


cdef bint cut_next(Cut *cut, uint8_t **packet, size_t *octets) noexcept nogil:
    """The next inner packet, in place; false after the last. The one before must be done with."""
    cdef size_t payload
    if cut.done:
        return False
    if cut.whole:
        packet[0] = cut.packet
        octets[0] = cut.octets
        cut.done = True
        return True
    payload = min(cut.size, cut.octets - cut.offset)
    packet[0] = cut.packet + cut.offset - cut.header
    octets[0] = cut.header + payload
    if cut.offset > cut.header:
        memcpy(packet[0], cut.template, cut.header)
    _finish(cut, packet[0], payload)
    cut.offset += payload
    cut.done = cut.offset >= cut.octets
    return True


cdef void _finish(Cut *cut, uint8_t *packet, size_t payload) noexcept nogil:
    """Lengths, sequence number, flags and checksum of one packet."""
    cdef uint8_t *upper = packet + cut.upper
    cdef size_t octets = cut.header + payload - cut.upper
    cdef uint8_t *checksum
    store16(packet + 4, <unsigned short>(cut.header + payload - IPV6_HEADER))
    if cut.protocol == TCP:
        store32(upper + TCP_SEQUENCE, cut.sequence + <uint32_t>(cut.offset - cut.header))
        if cut.offset > cut.header:
            upper[TCP_FLAGS] &= ~CWR  # RFC 3168 §6.1.2: the first one only
        if cut.offset + payload < cut.octets:
            upper[TCP_FLAGS] &= ~(FIN | PSH)
        checksum = upper + TCP_CHECKSUM
    else:
        store16(upper + UDP_LENGTH, <unsigned short>octets)
        checksum = upper + UDP_CHECKSUM
    memset(checksum, 0, 2)
    checksum_store(
        checksum, checksum_add(upper, octets, pseudo_sum(packet, cut.protocol, octets)),
        cut.protocol == UDP)


def cut(bytes frame, size_t mtu):
    """The inner packets of a TUN frame with its virtio header; :class:`ValueError` for rubbish."""
    cdef Cut state
    cdef Vnet vnet
    cdef uint8_t *packet
    cdef size_t octets = len(frame)
    cdef uint8_t *room
    if octets < VNET_OCTETS:
        raise ValueError("shorter than a virtio header")
    room = <uint8_t *>malloc(octets)
    if room == NULL:
        raise MemoryError
    try:
        memcpy(room, <const uint8_t *>frame, octets)
        memcpy(&vnet, room, VNET_OCTETS)
        if not cut_begin(&state, &vnet, room + VNET_OCTETS, octets - VNET_OCTETS, mtu):
            raise ValueError("frame and virtio header do not fit together")
        packets = []
        while cut_next(&state, &packet, &octets):
            packets.append((<const char *>packet)[:octets])
        return packets
    finally:
        free(room)
