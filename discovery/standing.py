"""What stands at the names that we subscribed to, and how each message changes it.

Whoever learns something (a session, a long-lived query, a poll) puts it in here; what came of it is
taken out as :class:`~discovery.types.Changed`, one for each question whatever was said about it in
between, so that a replaced record is one change and never a moment without any.

A new session tells everything from the start, but does not say when it has told it all (RFC 8765
§6.3). So what we knew before stays for :data:`SETTLE` seconds; then what was not told again goes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import dns.rdata

from discovery.lookup import Question
from discovery.types import Changed

SETTLE: Final = 1.0
"""Seconds after which a new session has told what stands: it is sent right behind the answer."""

MAX_RECORDS: Final = 4096
"""Data kept for one question; no zone of ours has more at one name."""

_Data: TypeAlias = dict[dns.rdata.Rdata, None]  # a set that keeps its order


@dataclass(slots=True)
class _Entry:
    users: int = 0
    data: _Data | None = None  # None: nobody told us yet
    told: _Data | None = None  # as last taken out
    fresh: _Data = field(default_factory=dict)
    settle_at: float | None = None


class Standing:
    """The wanted questions and the data of each. Pure; ``now`` is monotonic seconds."""

    def __init__(self) -> None:
        self._entries: dict[Question, _Entry] = {}
        self._touched: dict[Question, None] = {}

    @property
    def questions(self) -> list[Question]:
        """All that is wanted, in the order in which it was."""
        return list(self._entries)

    def __contains__(self, question: Question) -> bool:
        return question in self._entries

    def data(self, question: Question) -> tuple[dns.rdata.Rdata, ...] | None:
        """What stands there as far as we know; ``None`` while nobody has told us."""
        entry = self._entries.get(question)
        return None if entry is None or entry.data is None else tuple(entry.data)

    # --- Who wants what ---

    def want(self, question: Question) -> bool:
        """One more wants it; true if it is the first."""
        entry = self._entries.setdefault(question, _Entry())
        entry.users += 1
        return entry.users == 1

    def unwant(self, question: Question) -> bool:
        """One fewer wants it; true if it was the last."""
        entry = self._entries.get(question)
        if entry is None:
            return False
        entry.users -= 1
        if entry.users:
            return False
        del self._entries[question]
        self._touched.pop(question, None)
        return True

    # --- What is learnt ---

    def begin(self, question: Question, now: float) -> None:
        """A new session accepted the question, and will tell what stands there."""
        entry = self._entries.get(question)
        if entry is not None:
            entry.fresh, entry.settle_at = {}, now + SETTLE

    def forget_session(self) -> None:
        """The session is over: what it had not told yet says nothing."""
        for entry in self._entries.values():
            entry.settle_at = None

    def add(self, question: Question, rdata: dns.rdata.Rdata) -> None:
        """A record stands there."""
        entry = self._entries.get(question)
        if entry is None:
            return
        entry.data = {} if entry.data is None else entry.data
        if len(entry.data) >= MAX_RECORDS and rdata not in entry.data:
            return
        if entry.settle_at is not None:
            entry.fresh[rdata] = None
        entry.data[rdata] = None
        self._touched[question] = None

    def remove(self, question: Question, rdata: dns.rdata.Rdata | None = None) -> None:
        """A record stands there no more; without ``rdata``, none does."""
        entry = self._entries.get(question)
        if entry is None:
            return
        if rdata is None:
            entry.data, entry.fresh = {}, {}
        elif entry.data is not None:
            entry.data.pop(rdata, None)
            entry.fresh.pop(rdata, None)
        self._touched[question] = None

    def replace(self, question: Question, records: Iterable[dns.rdata.Rdata]) -> bool:
        """Exactly this stands there; true if that is news."""
        entry = self._entries.get(question)
        if entry is None:
            return False
        new = dict.fromkeys(list(records)[:MAX_RECORDS])
        news = entry.data is None or set(entry.data) != set(new)
        entry.data, entry.settle_at = new, None
        self._touched[question] = None
        return news

    def settle(self, now: float) -> None:
        """What a session had time to tell again and did not, is gone."""
        for question, entry in self._entries.items():
            if entry.settle_at is not None and entry.settle_at <= now:
                entry.settle_at = None
                entry.data, entry.fresh = entry.fresh, {}
                self._touched[question] = None

    def next_timer(self) -> float | None:
        """When :meth:`settle` is due."""
        times = (entry.settle_at for entry in self._entries.values())
        return min((at for at in times if at is not None), default=None)

    # --- What came of it ---

    def take(self) -> list[Changed]:
        """Return the changes since the last call; the first one of a question always."""
        touched, self._touched = self._touched, {}
        changes = []
        for question in touched:
            entry = self._entries[question]
            if entry.data is None:
                continue
            before = entry.told or {}
            added = tuple(one for one in entry.data if one not in before)
            removed = tuple(one for one in before if one not in entry.data)
            if added or removed or entry.told is None:
                entry.told = dict(entry.data)
                changes.append(Changed(*question, added, removed, tuple(entry.data)))
        return changes
