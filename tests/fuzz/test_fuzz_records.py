"""Responses of a hostile rendezvous: read, or refused with one error; lookups never crash."""

from __future__ import annotations

import dns.message
import dns.rrset

from discovery import exchange, records
from discovery.exchange import ResponseError, read_response
from discovery.lookup import Lookup
from discovery.types import HostNotFound
from tests.discovery.client.test_records import DOMAIN, MAC_PRO, TARGET, answer
from tests.fuzz.mutate import mutants

INPUTS = 100_000


def seeds() -> list[bytes]:
    update = records.update_message(MAC_PRO, DOMAIN, 1)
    made = []
    for name, rdtype in (
        *Lookup("mymacpro", DOMAIN).first(),
        (records.hosts_name(DOMAIN), records.PTR),
        (records.target_name(TARGET, DOMAIN), records.A),
        (records.target_name(TARGET, DOMAIN), records.TXT),
    ):
        query = dns.message.from_wire(exchange.query(name, rdtype, 9))
        response = dns.message.make_response(query)
        for owner, kind, rdata in answer(name, rdtype, update).answer:
            assert (owner, kind) == (name, rdtype)
            response.answer.append(dns.rrset.from_rdata(owner, 60, rdata))
        made.append(response.to_wire())
    return made


def test_every_response_is_read_or_refused_and_every_lookup_ends_in_words() -> None:
    read = refused = 0
    outcomes: set[type] = set()
    for wire in mutants(seeds(), INPUTS):
        try:
            response = read_response(wire)
        except ResponseError:
            refused += 1
            continue
        read += 1
        job = Lookup("mymacpro", DOMAIN)
        questions = list(job.first())
        while questions:
            step = job.take(questions.pop(0), response)
            if isinstance(step, list):
                questions += step
                assert len(questions) <= 12
            else:
                outcomes.add(type(step))
                break
    assert read > 1000
    assert refused > 1000
    assert outcomes == {HostNotFound}  # no single response has a whole host in it
