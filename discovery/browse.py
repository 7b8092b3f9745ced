"""Finding services: DNS-SD's chain of questions as a machine (RFC 6763 §4, §9), and any single one.

:class:`Browse` asks for the types (unless it was given one), then for each type's instances, then
for each instance's SRV and TXT; what an instance lacks leaves it out, never the others.
:class:`Ask` is one question of an application, handed through by the stub resolver.
"""

from __future__ import annotations

from typing import Final

import dns.name
import dns.rdata

from discovery import records, services
from discovery.exchange import Response
from discovery.lookup import Question
from discovery.rcodes import NOERROR, NXDOMAIN
from discovery.types import FoundService, RecordsFound, Service, ServicesFound

MAX_TYPES: Final = 64
MAX_INSTANCES: Final = 256
"""Types and instances that are followed; a larger account is browsed type by type."""


class Ask:
    """One question to the zone, for whatever stands there; as :class:`discovery.lookup.Lookup`."""

    def __init__(self, name: dns.name.Name, rdtype: int) -> None:
        self._question = Question(name, rdtype)

    def first(self) -> list[Question]:
        """Return the only question."""
        return [self._question]

    def take(self, question: Question, response: Response) -> RecordsFound:
        """Take its answer."""
        if response.truncated:
            return self.failed("the answer does not fit; use transport tls or tcp")
        if response.rcode not in (NOERROR, NXDOMAIN):
            return self.failed(f"the rendezvous answers {response.says}")
        exists = response.rcode == NOERROR
        return RecordsFound(*self._question, response.at(*question), exists)

    def failed(self, reason: str) -> RecordsFound:
        """Return the outcome of a question that came to nothing."""
        return RecordsFound(*self._question, (), False, reason)


class Browse:
    """All services of one type, or of all types where ``kind`` is empty."""

    def __init__(self, kind: str, domain: str) -> None:
        self._kind = kind
        self._domain = domain
        self._types = Question(services.types_name(domain), records.PTR)
        self._lists: dict[Question, str] = {}  # the question for a type's instances: the type
        self._waiting: set[Question] = set()
        self._instances: dict[dns.name.Name, str] = {}
        self._data: dict[Question, tuple[dns.rdata.Rdata, ...]] = {}

    def first(self) -> list[Question]:
        """Return the first question: for the types, or for the instances of the one."""
        return self._asking([self._types] if not self._kind else [self._list(self._kind)])

    def take(self, question: Question, response: Response) -> list[Question] | ServicesFound:
        """Take the answer to one of our questions; return what is asked next, or the outcome."""
        if response.truncated:
            return self.failed("the answer does not fit; use transport tls or tcp")
        if response.rcode not in (NOERROR, NXDOMAIN):
            return self.failed(f"the rendezvous answers {response.says}")
        self._waiting.discard(question)
        asked = self._asking(self._next(question, response.at(*question)))
        return asked if asked or self._waiting else self._outcome()

    def failed(self, reason: str) -> ServicesFound:
        """Return the outcome of a chain that could not be brought to its end."""
        return ServicesFound(self._kind, (), reason)

    def _next(self, question: Question, found: tuple[dns.rdata.Rdata, ...]) -> list[Question]:
        if question == self._types:
            kinds = services.types_in(found, self._domain)[:MAX_TYPES]
            return [self._list(kind) for kind in kinds]
        kind = self._lists.get(question)
        if kind is None:
            self._data[question] = found
            return []
        names = services.instances_in(found, kind, self._domain)
        room = MAX_INSTANCES - len(self._instances)
        for name in names[:room]:
            self._instances[name] = kind
        return [Question(n, t) for n in names[:room] for t in (records.SRV, records.TXT)]

    def _list(self, kind: str) -> Question:
        question = Question(services.type_name(kind, self._domain), records.PTR)
        self._lists[question] = kind
        return question

    def _asking(self, questions: list[Question]) -> list[Question]:
        self._waiting.update(questions)
        return questions

    def _outcome(self) -> ServicesFound:
        found = []
        for name, kind in self._instances.items():
            place = services.place_in(self._data[Question(name, records.SRV)], self._domain)
            text = services.instance_text(name)
            if place is not None and text is not None:
                label, port = place
                texts = services.texts_in(self._data[Question(name, records.TXT)])
                found.append(FoundService(Service(kind, text, port, texts), label))
        found.sort(key=lambda one: (one.service.type, one.service.name.casefold()))
        return ServicesFound(self._kind, tuple(found))
