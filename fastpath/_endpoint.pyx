# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Endpoints between Python's ``(ip text, port)`` and the kernel's socket addresses."""

import ipaddress
import socket

from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memcmp, memcpy, memset

from fastpath._bytes cimport be16toh, htobe16
from fastpath._linux cimport AF_INET, AF_INET6, sockaddr_in, sockaddr_in6, sockaddr_storage



cdef uint8_t MAPPED[12]  # ::ffff:0:0/96, an IPv4 address seen by a dual-stack socket
memset(MAPPED, 0, 10)
memset(MAPPED + 10, 0xFF, 2)


cdef int endpoint_parse(object endpoint, Endpoint *parsed) except -1:
    """Reads ``(ip text, port)``; :class:`ValueError` for what is none. Never looks a name up."""
    host, port = endpoint
    ip = ipaddress.ip_address(host)
    if not 0 < port <= 0xFFFF:
        raise ValueError(f"port {port} is not within 1..65535")
    cdef bytes packed = ip.packed
    cdef const uint8_t *place = <const uint8_t *>packed
    memset(parsed, 0, sizeof(Endpoint))
    parsed.family = AF_INET if ip.version == 4 else AF_INET6
    parsed.port = port
    memcpy(parsed.ip, place, len(packed))
    scope = ip.scope_id if ip.version == 6 else None
    if scope:
        parsed.scope = int(scope) if scope.isdigit() else socket.if_nametoindex(scope)
    return 0


cdef object endpoint_show(const Endpoint *endpoint):
    """``(ip text, port)``: compressed, lower case, with ``%index`` where link-local."""
    cdef size_t octets = 4 if endpoint.family == AF_INET else 16
    text = str(ipaddress.ip_address(<bytes>(<const char *>endpoint.ip)[:octets]))
    return (f"{text}%{endpoint.scope}" if endpoint.scope else text), endpoint.port


cdef uint32_t endpoint_to_socket(const Endpoint *endpoint, sockaddr_storage *name) noexcept nogil:
    """Fills ``name``; returns its length."""
    cdef sockaddr_in *v4 = <sockaddr_in *>name
    cdef sockaddr_in6 *v6 = <sockaddr_in6 *>name
    if endpoint.family == AF_INET:
        memset(v4, 0, sizeof(sockaddr_in))
        v4.sin_family = <uint16_t>AF_INET
        v4.sin_port = htobe16(endpoint.port)
        memcpy(&v4.sin_addr, endpoint.ip, 4)
        return sizeof(sockaddr_in)
    memset(v6, 0, sizeof(sockaddr_in6))
    v6.sin6_family = <uint16_t>AF_INET6
    v6.sin6_port = htobe16(endpoint.port)
    v6.sin6_scope_id = endpoint.scope
    memcpy(&v6.sin6_addr, endpoint.ip, 16)
    return sizeof(sockaddr_in6)


cdef void endpoint_of_socket(Endpoint *endpoint, const sockaddr_storage *name) noexcept nogil:
    """The reverse; a v4-mapped address becomes the IPv4 address that it is."""
    cdef const sockaddr_in *v4 = <const sockaddr_in *>name
    cdef const sockaddr_in6 *v6 = <const sockaddr_in6 *>name
    memset(endpoint, 0, sizeof(Endpoint))
    if name.ss_family == AF_INET:
        endpoint.family = <uint16_t>AF_INET
        endpoint.port = be16toh(v4.sin_port)
        memcpy(endpoint.ip, &v4.sin_addr, 4)
        return
    endpoint.port = be16toh(v6.sin6_port)
    if memcmp(&v6.sin6_addr, MAPPED, sizeof(MAPPED)) == 0:
        endpoint.family = <uint16_t>AF_INET
        memcpy(endpoint.ip, <const uint8_t *>&v6.sin6_addr + 12, 4)
        return
    endpoint.family = <uint16_t>AF_INET6
    endpoint.scope = v6.sin6_scope_id
    memcpy(endpoint.ip, &v6.sin6_addr, 16)
