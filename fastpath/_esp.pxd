# ESP over plain memory (RFC 4303); fastpath/reference/esp.py says the same in Python.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from fastpath._aead cimport Aead
from fastpath._replay cimport Replay
from fastpath._traffic cimport Traffic

cdef enum:
    HEADER_OCTETS = 16  # SPI, sequence number, IV
    TRAILER_OCTETS = 2
    MAX_PADDING = 3  # what we send
    MIN_PACKET_OCTETS = 34
    OVERHEAD_OCTETS = 37  # at most: header, padding, trailer, ICV
    SLACK_OCTETS = 5  # that esp_seal borrows behind a payload
    IPV6 = 41
    NO_NEXT_HEADER = 59  # a dummy packet, RFC 4303 §2.6

cdef struct Outbound:
    Aead aead
    uint64_t sequence  # of the last packet
    uint64_t last  # that may be used
    uint32_t spi
    bint esn
    bint transport
    bint relay  # for nested packets
    uint8_t local_id[16]
    uint8_t peer_id[16]

cdef struct Inbound:
    Aead aead
    Replay window
    uint32_t spi
    bint transport
    bint relay  # for nested packets
    bint narrow  # only packets of this traffic are taken
    Traffic traffic
    uint8_t local_id[16]
    uint8_t peer_id[16]

cdef struct Opened:
    size_t octets  # of the payload, which starts at the target
    uint8_t next_header
    uint64_t sequence

cdef int outbound_init(Outbound *sa, object params, str backend) except -1
cdef void outbound_clear(Outbound *sa) noexcept nogil
cdef int inbound_init(Inbound *sa, object params, str backend) except -1
cdef void inbound_clear(Inbound *sa) noexcept nogil

# Octets written to `target` (payload + 37 at most), or minus a Drop. Behind the payload 5 octets
# must be writable: the trailer is laid over them for the time of the call, so that the cipher's is
# the only pass.
cdef Py_ssize_t esp_seal(
    Outbound *sa, uint8_t *payload, size_t octets, uint8_t next_header, uint8_t *target
) noexcept nogil

# The same for a payload that stands at `target` + HEADER_OCTETS. What is behind it is overwritten.
cdef Py_ssize_t esp_seal_in_place(
    Outbound *sa, uint8_t *target, size_t octets, uint8_t next_header
) noexcept nogil

# A Drop, 0 for a packet to pass on. `target` (octets - 32) is written even when it is dropped.
cdef int esp_open(
    Inbound *sa, const uint8_t *packet, size_t octets, uint8_t *target, Opened *opened
) noexcept nogil
