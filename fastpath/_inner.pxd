# Between an inner IPv6 packet and what an SA carries of it; fastpath/reference/inner.py in C.

from libc.stdint cimport uint8_t
from libc.string cimport memcmp, memcpy, memset

from fastpath._bytes cimport load16, store16
from fastpath._drops cimport MALFORMED, SELECTOR
from fastpath._esp cimport IPV6, Inbound, Opened

cdef enum:
    IPV6_HEADER = 40
    HOP_LIMIT = 64  # of a packet rebuilt in transport mode


cdef inline bint is_ipv6(const uint8_t *packet, size_t octets) noexcept nogil:
    return (
        octets >= IPV6_HEADER
        and packet[0] >> 4 == 6
        and IPV6_HEADER + <size_t>load16(packet + 4) == octets
    )


cdef inline bint never_tunnelled(const uint8_t *destination) noexcept nogil:
    # Multicast and link-local: the TUN device's own chatter.
    return destination[0] == 0xFF or (destination[0] == 0xFE and destination[1] & 0xC0 == 0x80)


cdef inline int unwrap_tunnel(
    const Inbound *sa, const uint8_t *packet, Opened *opened
) noexcept nogil:
    # A Drop, or 0 with opened.octets cut to the packet's own length (RFC 4303 §2.7).
    cdef size_t octets
    if opened.next_header != IPV6:
        return SELECTOR
    if opened.octets < IPV6_HEADER or packet[0] >> 4 != 6:
        return MALFORMED
    octets = IPV6_HEADER + <size_t>load16(packet + 4)
    if octets > opened.octets:
        return MALFORMED
    if memcmp(packet + 8, sa.peer_id, 16) or memcmp(packet + 24, sa.local_id, 16):
        return SELECTOR
    opened.octets = octets
    return 0


cdef inline int unwrap_transport(const Inbound *sa, uint8_t *packet, Opened *opened) noexcept nogil:
    # The payload stands at packet + 40; the header that was left out goes before it.
    if opened.octets > 0xFFFF:
        return MALFORMED
    memset(packet, 0, 4)
    packet[0] = 6 << 4
    store16(packet + 4, <unsigned short>opened.octets)
    packet[6] = opened.next_header
    packet[7] = HOP_LIMIT
    memcpy(packet + 8, sa.peer_id, 16)
    memcpy(packet + 24, sa.local_id, 16)
    opened.octets += IPV6_HEADER
    return 0
