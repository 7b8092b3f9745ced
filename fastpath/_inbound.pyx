# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""UDP to TUN: receive a batch, tell it apart, open and write it; see ``_inbound.pxd``.

In the order a packet meets them: ``inbound_run``, ``_batch``, ``_datagram`` (RFC 3948), ``_esp``;
through a home agent: ``_nested``, and then ``_deliver`` and ``_esp``, or ``_forward``.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memmove, memset

from fastpath._bytes cimport load32
from fastpath._checksum cimport UDP_HEADER
from fastpath._core cimport (
    Core, InboundEntry, Lane, Relay, count, count_own, drop, gate_enter_batch, gate_leave_batch,
    host_key, rate_allows,
)
from fastpath._drops cimport (
    DUMMY, FOREIGN_SOURCE, KEEPALIVE, MALFORMED, NOT_RELAYED, QUEUE_FULL, RELAY_LIMIT, SELECTOR,
    UNKNOWN_SPI,
)
from fastpath._endpoint cimport Endpoint
from fastpath._esp cimport HEADER_OCTETS, Opened, esp_open
from fastpath._events cimport (
    CONTROL, CONTROL_BARE, DUMMY_CAME, MOBILITY_CAME, NEW_SOURCE, UNKNOWN, events_put,
    events_put_number, events_put_stranger,
)
from fastpath._inner cimport IPV6_HEADER, unwrap_transport, unwrap_tunnel
from fastpath._linux cimport (
    AF_INET6, atomic_get, atomic_set, boottime, pthread_mutex_lock, pthread_mutex_trylock,
    pthread_mutex_unlock,
)
from fastpath._merge cimport (
    merger_drop, merger_flush, merger_free, merger_new, merger_place, merger_take,
)
from fastpath._outbound cimport OutboundWorker, outbound_serve
from fastpath._receiver cimport (
    Message, receiver_free, receiver_message, receiver_new, receiver_read,
)
from fastpath._relay cimport (
    FIRST_EXCHANGE, IKE_HEADER, NESTED_HEADER, RELAY_PORT, is_whole, looks_like_ike, relay_allows,
    relay_follow, relay_hold, relay_is_inside, relay_read, relay_seal,
)
from fastpath._sender cimport (
    Sender, sender_add, sender_finish, sender_flush, sender_free, sender_new, sender_place,
)
from fastpath._table cimport table_get
from fastpath._traffic cimport MOBILITY, Upper, is_mobility, traffic_holds, upper_of
from fastpath._turn cimport (
    READY_TUN, READY_UDP4, READY_UDP6, is_little, turn_pause, turn_to_sealing, turn_wait,
)
from fastpath._whole cimport send_whole

from fastpath import types

cdef int UNKNOWN_PER_SECOND = types.UNKNOWN_SPI_EVENTS_PER_SECOND
cdef int DUMMIES_PER_SECOND = types.DUMMY_EVENTS_PER_SECOND
cdef size_t DUMMY_HEAD = types.DUMMY_HEAD_OCTETS
cdef int MOVES_PER_SECOND = types.NEW_SOURCE_EVENTS_PER_SECOND
cdef int PROBES_PER_SECOND = types.RELAYED_PROBES_PER_SECOND
cdef int MOBILITIES_PER_SECOND = types.MOBILITY_EVENTS_PER_SECOND
cdef size_t MOBILITY_OCTETS = types.MOBILITY_OCTETS

cdef uint8_t[8] NO_SPI = [0, 0, 0, 0, 0, 0, 0, 0]

cdef enum:
    MARKER_OCTETS = 4
    SMALLEST_MOBILITY = 8  # octets of a Mobility Header (RFC 6275 §6.1.1)
    FORWARDED_OCTETS = 640 * 1024  # what a batch of large messages brings
    SEAL_ROOM = 64  # behind an opened packet, for what sealing it adds
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
        worker.forwarded = sender_new(lane, &lane.received, FORWARDED_OCTETS)
    except MemoryError:
        inbound_free(worker)
        raise
    return worker


