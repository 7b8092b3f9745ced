# An outer (address, UDP port) for C; compared with memcmp, so every octet is always set.

from libc.stdint cimport uint8_t, uint16_t, uint32_t

from fastpath._linux cimport sockaddr_storage

cdef struct Endpoint:
    uint16_t family  # AF_INET or AF_INET6
    uint16_t port
    uint32_t scope  # interface index of a link-local address, else 0
    uint8_t ip[16]

cdef int endpoint_parse(object endpoint, Endpoint *parsed) except -1
cdef object endpoint_show(const Endpoint *endpoint)
cdef uint32_t endpoint_to_socket(const Endpoint *endpoint, sockaddr_storage *name) noexcept nogil
cdef void endpoint_of_socket(Endpoint *endpoint, const sockaddr_storage *name) noexcept nogil
