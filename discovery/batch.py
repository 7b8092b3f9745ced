"""Group commit: UPDATEs that come while the disk is busy share the next write (RFC 2136 §3.5).

One write is under way at a time. The UPDATEs that wait are worked out one after the other, each on
what the one before left (RFC 2136 §3.7: atomic, and in some order), written together, and answered
when all of it is on disk. Should the disk fail, each of them gets SERVFAIL, also one that failed by
itself: what it failed by may have been an UPDATE before it that never became true.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

import dns.name

from discovery import duplicates, rcodes
from discovery.held import HeldZone, Stage, Writing
from discovery.lease import Lease
from discovery.message import Reply, Request
from discovery.store import Changes, StoreError

MAX_WAITING: Final = 4096
"""UPDATEs that may wait; a further one is answered SERVFAIL, and its requestor tries again."""

MAX_TOGETHER: Final = 512
"""UPDATEs in one write, so that nobody waits for more than these."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A signed UPDATE of its account's own zone that waits for the disk.

    ``wire`` is the message as it came and ``until`` (unix seconds) when its signature is too old;
    ``granted`` is the lease of what it adds. ``finish`` turns its reply into the answer, which
    belongs to ``ticket``, whatever that is to the driver.
    """

    zone: HeldZone
    request: Request
    wire: bytes
    until: int
    granted: Lease | None
    finish: Callable[[Reply], bytes]
    ticket: object = None


@dataclass(slots=True)
class Batch:
    """What is written together, and what its UPDATEs will be answered then."""

    writings: list[tuple[HeldZone, Writing]] = field(default_factory=list)
    replies: list[tuple[Waiting, Reply]] = field(default_factory=list)
    repeated: list[tuple[Waiting, bytes]] = field(default_factory=list)

    @property
    def changes(self) -> dict[dns.name.Name, Changes]:
        """What :meth:`discovery.store.ZoneStore.commit` is to write; empty: nothing."""
        return {zone.origin: writing.changes for zone, writing in self.writings if writing.changes}


class UpdateQueue:
    """The UPDATEs of all accounts that wait, in the order in which they came."""

    def __init__(self) -> None:
        self._waiting: deque[Waiting] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, one: Waiting) -> bool:
        """Let one more wait, or say that there are too many."""
        if len(self._waiting) >= MAX_WAITING:
            return False
        self._waiting.append(one)
        return True

    def begin(self, zones: Iterable[HeldZone], unix: int) -> Batch | None:
        """Return what is to be written now, with the ends of leases in ``zones`` that wait for it;
        ``None`` if nothing waits. :meth:`end` must follow before the next."""
        zones = list(zones)
        for zone in zones:
            zone.prepare(unix)
        ended = [zone for zone in zones if zone.has_due_end(unix)]
        if not self._waiting and not ended:
            return None
        batch = Batch()
        stages: dict[dns.name.Name, tuple[HeldZone, Stage]] = {}
        for zone in ended:
            stages[zone.origin] = zone, zone.stage()
            batch.replies += zone.replies()
        seen: set[bytes] = set()
        for _ in range(min(len(self._waiting), MAX_TOGETHER)):
            one = self._waiting.popleft()
            key = duplicates.key_of(one.wire)
            if key in seen or one.zone.answered.find(one.wire, unix) is not None:
                batch.repeated.append((one, one.wire))
                continue
            if one.zone.origin not in stages:
                stages[one.zone.origin] = one.zone, one.zone.stage()
            reply = one.zone.carry_out(stages[one.zone.origin][1], one, unix)
            if reply is not None:
                seen.add(key)
                batch.replies.append((one, reply))
        batch.writings = [(zone, zone.write(stage)) for zone, stage in stages.values()]
        return batch

    def end(self, batch: Batch, error: StoreError | None, unix: int) -> list[tuple[Waiting, bytes]]:
        """Make true what was written, or, with ``error``, undo it; return all answers."""
        for zone, writing in batch.writings:
            if error is None:
                zone.settle(writing)
            else:
                zone.undo(writing, unix)
        answers: list[tuple[Waiting, bytes]] = []
        for one, reply in batch.replies:
            if error is not None:
                reply = Reply(rcode=rcodes.SERVFAIL, reason=f"the store failed: {error}")
            answer = one.finish(reply)
            if reply.rcode == rcodes.NOERROR:
                one.zone.answered.remember(one.wire, answer, one.until, unix)
            answers.append((one, answer))
        for one, wire in batch.repeated:
            again = one.zone.answered.find(wire, unix)
            if again is not None:  # else the first of them failed, and its answer went the same way
                answers.append((one, again))
        return answers
