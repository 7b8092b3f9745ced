"""Whom the rendezvous tells of changes: long-lived queries and DNS Push under one roof.

:class:`Subscriptions` hands a commit's change to both machines (:mod:`discovery.llq_server`,
:mod:`discovery.push_server`) and keeps what they want to say until the driver takes it, in small
portions: ten thousand events must not keep one question waiting.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import dns.name

from discovery.content import ZoneChange, ZoneContent
from discovery.llq_server import LlqLimits, LlqServer
from discovery.push_server import PushLimits, PushServer
from discovery.ways import End, Unasked, Way


@dataclass(frozen=True, slots=True)
class SubscriptionLimits:
    """What accounts, sources and sessions may hold."""

    llq: LlqLimits = field(default_factory=LlqLimits)
    push: PushLimits = field(default_factory=PushLimits)


DEFAULT_LIMITS: Final = SubscriptionLimits()


class Subscriptions:
    """All that is told unasked. ``random`` gives octets, ``count`` is told of outcomes by name,
    ``zone_of`` returns the content of the zone that a name belongs to."""

    def __init__(
        self,
        random: Callable[[int], bytes],
        count: Callable[[str], None],
        zone_of: Callable[[dns.name.Name], ZoneContent | None],
        limits: SubscriptionLimits = DEFAULT_LIMITS,
    ) -> None:
        self.llq = LlqServer(random, count, limits.llq)
        self.push = PushServer(random, count, zone_of, limits.push)
        self._ended: list[End] = []

    @property
    def size(self) -> int:
        """How many questions are watched."""
        return len(self.llq) + len(self.push)

    def changed(self, change: ZoneChange, now: float) -> None:
        """Let all who are concerned know what a commit did, when :meth:`take` is called."""
        self.llq.changed(change)
        self.push.changed(change, now)

    def end(self, way: Way) -> None:
        """End a connection on which something came that belongs nowhere."""
        if way.connection:
            self._ended.append(End(way.connection, abort=False))

    def gone(self, connection: int) -> None:
        """Forget all that hangs on a connection that has ended."""
        self.llq.gone(connection)
        self.push.gone(connection)

    def holds(self, connection: int) -> bool:
        """Say whether a connection lives by its subscriptions' timeouts and not by the driver's."""
        return self.llq.holds(connection) or self.push.holds(connection)

    @property
    def is_ready(self) -> bool:
        """Whether :meth:`take` has something."""
        return bool(self._ended) or self.push.is_ready or self.llq.is_ready

    def take(self, limit: int, now: float, unix: int) -> list[Unasked]:
        """Return at most ``limit`` messages and ends of connections, in the order to do them."""
        found: list[Unasked] = self.push.take(limit)
        found += self.llq.take(limit - len(found), now, unix)
        found += self._ended
        self._ended = []
        return found

    @property
    def next_alarm(self) -> float:
        """When :meth:`tick` is wanted next, monotonic seconds; infinite if never."""
        return min(self.llq.next_alarm, self.push.next_alarm)

    def tick(self, now: float) -> None:
        """Repeat, give up, expire: what is due."""
        self.llq.tick(now)
        self.push.tick(now)
