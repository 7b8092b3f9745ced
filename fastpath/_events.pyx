# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The event queue between the pump's threads and Python; see ``_events.pxd``."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from fastpath._endpoint cimport endpoint_show
from fastpath._linux cimport (
    EFD_CLOEXEC, EFD_NONBLOCK, close, eventfd, pthread_mutex_destroy, pthread_mutex_init,
    pthread_mutex_lock, pthread_mutex_unlock, read, write,
)

from fastpath import types

cdef size_t MAX_EVENTS = types.EVENT_QUEUE_PACKETS
cdef size_t MAX_OCTETS = types.EVENT_QUEUE_OCTETS
cdef size_t MAX_STRANGERS = types.EVENT_QUEUE_STRANGERS


cdef int events_init(EventQueue *queue) except -1:
    """Makes an empty queue; after an exception, :func:`events_clear` frees what was made."""
    cdef int index
    memset(queue, 0, sizeof(EventQueue))
    pthread_mutex_init(&queue.lock, NULL)
    queue.fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
    if queue.fd < 0:
        raise OSError("no eventfd is left; raise the limit of open files (ulimit -n)")
    for index in range(2):
        # Touched only as far as it fills up, so an idle pump does not pay for it.
        queue.arenas[index].events = <Event *>malloc(MAX_EVENTS * sizeof(Event))
        queue.arenas[index].room = <uint8_t *>malloc(MAX_OCTETS)
        if queue.arenas[index].events == NULL or queue.arenas[index].room == NULL:
            raise MemoryError
    return 0


cdef void events_clear(EventQueue *queue) noexcept nogil:
    cdef int index
    for index in range(2):
        free(queue.arenas[index].events)
        free(queue.arenas[index].room)
    if queue.fd > 0:
        close(queue.fd)
    pthread_mutex_destroy(&queue.lock)


cdef bint events_put(
    EventQueue *queue, int kind, uint32_t spi, const Endpoint *source,
    const uint8_t *data, size_t octets,
) noexcept nogil:
    """As :func:`events_put_number`, for an event without a number."""
    return events_put_number(queue, kind, spi, 0, source, data, octets)


cdef bint events_put_number(
    EventQueue *queue, int kind, uint32_t spi, uint32_t number, const Endpoint *source,
    const uint8_t *data, size_t octets,
) noexcept nogil:
    """Queues an event with a copy of ``data``; false when the queue is full."""
    return _put(queue, kind, spi, number, source, data, octets, False)


cdef bint events_put_stranger(
    EventQueue *queue, int kind, uint32_t spi, const Endpoint *source,
    const uint8_t *data, size_t octets,
) noexcept nogil:
    """The same for a stranger's first message, of which it keeps fewer."""
    return _put(queue, kind, spi, 0, source, data, octets, True)


cdef bint _put(
    EventQueue *queue, int kind, uint32_t spi, uint32_t number, const Endpoint *source,
    const uint8_t *data, size_t octets, bint stranger,
) noexcept nogil:
    cdef Arena *arena
    cdef Event *event
    cdef uint64_t one = 1
    cdef bint first
    pthread_mutex_lock(&queue.lock)
    arena = &queue.arenas[queue.active]
    if (
        arena.count >= MAX_EVENTS
        or arena.used + octets > MAX_OCTETS
        or stranger and (arena.strangers >= MAX_STRANGERS or arena.used > MAX_OCTETS // 2)
    ):
        pthread_mutex_unlock(&queue.lock)
        return False
    first = arena.count == 0
    event = &arena.events[arena.count]
    event.kind = kind
    event.spi = spi
    event.number = number
    if source != NULL:
        event.source = source[0]
    event.offset = arena.used
    event.octets = octets
    if octets:
        memcpy(arena.room + arena.used, data, octets)
    arena.used += octets
    arena.count += 1
    arena.strangers += stranger
    if first:
        write(queue.fd, &one, sizeof(one))
    pthread_mutex_unlock(&queue.lock)
    return True


cdef list events_drain(EventQueue *queue):
    """All queued events as those of :mod:`fastpath.types`, oldest first."""
    cdef Arena *arena
    cdef uint64_t value
    cdef size_t index
    pthread_mutex_lock(&queue.lock)
    arena = &queue.arenas[queue.active]
    queue.active = 1 - queue.active
    queue.arenas[queue.active].count = 0
    queue.arenas[queue.active].used = 0
    queue.arenas[queue.active].strangers = 0
    read(queue.fd, &value, sizeof(value))
    pthread_mutex_unlock(&queue.lock)
    return [_event(arena, &arena.events[index]) for index in range(arena.count)]


cdef object _event(Arena *arena, Event *event):
    cdef bytes data = (<const char *>(arena.room + event.offset))[:event.octets]
    if event.kind == ACQUIRE:
        return types.AcquireEvent(data)
    if event.kind == LIFETIME:
        return types.LifetimeEvent(event.spi)
    if event.kind == DUMMY_CAME:
        return types.DummyEvent(event.spi, event.number, data)
    if event.kind == TOO_LARGE:
        return types.TooBigEvent(data, event.number)
    source = endpoint_show(&event.source)
    if event.kind == NEW_SOURCE:
        return types.NewSourceEvent(event.spi, source)
    if event.kind == MOBILITY_CAME:
        return types.MobilityEvent(event.spi, source, data)
    if event.kind == UNKNOWN:
        return types.UnknownSpiEvent(event.spi, source)
    return types.ControlEvent(data, source, event.kind == CONTROL, event.spi)
