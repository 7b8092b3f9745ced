# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""ESP as the reference engine has it, byte for byte, over plain memory (RFC 4303, RFC 4106).

The C functions are what the pump calls; :class:`OutboundSa` and :class:`InboundSa` offer the
same to Python, with the interface of :mod:`fastpath.reference.esp`.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from fastpath._aead cimport TAG_OCTETS, aead_clear, aead_init
from fastpath._bytes cimport load32, store32, store64
from fastpath._drops cimport (
    AUTHENTICATION, DUMMY, MALFORMED, PADDING, REPLAY, SEQUENCE_EXHAUSTED, UNKNOWN_SPI,
)
from fastpath._replay cimport replay_check, replay_clear, replay_infer, replay_init, replay_mark
from fastpath._traffic cimport traffic_set

from fastpath import types

cdef enum:
    MIN_SPI = 256  # 0 means IKE (RFC 3948), 1..255 are reserved (RFC 4303 §2.1)


cdef int _check(object params) except -1:
    if not MIN_SPI <= params.spi <= 0xFFFF_FFFF:
        raise ValueError(f"SPI {params.spi} is not within {MIN_SPI}..2^32-1 (RFC 4303 §2.1)")
    if len(params.local_id) != 16 or len(params.peer_id) != 16:
        raise ValueError("a host id is 16 octets")
    return 0


cdef bint _is_relay(object params) except *:
    """Whether an SA carries nested packets (fastpath/reference/relay.py)."""
    return (
        params.mode == types.Mode.TRANSPORT
        and params.traffic is not None
        and params.traffic.protocol == IPV6
    )


cdef int outbound_init(Outbound *sa, object params, str backend) except -1:
    """Fills a zeroed ``sa`` from :class:`fastpath.types.SaParams`; raises as the reference does."""
    _check(params)
    aead_init(&sa.aead, backend, params.suite, params.key, True)
    sa.spi = params.spi
    sa.esn = params.esn
    sa.last = ~<uint64_t>0 >> (0 if sa.esn else 32)
    sa.transport = params.mode == types.Mode.TRANSPORT
    sa.relay = _is_relay(params)
    memcpy(sa.local_id, <const uint8_t *>(<bytes>params.local_id), 16)
    memcpy(sa.peer_id, <const uint8_t *>(<bytes>params.peer_id), 16)
    return 0


cdef void outbound_clear(Outbound *sa) noexcept nogil:
    aead_clear(&sa.aead)


cdef int inbound_init(Inbound *sa, object params, str backend) except -1:
    """Fills a zeroed ``sa``; after an exception, :func:`inbound_clear` frees what was made."""
    _check(params)
    if params.traffic is not None:
        sa.narrow = True
        traffic_set(&sa.traffic, params.traffic)
    replay_init(&sa.window, params.replay_window, params.esn)
    aead_init(&sa.aead, backend, params.suite, params.key, False)
    sa.spi = params.spi
    sa.transport = params.mode == types.Mode.TRANSPORT
    sa.relay = _is_relay(params)
    memcpy(sa.local_id, <const uint8_t *>(<bytes>params.local_id), 16)
    memcpy(sa.peer_id, <const uint8_t *>(<bytes>params.peer_id), 16)
    return 0


cdef void inbound_clear(Inbound *sa) noexcept nogil:
    aead_clear(&sa.aead)
    replay_clear(&sa.window)


cdef inline size_t _associated(
    uint8_t *aad, uint32_t spi, uint64_t sequence, bint esn
) noexcept nogil:
    store32(aad, spi)
    if esn:
        store64(aad + 4, sequence)
        return 12
    store32(aad + 4, <uint32_t>sequence)
    return 8


cdef Py_ssize_t esp_seal(
    Outbound *sa, uint8_t *payload, size_t octets, uint8_t next_header, uint8_t *target
) noexcept nogil:
    return _seal(sa, payload, octets, next_header, target, False)


cdef Py_ssize_t esp_seal_in_place(
    Outbound *sa, uint8_t *target, size_t octets, uint8_t next_header
) noexcept nogil:
    return _seal(sa, target + HEADER_OCTETS, octets, next_header, target, True)


cdef inline Py_ssize_t _seal(
    Outbound *sa, uint8_t *payload, size_t octets, uint8_t next_header, uint8_t *target,
    bint in_place,
) noexcept nogil:
    cdef uint8_t nonce[12]
    cdef uint8_t aad[12]
    cdef uint8_t saved[SLACK_OCTETS]
    cdef uint8_t *trailer = payload + octets
    cdef size_t pad = (4 - (octets + TRAILER_OCTETS) % 4) % 4
    cdef size_t step
    cdef int sealed
    if sa.sequence >= sa.last:
        return -SEQUENCE_EXHAUSTED
    sa.sequence += 1
    store32(target, sa.spi)
    store32(target + 4, <uint32_t>sa.sequence)
    store64(target + 8, sa.sequence)  # the IV
    memcpy(nonce, sa.aead.salt, 4)
    memcpy(nonce + 4, target + 8, 8)
    cdef size_t aad_octets = _associated(aad, sa.spi, sa.sequence, sa.esn)
    if not in_place:
        memcpy(saved, trailer, SLACK_OCTETS)
    for step in range(pad):
        trailer[step] = <uint8_t>(step + 1)
    trailer[pad] = <uint8_t>pad
    trailer[pad + 1] = next_header
    octets += pad + TRAILER_OCTETS
    sealed = sa.aead.backend.seal(
        sa.aead.state, nonce, aad, aad_octets, payload, octets, target + HEADER_OCTETS)
    if not in_place:
        memcpy(trailer, saved, SLACK_OCTETS)
    if not sealed:
        return -AUTHENTICATION  # the library failed; what it wrote must not leave
    return HEADER_OCTETS + octets + TAG_OCTETS


