# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""UDP to TUN: receive a batch, tell it apart, open and write it; see ``_inbound.pxd``.

In the order a packet meets them: ``inbound_run``, ``_batch``, ``_datagram`` (RFC 3948), ``_esp``.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp

from fastpath._bytes cimport load32
from fastpath._core cimport (
    Core, InboundEntry, Lane, count, drop, gate_enter_batch, gate_leave_batch, rate_allows,
)
from fastpath._drops cimport DUMMY, KEEPALIVE, MALFORMED, QUEUE_FULL, SELECTOR, UNKNOWN_SPI
from fastpath._endpoint cimport Endpoint
from fastpath._esp cimport Opened, esp_open
from fastpath._events cimport (
    CONTROL, CONTROL_BARE, DUMMY_CAME, NEW_SOURCE, UNKNOWN, events_put, events_put_number,
    events_put_stranger,
)
from fastpath._inner cimport IPV6_HEADER, unwrap_transport, unwrap_tunnel
from fastpath._linux cimport (
    atomic_get, atomic_set, boottime, pthread_mutex_lock, pthread_mutex_unlock,
)
from fastpath._merge cimport (
    merger_drop, merger_flush, merger_free, merger_new, merger_place, merger_take,
)
from fastpath._outbound cimport OutboundWorker, outbound_serve
from fastpath._receiver cimport (
    Message, receiver_free, receiver_message, receiver_new, receiver_read,
)
from fastpath._table cimport table_get
from fastpath._traffic cimport Upper, traffic_holds, upper_of
from fastpath._turn cimport (
    READY_TUN, READY_UDP4, READY_UDP6, is_little, turn_pause, turn_to_sealing, turn_wait,
)

from fastpath import types

cdef int UNKNOWN_PER_SECOND = types.UNKNOWN_SPI_EVENTS_PER_SECOND
cdef int DUMMIES_PER_SECOND = types.DUMMY_EVENTS_PER_SECOND
cdef size_t DUMMY_HEAD = types.DUMMY_HEAD_OCTETS

cdef uint8_t[8] NO_SPI = [0, 0, 0, 0, 0, 0, 0, 0]

cdef enum:
    MARKER_OCTETS = 4
    IKE_HEADER = 28
    FIRST_EXCHANGE = 34  # IKE_SA_INIT
    LAST_EXCHANGE = 44  # IKE_FOLLOWUP_KE
    BATCHES = 64  # before the set of ready descriptors is asked for again
    BROKEN_UDP_MS = 100  # so long a socket that fails again and again is left alone
    ERRORS_IN_A_ROW = 16


cdef InboundWorker *inbound_new(Lane *lane, OutboundWorker *outbound) except NULL:
    cdef InboundWorker *worker = <InboundWorker *>calloc(1, sizeof(InboundWorker))
    if worker == NULL:
        raise MemoryError
    worker.lane = lane
    worker.outbound = outbound
    try:
        worker.receiver = receiver_new()
        worker.merger = merger_new(lane)
    except MemoryError:
        inbound_free(worker)
        raise
    return worker


cdef void inbound_free(InboundWorker *worker) noexcept nogil:
    if worker != NULL:
        receiver_free(worker.receiver)
        merger_free(worker.merger)
        free(worker)


cdef void inbound_run(InboundWorker *worker) noexcept nogil:
    """The thread: until ``core.stopping``."""
    cdef Lane *lane = worker.lane
    cdef uint32_t ready
    while not atomic_get(&lane.core.stopping):
        ready = turn_wait(lane.turn.opening)
        worker.packets = 0
        worker.octets = 0
        if ready & READY_TUN:
            worker.our_turn = True
        if ready & (READY_UDP4 | READY_UDP6) and not _serve_udp(worker, ready):
            _give_away(worker)
            turn_pause(&lane.turn, BROKEN_UDP_MS)
        # What we wrote may have been answered by now: before sleeping, look.
        if worker.our_turn and not _serve_tun(worker):
            _give_away(worker)
        if is_little(worker.packets, worker.octets):
            atomic_set(&lane.turn.calm, lane.turn.calm + 1)
        else:
            atomic_set(&lane.turn.calm, 0)


