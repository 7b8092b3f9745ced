# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Probes, which are never fragmented, and what is cut here because no IPv6 router may.

The socket is set for that one packet and set back (Linux ip(7), ipv6(7)); a packet that another
thread sends meanwhile may share its fate, which costs it nothing worse than fragments or, over
IPv4, being lost where it does not fit. The usual packets pay nothing.
"""

from libc.errno cimport EMSGSIZE, errno
from libc.stdint cimport uint8_t, uint32_t

from fastpath._drops cimport TOO_BIG, UDP_SEND
from fastpath._endpoint cimport endpoint_to_socket
from fastpath._linux cimport (
    AF_INET, AF_INET6, IP_MTU_DISCOVER, IP_PMTUDISC_PROBE, IPPROTO_IP, IPPROTO_IPV6, IPV6_MTU,
    IPV6_MTU_DISCOVER, MSG_DONTWAIT, atomic_add, getsockopt, pthread_mutex_lock,
    pthread_mutex_unlock, sendto, setsockopt, sockaddr, sockaddr_storage,
)

from fastpath import types

assert {one.name: one.value for one in types.Fragments} == {
    "ALLOWED": ALLOWED, "FORBIDDEN": FORBIDDEN, "MADE": MADE,
}
cdef int MINIMUM_MTU = types.MINIMUM_MTU


cdef bint goes_apart(const Endpoint *endpoint, int fragments) noexcept nogil:
    return fragments == FORBIDDEN or (fragments == MADE and endpoint.family == AF_INET6)


cdef void send_apart(
    Core *core, const Endpoint *endpoint, const uint8_t *packet, size_t octets, int fragments
) noexcept nogil:
    cdef bint six = endpoint.family == AF_INET6
    cdef int fd = core.udp6 if six else core.udp4
    cdef int level = IPPROTO_IPV6 if six else IPPROTO_IP
    cdef int option = IPV6_MTU
    cdef int value = MINIMUM_MTU
    cdef int usual = 0  # IPV6_MTU: none of its own
    cdef uint32_t size = sizeof(int)
    cdef sockaddr_storage name
    cdef uint32_t length = endpoint_to_socket(endpoint, &name)
    pthread_mutex_lock(&core.apart)
    if fragments == FORBIDDEN:
        option = IPV6_MTU_DISCOVER if six else IP_MTU_DISCOVER
        value = IP_PMTUDISC_PROBE
        getsockopt(fd, level, option, &usual, &size)
    setsockopt(fd, level, option, &value, sizeof(int))
    if sendto(fd, packet, octets, MSG_DONTWAIT, <sockaddr *>&name, length) < 0:
        atomic_add(&core.io_drops[TOO_BIG if errno == EMSGSIZE else UDP_SEND], 1)
    setsockopt(fd, level, option, &usual, sizeof(int))
    pthread_mutex_unlock(&core.apart)
