# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""What the pump's threads and the control thread share; see ``_core.pxd`` for who locks what.

An SA is made and freed outside the gates, and swapped in and out inside; a thread looks it up
anew in every batch, so that none is used after its removal. Freeing wipes its key.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from fastpath._endpoint cimport endpoint_parse
from fastpath._esp cimport inbound_clear, inbound_init, outbound_clear, outbound_init
from fastpath._events cimport events_clear, events_init
from fastpath._linux cimport (
    EFD_CLOEXEC, EFD_NONBLOCK, atomic_get, close, eventfd, pthread_mutex_destroy,
    pthread_mutex_init, pthread_mutex_lock, pthread_mutex_unlock,
)
from fastpath._table cimport (
    Slot, Table, table_clear, table_get, table_init, table_put, table_remove, table_reserve,
    table_take,
)
from fastpath._turn cimport turn_clear, turn_init

from fastpath._traffic cimport traffic_set

import os

from fastpath import types
from fastpath._drops cimport *

assert types.NARROW_WAYS == NARROW_WAYS
assert types.RELAYS_REMEMBERED == RELAYS_REMEMBERED
assert {drop.name: drop.value for drop in types.Drop} == {
    "NONE": 0, "MALFORMED": MALFORMED, "UNKNOWN_SPI": UNKNOWN_SPI, "REPLAY": REPLAY,
    "AUTHENTICATION": AUTHENTICATION, "PADDING": PADDING, "SELECTOR": SELECTOR,
    "NO_FLOW": NO_FLOW, "SEQUENCE_EXHAUSTED": SEQUENCE_EXHAUSTED, "DUMMY": DUMMY,
    "KEEPALIVE": KEEPALIVE, "TUN_WRITE": TUN_WRITE, "UDP_SEND": UDP_SEND,
    "QUEUE_FULL": QUEUE_FULL, "TOO_BIG": TOO_BIG, "FOREIGN_SOURCE": FOREIGN_SOURCE,
    "NOT_RELAYED": NOT_RELAYED, "RELAY_LIMIT": RELAY_LIMIT,
}

cdef size_t MINIMUM_MTU = types.MINIMUM_MTU
cdef size_t SMALLEST_MTU = 256  # room for the headers of a packet that is cut

# --- Gates: a thread that takes its lock again and again must not starve a caller ----------------


cdef void gate_init(Gate *gate) noexcept nogil:
    pthread_mutex_init(&gate.turnstile, NULL)
    pthread_mutex_init(&gate.lock, NULL)


cdef void gate_clear(Gate *gate) noexcept nogil:
    pthread_mutex_destroy(&gate.turnstile)
    pthread_mutex_destroy(&gate.lock)


cdef void gate_enter_batch(Gate *gate) noexcept nogil:
    pthread_mutex_lock(&gate.turnstile)
    pthread_mutex_lock(&gate.lock)
    pthread_mutex_unlock(&gate.turnstile)


cdef void gate_leave_batch(Gate *gate) noexcept nogil:
    pthread_mutex_unlock(&gate.lock)


cdef void gate_enter_call(Gate *gate) noexcept nogil:
    pthread_mutex_lock(&gate.turnstile)  # held: the thread's next batch queues behind us
    pthread_mutex_lock(&gate.lock)


cdef void gate_leave_call(Gate *gate) noexcept nogil:
    pthread_mutex_unlock(&gate.lock)
    pthread_mutex_unlock(&gate.turnstile)


cdef void outbound_enter_call(Core *core) noexcept nogil:
    cdef int lane
    for lane in range(core.count):
        gate_enter_call(&core.lanes[lane].outbound_gate)


cdef void outbound_leave_call(Core *core) noexcept nogil:
    cdef int lane
    for lane in range(core.count):
        gate_leave_call(&core.lanes[lane].outbound_gate)


cdef void inbound_enter_call(Core *core) noexcept nogil:
    cdef int lane
    for lane in range(core.count):
        gate_enter_call(&core.lanes[lane].inbound_gate)


cdef void inbound_leave_call(Core *core) noexcept nogil:
    cdef int lane
    for lane in range(core.count):
        gate_leave_call(&core.lanes[lane].inbound_gate)


cdef void core_enter_call(Core *core) noexcept nogil:
    inbound_enter_call(core)  # in this order, here and wherever both are wanted
    outbound_enter_call(core)


cdef void core_leave_call(Core *core) noexcept nogil:
    outbound_leave_call(core)
    inbound_leave_call(core)


# --- Life -----------------------------------------------------------------------------------------


