# Which packets between two host ids an SA is for (fastpath.types.Traffic); the rules of
# fastpath/reference/traffic.py in C.

from libc.stdint cimport uint8_t, uint16_t

from fastpath._bytes cimport load16

cdef enum:
    EXTENSIONS = 8  # headers that are looked past
    FIXED_HEADER = 40
    HOP_OPTIONS = 0
    ROUTING_HEADER = 43
    FRAGMENT_HEADER = 44
    TARGET_OPTIONS = 60
    TCP = 6
    UDP = 17
    DCCP = 33
    ICMPV6 = 58
    SCTP = 132
    MOBILITY = 135
    UDPLITE = 136

cdef struct Traffic:
    uint8_t protocol  # 0: any
    uint16_t local_ports[2]
    uint16_t peer_ports[2]

cdef struct Upper:  # what stands behind the IPv6 headers of a packet
    uint8_t protocol
    bint ports  # whether they can be seen
    bint later  # of a fragment that is not the first
    uint16_t source
    uint16_t target


cdef inline void traffic_set(Traffic *traffic, object given) except *:
    # From a fastpath.types.Traffic.
    traffic.protocol = given.protocol
    traffic.local_ports[0], traffic.local_ports[1] = given.local_ports
    traffic.peer_ports[0], traffic.peer_ports[1] = given.peer_ports


cdef inline void upper_of(const uint8_t *packet, size_t octets, Upper *upper) noexcept nogil:
    cdef uint8_t kind = packet[6]
    cdef size_t at = FIXED_HEADER
    cdef int step
    upper.ports = upper.later = False
    for step in range(EXTENSIONS):
        if kind != FRAGMENT_HEADER and kind not in (HOP_OPTIONS, ROUTING_HEADER, TARGET_OPTIONS):
            break
        if at + 8 > octets:
            break
        upper.protocol = packet[at]
        if kind == FRAGMENT_HEADER and load16(packet + at + 2) >> 3:
            upper.later = True
            return
        at += 8 if kind == FRAGMENT_HEADER else 8 * (<size_t>packet[at + 1] + 1)
        kind = upper.protocol
    upper.protocol = kind
    if kind in (TCP, UDP, DCCP, SCTP, UDPLITE) and at + 4 <= octets:
        upper.ports = True
        upper.source = load16(packet + at)
        upper.target = load16(packet + at + 2)
    elif kind == ICMPV6 and at + 4 <= octets:
        upper.ports = True
        upper.source = upper.target = load16(packet + at)
    elif kind == MOBILITY and at + 4 <= octets:
        upper.ports = True
        upper.source = upper.target = <uint16_t>(packet[at + 2] << 8)


cdef inline bint is_mobility(const uint8_t *packet, size_t octets) noexcept nogil:
    # Whether the upper layer is the Mobility Header.
    cdef Upper upper
    if packet[6] in (TCP, UDP):
        return False
    upper_of(packet, octets, &upper)
    return upper.protocol == MOBILITY


cdef inline bint traffic_holds(const Traffic *traffic, const Upper *upper, bint outgoing) \
        noexcept nogil:
    cdef uint16_t ours, theirs
    if traffic.protocol and traffic.protocol != upper.protocol:
        return False
    if not upper.ports:
        return upper.later and not outgoing or (
            traffic.local_ports[0] == 0 and traffic.local_ports[1] == 0xFFFF
            and traffic.peer_ports[0] == 0 and traffic.peer_ports[1] == 0xFFFF
        )
    ours = upper.source if outgoing else upper.target
    theirs = upper.target if outgoing else upper.source
    return (
        traffic.local_ports[0] <= ours <= traffic.local_ports[1]
        and traffic.peer_ports[0] <= theirs <= traffic.peer_ports[1]
    )
