"""The stub resolver against hostile applications and hostile servers."""

from __future__ import annotations

import dns.message

from discovery import stub
from discovery.stub import Forward, Hold, NotThere, Reply
from tests.discovery.client.test_stub import DOMAIN, PEER, STUB, query
from tests.fuzz.mutate import mutants

INPUTS = 100_000


def test_every_query_gets_a_bounded_decision_and_no_account_name_is_forwarded() -> None:
    seeds = [
        query(f"desk.{DOMAIN}"),
        query(f"desk.{DOMAIN}", "A", use_edns=0),
        query(f"_ssh._tcp.desk.{DOMAIN}", "SRV"),
        query("www.example.org", "A", use_edns=0),
        query(f"lap.{DOMAIN}"),
    ]
    kinds: dict[str, int] = {}
    for wire in mutants(seeds, INPUTS):
        decision = STUB.decide(wire)
        kinds[type(decision).__name__] = kinds.get(type(decision).__name__, 0) + 1
        if isinstance(decision, Reply):
            assert decision.wire[:2] == wire[:2]
            assert len(decision.wire) <= len(wire) + 300
        elif isinstance(decision, Hold):
            for outcome in (PEER, NotThere("reason " * 100), NotThere("", no_such_host=True)):
                assert dns.message.from_wire(decision.question.outcome(outcome)).id >= 0
        elif isinstance(decision, Forward):
            assert not decision.question.name.is_subdomain(dns.name.from_text(DOMAIN))
    assert set(kinds) == {"Reply", "Hold", "Forward", "NoneType"}


def test_every_answer_of_a_server_is_taken_or_left() -> None:
    decision = STUB.decide(query("www.example.org", "A"))
    assert isinstance(decision, Forward)
    sent = stub.with_identity(decision.wire, 0x1234)
    good = dns.message.make_response(dns.message.from_wire(sent)).to_wire()
    taken = sum(stub.is_answer(sent, decision.question, wire) for wire in mutants([good], INPUTS))
    assert 0 < taken < INPUTS
