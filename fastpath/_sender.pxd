# Sealed packets on their way to UDP, in as few system calls as the kernel allows.
#
# Packets stand back to back. A run of equal sizes to one endpoint (its last may be shorter) is one
# send, which the kernel cuts (UDP_SEGMENT); all sends of a batch are one system call (sendmmsg).

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from fastpath._core cimport Lane, OutboundEntry, Passed
from fastpath._endpoint cimport Endpoint
from fastpath._linux cimport atomic_get, iovec, mmsghdr, sockaddr_storage

cdef enum:
    SENDS = 128
    RUN_PACKETS = 64  # UDP_MAX_SEGMENTS of the oldest kernels
    RUN_OCTETS = 65000  # below 65,535 with any header
    MAX_DATAGRAM = 65507  # what UDP over IPv4 can carry
    SENDER_OCTETS = 384 * 1024
    CONTROL_OCTETS = 32
    HELD = 64  # as many as a burst has frames
    GSO_AGAIN_SECONDS = 60  # a link that refuses runs may be another one by then

cdef uint64_t GSO_NEVER

cdef struct Send:
    Endpoint endpoint
    size_t offset
    size_t octets
    size_t segment  # octets of each packet but the last
    uint32_t packets

cdef struct Sender:
    Lane *lane
    Passed *counts  # where drops are counted: of the half whose gate its owner holds
    double now  # of the batch
    OutboundEntry *held[HELD]  # SAs whose packets may be in here: nobody else may seal with them
    int holds
    uint8_t *room
    size_t capacity
    size_t used
    int count
    Send sends[SENDS]
    Send *order[SENDS]
    mmsghdr headers[SENDS]
    iovec vectors[SENDS]
    sockaddr_storage names[SENDS]
    uint8_t controls[SENDS][CONTROL_OCTETS]

cdef Sender *sender_new(Lane *lane, Passed *counts, size_t capacity) except NULL
cdef void sender_free(Sender *sender) noexcept nogil
cdef uint8_t *sender_place(Sender *sender, size_t octets) noexcept nogil
cdef void sender_add(
    Sender *sender, const Endpoint *endpoint, size_t octets
) noexcept nogil
cdef void sender_flush(Sender *sender, bint patient) noexcept nogil
# From here to sender_finish, which sends all, `entry` seals for this sender alone, so that packets
# leave in the order of their numbers. Under the gate; the SA may be removed before the end.
cdef void sender_hold(Sender *sender, OutboundEntry *entry) noexcept nogil
cdef void sender_finish(Sender *sender, bint patient) noexcept nogil


cdef inline bint sender_holds(Sender *sender, OutboundEntry *entry) noexcept nogil:
    # Nobody else writes our own name there.
    return atomic_get(&entry.holder) == <uint64_t><size_t>sender
