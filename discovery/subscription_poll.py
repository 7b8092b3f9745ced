"""Looking for changes by asking, where nobody tells us of them (the last step; B42 rejects more).

One small question, for the zone's serial; only where it has grown, and for questions that were
never answered, the records themselves. The pauses grow from one second to a minute, with jitter,
and start anew with each change, since changes come in company; after a failure they grow on.

On UDP, where the server's events may find no way back through a NAT, the same question keeps that
way open beside long-lived queries, and shows what events have failed to tell.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import dns.name
import dns.rdata
import dns.rdatatype
import dns.rdtypes.ANY.SOA

from discovery.exchange import Response
from discovery.lookup import Question
from discovery.rcodes import NOERROR, NXDOMAIN

FIRST: Final = 1.0  # seconds
CAP: Final = 60.0
WATCH: Final = 20.0  # seconds: RFC 3948 §4 has the same for the same NATs
FAILED_CAP: Final = 900.0  # RFC 8764 §5.2.1 has no client poll a server in trouble more often
_AT_ONCE: Final = 16  # questions under way
_SOA: Final = int(dns.rdatatype.SOA)


@dataclass(frozen=True, slots=True)
class Polled:
    """What one poll has found: the zone's serial, and what stands at each question that was asked.
    ``reason`` says why it came to nothing."""

    serial: int | None
    answers: tuple[tuple[Question, tuple[dns.rdata.Rdata, ...]], ...] = ()
    reason: str = ""


class Poll:
    """One poll, as :class:`discovery.lookup.Lookup`: ``always`` is asked whatever the serial,
    ``others`` only where it is not ``serial``."""

    def __init__(
        self,
        zone: dns.name.Name,
        serial: int | None,
        always: list[Question],
        others: list[Question],
    ) -> None:
        self._soa = Question(zone, _SOA)
        self._before = serial
        self._always, self._others = always, others
        self._serial: int | None = None
        self._to_ask: list[Question] = []
        self._waiting: set[Question] = set()
        self._answers: list[tuple[Question, tuple[dns.rdata.Rdata, ...]]] = []

    def first(self) -> list[Question]:
        """Return the question for the serial."""
        return [self._soa]

    def take(self, question: Question, response: Response) -> list[Question] | Polled:
        """Take an answer; return what is asked next, or the outcome."""
        if response.truncated:
            return self.failed("the answer does not fit; use transport tls or tcp")
        if response.rcode not in (NOERROR, NXDOMAIN):
            return self.failed(f"the rendezvous answers {response.says}")
        found = response.at(*question)
        if question == self._soa and self._serial is None:
            soa = next((one for one in found if isinstance(one, dns.rdtypes.ANY.SOA.SOA)), None)
            if soa is None:
                return self.failed("the zone has no serial")
            self._serial = soa.serial
            changed = self._serial != self._before
            self._to_ask = [*self._always, *(self._others if changed else [])]
        else:
            self._waiting.discard(question)
            self._answers.append((question, found))
        new = self._to_ask[: _AT_ONCE - len(self._waiting)]
        del self._to_ask[: len(new)]
        self._waiting.update(new)
        if new or self._waiting:
            return new
        return Polled(self._serial, tuple(self._answers))

    def failed(self, reason: str) -> Polled:
        """Return the outcome of a poll that came to nothing."""
        return Polled(None, (), reason)


class Pace:
    """When the next poll is due. ``watch``: polls go on beside long-lived queries."""

    def __init__(self, random: Callable[[int], bytes], *, watch: bool) -> None:
        self._random = random
        self.watch = watch
        self._pause = FIRST
        self.fresh = True
        """Whether no poll has been made since :meth:`start`."""
        self.due: float | None = None

    def start(self, now: float, after: float = 0.0) -> None:
        """Begin soon, ``after`` seconds from now, with short pauses."""
        self._pause, self.due, self.fresh = FIRST, now + after, True

    def stop(self) -> None:
        """No more polls."""
        self.due = None

    def under_way(self) -> None:
        """A poll has begun: the next one waits for its end."""
        self.due, self.fresh = None, False

    def next(self, now: float, *, news: bool, failed: bool) -> None:
        """A poll has ended; it brought news, or failed."""
        if news:
            self._pause = FIRST
        jitter = 0.75 + 0.5 * self._random(1)[0] / 255  # so that an account's hosts spread out
        self.due = now + self._pause * jitter
        cap = FAILED_CAP if failed else WATCH if self.watch else CAP
        self._pause = min(2 * self._pause, cap)
