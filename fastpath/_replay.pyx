# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The anti-replay window of the native engine (RFC 4303 §3.4.3, RFC 6479); see ``_replay.pxd``."""

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free


cdef int replay_init(Replay *window, object packets, bint esn) except -1:
    """Makes room for ``packets``; :class:`ValueError` outside 32..65536."""
    if not MIN_WINDOW <= packets <= MAX_WINDOW:
        raise ValueError(f"replay window {packets} is not within {MIN_WINDOW}..{MAX_WINDOW}")
    cdef uint32_t size = packets
    cdef uint32_t blocks = 2
    # One block more than the window: the block that the top enters is wiped as a whole.
    while blocks < (size + 63) // 64 + 1:
        blocks *= 2
    window.blocks = <uint64_t *>calloc(blocks, sizeof(uint64_t))
    if window.blocks == NULL:
        raise MemoryError
    window.top = 0
    window.mask = blocks - 1
    window.size = size
    window.esn = esn
    return 0


cdef void replay_clear(Replay *window) noexcept nogil:
    free(window.blocks)
    window.blocks = NULL


cdef class ReplayWindow:
    """:class:`fastpath.reference.replay.ReplayWindow`, in C."""

    cdef Replay window

    def __cinit__(self, size, bint esn):
        replay_init(&self.window, size, esn)

    def __dealloc__(self):
        replay_clear(&self.window)

    @property
    def top(self):
        """The highest marked sequence number, 0 before the first."""
        return self.window.top

    def infer(self, uint32_t low):
        """The full sequence number that ``low`` stands for, or ``None`` outside the space."""
        cdef uint64_t sequence = 0
        return sequence if replay_infer(&self.window, low, &sequence) else None

    def check(self, uint64_t sequence):
        """Whether ``sequence`` is new."""
        return replay_check(&self.window, sequence)

    def mark(self, uint64_t sequence):
        """Records an authenticated ``sequence`` that :meth:`check` let pass."""
        replay_mark(&self.window, sequence)