cdef int esp_open(
    Inbound *sa, const uint8_t *packet, size_t octets, uint8_t *target, Opened *opened
) noexcept nogil:
    cdef uint8_t nonce[12]
    cdef uint8_t aad[12]
    if octets < MIN_PACKET_OCTETS:
        return MALFORMED
    if load32(packet) != sa.spi:
        return UNKNOWN_SPI
    if not replay_infer(&sa.window, load32(packet + 4), &opened.sequence):
        return REPLAY
    if not replay_check(&sa.window, opened.sequence):
        return REPLAY
    memcpy(nonce, sa.aead.salt, 4)
    memcpy(nonce + 4, packet + 8, 8)
    octets -= HEADER_OCTETS + TAG_OCTETS
    if not sa.aead.backend.open(
        sa.aead.state, nonce, aad, _associated(aad, sa.spi, opened.sequence, sa.window.esn),
        packet + HEADER_OCTETS, octets, target,
    ):
        return AUTHENTICATION
    replay_mark(&sa.window, opened.sequence)
    return _strip_trailer(target, octets, opened)


cdef inline int _strip_trailer(
    const uint8_t *plain, size_t octets, Opened *opened
) noexcept nogil:
    cdef size_t pad = plain[octets - 2]
    cdef size_t step
    if pad + TRAILER_OCTETS > octets:
        return PADDING
    opened.octets = octets - TRAILER_OCTETS - pad
    for step in range(pad):
        if plain[opened.octets + step] != step + 1:
            return PADDING
    opened.next_header = plain[octets - 1]
    return DUMMY if opened.next_header == NO_NEXT_HEADER else 0


# --- The same, for Python -----------------------------------------------------------------------


cdef class OutboundSa:
    """Seals. ``sequence`` is the number of the last packet, 0 before the first.

    Raises :class:`ValueError` when ``params`` are not those of an SA, or when AEAD backend
    ``aead`` is not there.
    """

    cdef Outbound sa
    cdef readonly object params

    def __cinit__(self, params, uint64_t sequence=0, *, str aead="auto"):
        self.params = params
        outbound_init(&self.sa, params, aead)
        self.sa.sequence = sequence

    def __dealloc__(self):
        outbound_clear(&self.sa)

    @property
    def sequence(self):
        """The number of the last packet."""
        return self.sa.sequence

    @sequence.setter
    def sequence(self, uint64_t value):
        self.sa.sequence = value

    def seal(self, bytes payload, uint8_t next_header=IPV6):
        """Returns a whole ESP packet around ``payload``.

        Raises :class:`fastpath.types.SequenceExhausted` rather than to use a number twice.
        """
        cdef size_t octets = len(payload)
        cdef uint8_t *room = <uint8_t *>malloc(2 * octets + SLACK_OCTETS + OVERHEAD_OCTETS)
        cdef uint8_t *target = room + octets + SLACK_OCTETS
        cdef Py_ssize_t sealed
        if room == NULL:
            raise MemoryError
        try:
            memcpy(room, <const uint8_t *>payload, octets)
            memset(room + octets, 0, SLACK_OCTETS)
            sealed = esp_seal(&self.sa, room, octets, next_header, target)
            if sealed == -SEQUENCE_EXHAUSTED:
                raise types.SequenceExhausted(f"SA {self.sa.spi:08x} has sent its last packet")
            if sealed < 0:
                raise RuntimeError(f"the AEAD of SA {self.sa.spi:08x} failed")
            return PyBytes_FromStringAndSize(<const char *>target, sealed)
        finally:
            free(room)


cdef class InboundSa:
    """Opens. Raises :class:`ValueError` as :class:`OutboundSa` does."""

    cdef Inbound sa
    cdef readonly object params

    def __cinit__(self, params, *, str aead="auto"):
        self.params = params
        inbound_init(&self.sa, params, aead)

    def __dealloc__(self):
        inbound_clear(&self.sa)

    @property
    def sequence(self):
        """The highest authenticated sequence number so far, 0 before the first packet."""
        return self.sa.window.top

    def open(self, bytes packet):
        """Verifies one ESP packet: window check, ICV, window mark, padding, in this order.

        Returns :class:`fastpath.types.Opened` or a :class:`fastpath.types.Drop`; never raises
        for what ``packet`` holds.
        """
        cdef size_t octets = len(packet)
        cdef uint8_t *target = <uint8_t *>malloc(octets + 1)
        cdef Opened opened
        cdef int drop
        if target == NULL:
            raise MemoryError
        try:
            drop = esp_open(&self.sa, <const uint8_t *>packet, octets, target, &opened)
            if drop:
                return types.Drop(drop)
            payload = PyBytes_FromStringAndSize(<const char *>target, opened.octets)
            return types.Opened(payload, opened.next_header, opened.sequence)
        finally:
            free(target)