cdef bint _serve_udp(InboundWorker *worker, uint32_t ready) noexcept nogil:
    """What the sockets that are ready have; false when one fails."""
    cdef Lane *lane = worker.lane
    cdef bint more = True
    cdef int step
    for step in range(BATCHES):
        if not more or atomic_get(&lane.core.stopping):
            break
        more = False
        if ready & READY_UDP4 and not _batch(worker, lane.udp4, &more):
            return False
        if ready & READY_UDP6 and not _batch(worker, lane.udp6, &more):
            return False
        if worker.our_turn and is_little(worker.packets, worker.octets):
            break
    return True


cdef bint _serve_tun(InboundWorker *worker) noexcept nogil:
    """One burst; false when there is more to do than one thread should."""
    cdef OutboundWorker *outbound = worker.outbound
    return (
        outbound_serve(outbound)
        and is_little(worker.packets, worker.octets)
        and is_little(outbound.count, outbound.burst)
    )


cdef void _give_away(InboundWorker *worker) noexcept nogil:
    if worker.our_turn:
        worker.our_turn = False
        turn_to_sealing(&worker.lane.turn)


cdef bint _batch(InboundWorker *worker, int fd, bint *more) noexcept nogil:
    """One batch of one socket; sets ``more`` when there was something, false when it fails."""
    cdef Message message
    cdef size_t offset
    cdef double now
    cdef int index
    cdef int got = -1
    cdef int errors = 0
    cdef int wanted = 0
    while got < 0 and errors < ERRORS_IN_A_ROW:
        wanted = worker.receiver.wanted
        got = receiver_read(worker.receiver, fd)  # an error of an earlier send shows up here, once
        errors += 1
    if got <= 0:
        merger_flush(worker.merger)
        return got == 0
    more[0] = True
    worker.packets += got
    now = boottime()
    gate_enter_batch(&worker.lane.inbound_gate)
    for index in range(got):
        receiver_message(worker.receiver, index, &message)
        worker.octets += message.octets
        if message.truncated:
            drop(&worker.lane.received, NULL, MALFORMED)
            continue
        offset = 0
        while True:
            _datagram(worker, message.data + offset,
                      min(message.segment, message.octets - offset), &message.source, now)
            offset += message.segment
            if offset >= message.octets:
                break
    if got < wanted:
        merger_flush(worker.merger)  # else more comes at once, which may belong to the run
    _hold(worker, NULL)
    gate_leave_batch(&worker.lane.inbound_gate)
    return True


cdef void _datagram(
    InboundWorker *worker, const uint8_t *data, size_t octets, const Endpoint *source, double now
) noexcept nogil:
    """What it is (RFC 3948 §2); a known SPI goes before what merely looks like IKE."""
    cdef Core *core = worker.lane.core
    cdef InboundEntry *entry
    cdef bint told
    if octets == 1 and data[0] == 0xFF:
        drop(&worker.lane.received, NULL, KEEPALIVE)
        return
    if octets < MARKER_OCTETS:
        drop(&worker.lane.received, NULL, MALFORMED)
        return
    cdef uint32_t spi = load32(data)
    if spi == 0:
        _ike(worker, CONTROL, source, data + MARKER_OCTETS, octets - MARKER_OCTETS)
        return
    entry = <InboundEntry *>table_get(&core.inbound, 0, spi)
    if entry != NULL:
        _hold(worker, entry)
        _esp(worker, entry, data, octets, source, now)
    elif _looks_like_ike(data, octets):
        _ike(worker, CONTROL_BARE, source, data, octets)
    else:
        drop(&worker.lane.received, NULL, UNKNOWN_SPI)
        pthread_mutex_lock(&core.rates)
        told = rate_allows(&core.unknown, UNKNOWN_PER_SECOND, now)
        pthread_mutex_unlock(&core.rates)
        if told:
            _event(worker, UNKNOWN, spi, source, NULL, 0)


