"""The path MTU of one peer, found by probes and kept (RFC 8899), as a pure machine.

A probe is a packet of a certain size that the peer answers with a small one; no ICMP is needed.
All sizes are octets of the inner packet: one of ``mtu`` octets, sealed, fits the path. ESP pads to
four octets, so only every fourth size makes a difference; the machine counts in those steps.

::

    restart ─> BASE: smallest, base and limit at once ─┬─ limit answered ──────────> COMPLETE
                 │ silence                             └─ else: the sizes between
                 v                                             │ three at a time
              DISABLED: a peer that knows no probes            v
              (``limit``; asked again every ten minutes)     SEARCH ─> COMPLETE, or ERROR (< base)
                                                               ^          │ traffic, or silence
                             the size is lost (a black hole) ──┴── CONFIRM ┘ after it; raise timer

What is not known yet is not refused: until the search ends, packets up to what may still fit are
sent, as fragments where they are larger than what is known to fit. So nothing is lost while we
learn, and no application is told a size that is too small, which its kernel would keep for ten
minutes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from fastpath.types import MINIMUM_MTU

STEP = 4  # octets: the alignment of ESP (RFC 4303 §2.4)
SURE = 1198
"""An inner packet of this size fits every IPv6 link: 1280 octets, less IPv6, UDP and ESP."""

NESTED = 80
"""So much less through a home agent: a second IPv6 header, and a second ESP around it."""

TRAILER = 2  # pad length and next header stand in the same four octets as the payload's end


@dataclass(frozen=True, slots=True)
class PmtuSettings:
    """Times are seconds. Numbers of RFC 8899 §5.1 unless a reason is given."""

    probes: int = 3  # MAX_PROBES
    patience: float = 1.0  # PROBE_TIMER: its lower bound, since a person waits
    raise_after: float = 600.0  # PMTU_RAISE_TIMER
    confirm: float = 15.0  # CONFIRMATION_TIMER, while there is traffic
    # Sent, and nothing heard since: perhaps a black hole. Checked so soon, and so often.
    silence: float = 2.0
    suspect: float = 5.0
    smallest: int = 514  # a path of 576 octets (RFC 791), less the overhead
    at_once: int = 3  # sizes in flight: a lost one costs `probes` times `patience`


class PmtuState(StrEnum):
    """What ``status`` shows (RFC 8899 §5.2)."""

    DISABLED = "disabled"  # the peer answers no probes
    BASE = "base"
    SEARCH = "search"
    COMPLETE = "complete"
    ERROR = "error"  # not even 1280 octets fit: the largest go as fragments


@dataclass(frozen=True, slots=True)
class Probe:
    """Send a probe of the size of an inner packet of ``octets``; its answer names ``number``."""

    number: int
    octets: int


@dataclass(slots=True)
class _Open:
    number: int
    tries: int = 0
    sent: float = float("-inf")


class _Doing(StrEnum):
    RESTING = "resting"
    BASE = "base"
    CONFIRM = "confirm"
    RAISE = "raise"
    SEARCH = "search"


class PathMtu:
    """The machine. ``limit`` is the MTU of the device; ``numbers`` gives a number to each probe.

    ``mtu`` is known to fit (or, of a peer that answers no probes, hoped to); ``largest`` is what
    applications may send. ``due`` is when :meth:`advance` should be called next, if ever.
    """

    due: float | None

    def __init__(
        self,
        limit: int,
        settings: PmtuSettings | None = None,
        numbers: Iterator[int] | None = None,
    ) -> None:
        self._settings = settings or PmtuSettings()
        self._limit_octets = limit
        self._limit = _steps(limit)
        self._base = min(_steps(MINIMUM_MTU), self._limit)
        self._smallest = min(_steps(self._settings.smallest), self._base)
        self._numbers = itertools.count() if numbers is None else numbers
        self._spoke = False  # it has answered, ever
        self._last_in = self._last_out = float("-inf")
        self._open: dict[int, _Open] = {}  # by size, in steps
        self._fits: int | None = None  # the largest that was answered
        self.restart(float("-inf"))

    # --- What it says -------------------------------------------------------------------------

    @property
    def state(self) -> PmtuState:
        """In the words of RFC 8899."""
        match self._doing:
            case _Doing.BASE:
                return PmtuState.BASE
            case _Doing.SEARCH if not self._raising:
                return PmtuState.SEARCH
        if self._current is None:
            return PmtuState.DISABLED
        return PmtuState.ERROR if self._current < self._base else PmtuState.COMPLETE

    # --- What happens -------------------------------------------------------------------------

    def restart(self, now: float, *, nested: bool = False) -> None:
        """The path is another one: what was known of the old one is forgotten. ``nested``: it goes
        through a home agent."""
        self._nested = nested
        sure = SURE - NESTED if nested else SURE
        self.mtu, self.largest = min(sure, self._limit_octets), self._limit_octets
        self._current: int | None = None
        self._checked_at = self._found_at = now
        self._begin_base()
        self.due = self._when()

    def spoke(self, now: float) -> None:
        """The peer sent a probe of its own, so it will answer ours."""
        if self._current is None and self._doing is _Doing.RESTING:
            self.restart(now, nested=self._nested)

    def answered(self, number: int, now: float) -> float | None:
        """The peer has received the probe ``number``; call :meth:`advance` then. Seconds that it
        took, where that is known: of a probe that was sent once."""
        self._spoke, took = True, None
        for size in [size for size, probe in self._open.items() if probe.number == number]:
            took = now - self._open[size].sent if self._open[size].tries == 1 else None
            self._fits = max(size, self._fits or size)
            for smaller in [other for other in self._open if other <= size]:
                del self._open[smaller]
        self.due = self._when()
        return took

    def activity(self, last_in: float | None, last_out: float | None) -> None:
        """When data last came from the peer and went to it."""
        newest_in, newest_out = last_in or self._last_in, last_out or self._last_out
        if newest_in > self._last_in or newest_out > self._last_out:
            self._last_in = max(self._last_in, newest_in)
            self._last_out = max(self._last_out, newest_out)
            self.due = self._when()

    def advance(self, now: float) -> list[Probe]:
        """What is to be sent at ``now``; ``mtu`` and ``largest`` may change."""
        probes = self._advance(now)
        self.due = self._when()
        return probes

    def _advance(self, now: float) -> list[Probe]:
        if self._doing is _Doing.RESTING:
            plan = self._plan()
            if plan is None or plan[0] > now:
                return []
            self._wake(plan[1])
        probes: list[Probe] = []
        while True:
            probes += self._send_due(now)
            if self._open or self._doing is _Doing.RESTING:
                return probes
            self._conclude(now)

    def _when(self) -> float | None:
        """When :meth:`advance` should be called next."""
        if self._doing is not _Doing.RESTING:
            sent = [probe.sent for probe in self._open.values()]
            return min(sent, default=float("-inf")) + self._settings.patience
        plan = self._plan()
        return None if plan is None else plan[0]

    # --- Between searches ---------------------------------------------------------------------

    def _plan(self) -> tuple[float, _Doing] | None:
        """What is to be done next, and when. Nothing without traffic: an idle path is let alone."""
        settings, checked = self._settings, self._checked_at
        if self._last_out <= checked:
            return None
        if self._current is None:
            wait = settings.confirm if self._spoke else settings.raise_after
            return checked + wait, _Doing.BASE
        silent = self._last_out - self._last_in >= settings.silence
        confirm = checked + (settings.suspect if silent else settings.confirm)
        raised = self._found_at + settings.raise_after
        if self._current < self._limit and raised <= confirm:
            return raised, _Doing.RAISE
        return confirm, _Doing.CONFIRM

    def _wake(self, what: _Doing) -> None:
        if what is _Doing.BASE:
            self._begin_base()
            return
        assert self._current is not None
        if what is _Doing.CONFIRM:
            self._begin(what, self._current)
        else:
            self._begin(what, self._limit)
            self._fits = self._current

    def _begin_base(self) -> None:
        self._begin(_Doing.BASE, self._smallest, self._base, self._limit)

    def _begin(self, what: _Doing, *sizes: int) -> None:
        self._doing, self._raising = what, what is _Doing.RAISE
        self._fits, self._fails = None, self._limit + 1
        self._open = {}
        self._ask(*sizes)

    # --- Probes -------------------------------------------------------------------------------

    def _ask(self, *sizes: int) -> None:
        for size in sizes:
            self._open.setdefault(size, _Open(next(self._numbers)))

    def _send_due(self, now: float) -> list[Probe]:
        settings, probes = self._settings, []
        due = [s for s, p in sorted(self._open.items()) if p.sent + settings.patience <= now]
        if self._doing is _Doing.CONFIRM and any(self._open[size].tries == 1 for size in due):
            others = [s for s in (self._smallest, self._base) if s < (self._current or 0)]
            self._ask(*others)  # is it this size, or is the peer silent altogether?
            due += [size for size in others if not self._open[size].tries]
        for size in due:
            probe = self._open[size]
            if probe.tries >= settings.probes:
                del self._open[size]
                self._fails = min(self._fails, size)
                continue
            if probe.tries and self._fits is not None:
                self.mtu = min(self.mtu, self._octets(self._fits))  # until more is known
            probe.tries, probe.sent = probe.tries + 1, now
            probes.append(Probe(probe.number, STEP * size + TRAILER))
        return probes

    # --- Conclusions --------------------------------------------------------------------------

    def _conclude(self, now: float) -> None:
        """Every probe was answered or given up."""
        if self._fits is None:  # silence tells nothing about sizes
            if not self._spoke:
                self.mtu = self._limit_octets
            self._rest(now)
        elif self._doing is _Doing.CONFIRM and self._fits == self._current:
            self.mtu = self._octets(self._fits)
            self._rest(now)
        else:
            self._fails = max(self._fails, self._fits + 1)
            if self._fails - self._fits == 1:
                self._found(self._fits, now)
            else:
                self._narrow(self._fits, self._fails)

    def _narrow(self, fits: int, fails: int) -> None:
        """Asks for a few sizes between, evenly spread."""
        self._doing = _Doing.SEARCH
        parts = self._settings.at_once + 1
        between = {fits + (fails - fits) * part // parts for part in range(1, parts)}
        self._ask(*(between - {fits} or {fits + 1}))
        self.mtu = self._octets(fits)
        self.largest = max(self._octets(fits if self._raising else fails - 1), MINIMUM_MTU)

    def _found(self, size: int, now: float) -> None:
        self._current, self._found_at = size, now
        self.mtu = self._octets(size)
        self.largest = max(self.mtu, MINIMUM_MTU)
        self._rest(now)

    def _rest(self, now: float) -> None:
        self._doing, self._checked_at = _Doing.RESTING, now

    def _octets(self, size: int) -> int:
        return min(STEP * size + TRAILER, self._limit_octets)


def _steps(octets: int) -> int:
    """The smallest step that holds a packet of ``octets``."""
    return -((TRAILER - octets) // STEP)
