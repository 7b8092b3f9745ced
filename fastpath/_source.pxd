# One datagram from an address and by an interface of the caller's choice.

from libc.stdint cimport uint8_t

from fastpath._core cimport Lane
from fastpath._endpoint cimport Endpoint

cdef struct Source:
    uint8_t ip[16]
    int index  # of the interface

# Of a fastpath.types.Source, for a datagram to an endpoint of `family`.
cdef int source_parse(object source, int family, Source *parsed) except -1
cdef void send_from(
    Lane *lane, const Source *source, const Endpoint *endpoint, uint8_t *packet, size_t octets
) noexcept nogil