cdef inline bint _looks_like_ike(const uint8_t *data, size_t octets) noexcept nogil:
    return (
        octets >= IKE_HEADER
        and data[17] >> 4 == 2
        and FIRST_EXCHANGE <= data[18] <= LAST_EXCHANGE
        and load32(data + 24) == octets
    )


cdef void _ike(
    InboundWorker *worker, int kind, const Endpoint *source, const uint8_t *data, size_t octets
) noexcept nogil:
    """Hands an IKE message over; of first words, which anybody can send, fewer wait."""
    cdef bint queued
    if octets >= IKE_HEADER and data[18] == FIRST_EXCHANGE and not memcmp(data + 8, NO_SPI, 8):
        queued = events_put_stranger(&worker.lane.core.events, kind, source, data, octets)
    else:
        queued = events_put(&worker.lane.core.events, kind, 0, source, data, octets)
    if not queued:
        drop(&worker.lane.received, NULL, QUEUE_FULL)


cdef bint _event(
    InboundWorker *worker, int kind, uint32_t spi, const Endpoint *source,
    const uint8_t *data, size_t octets,
) noexcept nogil:
    if events_put(&worker.lane.core.events, kind, spi, source, data, octets):
        return True
    drop(&worker.lane.received, NULL, QUEUE_FULL)
    return False


cdef inline void _hold(InboundWorker *worker, InboundEntry *entry) noexcept nogil:
    """From here to the next call, only we open with ``entry``; ``NULL`` for none."""
    if worker.held == entry:
        return
    if worker.held != NULL:
        pthread_mutex_unlock(&worker.held.lock)
    if entry != NULL:
        pthread_mutex_lock(&entry.lock)
    worker.held = entry


cdef void _esp(
    InboundWorker *worker, InboundEntry *entry, const uint8_t *data, size_t octets,
    const Endpoint *source, double now,
) noexcept nogil:
    """Opens, holds the inner packet against the SA, and passes it on."""
    cdef Opened opened
    cdef Upper upper
    cdef uint64_t highest = entry.sa.window.top
    cdef uint8_t *packet = merger_place(worker.merger)
    cdef uint8_t *payload = packet + (IPV6_HEADER if entry.sa.transport else 0)
    cdef int reason = esp_open(&entry.sa, data, octets, payload, &opened)
    if entry.sa.window.top > highest and memcmp(&entry.source, source, sizeof(Endpoint)):
        if _event(worker, NEW_SOURCE, entry.sa.spi, source, NULL, 0):
            entry.source = source[0]
    if reason == 0 and entry.sa.transport:
        reason = unwrap_transport(&entry.sa, packet, &opened)
    elif reason == 0:
        reason = unwrap_tunnel(&entry.sa, packet, &opened)
    elif reason == DUMMY and opened.octets and rate_allows(
        &entry.dummies, DUMMIES_PER_SECOND, now
    ):
        if not events_put_number(
            &worker.lane.core.events, DUMMY_CAME, entry.sa.spi, <uint32_t>opened.octets, NULL,
            payload, min(opened.octets, DUMMY_HEAD),
        ):
            drop(&worker.lane.received, NULL, QUEUE_FULL)
    if reason == 0 and entry.sa.narrow:
        upper_of(packet, opened.octets, &upper)
        reason = 0 if traffic_holds(&entry.sa.traffic, &upper, False) else SELECTOR
    if reason:
        merger_drop(worker.merger, packet)
        drop(&worker.lane.received, &entry.passed, reason)
        return
    count(&worker.lane.received, &entry.passed, opened.octets, now)
    merger_take(worker.merger, packet, opened.octets)