cdef Core *core_new(bytes host_id, int lanes) except NULL:
    """An empty core; descriptors and switches are the caller's to set."""
    cdef Core *core
    cdef int number
    if len(host_id) != 16:
        raise ValueError("a host id is 16 octets")
    if not 1 <= lanes <= MAX_LANES:
        raise ValueError(f"a pump has 1..{MAX_LANES} queues, not {lanes}")
    core = <Core *>calloc(1, sizeof(Core))
    if core == NULL:
        raise MemoryError
    core.wake = -1
    pthread_mutex_init(&core.changes, NULL)
    pthread_mutex_init(&core.rates, NULL)
    pthread_mutex_init(&core.whole, NULL)
    memcpy(core.host_id, <const uint8_t *>host_id, 16)
    try:
        core.lanes = <Lane *>calloc(lanes, sizeof(Lane))
        if core.lanes == NULL:
            raise MemoryError
        for number in range(lanes):
            core.lanes[number].core = core
            gate_init(&core.lanes[number].outbound_gate)
            gate_init(&core.lanes[number].inbound_gate)
            core.count += 1
            turn_init(&core.lanes[number].turn)
        table_init(&core.outbound, int.from_bytes(os.urandom(8), "little"))
        table_init(&core.flows, int.from_bytes(os.urandom(8), "little"))
        table_init(&core.relays, int.from_bytes(os.urandom(8), "little"))
        table_init(&core.inbound, int.from_bytes(os.urandom(8), "little"))
        events_init(&core.events)
        core.wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
        if core.wake < 0:
            raise OSError("no eventfd is left; raise the limit of open files (ulimit -n)")
    except BaseException:
        core_free(core)
        raise
    return core


cdef void core_free(Core *core) noexcept nogil:
    """Wipes and frees all. No thread may be running."""
    cdef size_t place
    cdef int number
    if core.outbound.slots != NULL:
        for place in range(core.outbound.mask + 1):
            _free_outbound(<OutboundEntry *>core.outbound.slots[place].value)
    if core.inbound.slots != NULL:
        for place in range(core.inbound.mask + 1):
            _free_inbound(<InboundEntry *>core.inbound.slots[place].value)
    if core.flows.slots != NULL:
        for place in range(core.flows.mask + 1):
            free(core.flows.slots[place].value)
    if core.relays.slots != NULL:
        for place in range(core.relays.mask + 1):
            free(core.relays.slots[place].value)
    table_clear(&core.outbound)
    table_clear(&core.inbound)
    table_clear(&core.flows)
    table_clear(&core.relays)
    events_clear(&core.events)
    if core.wake >= 0:
        close(core.wake)
    for number in range(core.count):
        turn_clear(&core.lanes[number].turn)
        gate_clear(&core.lanes[number].outbound_gate)
        gate_clear(&core.lanes[number].inbound_gate)
    pthread_mutex_destroy(&core.changes)
    pthread_mutex_destroy(&core.rates)
    pthread_mutex_destroy(&core.whole)
    free(core.lanes)
    free(core)


cdef void _free_outbound(OutboundEntry *entry) noexcept nogil:
    """After its removal: a lane may still be sending what it sealed, outside its gate."""
    if entry != NULL:
        pthread_mutex_lock(&entry.lock)
        pthread_mutex_unlock(&entry.lock)
        pthread_mutex_destroy(&entry.lock)
        outbound_clear(&entry.sa)
        free(entry)


cdef void _free_inbound(InboundEntry *entry) noexcept nogil:
    if entry != NULL:
        pthread_mutex_destroy(&entry.lock)
        inbound_clear(&entry.sa)
        free(entry)


# --- Tables ---------------------------------------------------------------------------------------


cdef void *_swap(
    Core *core, Table *table, uint64_t high, uint64_t low, void *value, bint both
) noexcept nogil:
    """Sets or (``NULL``) removes a key, under the gates of the inbound half or of ``both``. Returns
    what is to be freed: what stood there, or ``value`` itself where memory ran out."""
    cdef Table bigger
    cdef Slot *outgrown = NULL
    cdef void *before = value
    bigger.slots = NULL
    pthread_mutex_lock(&core.changes)
    if value == NULL or table_reserve(table, &bigger):
        inbound_enter_call(core)
        if both:
            outbound_enter_call(core)
        if bigger.slots != NULL:
            outgrown = table_take(table, &bigger)
        if value == NULL:
            before = table_remove(table, high, low)
        else:
            before = table_put(table, high, low, value)
        if both:
            outbound_leave_call(core)
        inbound_leave_call(core)
    pthread_mutex_unlock(&core.changes)
    free(outgrown)
    return before


cdef void *_swap_outbound(
    Core *core, Table *table, uint64_t high, uint64_t low, void *value
) noexcept nogil:
    return _swap(core, table, high, low, value, True)


