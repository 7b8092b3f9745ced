"""Subscriptions: hearing of changes in the zone, by the best way that the rendezvous has (B42-B47).

Three steps, each with a machine of its own; a fall goes down one, and it is climbed again:

- ``push``, :mod:`discovery.subscription_push`: over TLS; nothing is lost while it stands;
- ``llq``, :mod:`discovery.subscription_llq`: a handshake, leases, acknowledged events;
- ``poll``, :mod:`discovery.subscription_poll`: the serial, then the records, for all else.

Whatever the step, the user of :class:`Subscriptions` gets the same
:class:`~discovery.types.Changed`, and is never told twice of one change. What is known stays known
across falls and reconnects; a new session only tells the difference.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import dns.name

from discovery import dso
from discovery.lookup import Question
from discovery.standing import Standing
from discovery.subscription_llq import LongLivedQueries
from discovery.subscription_poll import Pace, Poll, Polled
from discovery.subscription_push import PushSession
from discovery.types import Changed, ClientCommand, TsigKey

PATIENCE: Final = 3.0
"""Seconds that a better step may take on a new connection before polling begins beside it."""


@dataclass(frozen=True, slots=True)
class Ways:
    """What the transport allows. ``push``: DNS Push, which needs TLS. ``reliable``: nothing is lost
    while the connection stands. ``proven``: the connection proves who speaks on it."""

    push: bool = True
    reliable: bool = True
    proven: bool = True


class Subscriptions:
    """All that this host wants to hear of. ``taken`` says which message IDs are in use otherwise.

    Every method returns commands, among them :class:`~discovery.types.Changed`.
    """

    def __init__(
        self,
        domain: str,
        key: TsigKey,
        random: Callable[[int], bytes],
        taken: Callable[[int], bool],
        ways: Ways,
    ) -> None:
        self._zone = dns.name.from_text(domain)
        self._ways = ways
        self.standing = Standing()
        self._push = PushSession(self.standing, domain, key, random, taken)
        self._llq = LongLivedQueries(
            self.standing, key, random, taken, reliable=ways.reliable, proven=ways.proven
        )
        self._pace = Pace(random, watch=not ways.reliable)
        self._polling = False
        self._waiting = False  # with the first poll, for a better step
        self._serial: int | None = None
        self._up = False

    # --- What it is like now ---

    @property
    def step(self) -> str | None:
        """By which step changes reach us now: "push", "llq", "poll", or ``None`` for not at all."""
        if not self._up or not self.standing.questions:
            return None
        if self._push.live:
            return "push"
        return "poll" if self._llq.lease is None else "llq"

    @property
    def lease(self) -> int | None:
        """The lease of our long-lived queries in seconds, if there are any."""
        return self._llq.lease

    @property
    def holds(self) -> bool:
        """Whether the connection carries a session that would end with it, so that it must be
        made anew if it is closed."""
        return self._push.running or self._llq.lease is not None

    # --- What is wanted ---

    def subscribe(self, question: Question, now: float, unix: int) -> list[ClientCommand]:
        """Hear of changes there. The first :class:`Changed` tells what stands there."""
        if not self.standing.want(question):
            known = self.standing.data(question)
            return [] if known is None else [Changed(*question, (), (), known)]
        commands = self._push.add(question, now) + self._llq.add(question, now, unix)
        return commands + self._work(now, unix)

    def unsubscribe(self, question: Question, now: float, unix: int) -> list[ClientCommand]:
        """One fewer wants to hear of changes there."""
        if not self.standing.unwant(question):
            return []
        commands = self._push.remove(question, now) + self._llq.remove(question, unix)
        return commands + self._work(now, unix)

    # --- What happens ---

    def transport_up(self, now: float, unix: int) -> list[ClientCommand]:
        """A new connection stands; all sessions of an older one are over."""
        self._push.lost(now)
        self._llq.end()
        self._pace.stop()
        self._up = True
        return self._work(now, unix)

    def transport_down(self, now: float) -> None:
        """The rendezvous cannot be reached. What is known stays known."""
        self._push.lost(now)
        self._llq.end()
        self._pace.stop()
        self._up = False

    def receive(self, wire: bytes, now: float, unix: int) -> list[ClientCommand] | None:
        """Take a message if it belongs to a session or a long-lived query, else ``None``."""
        if dso.is_dso(wire):
            return self._push.receive(wire, now) + self._work(now, unix)
        if self._push.is_greeting(wire):
            return []
        commands = self._llq.receive(wire, now, unix)
        return None if commands is None else commands + self._work(now, unix)

    def poll(self, now: float) -> Poll | None:
        """Return the poll that is due; :meth:`polled` must be given its outcome."""
        if self._polling or self._pace.due is None or self._pace.due > now:
            return None
        self._polling = True
        self._pace.under_way()
        uncovered = [one for one in self.standing.questions if not self._covers(one)]
        unknown = [one for one in uncovered if self.standing.data(one) is None]
        always = [*unknown, *self._llq.doubtful]
        watched = self.standing.questions if self._pace.watch else uncovered
        others = [one for one in watched if one not in always]
        return Poll(self._zone, self._serial, always, others)

    def polled(self, outcome: Polled, now: float, unix: int) -> list[ClientCommand]:
        """Take the outcome of a poll."""
        self._polling = False
        commands: list[ClientCommand] = []
        news = False
        for question, records in outcome.answers:
            self._llq.doubtful.discard(question)
            if self._push.covers(question):
                continue  # it was told meanwhile, and better
            new = self.standing.replace(question, records)
            if new and self._llq.covers(question):
                commands += self._llq.anew(question, now, unix)
            news |= new
        self._serial = self._serial if outcome.serial is None else outcome.serial
        if self._up:
            self._pace.next(now, news=news, failed=bool(outcome.reason))
        return commands + self._work(now, unix)

    def advance(self, now: float, unix: int) -> list[ClientCommand]:
        """Do what is due."""
        self.standing.settle(now)
        commands = self._push.advance(now) + self._llq.advance(now, unix)
        return commands + self._work(now, unix)

    def next_timer(self) -> float | None:
        """When :meth:`advance` is due, in monotonic seconds."""
        times = [self.standing.next_timer(), self._pace.due]
        if self._up:
            times += [self._push.next_timer(), self._llq.next_timer(), self._climb_at]
        return min((at for at in times if at is not None), default=None)

    # --- The steps ---

    def _covers(self, question: Question) -> bool:
        return self._push.covers(question) or self._llq.covers(question)

    def _work(self, now: float, unix: int) -> list[ClientCommand]:
        """Climb where that is possible, poll for what is not covered, tell what has changed."""
        commands: list[ClientCommand] = []
        if self._up and self.standing.questions:
            commands += self._climb(now, unix)
            self._watch(now)
        else:
            self._pace.stop()
        return [*commands, *self.standing.take()]

    def _climb(self, now: float, unix: int) -> list[ClientCommand]:
        if self._push.established:
            return self._llq.give_up(unix)
        if self._push.running:
            return []  # the answer will come, or the patience end
        if self._ways.push and self._push.may_begin_at <= now:
            return self._push.begin(now, unix)
        if not self._llq.running and self._llq.may_begin_at <= now:
            return self._llq.begin(now, unix)
        return []

    @property
    def _climb_at(self) -> float | None:
        """When a better step than the present one may be tried."""
        times: list[float] = []
        if not self.standing.questions or self._push.running:
            return None
        if self._ways.push:
            times.append(self._push.may_begin_at)
        if not self._llq.running:
            times.append(self._llq.may_begin_at)
        return min(times, default=None)

    def _watch(self, now: float) -> None:
        """Let polls begin or end with the need for them."""
        wanted = self._pace.watch or bool(self._llq.doubtful)
        if not wanted:
            wanted = not all(self._covers(one) for one in self.standing.questions)
        if not wanted:
            self._pace.stop()
        elif not self._polling:
            hopeful = self._push.running or self._llq.running
            if self._pace.due is None:
                self._pace.start(now, PATIENCE if hopeful else 0.0)
            elif self._waiting and not hopeful:
                self._pace.start(now)  # what it waited for will not be
            self._waiting = hopeful and self._pace.fresh
