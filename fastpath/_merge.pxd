# Inner packets towards TUN, merged into frames of up to 64 KB with a virtio header, without a copy.
#
# A packet is opened right behind the run that it probably belongs to, its headers over the run's
# tail, which is saved before and restored after. One that does not belong there is copied away.

from libc.stdint cimport uint8_t, uint32_t

from fastpath._core cimport Core, Lane
from fastpath._segment cimport MAX_HEADERS

cdef enum:
    LEAD = 64  # octets before a packet, for the virtio header
    MAX_FRAME = 65535  # octets of a merged packet
    MAX_MERGED = 64  # packets
    OPEN_ROOM = 40 + 65536  # a header rebuilt in transport mode, and what a datagram can hold

cdef struct Run:
    size_t octets  # 0: there is no run
    size_t header
    size_t size  # of a payload but the last
    uint32_t packets
    uint32_t sequence  # TCP: of the next payload
    uint8_t protocol
    uint8_t flags  # TCP: those that any packet had
    bint closed  # a short or pushed packet was its last

cdef struct Merger:
    Core *core
    int tun
    uint8_t *rooms[2]
    int active  # the room where the run is
    Run run
    uint8_t first[MAX_HEADERS]  # the run's first headers: behind a short payload they get covered
    bint behind  # the packet being opened stands behind the run
    uint8_t saved[MAX_HEADERS]

cdef Merger *merger_new(Lane *lane) except NULL
cdef void merger_free(Merger *merger) noexcept nogil
# Where to open the next packet (OPEN_ROOM octets); then exactly one of the other two.
cdef uint8_t *merger_place(Merger *merger) noexcept nogil
cdef void merger_take(Merger *merger, uint8_t *packet, size_t octets) noexcept nogil
cdef void merger_drop(Merger *merger, uint8_t *packet) noexcept nogil
cdef void merger_flush(Merger *merger) noexcept nogil
