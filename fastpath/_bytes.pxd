# Big-endian numbers at any address.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy


cdef extern from "<endian.h>" nogil:
    uint16_t be16toh(uint16_t)
    uint32_t be32toh(uint32_t)
    uint16_t htobe16(uint16_t)
    uint32_t htobe32(uint32_t)
    uint64_t htobe64(uint64_t)


cdef inline uint16_t load16(const uint8_t *place) noexcept nogil:
    cdef uint16_t value
    memcpy(&value, place, 2)
    return be16toh(value)


cdef inline uint32_t load32(const uint8_t *place) noexcept nogil:
    cdef uint32_t value
    memcpy(&value, place, 4)
    return be32toh(value)


cdef inline void store16(uint8_t *place, uint16_t value) noexcept nogil:
    value = htobe16(value)
    memcpy(place, &value, 2)


cdef inline void store32(uint8_t *place, uint32_t value) noexcept nogil:
    value = htobe32(value)
    memcpy(place, &value, 4)


cdef inline void store64(uint8_t *place, uint64_t value) noexcept nogil:
    value = htobe64(value)
    memcpy(place, &value, 8)