cdef void inbound_free(InboundWorker *worker) noexcept nogil:
    if worker != NULL:
        receiver_free(worker.receiver)
        merger_free(worker.merger)
        sender_free(worker.forwarded)
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
    cdef Core *core = worker.lane.core
    cdef Message message
    cdef size_t offset
    cdef bint inside
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
    now = worker.forwarded.now = boottime()
    gate_enter_batch(&worker.lane.inbound_gate)
    worker.relay = NULL
    for index in range(got):
        receiver_message(worker.receiver, index, &message)
        worker.octets += message.octets
        if message.truncated:
            drop(&worker.lane.received, NULL, MALFORMED)
            continue
        offset = 0
        inside = message.source.family == AF_INET6 and relay_is_inside(core, &message.source)
        while True:
            if inside:
                drop(&worker.lane.received, NULL, FOREIGN_SOURCE)
            else:
                _datagram(worker, message.data + offset,
                          min(message.segment, message.octets - offset), &message.source, now)
            offset += message.segment
            if offset >= message.octets:
                break
    if got < wanted:
        merger_flush(worker.merger)  # else more comes at once, which may belong to the run
    _hold(worker, NULL)
    gate_leave_batch(&worker.lane.inbound_gate)
    if worker.forwarded.holds:
        sender_finish(worker.forwarded, True)
    return True


cdef void _datagram(
    InboundWorker *worker, const uint8_t *data, size_t octets, const Endpoint *source, double now
) noexcept nogil:
    """What it is (RFC 3948 §2); a known SPI goes before what merely looks like IKE."""
    cdef InboundEntry *entry
    if octets == 1 and data[0] == 0xFF:
        drop(&worker.lane.received, NULL, KEEPALIVE)
        return
    if octets < MARKER_OCTETS:
        drop(&worker.lane.received, NULL, MALFORMED)
        return
    cdef uint32_t spi = load32(data)
    if spi == 0:
        _ike(worker, CONTROL, 0, source, data + MARKER_OCTETS, octets - MARKER_OCTETS)
        return
    entry = <InboundEntry *>table_get(&worker.lane.core.inbound, 0, spi)
    if entry != NULL:
        _hold(worker, entry)
        if entry.sa.relay:
            _nested(worker, entry, data, octets, source, now)
        else:
            _esp(worker, entry, data, octets, source, now)
    elif looks_like_ike(data, octets):
        _ike(worker, CONTROL_BARE, 0, source, data, octets)
    else:
        _unknown_spi(worker, spi, source, now)


cdef void _unknown_spi(
    InboundWorker *worker, uint32_t spi, const Endpoint *source, double now
) noexcept nogil:
    cdef Core *core = worker.lane.core
    cdef bint told
    drop(&worker.lane.received, NULL, UNKNOWN_SPI)
    pthread_mutex_lock(&core.rates)
    told = rate_allows(&core.unknown, UNKNOWN_PER_SECOND, now)
    pthread_mutex_unlock(&core.rates)
    if told:
        _event(worker, UNKNOWN, spi, source, NULL, 0)


cdef void _ike(
    InboundWorker *worker, int kind, uint32_t relay_spi, const Endpoint *source,
    const uint8_t *data, size_t octets,
) noexcept nogil:
    """Hands an IKE message over; of first words, which anybody can send, fewer wait."""
    cdef bint queued
    if octets >= IKE_HEADER and data[18] == FIRST_EXCHANGE and not memcmp(data + 8, NO_SPI, 8):
        queued = events_put_stranger(
            &worker.lane.core.events, kind, relay_spi, source, data, octets)
    else:
        queued = events_put(
            &worker.lane.core.events, kind, relay_spi, source, data, octets)
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
    if worker.held != entry:
        _hold_inside(worker, NULL)
        if worker.held != NULL:
            pthread_mutex_unlock(&worker.held.lock)
        if entry != NULL:
            _lock(worker, entry)
        worker.held = entry


cdef void _hold_inside(InboundWorker *worker, InboundEntry *entry) noexcept nogil:
    """The same for the SA whose packets came nested. Only who holds a relay SA waits for it, and a
    relay SA is never inside; so no two can wait for each other."""
    if worker.held_inside != entry:
        if worker.held_inside != NULL:
            pthread_mutex_unlock(&worker.held_inside.lock)
        if entry != NULL:
            _lock(worker, entry)
        worker.held_inside = entry


