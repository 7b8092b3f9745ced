# Frames of TUN with a virtio header (IFF_VNET_HDR) cut into inner packets, in place.
#
# One read gives up to 64 KB of one TCP or UDP flow with one header. Each packet's header is written
# right before its payload, over the tail of the packet before, which must be sealed by then.
# Nothing is copied.

from libc.stdint cimport uint8_t, uint16_t, uint32_t

cdef enum:
    VNET_OCTETS = 10  # struct virtio_net_hdr
    NEEDS_CSUM = 1  # flags
    GSO_NONE = 0  # gso_type
    GSO_TCPV6 = 4
    GSO_UDP_L4 = 5
    GSO_ECN = 0x80
    MAX_HEADERS = 256  # IPv6 with its extensions, and TCP or UDP

cdef struct Vnet:  # struct virtio_net_hdr, in this machine's byte order
    uint8_t flags
    uint8_t gso_type
    uint16_t hdr_len
    uint16_t gso_size
    uint16_t csum_start
    uint16_t csum_offset

cdef struct Cut:
    uint8_t *packet
    size_t octets  # of the whole frame, without the virtio header
    size_t header  # octets before the payload
    size_t size  # of a payload but the last
    size_t upper  # where TCP or UDP begins
    size_t offset  # of the next payload
    uint32_t sequence
    uint8_t protocol
    bint whole  # not to be cut
    bint done
    uint8_t template[MAX_HEADERS]

cdef bint cut_begin(
    Cut *cut, const Vnet *vnet, uint8_t *packet, size_t octets, size_t mtu
) noexcept nogil
cdef bint cut_next(Cut *cut, uint8_t **packet, size_t *octets) noexcept nogil
