"""What a host wants to be told of: the list of hosts, and the hosts that it uses (B6, B48).

A watched host is a lookup that never ends. The tunnel update chain of B48 (AAAA, SRV, A of the
SRV's target) is walked by :class:`~discovery.lookup.Lookup` over what stands at the subscribed
names; a question that it comes to and that nobody has answered yet is subscribed to; and each
change of one of them walks the chain again. So a moved endpoint is known with the message that
tells it, without a question.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import dns.name
import dns.rdata

from discovery import records
from discovery.exchange import Response
from discovery.lookup import Lookup, Outcome, Question
from discovery.rcodes import NOERROR
from discovery.standing import Standing
from discovery.subscription import Subscriptions
from discovery.types import Changed, ClientCommand, HostsListed

MAX_WATCHED: Final = 256
"""Hosts that are watched at most; each has six subscriptions."""


@dataclass(slots=True)
class _Watch:
    label: str
    questions: set[Question] = field(default_factory=set)
    told: Outcome | None = None


class Feed:
    """Watched hosts and plain subscriptions, over one :class:`Subscriptions`.

    Gives :class:`HostFound` or :class:`HostNotFound` for a watched host when the zone's word on it
    changes, :class:`HostsListed` for the list, and :class:`Changed` for plain subscriptions.
    """

    def __init__(self, subscriptions: Subscriptions, domain: str) -> None:
        self._subscriptions = subscriptions
        self._domain = domain
        self._hosts = Question(records.hosts_name(domain), records.PTR)
        self._watching_hosts = False
        self._watches: dict[str, _Watch] = {}
        self._plain: dict[Question, int] = {}  # subscriptions of others: how many

    @property
    def standing(self) -> Standing:
        """What is known."""
        return self._subscriptions.standing

    # --- What is wanted ---

    def subscribe(
        self, name: dns.name.Name, rdtype: int, now: float, unix: int
    ) -> list[ClientCommand]:
        """Hear of changes at a name."""
        question = Question(name, rdtype)
        self._plain[question] = self._plain.get(question, 0) + 1
        return self.pass_on(self._subscriptions.subscribe(question, now, unix), now, unix)

    def unsubscribe(
        self, name: dns.name.Name, rdtype: int, now: float, unix: int
    ) -> list[ClientCommand]:
        """The end of one :meth:`subscribe`."""
        question = Question(name, rdtype)
        if question not in self._plain:
            return []
        self._plain[question] -= 1
        if not self._plain[question]:
            del self._plain[question]
        return self.pass_on(self._subscriptions.unsubscribe(question, now, unix), now, unix)

    def watch_hosts(self, now: float, unix: int) -> list[ClientCommand]:
        """Hear of the list of hosts."""
        if self._watching_hosts:
            return []
        self._watching_hosts = True
        return self.pass_on(self._subscriptions.subscribe(self._hosts, now, unix), now, unix)

    def watch(self, label: str, now: float, unix: int) -> list[ClientCommand]:
        """Hear of one host; ignored for a label that is none, and beyond :data:`MAX_WATCHED`."""
        label = label.lower()
        if label in self._watches or len(self._watches) >= MAX_WATCHED:
            return []
        try:
            records.host_name(label, self._domain)
        except records.RecordsError:
            return []
        watch = self._watches[label] = _Watch(label)
        return self.pass_on(self._walk(watch, now, unix), now, unix)

    def unwatch(self, label: str, now: float, unix: int) -> list[ClientCommand]:
        """Hear of one host no more."""
        watch = self._watches.pop(label.lower(), None)
        gone = set() if watch is None else watch.questions
        return self.pass_on(self._drop(gone, now, unix), now, unix)

    @property
    def watched(self) -> frozenset[str]:
        """The labels of the watched hosts."""
        return frozenset(self._watches)

    # --- What comes ---

    def pass_on(self, commands: list[ClientCommand], now: float, unix: int) -> list[ClientCommand]:
        """Turn the changes among ``commands`` into what our users want to hear."""
        told: list[ClientCommand] = []
        while commands:
            touched: set[Question] = set()
            for command in commands:
                if not isinstance(command, Changed):
                    told.append(command)
                    continue
                question = Question(command.name, command.rdtype)
                touched.add(question)
                told += self._plainly(question, command)
            commands = []
            for watch in list(self._watches.values()):
                if watch.questions & touched:
                    commands += self._walk(watch, now, unix)
        return told

    def _plainly(self, question: Question, change: Changed) -> list[ClientCommand]:
        told: list[ClientCommand] = []
        if question in self._plain:
            told.append(change)
        if question == self._hosts and self._watching_hosts:
            told.append(HostsListed(records.labels_in(change.records, self._domain)))
        return told

    def _walk(self, watch: _Watch, now: float, unix: int) -> list[ClientCommand]:
        """Walk the chain of B48 as far as what is known goes."""
        needed, outcome, complete = walk(watch.label, self._domain, self.standing.data)
        commands: list[ClientCommand] = []
        for question in needed - watch.questions:
            commands += self._subscriptions.subscribe(question, now, unix)
        watch.questions |= needed
        if complete:
            gone, watch.questions = watch.questions - needed, needed
            commands += self._drop(gone, now, unix)
        if outcome is not None and outcome != watch.told:
            watch.told = outcome
            commands.append(outcome)
        return commands

    def _drop(self, questions: set[Question], now: float, unix: int) -> list[ClientCommand]:
        return [c for one in questions for c in self._subscriptions.unsubscribe(one, now, unix)]


def walk(
    label: str, domain: str, known: Callable[[Question], tuple[dns.rdata.Rdata, ...] | None]
) -> tuple[set[Question], Outcome | None, bool]:
    """Walk B48 over known data; return the questions on the way, the outcome if the data suffice
    for one, and whether nothing was missing."""
    lookup = Lookup(label, domain)
    to_ask = lookup.first()
    needed = set(to_ask)
    missing = False
    while to_ask:
        question = to_ask.pop(0)
        needed.add(question)
        data = known(question)
        if data is None:
            missing = True
            continue
        answer = tuple((question.name, question.rdtype, one) for one in data)
        step = lookup.take(question, Response(0, 0, NOERROR, False, question, answer))
        if not isinstance(step, list):
            return needed, step, True
        to_ask += step
    return needed, None, not missing
