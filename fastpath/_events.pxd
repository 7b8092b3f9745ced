# What the pump's threads tell the control plane (the events of fastpath/types.py), bounded.
#
# Two arenas: the threads write into one while Python reads the other. A put allocates nothing.

from libc.stdint cimport uint8_t, uint32_t

from fastpath._endpoint cimport Endpoint
from fastpath._linux cimport pthread_mutex_t

cdef enum:
    ACQUIRE = 1
    CONTROL = 2  # the non-ESP marker was there and is stripped
    CONTROL_BARE = 3  # spi: of the relay SA that it came nested in, or 0
    NEW_SOURCE = 4
    LIFETIME = 5
    UNKNOWN = 6
    DUMMY_CAME = 7  # number: octets that it carried
    TOO_LARGE = 8  # number: the largest that goes
    MOBILITY_CAME = 9

cdef struct Event:
    int kind
    uint32_t spi
    uint32_t number
    Endpoint source
    size_t offset  # of its octets in the arena
    size_t octets

cdef struct Arena:
    Event *events
    uint8_t *room
    size_t count
    size_t used
    size_t strangers  # of the count

cdef struct EventQueue:
    pthread_mutex_t lock
    Arena arenas[2]
    int active
    int fd

cdef int events_init(EventQueue *queue) except -1
cdef void events_clear(EventQueue *queue) noexcept nogil
cdef bint events_put(
    EventQueue *queue, int kind, uint32_t spi, const Endpoint *source,
    const uint8_t *data, size_t octets,
) noexcept nogil
cdef bint events_put_stranger(
    EventQueue *queue, int kind, uint32_t spi, const Endpoint *source,
    const uint8_t *data, size_t octets,
) noexcept nogil
cdef bint events_put_number(
    EventQueue *queue, int kind, uint32_t spi, uint32_t number, const Endpoint *source,
    const uint8_t *data, size_t octets,
) noexcept nogil
cdef list events_drain(EventQueue *queue)
