# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Sends sealed packets in batches; see ``_sender.pxd``."""

from libc.errno cimport EAGAIN, ECONNREFUSED, EINTR, EINVAL, EIO, EMSGSIZE, errno
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memset

from fastpath._core cimport Core, Passed
from fastpath._drops cimport TOO_BIG, UDP_SEND
from fastpath._endpoint cimport endpoint_to_socket
from fastpath._linux cimport (
    AF_INET, AF_INET6, CMSG_DATA, CMSG_FIRSTHDR, CMSG_LEN, CMSG_SPACE, IPPROTO_UDP, MSG_DONTWAIT,
    POLLIN, POLLOUT, UDP_SEGMENT, atomic_add, atomic_get, atomic_set, boottime, cmsghdr, msghdr,
    poll, pollfd, pthread_mutex_lock, pthread_mutex_trylock, pthread_mutex_unlock, sendmmsg, sendto,
    sockaddr, sockaddr_storage,
)

cdef enum:
    PATIENCE_MS = 10  # so long a full socket buffer holds up its thread; then packets are dropped


GSO_NEVER = <uint64_t>-1  # the kernel does not know it


cdef Sender *sender_new(Lane *lane, Passed *counts, size_t capacity) except NULL:
    cdef Sender *sender = <Sender *>calloc(1, sizeof(Sender))
    if sender != NULL:
        sender.lane = lane
        sender.counts = counts
        sender.room = <uint8_t *>malloc(capacity)
        sender.capacity = capacity
    if sender == NULL or sender.room == NULL:
        free(sender)
        raise MemoryError
    return sender


cdef void sender_free(Sender *sender) noexcept nogil:
    if sender != NULL:
        free(sender.room)
        free(sender)


cdef uint8_t *sender_place(Sender *sender, size_t octets) noexcept nogil:
    """Where the next packet of at most ``octets`` goes. Sends what is there when room runs out
    (without patience, since the caller holds a gate)."""
    if sender.used + octets > sender.capacity or sender.count == SENDS:
        sender_flush(sender, False)
    return sender.room + sender.used


cdef void sender_add(
    Sender *sender, const Endpoint *endpoint, size_t octets
) noexcept nogil:
    """The packet of ``octets`` at :func:`sender_place` goes to ``endpoint``."""
    cdef Send *send
    if sender.count:
        send = &sender.sends[sender.count - 1]
        if (
            octets <= send.segment
            and send.octets == send.segment * send.packets  # no shorter one ended the run
            and send.octets + octets <= RUN_OCTETS
            and send.packets < RUN_PACKETS
            and _may_run(sender.lane.core, endpoint.family)
            and memcmp(&send.endpoint, endpoint, sizeof(Endpoint)) == 0
        ):
            send.octets += octets
            send.packets += 1
            sender.used += octets
            return
    send = &sender.sends[sender.count]
    send.endpoint = endpoint[0]
    send.offset = sender.used
    send.octets = octets
    send.segment = octets
    send.packets = 1
    sender.used += octets
    sender.count += 1


cdef inline bint _may_run(Core *core, int family) noexcept nogil:
    """Whether packets may leave as a run. After a refusal they may again, once the time is over."""
    cdef uint64_t *again = &core.gso_again[family == AF_INET6]
    cdef uint64_t at = atomic_get(again)
    if at == 0:
        return True
    if at == GSO_NEVER or boottime() < at:
        return False
    atomic_set(again, 0)
    return True


cdef void sender_flush(Sender *sender, bint patient) noexcept nogil:
    """Sends all; what the kernel refuses is counted. ``patient``: waits a little for room."""
    if sender.count:
        _flush_family(sender, AF_INET, sender.lane.udp4, patient)
        _flush_family(sender, AF_INET6, sender.lane.udp6, patient)
    sender.count = 0
    sender.used = 0


cdef void sender_hold(Sender *sender, OutboundEntry *entry) noexcept nogil:
    if sender_holds(sender, entry):
        return
    if sender.holds == HELD:
        sender_finish(sender, False)
    if pthread_mutex_trylock(&entry.lock):
        sender_finish(sender, False)  # who waits holds nothing, so all waiting ends
        pthread_mutex_lock(&entry.lock)
    atomic_set(&entry.holder, <uint64_t><size_t>sender)
    sender.held[sender.holds] = entry
    sender.holds += 1


