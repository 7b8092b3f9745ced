# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Merges inner packets into large frames for TUN (the inverse of ``_segment``).

Merged are TCP segments in sequence and UDP datagrams of one size, with equal headers where the
kernel's own GRO wants them equal, and only when their checksums are right: a merged frame is
taken by the kernel without a second look.
"""

from libc.errno cimport EINVAL, errno
from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy, memset

from fastpath._bytes cimport load16, load32, store16
from fastpath._checksum cimport (
    ACK, PSH, TCP, TCP_CHECKSUM, TCP_FLAGS, TCP_HEADER, TCP_SEQUENCE, UDP, UDP_CHECKSUM,
    UDP_HEADER, UDP_LENGTH, checksum_add, checksum_fold, pseudo_sum,
)
from fastpath._drops cimport TUN_WRITE
from fastpath._inner cimport IPV6_HEADER
from fastpath._linux cimport atomic_add, atomic_get, atomic_set, write
from fastpath._segment cimport (
    GSO_TCPV6, GSO_UDP_L4, NEEDS_CSUM, VNET_OCTETS, Cut, Vnet, cut_begin, cut_next,
)


cdef Merger *merger_new(Lane *lane) except NULL:
    cdef Merger *merger = <Merger *>calloc(1, sizeof(Merger))
    cdef int index
    if merger == NULL:
        raise MemoryError
    merger.core = lane.core
    merger.tun = lane.tun
    for index in range(2):
        merger.rooms[index] = <uint8_t *>malloc(LEAD + MAX_FRAME + OPEN_ROOM)
        if merger.rooms[index] == NULL:
            merger_free(merger)
            raise MemoryError
    return merger


cdef void merger_free(Merger *merger) noexcept nogil:
    if merger != NULL:
        free(merger.rooms[0])
        free(merger.rooms[1])
        free(merger)


cdef uint8_t *merger_place(Merger *merger) noexcept nogil:
    """Where to open the next packet."""
    cdef uint8_t *place = merger.rooms[merger.active] + LEAD
    merger.behind = merger.run.octets > 0
    if merger.behind:
        place += merger.run.octets - merger.run.header
        memcpy(merger.saved, place, merger.run.header)
    return place


cdef void merger_drop(Merger *merger, uint8_t *packet) noexcept nogil:
    """Nothing came to :func:`merger_place`: the run is as it was."""
    if merger.behind:
        memcpy(packet, merger.saved, merger.run.header)


cdef void merger_take(Merger *merger, uint8_t *packet, size_t octets) noexcept nogil:
    """Passes on the inner packet of ``octets`` at :func:`merger_place`: now, or with its run."""
    cdef Run begun
    cdef bint may_begin = merger.core.vnet_hdr and _may_begin(packet, octets, &begun)
    cdef uint8_t *other
    if not merger.behind:
        if may_begin:
            _begin(merger, packet, &begun)
        else:
            _write(merger, packet, octets)
        return
    if may_begin and _belongs(merger, packet, &begun):
        _append(merger, packet, &begun)
        return
    other = merger.rooms[1 - merger.active] + LEAD
    memcpy(other, packet, octets)
    merger_drop(merger, packet)
    if may_begin or not _other_flow(merger.first, other):
        merger_flush(merger)  # what is of one flow stays in order
    if may_begin:
        merger.active = 1 - merger.active
        _begin(merger, other, &begun)
    else:
        _write(merger, other, octets)


cdef void merger_flush(Merger *merger) noexcept nogil:
    """Writes the run, if there is one."""
    cdef uint8_t *packet = merger.rooms[merger.active] + LEAD
    cdef Run *run = &merger.run
    if run.octets == 0:
        return
    if run.packets == 1:
        _write(merger, packet, run.octets)
    else:
        _write_merged(merger, packet)
    run.octets = 0


# --- What belongs together ------------------------------------------------------------------------


cdef bint _may_begin(const uint8_t *packet, size_t octets, Run *run) noexcept nogil:
    """Whether a packet may be merged at all; fills ``run`` as if it were the first.

    A wrong checksum says no, so that the receiver's kernel gets to see it.
    """
    cdef const uint8_t *upper = packet + IPV6_HEADER
    run.octets = octets
    run.packets = 1
    run.sequence = 0
    run.flags = 0
    run.protocol = packet[6]
    if run.protocol == TCP and octets > IPV6_HEADER + TCP_HEADER:
        run.header = IPV6_HEADER + (upper[12] >> 4) * 4
        run.flags = upper[TCP_FLAGS]
        if run.header < IPV6_HEADER + TCP_HEADER or run.header >= octets:
            return False
        if run.flags & ~PSH != ACK:
            return False
        run.size = octets - run.header
        run.sequence = load32(upper + TCP_SEQUENCE) + <uint32_t>run.size
        run.closed = (run.flags & PSH) != 0
        return _checksum_is_right(packet, octets, TCP)
    if run.protocol == UDP and octets > IPV6_HEADER + UDP_HEADER:
        run.header = IPV6_HEADER + UDP_HEADER
        run.size = octets - run.header
        run.closed = False
        return (
            load16(upper + UDP_LENGTH) == octets - IPV6_HEADER
            and load16(upper + UDP_CHECKSUM) != 0
            and _checksum_is_right(packet, octets, UDP)
        )
    return False


cdef bint _belongs(
    Merger *merger, const uint8_t *packet, const Run *next_run
) noexcept nogil:
    """Whether ``packet``, which was found fit to be merged, continues the run."""
    cdef const uint8_t *first = merger.first
    cdef Run *run = &merger.run
    if (
        run.closed
        or next_run.protocol != run.protocol
        or next_run.header != run.header
        or next_run.size > run.size
        or run.packets >= MAX_MERGED
        or run.octets + next_run.size > MAX_FRAME
        # Traffic class and flow label; next header, hop limit, addresses; ports.
        or memcmp(first, packet, 4)
        or memcmp(first + 6, packet + 6, 38)
    ):
        return False
    if run.protocol == UDP:
        return atomic_get(&merger.core.uso) != 0
    return _in_sequence(run, first + IPV6_HEADER, packet + IPV6_HEADER)


cdef inline bint _in_sequence(
    const Run *run, const uint8_t *first, const uint8_t *following
) noexcept nogil:
    return (
        load32(following + TCP_SEQUENCE) == run.sequence
        and memcmp(first + 8, following + 8, 5) == 0  # acknowledgement, data offset
        and memcmp(first + 14, following + 14, 2) == 0  # window
        and memcmp(first + 18, following + 18, run.header - IPV6_HEADER - 18) == 0  # options
    )


cdef inline bint _checksum_is_right(
    const uint8_t *packet, size_t octets, uint8_t protocol
) noexcept nogil:
    octets -= IPV6_HEADER
    return checksum_fold(checksum_add(
        packet + IPV6_HEADER, octets, pseudo_sum(packet, protocol, octets))) == 0xFFFF


cdef inline bint _other_flow(const uint8_t *first, const uint8_t *packet) noexcept nogil:
    """Surely not of the run's flow: another address, or the same upper layer and other ports."""
    if memcmp(first + 8, packet + 8, 32):
        return True
    return first[6] == packet[6] and memcmp(first + 40, packet + 40, 4) != 0


