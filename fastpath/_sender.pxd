# Sealed packets on their way to UDP, in as few system calls as the kernel allows.
#
# Packets stand back to back. A run of equal sizes to one endpoint (its last may be shorter) is one
# send, which the kernel cuts (UDP_SEGMENT); all sends of a batch are one system call (sendmmsg).

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from fastpath._core cimport Core
from fastpath._endpoint cimport Endpoint
from fastpath._linux cimport iovec, mmsghdr, sockaddr_storage

cdef enum:
    SENDS = 128
    RUN_PACKETS = 64  # UDP_MAX_SEGMENTS of the oldest kernels
    RUN_OCTETS = 65000  # below 65,535 with any header
    MAX_DATAGRAM = 65507  # what UDP over IPv4 can carry
    SENDER_OCTETS = 384 * 1024
    CONTROL_OCTETS = 32
    GSO_AGAIN_SECONDS = 60  # a link that refuses runs may be another one by then

cdef uint64_t GSO_NEVER

cdef struct Send:
    Endpoint endpoint
    size_t offset
    size_t octets
    size_t segment  # octets of each packet but the last
    uint32_t packets

cdef struct Sender:
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

cdef Sender *sender_new(size_t capacity) except NULL
cdef void sender_free(Sender *sender) noexcept nogil
cdef uint8_t *sender_place(Core *core, Sender *sender, size_t octets) noexcept nogil
cdef void sender_add(
    Core *core, Sender *sender, const Endpoint *endpoint, size_t octets
) noexcept nogil
cdef void sender_flush(Core *core, Sender *sender, bint patient) noexcept nogil