cdef void sender_finish(Sender *sender, bint patient) noexcept nogil:
    cdef OutboundEntry *entry
    sender_flush(sender, patient)
    while sender.holds:
        sender.holds -= 1
        entry = sender.held[sender.holds]
        atomic_set(&entry.holder, 0)
        pthread_mutex_unlock(&entry.lock)


cdef void _flush_family(Sender *sender, int family, int fd, bint patient) noexcept nogil:
    cdef Core *core = sender.lane.core
    cdef int total = 0
    cdef int done = 0
    cdef int index, sent
    cdef bint again = True  # one more try for the send at `done`
    for index in range(sender.count):
        if sender.sends[index].endpoint.family == family:
            if fd < 0:
                atomic_add(&core.io_drops[UDP_SEND], sender.sends[index].packets)
                continue
            _fill(sender, &sender.sends[index], total)
            total += 1
    while done < total:
        sent = sendmmsg(fd, &sender.headers[done], total - done, MSG_DONTWAIT)
        if sent > 0:
            done += sent
            again = True
        elif errno == EINTR:
            continue
        elif errno == ECONNREFUSED and again:
            again = False  # an ICMP error of an earlier send; this one was not tried yet
        elif errno == EAGAIN and patient and _writable(core, fd):
            patient = False
        elif errno == EAGAIN:
            for index in range(done, total):
                atomic_add(&core.io_drops[UDP_SEND], sender.order[index].packets)
            return
        else:
            _refused(core, sender, sender.order[done], fd, errno)
            done += 1
            again = True


cdef bint _writable(Core *core, int fd) noexcept nogil:
    cdef pollfd fds[2]
    fds[0] = pollfd(fd, <short>POLLOUT, 0)
    fds[1] = pollfd(core.wake, <short>POLLIN, 0)
    return poll(fds, 2, PATIENCE_MS) > 0 and not fds[1].revents


cdef void _fill(Sender *sender, Send *send, int place) noexcept nogil:
    cdef msghdr *header = &sender.headers[place].msg_hdr
    cdef cmsghdr *control
    sender.order[place] = send
    sender.vectors[place].iov_base = sender.room + send.offset
    sender.vectors[place].iov_len = send.octets
    memset(header, 0, sizeof(msghdr))
    header.msg_name = &sender.names[place]
    header.msg_namelen = endpoint_to_socket(&send.endpoint, &sender.names[place])
    header.msg_iov = &sender.vectors[place]
    header.msg_iovlen = 1
    if send.packets > 1:
        header.msg_control = sender.controls[place]
        header.msg_controllen = CMSG_SPACE(sizeof(uint16_t))
        control = CMSG_FIRSTHDR(header)
        control.cmsg_level = IPPROTO_UDP
        control.cmsg_type = UDP_SEGMENT
        control.cmsg_len = CMSG_LEN(sizeof(uint16_t))
        (<uint16_t *>CMSG_DATA(control))[0] = <uint16_t>send.segment


cdef void _refused(Core *core, Sender *sender, Send *send, int fd, int error) noexcept nogil:
    """A run that the kernel does not cut is sent packet by packet; a single packet is dropped."""
    cdef sockaddr_storage name
    cdef uint32_t length
    cdef size_t offset, octets
    if send.packets == 1 or error not in (EINVAL, EIO, EMSGSIZE):
        atomic_add(&core.io_drops[TOO_BIG if error == EMSGSIZE else UDP_SEND], send.packets)
        return
    if error == EIO:  # the link lacks what UDP_SEGMENT needs, or IPsec of the kernel is in the way
        atomic_set(
            &core.gso_again[send.endpoint.family == AF_INET6],
            <uint64_t>boottime() + GSO_AGAIN_SECONDS,
        )
    length = endpoint_to_socket(&send.endpoint, &name)
    offset = 0
    while offset < send.octets:
        octets = min(send.segment, send.octets - offset)
        if sendto(fd, sender.room + send.offset + offset, octets, MSG_DONTWAIT,
                  <sockaddr *>&name, length) < 0:
            atomic_add(&core.io_drops[TOO_BIG if errno == EMSGSIZE else UDP_SEND], 1)
        offset += octets