cdef void _lock(InboundWorker *worker, InboundEntry *entry) noexcept nogil:
    """Who waits for an SA to open with holds none to seal with."""
    if pthread_mutex_trylock(&entry.lock):
        if worker.forwarded.holds:
            sender_finish(worker.forwarded, False)
        pthread_mutex_lock(&entry.lock)


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
    _newest(worker, entry, highest, source)
    if reason == 0 and entry.sa.transport:
        reason = unwrap_transport(&entry.sa, packet, &opened)
    elif reason == 0:
        reason = unwrap_tunnel(&entry.sa, packet, &opened)
    elif reason == DUMMY:
        _dummy(worker, entry, payload, &opened, now)
    if reason == 0 and entry.sa.narrow:
        upper_of(packet, opened.octets, &upper)
        reason = 0 if traffic_holds(&entry.sa.traffic, &upper, False) else SELECTOR
    if reason:
        merger_drop(worker.merger, packet)
        drop(&worker.lane.received, &entry.passed, reason)
        return
    if is_mobility(packet, opened.octets):
        _mobility(worker, entry, packet, opened.octets, source, now)
        merger_drop(worker.merger, packet)
        return
    count(&worker.lane.received, &entry.passed, opened.octets, now)
    merger_take(worker.merger, packet, opened.octets)


cdef inline void _newest(
    InboundWorker *worker, InboundEntry *entry, uint64_t highest, const Endpoint *source
) noexcept nogil:
    """Only the newest packet moves the source, and not too often: a later one tells of it."""
    if (
        entry.sa.window.top > highest
        and memcmp(&entry.source, source, sizeof(Endpoint))
        and rate_allows(&entry.moves, MOVES_PER_SECOND, worker.forwarded.now)
    ):
        if _event(worker, NEW_SOURCE, entry.sa.spi, source, NULL, 0):
            entry.source = source[0]


cdef void _dummy(
    InboundWorker *worker, InboundEntry *entry, const uint8_t *payload, const Opened *opened,
    double now,
) noexcept nogil:
    """Only one that carries something is told, and not too many of them."""
    if opened.octets == 0 or not rate_allows(&entry.dummies, DUMMIES_PER_SECOND, now):
        return
    if not events_put_number(
        &worker.lane.core.events, DUMMY_CAME, entry.sa.spi, <uint32_t>opened.octets, NULL,
        payload, min(opened.octets, DUMMY_HEAD),
    ):
        drop(&worker.lane.received, NULL, QUEUE_FULL)


cdef void _mobility(
    InboundWorker *worker, InboundEntry *entry, const uint8_t *packet, size_t octets,
    const Endpoint *source, double now,
) noexcept nogil:
    """Hands a Mobility Header over; it stands right behind the IPv6 header."""
    cdef size_t size = octets - IPV6_HEADER
    if packet[6] != MOBILITY or not SMALLEST_MOBILITY <= size <= MOBILITY_OCTETS:
        drop(&worker.lane.received, &entry.passed, MALFORMED)
    elif not rate_allows(&entry.mobility, MOBILITIES_PER_SECOND, now):
        drop(&worker.lane.received, &entry.passed, QUEUE_FULL)
    else:
        count(&worker.lane.received, &entry.passed, octets, now)
        _event(worker, MOBILITY_CAME, entry.sa.spi, source, packet + IPV6_HEADER, size)


# --- Nested packets -------------------------------------------------------------------------------


cdef void _nested(
    InboundWorker *worker, InboundEntry *entry, const uint8_t *data, size_t octets,
    const Endpoint *source, double now,
) noexcept nogil:
    """Opens a packet of a relay SA right where it will be sealed again, if it is not for us."""
    cdef Opened opened
    cdef bint is_ike = False
    cdef uint64_t highest = entry.sa.window.top
    cdef uint8_t *place = sender_place(worker.forwarded, octets + SEAL_ROOM)
    cdef uint8_t *packet = place + HEADER_OCTETS
    cdef int reason = esp_open(&entry.sa, data, octets, packet, &opened)
    _newest(worker, entry, highest, source)
    if reason == DUMMY:
        _dummy(worker, entry, packet, &opened, now)
    if reason == 0:
        reason = relay_read(packet, &opened, &is_ike)
    if reason == 0:
        if memcmp(packet + 24, worker.lane.core.host_id, 16):
            reason = _forward(worker, entry, place, opened.octets, now)
        else:
            reason = _deliver(worker, entry, packet, opened.octets, is_ike, now)
    if reason:
        drop(&worker.lane.received, &entry.passed, reason)


