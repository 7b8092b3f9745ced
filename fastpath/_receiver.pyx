# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Receives datagrams in batches; see ``_receiver.pxd``."""

from libc.errno cimport EAGAIN, errno
from libc.stdint cimport uint8_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy

from fastpath._endpoint cimport endpoint_of_socket
from fastpath._linux cimport (
    CMSG_DATA, CMSG_FIRSTHDR, CMSG_NXTHDR, IPPROTO_UDP, MSG_DONTWAIT, MSG_TRUNC, UDP_GRO, cmsghdr,
    msghdr, recvmmsg, sockaddr_storage,
)

cdef enum:
    LARGE_OCTETS = 16384
    WANTED_LARGE = 8


cdef Receiver *receiver_new() except NULL:
    cdef Receiver *receiver = <Receiver *>calloc(1, sizeof(Receiver))
    cdef int index
    if receiver != NULL:
        receiver.room = <uint8_t *>malloc(MESSAGES * MESSAGE_STRIDE)
    if receiver == NULL or receiver.room == NULL:
        free(receiver)
        raise MemoryError
    receiver.wanted = MESSAGES
    for index in range(MESSAGES):
        receiver.vectors[index].iov_base = receiver.room + index * MESSAGE_STRIDE
        receiver.vectors[index].iov_len = MESSAGE_OCTETS
    return receiver


cdef void receiver_free(Receiver *receiver) noexcept nogil:
    if receiver != NULL:
        free(receiver.room)
        free(receiver)


cdef int receiver_read(Receiver *receiver, int fd) noexcept nogil:
    """Messages received; 0 when there are none now, -1 for an error to be tried again."""
    cdef msghdr *header
    cdef int index, got
    for index in range(receiver.wanted):
        header = &receiver.headers[index].msg_hdr
        header.msg_name = &receiver.names[index]
        header.msg_namelen = sizeof(sockaddr_storage)
        header.msg_iov = &receiver.vectors[index]
        header.msg_iovlen = 1
        header.msg_control = receiver.controls[index]
        header.msg_controllen = CONTROL_OCTETS
        header.msg_flags = 0
    got = recvmmsg(fd, receiver.headers, receiver.wanted, MSG_DONTWAIT, NULL)
    if got < 0:
        return 0 if errno == EAGAIN else -1
    if got:
        receiver.wanted = WANTED_LARGE if receiver.headers[0].msg_len > LARGE_OCTETS else MESSAGES
    return got


cdef void receiver_message(Receiver *receiver, int index, Message *message) noexcept nogil:
    cdef msghdr *header = &receiver.headers[index].msg_hdr
    cdef cmsghdr *control = CMSG_FIRSTHDR(header)
    cdef int segment
    message.data = <const uint8_t *>receiver.vectors[index].iov_base
    message.octets = receiver.headers[index].msg_len
    message.segment = message.octets
    message.truncated = (header.msg_flags & MSG_TRUNC) != 0
    endpoint_of_socket(&message.source, &receiver.names[index])
    while control != NULL:
        if control.cmsg_level == IPPROTO_UDP and control.cmsg_type == UDP_GRO:
            memcpy(&segment, CMSG_DATA(control), sizeof(segment))
            if segment > 0:
                message.segment = <size_t>segment
        control = CMSG_NXTHDR(header, control)