cdef void *_swap_inbound(Core *core, uint32_t spi, void *value) noexcept nogil:
    return _swap(core, &core.inbound, 0, spi, value, False)


cdef int core_install_outbound(Core *core, object params, str aead) except -1:
    """Replaces an SA of the same SPI."""
    cdef OutboundEntry *entry = <OutboundEntry *>calloc(1, sizeof(OutboundEntry))
    cdef void *before
    if entry == NULL:
        raise MemoryError
    pthread_mutex_init(&entry.lock, NULL)
    try:
        outbound_init(&entry.sa, params, aead)
    except BaseException:
        _free_outbound(entry)
        raise
    with nogil:
        before = _swap_outbound(core, &core.outbound, 0, entry.sa.spi, entry)
        _free_outbound(<OutboundEntry *>before)
    if before == entry:
        raise MemoryError
    return 0


cdef int core_install_inbound(Core *core, object params, str aead) except -1:
    """Replaces an SA of the same SPI."""
    cdef InboundEntry *entry = <InboundEntry *>calloc(1, sizeof(InboundEntry))
    cdef void *before
    if entry == NULL:
        raise MemoryError
    pthread_mutex_init(&entry.lock, NULL)
    try:
        inbound_init(&entry.sa, params, aead)
    except BaseException:
        _free_inbound(entry)
        raise
    with nogil:
        before = _swap_inbound(core, entry.sa.spi, entry)
        _free_inbound(<InboundEntry *>before)
    if before == entry:
        raise MemoryError
    return 0


cdef void core_remove_outbound(Core *core, uint32_t spi) noexcept nogil:
    _free_outbound(<OutboundEntry *>_swap_outbound(core, &core.outbound, 0, spi, NULL))


cdef void core_remove_inbound(Core *core, uint32_t spi) noexcept nogil:
    _free_inbound(<InboundEntry *>_swap_inbound(core, spi, NULL))


cdef int core_set_flow(
    Core *core, bytes peer_id, uint32_t spi, object endpoint, size_t mtu, size_t largest,
    object narrow,
) except -1:
    """Raises :class:`ValueError` for a bad host id, endpoint or size, or too many narrow ways."""
    cdef int number
    cdef uint64_t key[2]
    cdef Flow *flow
    cdef void *before
    cdef Endpoint parsed
    if mtu < SMALLEST_MTU or largest < MINIMUM_MTU:
        raise ValueError(
            f"a flow takes at least {MINIMUM_MTU} octets, and an MTU of {SMALLEST_MTU}; "
            f"not {largest} and {mtu}")
    if len(narrow) > NARROW_WAYS:
        raise ValueError(
            f"a flow chooses from {NARROW_WAYS} narrow ways at most, not {len(narrow)}")
    endpoint_parse(endpoint, &parsed)
    _host_key(peer_id, key)
    flow = <Flow *>calloc(1, sizeof(Flow))
    if flow == NULL:
        raise MemoryError
    flow.spi = spi
    flow.endpoint = parsed
    flow.mtu = mtu
    flow.largest = largest
    for number, (traffic, narrow_spi) in enumerate(narrow):
        traffic_set(&flow.narrow[number].traffic, traffic)
        flow.narrow[number].spi = narrow_spi
    flow.narrows = len(narrow)
    with nogil:
        before = _swap_outbound(core, &core.flows, key[0], key[1], flow)
        free(before)
    if before == flow:
        raise MemoryError
    return 0


cdef int core_clear_flow(Core *core, bytes peer_id) except -1:
    cdef uint64_t key[2]
    _host_key(peer_id, key)
    with nogil:
        free(_swap_outbound(core, &core.flows, key[0], key[1], NULL))
    return 0


cdef int core_set_relay(
    Core *core, bytes host_id, uint32_t spi, object endpoint, bint forward
) except -1:
    """Raises :class:`ValueError` for a bad host id or endpoint."""
    cdef uint64_t key[2]
    cdef Relay *relay
    cdef void *before
    cdef Endpoint parsed
    endpoint_parse(endpoint, &parsed)
    _host_key(host_id, key)
    if spi == 0:
        raise ValueError("SPI 0 is no SA's (RFC 4303 §2.1)")
    relay = <Relay *>calloc(1, sizeof(Relay))
    if relay == NULL:
        raise MemoryError
    relay.spi = spi
    relay.endpoint = parsed
    relay.forward = forward
    with nogil:
        _take_share(core, key, relay)
        before = _swap_outbound(core, &core.relays, key[0], key[1], relay)
        free(before)
    if before == relay:
        raise MemoryError
    return 0


