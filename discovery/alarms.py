"""When which of many things has to be looked at again.

Each thing has one alarm. To set it later costs nothing (the old entry finds out when it rings), to
set it earlier one entry of a heap; so a million leases that are refreshed again and again cost one
entry each.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import Final, Generic, TypeVar

NEVER: Final = float("inf")
_CANCELLED: Final = -1.0  # earlier than any time: nothing can be set any more
_SPARE: Final = 64  # entries


class Rings:
    """What can be given an alarm."""

    __slots__ = ("rings_at",)

    def __init__(self) -> None:
        self.rings_at = NEVER


T = TypeVar("T", bound=Rings)


class Alarms(Generic[T]):
    """The alarms of many things, in seconds of the monotonic clock."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, T]] = []
        self._number = 0
        self._alive = 0

    @property
    def next(self) -> float:
        """When the next alarm rings, or :data:`NEVER`; it may be one that was cancelled."""
        return self._heap[0][0] if self._heap else NEVER

    def set(self, thing: T, at: float) -> None:
        """Let ``thing`` ring at ``at`` at the latest; whoever it rings for sets it again."""
        if at >= thing.rings_at:
            return
        self._alive += thing.rings_at == NEVER
        thing.rings_at = at
        self._number += 1
        heapq.heappush(self._heap, (at, self._number, thing))
        self._tidy()

    def cancel(self, thing: T) -> None:
        """Let a thing never ring again, whatever is set."""
        self._alive -= 0 <= thing.rings_at < NEVER
        thing.rings_at = _CANCELLED
        self._tidy()

    def _tidy(self) -> None:
        """Throw old entries away before they pile up."""
        if len(self._heap) <= 2 * self._alive + _SPARE:
            return
        kept = {id(entry[2]): entry for entry in self._heap if entry[2].rings_at == entry[0]}
        self._heap = list(kept.values())
        heapq.heapify(self._heap)

    def ringing(self, now: float) -> Iterator[T]:
        """Yield what rings by ``now``; its alarm is off then."""
        while self._heap and self._heap[0][0] <= now:
            at, _, thing = heapq.heappop(self._heap)
            if thing.rings_at == at:
                thing.rings_at = NEVER
                self._alive -= 1
                yield thing
