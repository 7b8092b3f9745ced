"""The anti-replay window (RFC 4303 §3.4.3) as a ring of blocks (RFC 6479), with ESN (App. A).

The two steps are apart on purpose: :meth:`ReplayWindow.check` before the ICV is verified and
:meth:`ReplayWindow.mark` after it, so that a forged packet can never move the window.
"""

from __future__ import annotations

BLOCK_BITS = 64
MIN_WINDOW = 32  # RFC 4303 §3.4.3: MUST support 32
MAX_WINDOW = 65536
LOW_MASK = 0xFFFF_FFFF


class ReplayWindow:
    """Remembers which of the last ``size`` sequence numbers were seen; ``top`` is the highest.

    Sequence numbers are full 64-bit counters with ``esn``, else 32-bit. Number 0 is never valid.
    """

    def __init__(self, size: int, esn: bool) -> None:
        if not MIN_WINDOW <= size <= MAX_WINDOW:
            raise ValueError(f"replay window {size} is not within {MIN_WINDOW}..{MAX_WINDOW}")
        self.size = size
        self.esn = esn
        self.top = 0
        # One block more than the window needs: the block that `top` enters is wiped as a whole
        # (RFC 6479 §3), and it must not hold bits that are still in the window.
        self._blocks = [0] * (-(-size // BLOCK_BITS) + 1)

    def infer(self, low: int) -> int | None:
        """The full sequence number of a packet that carries ``low`` (RFC 4303 App. A2.2).

        ``None`` when it would lie before the first or behind the last number of the space.
        """
        if not self.esn:
            return low
        top_low, high = self.top & LOW_MASK, self.top >> 32
        bottom = (top_low - self.size + 1) & LOW_MASK
        if top_low >= self.size - 1:  # case A: the window lies within one subspace
            high += low < bottom
        else:  # case B: it spans two
            high -= low >= bottom
        return (high << 32) | low if 0 <= high <= LOW_MASK else None

    def check(self, sequence: int) -> bool:
        """Whether ``sequence`` is new: right of the window, or in it and not yet marked."""
        if sequence == 0 or sequence + self.size <= self.top:
            return False
        if sequence > self.top:
            return True
        block, bit = self._place(sequence)
        return not self._blocks[block] & bit

    def mark(self, sequence: int) -> None:
        """Records an authenticated ``sequence`` that :meth:`check` let pass."""
        count = len(self._blocks)
        if sequence > self.top:
            entered = sequence // BLOCK_BITS - self.top // BLOCK_BITS
            for step in range(min(entered, count)):
                self._blocks[(sequence // BLOCK_BITS - step) % count] = 0
            self.top = sequence
        block, bit = self._place(sequence)
        self._blocks[block] |= bit

    def _place(self, sequence: int) -> tuple[int, int]:
        return sequence // BLOCK_BITS % len(self._blocks), 1 << sequence % BLOCK_BITS