cdef void _begin(Merger *merger, const uint8_t *packet, const Run *run) noexcept nogil:
    merger.run = run[0]
    memcpy(merger.first, packet, run.header)


cdef void _append(Merger *merger, uint8_t *packet, const Run *next_run) noexcept nogil:
    cdef Run *run = &merger.run
    memcpy(packet, merger.saved, run.header)
    run.octets += next_run.size
    run.packets += 1
    run.sequence = next_run.sequence
    run.flags |= next_run.flags
    run.closed = next_run.closed or next_run.size < run.size


# --- Writing --------------------------------------------------------------------------------------


cdef void _write(Merger *merger, uint8_t *packet, size_t octets) noexcept nogil:
    """One packet as it is, behind an empty virtio header where TUN wants one."""
    cdef Core *core = merger.core
    if core.vnet_hdr:
        packet -= VNET_OCTETS
        octets += VNET_OCTETS
        memset(packet, 0, VNET_OCTETS)
    if write(merger.tun, packet, octets) < 0:
        atomic_add(&core.io_drops[TUN_WRITE], 1)


cdef void _write_merged(Merger *merger, uint8_t *packet) noexcept nogil:
    cdef Core *core = merger.core
    cdef Run *run = &merger.run
    cdef uint8_t *upper = packet + IPV6_HEADER
    cdef size_t upper_octets = run.octets - IPV6_HEADER
    cdef bint is_tcp = run.protocol == TCP
    cdef Vnet vnet
    cdef unsigned short sum
    store16(packet + 4, <unsigned short>upper_octets)
    if is_tcp:
        upper[TCP_FLAGS] = run.flags
    else:
        store16(upper + UDP_LENGTH, <unsigned short>upper_octets)
    sum = checksum_fold(pseudo_sum(packet, run.protocol, upper_octets))
    vnet.flags = NEEDS_CSUM
    vnet.gso_type = GSO_TCPV6 if is_tcp else GSO_UDP_L4
    vnet.hdr_len = <unsigned short>run.header
    vnet.gso_size = <unsigned short>run.size
    vnet.csum_start = IPV6_HEADER
    vnet.csum_offset = TCP_CHECKSUM if is_tcp else UDP_CHECKSUM
    memcpy(upper + vnet.csum_offset, &sum, 2)
    memcpy(packet - VNET_OCTETS, &vnet, VNET_OCTETS)
    if write(merger.tun, packet - VNET_OCTETS, run.octets + VNET_OCTETS) >= 0:
        return
    if not is_tcp and errno == EINVAL:
        atomic_set(&core.uso, 0)  # a kernel before 6.2, or a device opened without USO
        _write_apart(merger, &vnet, packet)
    else:
        atomic_add(&core.io_drops[TUN_WRITE], run.packets)


cdef void _write_apart(Merger *merger, const Vnet *vnet, uint8_t *packet) noexcept nogil:
    """Cuts a merged frame again and writes its packets one by one.

    The virtio header of each goes over the tail of the one before, which is written by then.
    """
    cdef Cut cut
    cdef size_t octets
    if not cut_begin(&cut, vnet, packet, merger.run.octets, MAX_FRAME):
        return
    while cut_next(&cut, &packet, &octets):
        _write(merger, packet, octets)