cdef int _deliver(
    InboundWorker *worker, InboundEntry *entry, const uint8_t *packet, size_t octets, bint is_ike,
    double now,
) noexcept nogil:
    """What is for us, as if it had just come from the relay endpoint of its source; or a Drop."""
    cdef Endpoint source
    cdef InboundEntry *inside = NULL
    cdef uint32_t spi = load32(packet + NESTED_HEADER)
    # A host id is a ULA; so no answer to it leaves for an outer address.
    if not memcmp(packet + 8, worker.lane.core.host_id, 16) or packet[8] & 0xFE != 0xFC:
        return FOREIGN_SOURCE
    if not is_ike:
        inside = <InboundEntry *>table_get(&worker.lane.core.inbound, 0, spi)
        if inside != NULL and inside.sa.relay:
            return NOT_RELAYED  # nested in a nested packet
        if inside != NULL and memcmp(packet + 8, inside.sa.peer_id, 16):
            return FOREIGN_SOURCE
    count_own(&entry.passed, octets, now)
    memset(&source, 0, sizeof(Endpoint))
    source.family = <uint16_t>AF_INET6
    source.port = RELAY_PORT
    memcpy(source.ip, packet + 8, 16)
    packet += NESTED_HEADER
    octets -= NESTED_HEADER
    if is_ike:
        _ike(worker, CONTROL_BARE, entry.sa.spi, &source,
             packet + UDP_HEADER, octets - UDP_HEADER)
    elif inside == NULL:
        _unknown_spi(worker, spi, &source, now)
    else:
        _hold_inside(worker, inside)
        _esp(worker, inside, packet, octets, &source, now)
    return 0


cdef int _forward(
    InboundWorker *worker, InboundEntry *entry, uint8_t *place, size_t octets, double now
) noexcept nogil:
    """Home agent only: seals what stands behind ``place`` in another relay SA; or a Drop.

    A host speaks for itself alone, so nothing is forwarded twice.
    """
    cdef Sender *sender = worker.forwarded
    cdef uint8_t *packet = place + HEADER_OCTETS
    cdef uint8_t *target
    cdef size_t sealed
    cdef bint whole
    if not _way(worker, packet + 24) or not memcmp(packet + 24, entry.sa.peer_id, 16):
        return NOT_RELAYED
    if memcmp(packet + 8, entry.sa.peer_id, 16):
        return FOREIGN_SOURCE
    if worker.hop.entry == NULL or packet[7] <= 1:
        return NOT_RELAYED
    whole = is_whole(packet)
    if whole and not rate_allows(&entry.probes, PROBES_PER_SECOND, now):
        return RELAY_LIMIT
    if not relay_allows(worker.lane.core, entry.sa.peer_id, octets, now):
        return RELAY_LIMIT
    count_own(&entry.passed, octets, now)
    relay_hold(sender, NULL, &worker.hop)
    target = sender_place(sender, octets + SEAL_ROOM)
    if target != place:  # waiting for the SA sent what was there
        memmove(target + HEADER_OCTETS, packet, octets)
    target[HEADER_OCTETS + 7] -= 1
    sealed = relay_seal(sender, &worker.hop, target, octets)
    if sealed:
        if whole:
            sender_flush(sender, False)  # what came before goes before; `target` stays
            send_whole(worker.lane, worker.hop.endpoint, target, sealed)
        else:
            sender_add(sender, worker.hop.endpoint, sealed)
        worker.lane.relayed_packets += 1
        worker.lane.relayed_octets += octets
    return 0


cdef bint _way(InboundWorker *worker, const uint8_t *host_id) noexcept nogil:
    """Whether packets of others go to a host; ``worker.hop`` says how, its entry ``NULL`` if they
    cannot now. It is mostly the one that the packet before went to."""
    cdef Core *core = worker.lane.core
    cdef uint64_t key[2]
    if worker.relay != NULL and memcmp(worker.relay_id, host_id, 16) == 0:
        return True
    host_key(host_id, key)
    worker.relay = <const Relay *>table_get(&core.relays, key[0], key[1])
    if worker.relay == NULL or not worker.relay.forward:
        worker.relay = NULL
        return False
    memcpy(worker.relay_id, host_id, 16)
    worker.hop.entry = NULL
    relay_follow(core, worker.relay, worker.relay_id, &worker.hop)
    return True
