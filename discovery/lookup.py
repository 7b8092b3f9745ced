"""Finding a host: the tunnel update chain of RFC 6281 §5.3 (B48) as a machine of two stages.

1. AAAA of the host's name (the inner address) and SRV of its tunnel service (the UDP port); B48
   asks them one after the other, but neither needs the other's answer; and AAAA of the home agents
   that relay for it, which need not be there;
2. A of the SRV's target (the outer address), AAAA of the second target, if there is one, for an
   outer IPv6 endpoint, and TXT of the target for the device information.

A negative answer at any step ends the lookup (Apple's clients did the same).
"""

from __future__ import annotations

from ipaddress import IPv6Address
from typing import NamedTuple, TypeAlias

import dns.name
import dns.rdata

from discovery import records
from discovery.exchange import Response
from discovery.rcodes import NOERROR, NXDOMAIN
from discovery.types import Endpoint, HostFound, HostNotFound, HostRecords

MAX_TARGETS = 4
"""SRV records of one host that are followed; a host publishes at most two."""


class Question(NamedTuple):
    """One question to the zone: owner name and record type."""

    name: dns.name.Name
    rdtype: int


Outcome: TypeAlias = HostFound | HostNotFound


class Lookup:
    """One lookup of one host. :meth:`take` is given each answer; what is asked next comes back,
    or the outcome."""

    def __init__(self, label: str, domain: str) -> None:
        self.label = label.lower()
        self._domain = domain
        self._host = Question(records.host_name(self.label, domain), records.AAAA)
        self._service = Question(records.service_name(self.label, domain), records.SRV)
        self._relays = Question(records.relays_name(self.label, domain), records.AAAA)
        self._waiting: set[Question] = {self._host, self._service, self._relays}
        self._host_id: IPv6Address | None = None
        self._services: tuple[tuple[int, int, dns.name.Name], ...] = ()
        self._data: dict[Question, tuple[dns.rdata.Rdata, ...]] = {}

    def first(self) -> list[Question]:
        """Return the questions of the first stage."""
        return [self._host, self._service, self._relays]

    def take(self, question: Question, response: Response) -> list[Question] | Outcome:
        """Take the answer to one of our questions."""
        if response.truncated:
            return self.failed("the answer does not fit; use transport tls or tcp")
        if response.rcode not in (NOERROR, NXDOMAIN):
            return self.failed(f"the rendezvous answers {response.says}")
        self._waiting.discard(question)
        found = response.at(*question)
        self._data[question] = found
        if question == self._host:
            self._host_id = records.host_id_in(found)
            if self._host_id is None:
                return self._no_host(bool(found))
        if question == self._service:
            self._services = records.services_in(found, self._domain)[:MAX_TARGETS]
        if self._waiting:
            return []
        return self._second() or self._outcome()

    def failed(self, reason: str) -> HostNotFound:
        """Return the outcome of a lookup that could not be brought to its end."""
        return HostNotFound(self.label, reason, definite=False)

    def _no_host(self, other_address: bool) -> HostNotFound:
        what = "has no host id at" if other_address else "knows no host"
        return HostNotFound(self.label, f"the zone {what} {self._where}", definite=True)

    @property
    def _where(self) -> str:
        return f"{self.label}.{self._domain.rstrip('.')}"

    def _second(self) -> list[Question]:
        """Return the questions about the targets, once."""
        asked: list[Question] = []
        for priority, _, target in self._services:
            asked.append(Question(target, _address_type(priority)))
        if self._services:
            asked.append(self._info)
        new = [question for question in dict.fromkeys(asked) if question not in self._data]
        self._waiting |= set(new)
        return new

    @property
    def _target(self) -> str:
        """The target label of the best service."""
        label = records.target_of(self._services[0][2], self._domain)
        assert label is not None  # services_in() leaves out all others
        return label

    @property
    def _info(self) -> Question:
        return Question(records.target_name(self._target, self._domain), records.TXT)

    def _outcome(self) -> Outcome:
        assert self._host_id is not None  # take() ends the lookup without one
        endpoints: dict[int, Endpoint] = {}
        for priority, port, target in self._services:
            rdtype = _address_type(priority)
            answers = self._data[Question(target, rdtype)]
            address = records.outer_address_in(answers, priority, self._host_id)
            if address is not None:
                endpoints.setdefault(rdtype, (address, port))
        if not endpoints:
            return self.failed(
                f"{self._where} has published no endpoint: it is off, or has no way out"
            )
        found = tuple(endpoints.values())
        info = records.info_in(self._data[self._info])
        relays = records.home_agents_in(self._data[self._relays])
        return HostFound(
            HostRecords(self.label, self._host_id, self._target, found, info, home_agents=relays)
        )


def _address_type(priority: int) -> int:
    return records.A if priority == records.PRIORITY4 else records.AAAA
