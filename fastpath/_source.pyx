# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""A datagram from another source than the routes prefer; see tunnel/io/sources.py.

It is a system call of its own, so that the usual packets pay nothing.
"""

import ipaddress

from libc.errno cimport EMSGSIZE, errno
from libc.stdint cimport uint8_t
from libc.string cimport memcpy, memset

from fastpath._drops cimport TOO_BIG, UDP_SEND
from fastpath._endpoint cimport endpoint_to_socket
from fastpath._linux cimport (
    AF_INET, CMSG_DATA, CMSG_FIRSTHDR, CMSG_LEN, CMSG_SPACE, IP_PKTINFO, IPPROTO_IP, IPPROTO_IPV6,
    IPV6_PKTINFO, MSG_DONTWAIT, atomic_add, cmsghdr, in6_pktinfo, in_pktinfo, iovec, msghdr,
    sendmsg, sockaddr_storage,
)

cdef enum:
    CONTROL_OCTETS = 64  # more than either of the two takes


cdef int source_parse(object source, int family, Source *parsed) except -1:
    """:class:`ValueError` for what is none, or of another family than its endpoint."""
    host, index = source
    ip = ipaddress.ip_address(host)
    if (ip.version == 4) != (family == AF_INET):
        raise ValueError(f"{host} is not of the family of the endpoint")
    if not 0 < index <= 0x7FFFFFFF:
        raise ValueError(f"{index} is no index of an interface")
    cdef bytes packed = ip.packed
    cdef const uint8_t *place = <const uint8_t *>packed
    memset(parsed, 0, sizeof(Source))
    memcpy(parsed.ip, place, len(packed))
    parsed.index = index
    return 0


cdef void send_from(
    Lane *lane, const Source *source, const Endpoint *endpoint, uint8_t *packet, size_t octets
) noexcept nogil:
    cdef bint four = endpoint.family == AF_INET
    cdef uint8_t control[CONTROL_OCTETS]
    cdef sockaddr_storage name
    cdef msghdr header
    cdef cmsghdr *about
    cdef iovec vector
    cdef in_pktinfo *in4
    cdef in6_pktinfo *in6
    memset(control, 0, CONTROL_OCTETS)
    memset(&header, 0, sizeof(msghdr))
    vector.iov_base = packet
    vector.iov_len = octets
    header.msg_name = &name
    header.msg_namelen = endpoint_to_socket(endpoint, &name)
    header.msg_iov = &vector
    header.msg_iovlen = 1
    header.msg_control = control
    header.msg_controllen = CMSG_SPACE(sizeof(in_pktinfo) if four else sizeof(in6_pktinfo))
    about = CMSG_FIRSTHDR(&header)
    if four:
        about.cmsg_level = IPPROTO_IP
        about.cmsg_type = IP_PKTINFO
        about.cmsg_len = CMSG_LEN(sizeof(in_pktinfo))
        in4 = <in_pktinfo *>CMSG_DATA(about)
        in4.ipi_ifindex = source.index
        memcpy(&in4.ipi_spec_dst, source.ip, 4)
    else:
        about.cmsg_level = IPPROTO_IPV6
        about.cmsg_type = IPV6_PKTINFO
        about.cmsg_len = CMSG_LEN(sizeof(in6_pktinfo))
        in6 = <in6_pktinfo *>CMSG_DATA(about)
        in6.ipi6_ifindex = <unsigned int>source.index  # the address is the kernel's choice there
    if sendmsg(lane.udp4 if four else lane.udp6, &header, MSG_DONTWAIT) < 0:
        atomic_add(&lane.core.io_drops[TOO_BIG if errno == EMSGSIZE else UDP_SEND], 1)
