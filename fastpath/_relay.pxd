# Nested packets, through a home agent: fastpath/reference/relay.py in C.
#
# On the wire: ESP of a relay SA | IPv6(host id -> host id) | ESP or UDP 500. All of it is sealed in
# one place: the inner ESP packet where it stays, the IPv6 header before it, then the whole.

from libc.stdint cimport uint8_t

from fastpath._bytes cimport load32
from fastpath._core cimport Core, OutboundEntry, Relay
from fastpath._endpoint cimport Endpoint
from fastpath._esp cimport Opened
from fastpath._linux cimport AF_INET6
from fastpath._sender cimport Sender, sender_hold

cdef enum:
    NESTED_HEADER = 40
    NESTED_LEAD = 56  # octets before a packet that is nested: ESP header, IV, IPv6 header
    NESTED_OVERHEAD = 77  # at most: the same, padding, trailer, ICV
    RELAY_PORT = 500
    IKE_HEADER = 28
    FIRST_EXCHANGE = 34  # IKE_SA_INIT
    LAST_EXCHANGE = 44  # IKE_FOLLOWUP_KE

cdef struct Hop:  # where something goes; valid under the gate where it was found
    const Endpoint *endpoint
    OutboundEntry *entry  # the relay SA that it is nested in; NULL: it goes as it is
    const uint8_t *host_id  # whom the nested packet is for

# The way to an endpoint that may be a host id; false where a host id has none.
cdef bint relay_find(Core *core, const Endpoint *endpoint, Hop *hop) noexcept nogil
# The same for the host id of a relay entry.
cdef bint relay_follow(
    Core *core, const Relay *relay, const uint8_t *host_id, Hop *hop
) noexcept nogil
# Whether an IPv6 source is a host id that we know. None is an outer address.
cdef bint relay_is_inside(Core *core, const Endpoint *source) noexcept nogil
# Holds both SAs; `entry` may be NULL.
cdef void relay_hold(Sender *sender, OutboundEntry *entry, const Hop *hop) noexcept nogil
# An ESP packet of `octets` stands at `target` + NESTED_LEAD. Octets of the whole at `target`, or 0:
# the drop is counted. `whole`: a probe, which is not fragmented on its way.
cdef size_t relay_nest_esp(
    Sender *sender, const Hop *hop, uint8_t *target, size_t octets, bint whole
) noexcept nogil
# A whole nested packet of `octets` stands behind the ESP header that `target` has room for.
cdef size_t relay_seal(
    Sender *sender, const Hop *hop, uint8_t *target, size_t octets
) noexcept nogil
# Nests and adds one IKE message of the control plane; a keepalive is dropped.
cdef void relay_send(
    Sender *sender, const Hop *hop, const uint8_t *datagram, size_t octets
) noexcept nogil
# A Drop, or 0 with opened.octets cut to the nested packet's own length.
cdef int relay_read(const uint8_t *packet, Opened *opened, bint *is_ike) noexcept nogil
cdef void relay_set_limit(Core *core, double rate, double most) noexcept nogil
# `sender`: the host id that it comes from.
cdef bint relay_allows(
    Core *core, const uint8_t *sender, size_t octets, double now
) noexcept nogil


cdef inline bint hop_to(Core *core, const Endpoint *endpoint, Hop *hop) noexcept nogil:
    # relay_find for any endpoint; an IPv4 address is no host id.
    hop.endpoint = endpoint
    hop.entry = NULL
    return endpoint.family != AF_INET6 or relay_find(core, endpoint, hop)


cdef inline void hop_hold(Sender *sender, OutboundEntry *entry, const Hop *hop) noexcept nogil:
    # Holds all SAs that something is sealed in on this way.
    if hop.entry == NULL:
        sender_hold(sender, entry)
    else:
        relay_hold(sender, entry, hop)


cdef inline bint is_whole(const uint8_t *packet) noexcept nogil:
    # A nested packet with a flow label.
    return load32(packet) & 0xFFFFF != 0


cdef inline bint looks_like_ike(const uint8_t *data, size_t octets) noexcept nogil:
    return (
        octets >= IKE_HEADER
        and data[17] >> 4 == 2
        and FIRST_EXCHANGE <= data[18] <= LAST_EXCHANGE
        and load32(data + 24) == octets
    )
