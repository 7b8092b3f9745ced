# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Probes, which must not be fragmented (RFC 8899 §3); see tunnel/io/fragments.py.

The socket is set for that one packet and set back (Linux ip(7), ipv6(7)). What another thread
sends meanwhile may share its fate: a packet that does not fit is lost instead of fragmented. The
usual packets pay nothing.
"""

from libc.errno cimport EMSGSIZE, errno
from libc.stdint cimport uint8_t, uint32_t

from fastpath._core cimport Core
from fastpath._drops cimport TOO_BIG, UDP_SEND
from fastpath._endpoint cimport endpoint_to_socket
from fastpath._linux cimport (
    AF_INET6, IP_MTU_DISCOVER, IP_PMTUDISC_PROBE, IPPROTO_IP, IPPROTO_IPV6, IPV6_MTU_DISCOVER,
    MSG_DONTWAIT, atomic_add, getsockopt, pthread_mutex_lock, pthread_mutex_unlock, sendto,
    setsockopt, sockaddr, sockaddr_storage,
)


cdef void send_whole(
    Lane *lane, const Endpoint *endpoint, const uint8_t *packet, size_t octets
) noexcept nogil:
    cdef Core *core = lane.core
    cdef bint six = endpoint.family == AF_INET6
    cdef int fd = lane.udp6 if six else lane.udp4
    cdef int level = IPPROTO_IPV6 if six else IPPROTO_IP
    cdef int option = IPV6_MTU_DISCOVER if six else IP_MTU_DISCOVER
    cdef int probe = IP_PMTUDISC_PROBE  # the same for IPv6
    cdef int usual = 0
    cdef uint32_t size = sizeof(int)
    cdef sockaddr_storage name
    cdef uint32_t length = endpoint_to_socket(endpoint, &name)
    pthread_mutex_lock(&core.whole)
    getsockopt(fd, level, option, &usual, &size)
    setsockopt(fd, level, option, &probe, sizeof(int))
    if sendto(fd, packet, octets, MSG_DONTWAIT, <sockaddr *>&name, length) < 0:
        atomic_add(&core.io_drops[TOO_BIG if errno == EMSGSIZE else UDP_SEND], 1)
    setsockopt(fd, level, option, &usual, sizeof(int))
    pthread_mutex_unlock(&core.whole)
