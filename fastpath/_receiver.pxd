# Datagrams from UDP, many for one system call (recvmmsg), merged by the kernel where it can
# (UDP_GRO).

from libc.stdint cimport uint8_t

from fastpath._endpoint cimport Endpoint
from fastpath._linux cimport iovec, mmsghdr, sockaddr_storage

cdef enum:
    MESSAGES = 64
    MESSAGE_OCTETS = 65536
    MESSAGE_STRIDE = 65536 + 4160  # no multiple of a page, or all would share the same cache lines
    CONTROL_OCTETS = 64

cdef struct Receiver:
    uint8_t *room
    int wanted  # messages of the next call: fewer when they are large, to stay in the cache
    mmsghdr headers[MESSAGES]
    iovec vectors[MESSAGES]
    sockaddr_storage names[MESSAGES]
    uint8_t controls[MESSAGES][CONTROL_OCTETS]

cdef struct Message:
    const uint8_t *data
    size_t octets
    size_t segment  # octets of each datagram in it but the last
    bint truncated
    Endpoint source

cdef Receiver *receiver_new() except NULL
cdef void receiver_free(Receiver *receiver) noexcept nogil
cdef int receiver_read(Receiver *receiver, int fd) noexcept nogil
cdef void receiver_message(Receiver *receiver, int index, Message *message) noexcept nogil
