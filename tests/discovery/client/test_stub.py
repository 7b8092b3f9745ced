"""The stub resolver's decisions, without sockets."""

from __future__ import annotations

from ipaddress import IPv6Address

import dns.edns
import dns.message
import dns.name
import dns.opcode
import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovery import forwarding, stub
from discovery.stub import Forward, Hold, NotThere, Reply, Stub

DOMAIN = "alice.members.example"
OWN = IPv6Address("fd01::1")
PEER = IPv6Address("fd02::2")
STUB = Stub(DOMAIN, "lap", OWN)


def query(name: str, rdtype: str = "AAAA", **options: object) -> bytes:
    return dns.message.make_query(name, rdtype, **options).to_wire()


def reply_to(wire: bytes) -> dns.message.Message:
    decision = STUB.decide(wire)
    assert isinstance(decision, Reply)
    return dns.message.from_wire(decision.wire)


def test_b8_a_peers_aaaa_is_held_and_then_its_host_id() -> None:
    wire = query(f"DesK.{DOMAIN}")
    decision = STUB.decide(wire)
    assert isinstance(decision, Hold)
    assert decision.label == "desk"
    response = dns.message.from_wire(decision.question.outcome(PEER))
    assert dns.message.from_wire(wire).is_response(response)
    (rrset,) = response.answer
    assert rrset.to_text() == f"DesK.{DOMAIN}. {stub.ADDRESS_TTL} IN AAAA {PEER}"


def test_b48_failure_is_no_such_record_with_the_reason_if_the_client_knows_edns() -> None:
    for edns in (-1, 0):
        decision = STUB.decide(query(f"desk.{DOMAIN}", use_edns=edns))
        assert isinstance(decision, Hold)
        response = dns.message.from_wire(decision.question.outcome(NotThere("because " * 90)))
        assert response.rcode() == 0
        assert not response.answer
        words = [o.text for o in response.options if isinstance(o, dns.edns.EDEOption)]
        assert [text and text.startswith("because") for text in words] == [True] * (edns + 1)
        assert len(response.to_wire()) < 512


def test_an_unknown_host_is_nxdomain() -> None:
    decision = STUB.decide(query(f"desk.{DOMAIN}"))
    assert isinstance(decision, Hold)
    response = dns.message.from_wire(decision.question.outcome(NotThere("no", no_such_host=True)))
    assert response.rcode() == 3


@pytest.mark.parametrize("rdtype", ["A", "MX", "SRV", "TXT", "ANY", "HTTPS"])
def test_other_types_of_hosts_are_nodata(rdtype: str) -> None:
    response = reply_to(query(f"desk.{DOMAIN}", rdtype))
    assert (response.rcode(), response.answer) == (0, [])


def test_the_own_name_is_the_own_host_id() -> None:
    assert str(OWN) in reply_to(query(f"LAP.{DOMAIN}")).answer[0].to_text()


@pytest.mark.parametrize(
    "name",
    ["_x", "AutoTunnel-00-22-69-FF-FE-8E-34-2A", "ns", "NS", "a\\.b", "a\\032b"],
)
def test_control_names_and_odd_labels_are_not_resolved(name: str) -> None:
    assert reply_to(query(f"{name}.{DOMAIN}")).rcode() == 3


@pytest.mark.parametrize("name", ["", "_ssh._tcp.desk.", "_autotunnel._udp.", "x.y.z."])
def test_names_that_are_no_hosts_are_nodata_and_stay_here(name: str) -> None:
    assert reply_to(query(f"{name}{DOMAIN}", "SRV")).rcode() == 0


@pytest.mark.parametrize("name", ["example.org", ".", "members.example", f"x{DOMAIN}"])
def test_all_else_is_forwarded(name: str) -> None:
    assert isinstance(STUB.decide(query(name)), Forward)


def test_what_is_no_plain_query_is_refused() -> None:
    update = dns.message.make_query("x.example", "A")
    update.set_opcode(dns.opcode.NOTIFY)
    assert reply_to(update.to_wire()).rcode() == stub.NOTIMP
    assert STUB.decide(b"\x00" * 11) is None
    assert STUB.decide(bytes.fromhex("0001800000010000000000000000010001")) is None  # a response
    two = bytearray(query("x.example"))
    two[5] = 2
    broken = STUB.decide(bytes(two))
    assert isinstance(broken, Reply)
    assert broken.wire[3] & 15 == stub.FORMERR


def test_answers_from_servers_must_fit_the_query() -> None:
    decision = STUB.decide(query("Www.example.org", "A"))
    assert isinstance(decision, Forward)
    sent = forwarding.with_identity(decision.wire, 0x1234)
    good = dns.message.make_response(dns.message.from_wire(sent)).to_wire()
    lowered = good.replace(b"\x03Www", b"\x03www")
    question = decision.question
    assert forwarding.is_answer(sent, question, good)
    assert forwarding.is_answer(sent, question, lowered)
    assert not forwarding.is_answer(sent, question, b"\x12\x35" + good[2:])
    assert not forwarding.is_answer(sent, question, good.replace(b"\x03Www", b"\x03evl"))
    assert not forwarding.is_answer(sent, question, sent)  # a query is no answer
    assert not forwarding.is_answer(sent, question, good[:20])
    assert not forwarding.is_answer(sent, question, b"")
    servfail = sent[:2] + b"\x80\x02" + bytes(8)
    assert forwarding.is_answer(sent, question, servfail)
    assert not forwarding.is_answer(sent, question, sent[:2] + b"\x80\x00" + bytes(8))


@given(st.binary(max_size=300))
def test_any_octets_get_a_decision(wire: bytes) -> None:
    decision = STUB.decide(wire)
    assert decision is None or isinstance(decision, (Reply, Hold, Forward))
