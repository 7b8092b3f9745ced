# A path MTU probe: sent whole, or not at all.

from libc.stdint cimport uint8_t

from fastpath._core cimport Lane
from fastpath._endpoint cimport Endpoint

cdef void send_whole(
    Lane *lane, const Endpoint *endpoint, const uint8_t *packet, size_t octets
) noexcept nogil
