# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""TUN to UDP: read a burst, seal it under the gate, send it; see ``_outbound.pxd``.

In the order a packet meets them: ``outbound_serve``, ``_read_burst``, ``_frame``,
``_find_way`` (policy), ``_pass``, ``_seal``; then ``sender_flush`` outside the gate.
"""

from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy

from fastpath._bytes cimport load16, load32, store16, store32
from fastpath._core cimport (
    Core, Flow, Lane, OutboundEntry, count, drop, gate_enter_batch, gate_leave_batch, host_key,
    rate_allows,
)
from fastpath._drops cimport (
    FOREIGN_SOURCE, MALFORMED, NO_FLOW, NOT_RELAYED, QUEUE_FULL, SELECTOR, TOO_BIG,
)
from fastpath._esp cimport IPV6, NO_NEXT_HEADER, OVERHEAD_OCTETS, SLACK_OCTETS, esp_seal
from fastpath._events cimport ACQUIRE, LIFETIME, TOO_LARGE, events_put, events_put_number
from fastpath._inner cimport IPV6_HEADER, is_ipv6, never_tunnelled
from fastpath._linux cimport (
    atomic_get, atomic_next, boottime, pthread_mutex_lock, pthread_mutex_unlock, read,
)
from fastpath._relay cimport (
    NESTED_LEAD, NESTED_OVERHEAD, Hop, hop_hold, hop_to, relay_hold, relay_nest_esp, relay_send,
)
from fastpath._segment cimport VNET_OCTETS, Cut, Vnet, cut_begin, cut_next
from fastpath._sender cimport (
    MAX_DATAGRAM, SENDER_OCTETS, sender_add, sender_finish, sender_flush, sender_free, sender_hold,
    sender_new, sender_place,
)
from fastpath._source cimport Source, send_from
from fastpath._table cimport table_get
from fastpath._traffic cimport Upper, is_mobility, traffic_holds, upper_of
from fastpath._turn cimport (
    CALM_ROUNDS, READY_TUN, is_little, turn_pause, turn_to_opening, turn_wait,
)
from fastpath._whole cimport send_whole

from fastpath import types

cdef uint64_t SOFT_LIMIT = types.SOFT_LIMIT_PACKETS
cdef int TOO_BIG_PER_SECOND = types.TOO_BIG_EVENTS_PER_SECOND
cdef size_t QUOTE_OCTETS = types.QUOTE_OCTETS

cdef struct Way:
    OutboundEntry *entry  # NULL: `reason` says why
    Flow *flow
    Hop hop
    bint reachable  # else there is no way to the flow's endpoint
    int reason
    bint acquire  # the control plane is asked for a way

cdef enum:
    PIECE_HEADERS = 48  # IPv6 and its fragment header (RFC 8200 §4.5)
    PIECE_OCTETS = 1280
    HOP_BY_HOP = 0
    ROUTING = 43
    FRAGMENT = 44
    DESTINATION_OPTIONS = 60
    BROKEN_TUN_MS = 100  # so long a device that fails is left alone (it may come up again)


cdef OutboundWorker *outbound_new(Lane *lane) except NULL:
    cdef OutboundWorker *worker = <OutboundWorker *>calloc(1, sizeof(OutboundWorker))
    if worker == NULL:
        raise MemoryError
    worker.lane = lane
    worker.room = <uint8_t *>malloc(BURST_OCTETS)
    try:
        worker.sender = sender_new(lane, &lane.sent, SENDER_OCTETS)
        if worker.room == NULL:
            raise MemoryError
    except MemoryError:
        outbound_free(worker)
        raise
    return worker


cdef void outbound_free(OutboundWorker *worker) noexcept nogil:
    if worker != NULL:
        sender_free(worker.sender)
        free(worker.room)
        free(worker)


cdef void outbound_run(OutboundWorker *worker) noexcept nogil:
    """The thread: until ``core.stopping``. It sleeps while the other one serves TUN."""
    cdef Lane *lane = worker.lane
    cdef Core *core = lane.core
    cdef uint64_t calm = 0
    while not atomic_get(&core.stopping):
        if not turn_wait(lane.turn.sealing) & READY_TUN:
            continue
        while not atomic_get(&core.stopping):
            if not outbound_serve(worker):
                turn_pause(&lane.turn, BROKEN_TUN_MS)
            if worker.count == 0:
                break
            calm = calm + 1 if is_little(worker.count, worker.burst) else 0
        if calm >= CALM_ROUNDS and atomic_get(&lane.turn.calm) >= CALM_ROUNDS:
            calm = 0
            turn_to_opening(&lane.turn)


cdef bint outbound_serve(OutboundWorker *worker) noexcept nogil:
    cdef Lane *lane = worker.lane
    cdef bint works = _read_burst(worker)
    cdef int index
    if worker.count:
        worker.sender.now = boottime()
        gate_enter_batch(&lane.outbound_gate)
        for index in range(worker.count):
            _frame(worker.sender, worker.room + worker.offsets[index], worker.octets[index])
        gate_leave_batch(&lane.outbound_gate)
        sender_finish(worker.sender, True)
    return works


cdef bint _read_burst(OutboundWorker *worker) noexcept nogil:
    """Reads what TUN has, up to a burst; false when the device fails."""
    cdef size_t used = 0
    cdef ssize_t got
    worker.count = 0
    worker.burst = 0
    while worker.count < BURST_FRAMES and used + FRAME_OCTETS + SLACK_OCTETS <= BURST_OCTETS:
        got = read(worker.lane.tun, worker.room + used, FRAME_OCTETS)
        if got <= 0:
            return got < 0 and errno in (EAGAIN, EINTR)
        worker.offsets[worker.count] = used
        worker.octets[worker.count] = <size_t>got
        worker.count += 1
        worker.burst += <size_t>got
        used += (<size_t>got + SLACK_OCTETS + 63) & ~<size_t>63
    return True


cdef void _frame(Sender *sender, uint8_t *frame, size_t octets) noexcept nogil:
    """A frame is one packet, or behind a virtio header many; their policy is asked once."""
    cdef Vnet vnet
    cdef Cut cut
    cdef Way way
    cdef uint8_t *packet
    cdef size_t mtu
    cdef Core *core = sender.lane.core
    if not core.vnet_hdr:
        outbound_packet(sender, frame, octets)
        return
    if octets < VNET_OCTETS:
        drop(&sender.lane.sent, NULL, MALFORMED)
        return
    memcpy(&vnet, frame, VNET_OCTETS)
    frame += VNET_OCTETS
    octets -= VNET_OCTETS
    _find_way(sender, frame, octets, &way)
    mtu = atomic_get(&core.mtu)
    if way.entry != NULL:
        mtu = min(mtu, way.flow.mtu)
    if not cut_begin(&cut, &vnet, frame, octets, mtu):
        drop(&sender.lane.sent, NULL, MALFORMED)
        return
    while cut_next(&cut, &packet, &octets):
        _pass(sender, &way, packet, octets)


cdef void outbound_packet(Sender *sender, uint8_t *packet, size_t octets) noexcept nogil:
    """One inner packet: its policy, then :func:`_pass`."""
    cdef Way way
    _find_way(sender, packet, octets, &way)
    _pass(sender, &way, packet, octets)


cdef void _find_way(
    Sender *sender, const uint8_t *packet, size_t octets, Way *way
) noexcept nogil:
    """The SA and endpoint of an inner packet, or the reason why there are none."""
    cdef Core *core = sender.lane.core
    cdef uint64_t key[2]
    way.entry = NULL
    way.acquire = False
    if not is_ipv6(packet, octets):
        way.reason = MALFORMED
    elif never_tunnelled(packet + 24):
        way.reason = NO_FLOW
    elif memcmp(packet + 8, core.host_id, 16):
        way.reason = FOREIGN_SOURCE
    elif is_mobility(packet, octets):  # applications do not speak for the host
        way.reason = NO_FLOW
    else:
        way.reason = NO_FLOW
        host_key(packet + 24, key)
        way.flow = <Flow *>table_get(&core.flows, key[0], key[1])
        if way.flow != NULL:
            if way.flow.narrows:
                way.entry = _narrow(core, way.flow, packet, octets)
            if way.entry == NULL:
                way.entry = <OutboundEntry *>table_get(&core.outbound, 0, way.flow.spi)
        way.acquire = way.entry == NULL
        if way.entry != NULL:
            way.reachable = hop_to(core, &way.flow.endpoint, &way.hop)
            hop_hold(sender, way.entry, &way.hop)


cdef OutboundEntry *_narrow(
    Core *core, const Flow *flow, const uint8_t *packet, size_t octets
) noexcept nogil:
    """The SA of the first narrow way that holds this packet, if there is one."""
    cdef OutboundEntry *entry
    cdef Upper upper
    cdef int number
    upper_of(packet, octets, &upper)
    for number in range(flow.narrows):
        if traffic_holds(&flow.narrow[number].traffic, &upper, True):
            entry = <OutboundEntry *>table_get(&core.outbound, 0, flow.narrow[number].spi)
            if entry != NULL:
                return entry
    return NULL


cdef void _pass(
    Sender *sender, const Way *way, uint8_t *packet, size_t octets
) noexcept nogil:
    """Seals one inner packet, or counts why not."""
    cdef OutboundEntry *entry = way.entry
    cdef bint sealed
    if entry == NULL:
        drop(&sender.lane.sent, NULL, way.reason)
        if way.acquire and not events_put(
            &sender.lane.core.events, ACQUIRE, 0, NULL, packet, octets
        ):
            drop(&sender.lane.sent, NULL, QUEUE_FULL)
        return
    if octets > way.flow.largest:
        _refuse(sender, way, packet, octets)
        return
    if not way.reachable:
        drop(&sender.lane.sent, &entry.passed, NOT_RELAYED)
        return
    if octets > way.flow.mtu:
        sealed = _split(sender, way, packet, octets)
    else:
        sealed = _wrap(sender, entry, &way.hop, packet, octets)
    if sealed:
        count(&sender.lane.sent, &entry.passed, octets, sender.now)


cdef inline bint _wrap(
    Sender *sender, OutboundEntry *entry, const Hop *hop, uint8_t *packet, size_t octets
) noexcept nogil:
    """Seals what the mode of the SA carries of a whole packet."""
    if entry.sa.transport:
        return _seal(sender, entry, hop, packet + IPV6_HEADER, octets - IPV6_HEADER, packet[6],
                     False)
    return _seal(sender, entry, hop, packet, octets, IPV6, False)


cdef bint _split(
    Sender *sender, const Way *way, uint8_t *packet, size_t octets
) noexcept nogil:
    """Seals a packet that is larger than the path in pieces: ``split`` of the reference."""
    cdef uint8_t piece[PIECE_OCTETS + SLACK_OCTETS]
    cdef uint8_t kind = packet[6]
    cdef size_t at = IPV6_HEADER
    cdef size_t room, part
    cdef uint32_t field = 0
    cdef uint32_t identification
    identification = <uint32_t>atomic_next(&sender.lane.core.splits)
    if kind in (HOP_BY_HOP, ROUTING, DESTINATION_OPTIONS):
        return _wrap(sender, way.entry, &way.hop, packet, octets)
    if kind == FRAGMENT:
        if octets < PIECE_HEADERS:
            return _wrap(sender, way.entry, &way.hop, packet, octets)
        kind = packet[IPV6_HEADER]
        field = load16(packet + IPV6_HEADER + 2)
        identification = load32(packet + IPV6_HEADER + 4)
        at = PIECE_HEADERS
    room = (min(way.flow.mtu, <size_t>PIECE_OCTETS) - PIECE_HEADERS) & ~<size_t>7
    memcpy(piece, packet, IPV6_HEADER)
    piece[6] = FRAGMENT
    piece[IPV6_HEADER] = kind
    piece[IPV6_HEADER + 1] = 0
    store32(piece + IPV6_HEADER + 4, identification)
    while at < octets:
        part = min(room, octets - at)
        store16(piece + 4, <unsigned short>(PIECE_HEADERS - IPV6_HEADER + part))
        store16(piece + IPV6_HEADER + 2,
                <unsigned short>(field if at + part == octets else field | 1))
        memcpy(piece + PIECE_HEADERS, packet + at, part)
        if not _wrap(sender, way.entry, &way.hop, piece, PIECE_HEADERS + part):
            return False
        at += part
        field += <uint32_t>part  # offsets count eights of octets, above three bits
    return True


cdef void _refuse(
    Sender *sender, const Way *way, const uint8_t *packet, size_t octets
) noexcept nogil:
    """The packet is larger than its flow takes; the control plane tells its sender."""
    cdef Core *core = sender.lane.core
    cdef bint told
    drop(&sender.lane.sent, &way.entry.passed, TOO_BIG)
    pthread_mutex_lock(&core.rates)
    told = rate_allows(&way.flow.too_big, TOO_BIG_PER_SECOND, sender.now)
    pthread_mutex_unlock(&core.rates)
    if told and not events_put_number(
        &core.events, TOO_LARGE, 0, <uint32_t>way.flow.largest, NULL,
        packet, min(octets, QUOTE_OCTETS),
    ):
        drop(&sender.lane.sent, NULL, QUEUE_FULL)


cdef void outbound_dummy(
    Sender *sender, uint32_t spi, const Endpoint *endpoint, uint8_t *body,
    size_t octets, bint whole,
) noexcept nogil:
    """One dummy packet (RFC 4303 §2.6); not counted as traffic."""
    cdef Hop hop
    cdef OutboundEntry *entry = _entry_of(sender, spi)
    if entry != NULL and _hold(sender, entry, endpoint, &hop):
        _seal(sender, entry, &hop, body, octets, NO_NEXT_HEADER, whole)


cdef void outbound_inner(
    Sender *sender, uint32_t spi, const Endpoint *endpoint, const Source *source,
    uint8_t *packet, size_t octets,
) noexcept nogil:
    """One inner packet of our host id to exactly this endpoint, whatever the flow says (I30), and
    from ``source``, unless that is ``NULL`` (I20)."""
    cdef Hop hop
    cdef OutboundEntry *entry
    if not is_ipv6(packet, octets):
        drop(&sender.lane.sent, NULL, MALFORMED)
        return
    entry = _entry_of(sender, spi)
    if entry == NULL:
        return
    if memcmp(packet + 8, sender.lane.core.host_id, 16):
        drop(&sender.lane.sent, &entry.passed, FOREIGN_SOURCE)
        return
    if memcmp(packet + 24, entry.sa.peer_id, 16):
        drop(&sender.lane.sent, &entry.passed, SELECTOR)
        return
    if not _hold(sender, entry, endpoint, &hop):
        return
    if source != NULL:
        _inner_from(sender, entry, &hop, source, packet, octets)
    elif _wrap(sender, entry, &hop, packet, octets):
        count(&sender.lane.sent, &entry.passed, octets, sender.now)


cdef void _inner_from(
    Sender *sender, OutboundEntry *entry, const Hop *hop, const Source *source,
    uint8_t *packet, size_t octets,
) noexcept nogil:
    """The same for one with a source: alone, so that it is the one that is taken out again."""
    if hop.entry != NULL:
        drop(&sender.lane.sent, &entry.passed, NOT_RELAYED)
        return
    sender_flush(sender, False)
    if _wrap(sender, entry, hop, packet, octets):
        send_from(sender.lane, source, hop.endpoint, sender.room, sender.used)
        sender.count = 0
        sender.used = 0
        count(&sender.lane.sent, &entry.passed, octets, sender.now)


cdef void outbound_datagram(
    Sender *sender, const Endpoint *endpoint, const Source *source, const uint8_t *datagram,
    size_t octets,
) noexcept nogil:
    """A UDP payload of the control plane: as it is, or nested; from ``source``, unless that is
    ``NULL``."""
    cdef Hop hop
    if not hop_to(sender.lane.core, endpoint, &hop) or (source != NULL and hop.entry != NULL):
        drop(&sender.lane.sent, NULL, NOT_RELAYED)
    elif source != NULL:
        sender_flush(sender, False)  # alone, as in _inner_from
        memcpy(sender.room, datagram, octets)
        send_from(sender.lane, source, hop.endpoint, sender.room, octets)
    elif hop.entry != NULL:
        relay_hold(sender, NULL, &hop)
        relay_send(sender, &hop, datagram, octets)
    else:
        memcpy(sender_place(sender, octets), datagram, octets)
        sender_add(sender, endpoint, octets)


cdef OutboundEntry *_entry_of(Sender *sender, uint32_t spi) noexcept nogil:
    """The SA, held, or ``NULL``, and that is counted."""
    cdef OutboundEntry *entry = <OutboundEntry *>table_get(
        &sender.lane.core.outbound, 0, spi)
    if entry == NULL:
        drop(&sender.lane.sent, NULL, NO_FLOW)
    else:
        sender_hold(sender, entry)
    return entry


cdef bint _hold(
    Sender *sender, OutboundEntry *entry, const Endpoint *endpoint, Hop *hop
) noexcept nogil:
    """Finds the way to an endpoint and holds all SAs of it; false, and counted, without one."""
    if not hop_to(sender.lane.core, endpoint, hop):
        drop(&sender.lane.sent, &entry.passed, NOT_RELAYED)
        return False
    hop_hold(sender, entry, hop)
    return True


cdef bint _seal(
    Sender *sender, OutboundEntry *entry, const Hop *hop,
    uint8_t *payload, size_t octets, uint8_t next_header, bint whole,
) noexcept nogil:
    """Whether the packet is on its way; a drop is counted here."""
    cdef size_t lead = 0
    cdef size_t overhead = OVERHEAD_OCTETS
    if hop.entry != NULL:
        lead = NESTED_LEAD
        overhead = OVERHEAD_OCTETS + NESTED_OVERHEAD
    cdef uint8_t *target = sender_place(sender, octets + overhead)
    cdef Py_ssize_t sealed = esp_seal(&entry.sa, payload, octets, next_header, target + lead)
    if sealed > MAX_DATAGRAM:
        drop(&sender.lane.sent, &entry.passed, TOO_BIG)
        return False
    if sealed < 0:
        drop(&sender.lane.sent, &entry.passed, <int>-sealed)
    elif hop.entry != NULL:
        sealed = <Py_ssize_t>relay_nest_esp(sender, hop, target, <size_t>sealed, whole)
    if sealed > 0 and whole:
        sender_flush(sender, False)  # what came before goes before; `target` stays
        send_whole(sender.lane, hop.endpoint, target, <size_t>sealed)
    elif sealed > 0:
        sender_add(sender, hop.endpoint, <size_t>sealed)
    if not entry.asked and entry.sa.sequence >= SOFT_LIMIT:
        # Asked again with the next packet when the queue is full.
        entry.asked = events_put(
            &sender.lane.core.events, LIFETIME, entry.sa.spi, NULL, NULL, 0)
    return sealed > 0
