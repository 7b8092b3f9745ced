# Checksums of what stands in IPv6 (RFC 8200 §8.1), with the layout of TCP and UDP headers.

from libc.stdint cimport uint8_t, uint16_t, uint64_t
from libc.string cimport memcpy

from fastpath._bytes cimport htobe32

cdef extern from "checksum.h" nogil:
    uint64_t checksum_add(const uint8_t *data, size_t octets, uint64_t sum)
    uint16_t checksum_fold(uint64_t sum)

cdef enum:
    TCP = 6
    UDP = 17
    TCP_HEADER = 20  # without options
    UDP_HEADER = 8
    TCP_SEQUENCE = 4  # offsets in the header
    TCP_FLAGS = 13
    TCP_CHECKSUM = 16
    UDP_LENGTH = 4
    UDP_CHECKSUM = 6
    FIN = 0x01
    PSH = 0x08
    ACK = 0x10
    CWR = 0x80


cdef inline uint64_t pseudo_sum(
    const uint8_t *packet, uint8_t protocol, size_t octets
) noexcept nogil:
    # Of the pseudo-header: both addresses, upper-layer length, next header.
    return checksum_add(packet + 8, 32, <uint64_t>htobe32(<unsigned int>octets)
                        + htobe32(protocol))


cdef inline void checksum_store(uint8_t *place, uint64_t sum, bint is_udp) noexcept nogil:
    cdef uint16_t value = <uint16_t>~checksum_fold(sum)
    if is_udp and value == 0:
        value = 0xFFFF  # 0 would say that there is none
    memcpy(place, &value, 2)
