# The anti-replay window (RFC 4303 §3.4.3) as a ring of blocks (RFC 6479), with ESN (App. A).
#
# fastpath/reference/replay.py says the same in Python. Check before the ICV is verified, mark
# after it.

from libc.stdint cimport uint32_t, uint64_t

cdef enum:
    MIN_WINDOW = 32
    MAX_WINDOW = 65536

cdef struct Replay:
    uint64_t top  # highest authenticated sequence number
    uint64_t *blocks
    uint32_t mask  # number of blocks - 1; a power of two, more than the window needs
    uint32_t size
    bint esn

cdef int replay_init(Replay *window, object packets, bint esn) except -1
cdef void replay_clear(Replay *window) noexcept nogil


cdef inline bint replay_infer(
    const Replay *window, uint32_t low, uint64_t *sequence
) noexcept nogil:
    # RFC 4303 App. A2.2; false where it would lie outside the space.
    cdef uint32_t top = <uint32_t>window.top
    cdef uint64_t high = window.top >> 32
    cdef uint32_t bottom = top - window.size + 1  # modulo 2^32
    if window.esn:
        if top >= window.size - 1:  # case A: the window lies within one subspace
            if low < bottom:
                high += 1
                if high >> 32:
                    return False
        elif low >= bottom:  # case B: it spans two
            if high == 0:
                return False
            high -= 1
        sequence[0] = (high << 32) | low
    else:
        sequence[0] = low
    return True


cdef inline bint replay_check(const Replay *window, uint64_t sequence) noexcept nogil:
    if sequence > window.top:
        return True
    if sequence == 0 or window.top - sequence >= window.size:
        return False
    return not (window.blocks[(sequence >> 6) & window.mask] >> (sequence & 63)) & 1


cdef inline void replay_mark(Replay *window, uint64_t sequence) noexcept nogil:
    cdef uint64_t block = sequence >> 6
    cdef uint64_t entered, step
    if sequence > window.top:
        entered = block - (window.top >> 6)
        if entered > <uint64_t>window.mask + 1:
            entered = <uint64_t>window.mask + 1
        for step in range(entered):
            window.blocks[(block - step) & window.mask] = 0
        window.top = sequence
    window.blocks[block & window.mask] |= <uint64_t>1 << (sequence & 63)
