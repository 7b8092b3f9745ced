# Single packets that the UDP socket sends otherwise than the rest; see fastpath.types.Fragments.

from libc.stdint cimport uint8_t

from fastpath._core cimport Core
from fastpath._endpoint cimport Endpoint

cdef enum:
    ALLOWED = 0
    FORBIDDEN = 1
    MADE = 2

# Whether a packet that is to go with `fragments` must be sent by send_apart.
cdef bint goes_apart(const Endpoint *endpoint, int fragments) noexcept nogil

cdef void send_apart(
    Core *core, const Endpoint *endpoint, const uint8_t *packet, size_t octets, int fragments
) noexcept nogil
