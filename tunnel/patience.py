"""How long a NAT remembers a flow that nobody uses, found by trying (a pure machine).

A silence of a certain length is survived or not. The length grows by half as long as it is, then
the place between the longest that was and the shortest that was not is halved. What was lost once
may have been lost like any packet; what was lost twice was forgotten.

RFC 4787 REQ-5 asks NATs for two minutes and recommends five; RFC 3948 §4 takes 20 s, since there
are NATs that forget after 30. RFC 5626 §4.4.1 has 24 to 29 s for those that cannot find out.
"""

from __future__ import annotations

SHORTEST = 15.0
"""Seconds between keepalives where a NAT forgets faster than all that RFC 3948 knows of."""

_GROWTH = 1.5
_PRECISE = 0.1  # of the length: closer it need not be known
_MARGIN = 1.0  # seconds: timers are late, and the network is
_HOLDS = 3600.0  # seconds until what was found is looked at again
_TWICE = 2


class Patience:
    """The search in one network. Times and lengths are seconds, ``start`` is believed at first."""

    def __init__(self, start: float, longest: float) -> None:
        self._start, self._longest = start, max(start, longest)
        self._low, self._high = start, float("inf")
        self._ceiling = float("inf")  # what failed in use
        self._misses: dict[int, int] = {}
        self._looked_at: float | None = None  # when ``low`` was last seen to hold

    @property
    def interval(self) -> float:
        """So often a keepalive is needed."""
        return self._low - _MARGIN if self._low > self._start else self._low

    def trial(self, now: float) -> int | None:
        """The silence to try next; ``None`` while enough is known."""
        if self._looked_at is not None and now - self._looked_at >= _HOLDS:
            self._high, self._looked_at = self._ceiling, None  # it may remember longer by now
        if self._looked_at is None:
            return round(self._low)
        if self._high == float("inf"):
            wanted = min(self._low * _GROWTH, self._longest)
        else:
            wanted = (self._low + self._high) / 2
        return round(wanted) if wanted - self._low > self._low * _PRECISE / 2 else None

    def survived(self, seconds: int, now: float) -> None:
        """A silence of this length was."""
        self._low, self._looked_at = max(self._low, float(seconds)), now
        self._misses.clear()

    def lost(self, seconds: int, now: float) -> None:
        """After a silence of this length a packet did not come."""
        self._misses[seconds] = self._misses.get(seconds, 0) + 1
        if self._misses[seconds] < _TWICE:
            return
        if seconds > self._low:
            self._high = min(self._high, float(seconds))
            return
        self._high = max(self._low, SHORTEST + 1)
        self._low = max(SHORTEST, min(self._low / 2, self._start))
        self._looked_at = None if self._low > SHORTEST else now

    def failed(self, now: float) -> None:
        """The present interval was too long, though its trial was survived: trials do not measure
        this NAT. Nothing longer than the start is believed any more."""
        self._low = self._start if self._low > self._start else SHORTEST
        self._high = self._ceiling = self._low
        self._misses.clear()
        self._looked_at = now