cdef void _take_share(Core *core, const uint64_t *key, Relay *relay) noexcept nogil:
    """A host that moves or rekeys has no new share of the limit."""
    cdef const Relay *before
    pthread_mutex_lock(&core.changes)
    before = <const Relay *>table_get(&core.relays, key[0], key[1])
    if before != NULL:
        pthread_mutex_lock(&core.rates)
        relay.share = before.share
        pthread_mutex_unlock(&core.rates)
    pthread_mutex_unlock(&core.changes)


cdef int core_clear_relay(Core *core, bytes host_id) except -1:
    """A host id that was not forwarded to stays known for a while, without a way."""
    cdef uint64_t key[2]
    cdef Relay *relay
    cdef void *removed = NULL
    _host_key(host_id, key)
    with nogil:
        pthread_mutex_lock(&core.changes)
        core_enter_call(core)
        relay = <Relay *>table_get(&core.relays, key[0], key[1])
        if relay != NULL and relay.spi and relay.forward:
            removed = table_remove(&core.relays, key[0], key[1])
        elif relay != NULL and relay.spi:
            relay.spi = 0
            removed = _remember(core, key)
        core_leave_call(core)
        pthread_mutex_unlock(&core.changes)
        free(removed)
    return 0


cdef void *_remember(Core *core, const uint64_t *key) noexcept nogil:
    """Keeps a host id among the last that were cleared; the entry that is forgotten for it."""
    cdef uint64_t *place = core.cleared[core.clears % RELAYS_REMEMBERED]
    cdef uint64_t[2] forgotten = [place[0], place[1]]
    cdef bint full = core.clears >= RELAYS_REMEMBERED
    cdef Relay *oldest = NULL
    place[0], place[1] = key[0], key[1]
    core.clears += 1
    if full and not _is_remembered(core, forgotten):
        oldest = <Relay *>table_get(&core.relays, forgotten[0], forgotten[1])
    if oldest != NULL and oldest.spi == 0:
        return table_remove(&core.relays, forgotten[0], forgotten[1])
    return NULL


cdef bint _is_remembered(Core *core, const uint64_t *key) noexcept nogil:
    """Whether it was cleared once more since then. Only asked when there are as many as can be."""
    cdef int number
    for number in range(RELAYS_REMEMBERED):
        if core.cleared[number][0] == key[0] and core.cleared[number][1] == key[1]:
            return True
    return False


cdef int _host_key(bytes host_id, uint64_t *key) except -1:
    if len(host_id) != 16:
        raise ValueError("a host id is 16 octets")
    host_key(<const uint8_t *>host_id, key)
    return 0


# --- Counters -------------------------------------------------------------------------------------


cdef dict _drops(const uint64_t *drops, str prefix):
    return {
        prefix + drop.name.lower(): drops[<int>drop]
        for drop in types.Drop
        if drop and drops[<int>drop]
    }


cdef dict core_counters(Core *core):
    """As :meth:`fastpath.types.Pump.counters` has it."""
    cdef Passed sent, received
    cdef int number, reason
    cdef uint64_t relayed_packets = 0
    cdef uint64_t relayed_octets = 0
    memset(&sent, 0, sizeof(Passed))
    memset(&received, 0, sizeof(Passed))
    with nogil:
        outbound_enter_call(core)
        for number in range(core.count):
            _add(&sent, &core.lanes[number].sent)
        outbound_leave_call(core)
        inbound_enter_call(core)
        for number in range(core.count):
            _add(&received, &core.lanes[number].received)
            relayed_packets += core.lanes[number].relayed_packets
            relayed_octets += core.lanes[number].relayed_octets
        inbound_leave_call(core)
    for reason in range(DROPS):
        sent.drops[reason] += received.drops[reason] + atomic_get(&core.io_drops[reason])
    return {
        "rx_packets": received.packets,
        "tx_packets": sent.packets,
        "rx_octets": received.octets,
        "tx_octets": sent.octets,
        "relayed_packets": relayed_packets,
        "relayed_octets": relayed_octets,
    } | _drops(sent.drops, "drop_")


cdef void core_outbound_passed(OutboundEntry *entry, Passed *passed) noexcept nogil:
    """A copy. In a relay SA those who forward seal, too, under gates of the other half."""
    if entry.sa.relay:
        pthread_mutex_lock(&entry.lock)
    passed[0] = entry.passed
    if entry.sa.relay:
        pthread_mutex_unlock(&entry.lock)


cdef void _add(Passed *total, const Passed *part) noexcept nogil:
    cdef int reason
    total.packets += part.packets
    total.octets += part.octets
    for reason in range(DROPS):
        total.drops[reason] += part.drops[reason]


cdef object passed_show(const Passed *passed):
    """As :class:`fastpath.types.SaCounters`."""
    return types.SaCounters(
        passed.packets, passed.octets, passed.last_used or None, _drops(passed.drops, ""))
