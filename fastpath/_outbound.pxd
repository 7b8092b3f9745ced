# TUN to UDP: fastpath/reference/datapath.py's outbound half, in batches.

from libc.stdint cimport uint8_t, uint32_t

from fastpath._core cimport Lane
from fastpath._endpoint cimport Endpoint
from fastpath._sender cimport Sender
from fastpath._source cimport Source

cdef enum:
    BURST_FRAMES = 64
    FRAME_OCTETS = 65536 + 64  # the largest that a read of TUN gives, with its virtio header
    BURST_OCTETS = 320 * 1024  # FRAME_OCTETS must be left for the next read

cdef struct OutboundWorker:
    Lane *lane
    Sender *sender
    uint8_t *room
    int count
    size_t burst  # octets of all frames
    size_t offsets[BURST_FRAMES]
    size_t octets[BURST_FRAMES]

cdef OutboundWorker *outbound_new(Lane *lane) except NULL
cdef void outbound_free(OutboundWorker *worker) noexcept nogil
cdef void outbound_run(OutboundWorker *worker) noexcept nogil
# One burst of TUN, by the thread whose turn it is (see _turn.pxd); false when the device fails.
# What came stands in `count` and `burst` then.
cdef bint outbound_serve(OutboundWorker *worker) noexcept nogil

# Under the outbound gate, with sender.now set; sender_finish sends it. Behind a packet or body
# 5 octets must be writable (esp_seal).
cdef void outbound_packet(Sender *sender, uint8_t *packet, size_t octets) noexcept nogil
cdef void outbound_datagram(
    Sender *sender, const Endpoint *endpoint, const Source *source, const uint8_t *datagram,
    size_t octets,
) noexcept nogil
cdef void outbound_inner(
    Sender *sender, uint32_t spi, const Endpoint *endpoint, const Source *source,
    uint8_t *packet, size_t octets,
) noexcept nogil
cdef void outbound_dummy(
    Sender *sender, uint32_t spi, const Endpoint *endpoint, uint8_t *body,
    size_t octets, bint whole,
) noexcept nogil
