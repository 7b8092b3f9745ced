# What the pump's threads and the control thread share: SAs, flows, counters, events.
#
# A lane is one queue of TUN, its sockets, and two threads. Each half of it, outbound and inbound,
# has a lock (Gate) that its thread holds for a batch; the control thread holds those of all lanes
# for a call, so that what the tables point to may be used under the gate of any lane. What several
# lanes use at once (an SA) has a lock of its own: see decision 0031.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from fastpath._drops cimport DROPS
from fastpath._endpoint cimport Endpoint
from fastpath._esp cimport Inbound, Outbound
from fastpath._events cimport EventQueue
from fastpath._linux cimport pthread_mutex_t
from fastpath._table cimport Table
from fastpath._traffic cimport Traffic
from fastpath._turn cimport Turn

cdef struct Gate:
    pthread_mutex_t turnstile  # a thread in a hurry for its next batch waits here for a caller
    pthread_mutex_t lock

cdef struct Rate:  # of events about one thing
    double since
    int count

cdef struct Passed:
    uint64_t packets
    uint64_t octets
    double last_used  # CLOCK_BOOTTIME, seconds; 0 for never
    uint64_t drops[DROPS]

cdef struct OutboundEntry:
    pthread_mutex_t lock  # held by who seals, until what he sealed is sent
    uint64_t holder  # atomic; the id of who holds it, 0 for nobody
    Outbound sa
    bint asked  # the lifetime event was given
    Passed passed

cdef struct InboundEntry:
    pthread_mutex_t lock  # held by who opens
    Inbound sa
    Endpoint source  # of the newest packet
    Passed passed
    Rate dummies
    Rate mobility
    Rate moves
    Rate probes  # that are forwarded

cdef enum:
    NARROW_WAYS = 4

cdef struct Narrow:
    Traffic traffic
    uint32_t spi

cdef struct Flow:
    uint32_t spi
    int narrows  # packets that one of these holds go on its SPI
    Narrow narrow[NARROW_WAYS]
    Endpoint endpoint
    size_t mtu  # octets of an inner packet that fit the path; large frames are cut so
    size_t largest  # above it, an inner packet is refused
    Rate too_big

cdef struct Share:  # what a host took of the limit lately; under the lock of the rates
    double octets
    double since

cdef struct Relay:  # how nested packets to a host id go
    uint32_t spi  # of a relay SA; 0: not at all, any more
    bint forward  # those of others, too
    Endpoint endpoint
    Share share

cdef struct Limit:  # a token bucket of octets, under the lock of the rates
    uint64_t on  # atomic
    double rate
    double most  # and as much again for hosts that take little
    double tokens
    double since

cdef enum:
    MAX_LANES = 64
    RELAYS_REMEMBERED = 1024

cdef struct Lane:
    Core *core
    int tun
    int udp4  # -1: no such socket
    int udp6
    Turn turn
    Gate outbound_gate
    Passed sent
    Gate inbound_gate
    Passed received
    uint64_t relayed_packets
    uint64_t relayed_octets

cdef struct Core:
    Lane *lanes
    int count  # of lanes
    int wake  # an eventfd that turns readable when the threads must stop
    bint vnet_hdr
    uint64_t stopping  # atomic
    uint64_t mtu  # atomic; octets of an inner packet that a large frame is cut into
    uint64_t uso  # atomic; TUN takes runs of datagrams (VIRTIO_NET_HDR_GSO_UDP_L4)
    # Atomic, for IPv4 and IPv6: 0 while the kernel cuts a send into datagrams (UDP_SEGMENT), else
    # when it is tried again, in whole seconds of CLOCK_BOOTTIME.
    uint64_t gso_again[2]
    uint8_t host_id[16]
    pthread_mutex_t changes  # held by who changes a table, before any gate
    Table outbound  # this one and the next two are read under the gate of either half
    Table flows
    Table relays
    uint64_t cleared[RELAYS_REMEMBERED][2]  # the last host ids whose relay entry got SPI 0
    uint64_t clears  # so many, ever
    Limit limit
    uint64_t splits  # atomic; packets that were split so far; their identification
    Table inbound
    uint64_t io_drops[DROPS]  # atomic; what TUN or UDP refused, counted outside the gates
    pthread_mutex_t rates  # held to ask a Rate that several lanes use
    Rate unknown
    pthread_mutex_t whole  # held while a socket's options are changed for one packet
    EventQueue events

cdef void gate_init(Gate *gate) noexcept nogil
cdef void gate_clear(Gate *gate) noexcept nogil
cdef void gate_enter_batch(Gate *gate) noexcept nogil
cdef void gate_leave_batch(Gate *gate) noexcept nogil
cdef void gate_enter_call(Gate *gate) noexcept nogil
cdef void gate_leave_call(Gate *gate) noexcept nogil

# All gates of a half.
cdef void outbound_enter_call(Core *core) noexcept nogil
cdef void outbound_leave_call(Core *core) noexcept nogil
cdef void inbound_enter_call(Core *core) noexcept nogil
cdef void inbound_leave_call(Core *core) noexcept nogil
# Both: those who forward seal under the gate of the inbound half.
cdef void core_enter_call(Core *core) noexcept nogil
cdef void core_leave_call(Core *core) noexcept nogil

cdef Core *core_new(bytes host_id, int lanes) except NULL
cdef void core_free(Core *core) noexcept nogil
cdef int core_install_outbound(Core *core, object params, str aead) except -1
cdef int core_install_inbound(Core *core, object params, str aead) except -1
cdef void core_remove_outbound(Core *core, uint32_t spi) noexcept nogil
cdef void core_remove_inbound(Core *core, uint32_t spi) noexcept nogil
cdef int core_set_flow(
    Core *core, bytes peer_id, uint32_t spi, object endpoint, size_t mtu, size_t largest,
    object narrow,
) except -1
cdef int core_clear_flow(Core *core, bytes peer_id) except -1
cdef int core_set_relay(
    Core *core, bytes host_id, uint32_t spi, object endpoint, bint forward
) except -1
cdef int core_clear_relay(Core *core, bytes host_id) except -1
cdef dict core_counters(Core *core)
# Under the gates of the outbound half.
cdef void core_outbound_passed(OutboundEntry *entry, Passed *passed) noexcept nogil
cdef object passed_show(const Passed *passed)


cdef inline void host_key(const uint8_t *host_id, uint64_t *key) noexcept nogil:
    # The two halves of a host id, as a Table wants them; any byte order does.
    cdef int step
    key[0] = 0
    key[1] = 0
    for step in range(8):
        key[0] = (key[0] << 8) | host_id[step]
        key[1] = (key[1] << 8) | host_id[8 + step]


cdef inline bint rate_allows(Rate *rate, int limit, double now) noexcept nogil:
    # At most `limit` in any window of one second that starts with an allowed one.
    if now - rate.since >= 1.0 or rate.count == 0:
        rate.since = now
        rate.count = 0
    rate.count += 1
    return rate.count <= limit


cdef inline void count_own(Passed *own, size_t octets, double now) noexcept nogil:
    own.packets += 1
    own.octets += octets
    own.last_used = now


cdef inline void count(Passed *total, Passed *own, size_t octets, double now) noexcept nogil:
    total.packets += 1
    total.octets += octets
    count_own(own, octets, now)


cdef inline void drop(Passed *total, Passed *own, int reason) noexcept nogil:
    total.drops[reason] += 1
    if own != NULL:
        own.drops[reason] += 1
