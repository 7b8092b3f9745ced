# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Nested packets, through a home agent; see ``_relay.pxd``.

Their table is read by both threads of a lane, so it changes under all gates of both halves.
"""

from libc.stdint cimport uint8_t, uint16_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from fastpath._bytes cimport load16, load32, store16
from fastpath._checksum cimport (
    UDP, UDP_CHECKSUM, UDP_HEADER, UDP_LENGTH, checksum_add, checksum_fold, checksum_store,
    pseudo_sum,
)
from fastpath._core cimport Core, Limit, OutboundEntry, Relay, Share, count_own, drop, host_key
from fastpath._drops cimport KEEPALIVE, MALFORMED, NOT_RELAYED, SELECTOR, TOO_BIG
from fastpath._endpoint cimport Endpoint
from fastpath._esp cimport (
    HEADER_OCTETS, IPV6, MIN_PACKET_OCTETS, Opened, esp_seal_in_place,
)
from fastpath._events cimport LIFETIME, events_put
from fastpath._linux cimport (
    AF_INET6, atomic_get, atomic_set, pthread_mutex_lock, pthread_mutex_unlock,
)
from fastpath._sender cimport (
    MAX_DATAGRAM, Sender, sender_add, sender_hold, sender_holds, sender_place,
)
from fastpath._table cimport table_get

from fastpath import types

cdef double SHARES = types.RELAY_SHARES
cdef uint64_t SOFT_LIMIT = types.SOFT_LIMIT_PACKETS

cdef enum:
    ESP = 50
    HOP_LIMIT = 64
    MARKER_OCTETS = 4
    PROBE_LABEL = 1
    ULA = 0xFC  # the first seven bits of a host id (RFC 4193)

assert types.RELAY_PORT == RELAY_PORT


# --- Ways -----------------------------------------------------------------------------------------


cdef bint relay_find(Core *core, const Endpoint *endpoint, Hop *hop) noexcept nogil:
    """For an IPv6 endpoint; ``hop`` says so far that it goes as it is."""
    if endpoint.scope or not _is_host(core, endpoint.ip):
        return True
    return relay_follow(core, _entry(core, endpoint.ip), endpoint.ip, hop)


cdef bint relay_follow(
    Core *core, const Relay *relay, const uint8_t *host_id, Hop *hop
) noexcept nogil:
    """``relay`` may be ``NULL``. Nested once: its own endpoint is an outer one."""
    cdef OutboundEntry *entry
    if relay == NULL:
        return False
    entry = <OutboundEntry *>table_get(&core.outbound, 0, relay.spi)
    if entry == NULL or not entry.sa.relay:
        return False
    if (
        relay.endpoint.family == AF_INET6
        and relay.endpoint.scope == 0
        and _is_host(core, relay.endpoint.ip)
    ):
        return False
    hop.endpoint = &relay.endpoint
    hop.entry = entry
    hop.host_id = host_id
    return True


cdef bint relay_is_inside(Core *core, const Endpoint *source) noexcept nogil:
    return source.scope == 0 and source.ip[0] & 0xFE == ULA and _is_host(core, source.ip)


cdef bint _is_host(Core *core, const uint8_t *ip) noexcept nogil:
    """Whether an address is a host id that we know: ours, one with a flow or a relay entry."""
    cdef uint64_t key[2]
    host_key(ip, key)
    return (
        table_get(&core.relays, key[0], key[1]) != NULL
        or table_get(&core.flows, key[0], key[1]) != NULL
        or memcmp(ip, core.host_id, 16) == 0
    )


cdef const Relay *_entry(Core *core, const uint8_t *host_id) noexcept nogil:
    cdef uint64_t key[2]
    host_key(host_id, key)
    return <const Relay *>table_get(&core.relays, key[0], key[1])


cdef void relay_hold(Sender *sender, OutboundEntry *entry, const Hop *hop) noexcept nogil:
    """Waiting for the second lets the first go (sender_hold), so the first is asked for again."""
    while True:
        if entry != NULL:
            sender_hold(sender, entry)
        sender_hold(sender, hop.entry)
        if entry == NULL or sender_holds(sender, entry):
            return


# --- Sealing --------------------------------------------------------------------------------------


cdef size_t relay_nest_esp(
    Sender *sender, const Hop *hop, uint8_t *target, size_t octets, bint whole
) noexcept nogil:
    _write_header(sender.lane.core, hop, target + HEADER_OCTETS, ESP, octets)
    if whole:
        target[HEADER_OCTETS + 3] = PROBE_LABEL
    return relay_seal(sender, hop, target, NESTED_HEADER + octets)


cdef size_t relay_seal(
    Sender *sender, const Hop *hop, uint8_t *target, size_t octets
) noexcept nogil:
    cdef OutboundEntry *entry = hop.entry
    cdef Py_ssize_t sealed = esp_seal_in_place(&entry.sa, target, octets, IPV6)
    if sealed > MAX_DATAGRAM:
        drop(sender.counts, &entry.passed, TOO_BIG)
        return 0
    if not entry.asked and entry.sa.sequence >= SOFT_LIMIT:
        entry.asked = events_put(
            &sender.lane.core.events, LIFETIME, entry.sa.spi, NULL, NULL, 0)
    if sealed < 0:
        drop(sender.counts, &entry.passed, <int>-sealed)
        return 0
    count_own(&entry.passed, octets, sender.now)
    return <size_t>sealed


cdef void _write_header(
    Core *core, const Hop *hop, uint8_t *packet, uint8_t next_header, size_t octets
) noexcept nogil:
    memset(packet, 0, 4)
    packet[0] = 6 << 4
    store16(packet + 4, <uint16_t>octets)
    packet[6] = next_header
    packet[7] = HOP_LIMIT
    memcpy(packet + 8, core.host_id, 16)
    memcpy(packet + 24, hop.host_id, 16)


cdef void relay_send(
    Sender *sender, const Hop *hop, const uint8_t *datagram, size_t octets
) noexcept nogil:
    """The SA is held by now."""
    cdef uint8_t *target
    cdef uint8_t *packet
    cdef uint8_t *upper
    if octets == 1 and datagram[0] == 0xFF:
        drop(sender.counts, NULL, KEEPALIVE)
        return
    if octets > MAX_DATAGRAM:
        drop(sender.counts, NULL, TOO_BIG)
        return
    if octets >= MARKER_OCTETS and load32(datagram) == 0:
        datagram += MARKER_OCTETS
        octets -= MARKER_OCTETS
    target = sender_place(sender, octets + UDP_HEADER + NESTED_OVERHEAD)
    packet = target + HEADER_OCTETS
    upper = packet + NESTED_HEADER
    memcpy(upper + UDP_HEADER, datagram, octets)
    octets += UDP_HEADER
    _write_header(sender.lane.core, hop, packet, UDP, octets)
    store16(upper, RELAY_PORT)
    store16(upper + 2, RELAY_PORT)
    store16(upper + UDP_LENGTH, <uint16_t>octets)
    store16(upper + UDP_CHECKSUM, 0)
    checksum_store(
        upper + UDP_CHECKSUM,
        checksum_add(upper, octets, pseudo_sum(packet, UDP, octets)), True)
    octets = relay_seal(sender, hop, target, NESTED_HEADER + octets)
    if octets:
        sender_add(sender, hop.endpoint, octets)


# --- Opening --------------------------------------------------------------------------------------


cdef int relay_read(const uint8_t *packet, Opened *opened, bint *is_ike) noexcept nogil:
    """It is authentic, and whatever somebody wrote."""
    cdef const uint8_t *upper = packet + NESTED_HEADER
    cdef size_t octets
    if opened.next_header != IPV6:
        return SELECTOR
    if opened.octets < NESTED_HEADER or packet[0] >> 4 != 6:
        return MALFORMED
    octets = load16(packet + 4)
    if NESTED_HEADER + octets > opened.octets:
        return MALFORMED
    opened.octets = NESTED_HEADER + octets
    is_ike[0] = packet[6] == UDP
    if packet[6] == ESP:
        return 0 if octets >= MIN_PACKET_OCTETS else MALFORMED
    if packet[6] != UDP:
        return NOT_RELAYED
    if octets < UDP_HEADER:
        return MALFORMED
    if load16(upper) != RELAY_PORT or load16(upper + 2) != RELAY_PORT:
        return NOT_RELAYED
    if (
        load16(upper + UDP_LENGTH) != octets
        or load16(upper + UDP_CHECKSUM) == 0
        or not looks_like_ike(upper + UDP_HEADER, octets - UDP_HEADER)
        or checksum_fold(checksum_add(upper, octets, pseudo_sum(packet, UDP, octets))) != 0xFFFF
    ):
        return MALFORMED
    return 0


# --- The limit of all that is forwarded -----------------------------------------------------------


cdef void relay_set_limit(Core *core, double rate, double most) noexcept nogil:
    """Octets a second, and at once; ``rate`` 0: everything passes."""
    pthread_mutex_lock(&core.rates)
    core.limit.rate = rate
    core.limit.most = most
    core.limit.tokens = 2 * most
    core.limit.since = 0
    atomic_set(&core.limit.on, rate > 0)
    pthread_mutex_unlock(&core.rates)


cdef bint relay_allows(
    Core *core, const uint8_t *sender, size_t octets, double now
) noexcept nogil:
    """Takes so many octets of the bucket, if they are there."""
    cdef Limit *limit = &core.limit
    cdef Relay *host
    cdef bint modest, allowed
    if not atomic_get(&limit.on):
        return True
    host = <Relay *>_entry(core, sender)
    if host != NULL and not host.forward:
        host = NULL
    pthread_mutex_lock(&core.rates)
    if limit.since > 0 and now > limit.since:
        limit.tokens += (now - limit.since) * limit.rate
    limit.tokens = min(limit.tokens, 2 * limit.most)
    limit.since = max(limit.since, now)  # the times of several threads come out of order
    modest = host != NULL and _is_modest(limit, &host.share, now)
    allowed = octets <= limit.tokens - (0 if modest else limit.most)
    if allowed:
        limit.tokens -= octets
        if host != NULL:
            host.share.octets = min(host.share.octets, limit.most / SHARES) + octets
    pthread_mutex_unlock(&core.rates)
    return allowed


cdef bint _is_modest(const Limit *limit, Share *share, double now) noexcept nogil:
    """Whether a host has taken no more than its share lately."""
    if now > share.since:
        share.octets = max(share.octets - (now - share.since) * limit.rate / SHARES, 0)
        share.since = now
    return share.octets <= limit.most / SHARES
