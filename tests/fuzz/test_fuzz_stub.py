"""The stub resolver against hostile applications, hostile servers, and a hostile zone."""

from __future__ import annotations

from ipaddress import IPv6Address

import dns.message
import dns.name
import dns.rdata

from discovery import forwarding, services, stub
from discovery.stub import AskZone, Forward, Hold, NotThere, Reply, Stub
from discovery.types import RecordsFound
from tests.discovery.client.test_stub import DOMAIN, OWN, PEER, query
from tests.fuzz.mutate import mutants

INPUTS = 100_000
SEARCH = dns.name.from_text("corp.example")
STUB = Stub(DOMAIN, "lap", OWN, name_of={PEER: f"desk.{DOMAIN}"}.get, searches=lambda: (SEARCH,))
ZONE = tuple(
    dns.rdata.from_text("IN", kind, text)
    for kind, text in (
        *(("PTR", rf"D\032\195\169._ssh._tcp.{DOMAIN}."), ("SRV", f"0 0 22 desk.{DOMAIN}.")),
        *(("TXT", '"user=me" ""'), ("PTR", "out.example."), ("SRV", "0 0 22 out.example.")),
    )
)


def test_every_query_gets_a_bounded_decision_and_no_account_name_is_forwarded() -> None:
    seeds = [
        query(f"desk.{DOMAIN}"),
        query(f"desk.{DOMAIN}", "A", use_edns=0),
        query(f"_ssh._tcp.desk.{DOMAIN}", "SRV"),
        query(f"_ssh._tcp.{DOMAIN}", "PTR", use_edns=0),
        query(f"b._dns-sd._udp.{DOMAIN}", "PTR"),
        query(PEER.reverse_pointer, "PTR"),
        query(f"desk.{DOMAIN}.corp.example"),
        query("www.example.org", "A", use_edns=0),
        query(f"lap.{DOMAIN}"),
    ]
    origin, kinds = dns.name.from_text(DOMAIN), dict[str, int]()
    for wire in mutants(seeds, INPUTS):
        decision = STUB.decide(wire)
        kinds[type(decision).__name__] = kinds.get(type(decision).__name__, 0) + 1
        if isinstance(decision, Reply):
            assert decision.wire[:2] == wire[:2]
            assert len(decision.wire) <= len(wire) + 300
        elif isinstance(decision, Hold):
            for outcome in (PEER, NotThere("reason " * 100), NotThere("", no_such_host=True)):
                assert dns.message.from_wire(decision.question.outcome(outcome)).id >= 0
        elif isinstance(decision, AskZone):
            question = decision.question
            found = RecordsFound(question.name, question.rdtype, ZONE, exists=True)
            assert b"out" not in question.found(found, DOMAIN, tcp=True)
        elif isinstance(decision, Forward):
            name = decision.question.name
            assert not name.is_subdomain(origin)
            assert stub.reversed_host_id(name) not in (OWN, PEER)
            assert not name.is_subdomain(dns.name.Name((*origin.labels[:-1], *SEARCH.labels)))
    assert set(kinds) == {"Reply", "Hold", "AskZone", "Forward", "NoneType"}


def test_every_answer_of_a_server_is_taken_or_left() -> None:
    decision = STUB.decide(query("www.example.org", "A"))
    assert isinstance(decision, Forward)
    sent = forwarding.with_identity(decision.wire, 0x1234)
    good = dns.message.make_response(dns.message.from_wire(sent)).to_wire()
    taken = 0
    for wire in mutants([good], INPUTS):
        if forwarding.is_answer(sent, decision.question, wire):
            taken += 1
            forwarding.is_truncated(wire)
            assert forwarding.with_identity(wire, 7)[2:] == wire[2:]
    assert 0 < taken < INPUTS


def test_any_resolv_conf_can_be_read() -> None:
    seed = b"# x\nsearch a.example b.example .\nnameserver ::1\nnameserver fe80::1%eth0\ndomain x\n"
    for octets in mutants([seed], INPUTS):
        conf = forwarding.parse_resolv_conf(octets.decode("utf-8", "replace"))
        assert len(conf.servers) <= forwarding.MAX_SERVERS
        assert len(conf.searches) <= forwarding.MAX_SEARCHES


def test_any_records_of_a_zone_can_be_read_as_services() -> None:
    wires = [(int(rdata.rdtype), stub.wire_of(rdata)) for rdata in ZONE]
    places = 0
    for number, octets in enumerate(mutants([wire for _, wire in wires], INPUTS)):
        rdtype = wires[number % len(wires)][0]
        try:
            rdata = dns.rdata.from_wire(1, rdtype, octets, 0, len(octets))
        except Exception:  # the library's own word on octets; ours is what comes after
            continue
        places += services.place_in([rdata], DOMAIN) is not None
        for name in services.instances_in([rdata], "_ssh._tcp", DOMAIN):
            text = services.instance_text(name)
            assert text is not None
            assert text == services.check_instance(text)
        assert all(kind == services.check_type(kind) for kind in services.types_in([rdata], DOMAIN))
        assert all(text.partition("=")[0] for text in services.texts_in([rdata]))
    assert places


def test_any_reverse_name_is_an_address_or_none() -> None:
    for wire in mutants([query(PEER.reverse_pointer, "PTR")], INPUTS):
        try:
            name = stub.read_question(wire).name
        except Exception:  # the library's own errors; the stub answers FORMERR
            continue
        address = stub.reversed_host_id(name)
        assert address is None or isinstance(address, IPv6Address)
