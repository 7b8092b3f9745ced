"""Queries: what the account sees, what a stranger sees, EDNS and truncation."""

from __future__ import annotations

import struct

import dns.flags
import dns.rcode
import pytest

from discovery import tsig
from discovery.bootstrap import ServerIdentity
from tests.discovery.server.helpers import (
    ALICE,
    SOURCE,
    UNIX,
    Rendezvous,
    add,
    key_of,
    name_wire,
    opt,
    parse,
    query_wire,
    reason_of,
    texts,
)

DESK = f"desk.{ALICE}"
SERVICE = f"_autotunnel._udp.{DESK}"
TARGET = f"AutoTunnel-00-22-69-FF-FE-8E-34-2A.{ALICE}"


@pytest.fixture
def zone() -> Rendezvous:
    made = Rendezvous()
    rcode = made.update(
        add(DESK, "AAAA", "fd01::1"),
        add(SERVICE, "SRV", f"0 0 4500 {TARGET}."),
        add(TARGET, "A", "198.51.100.7"),
        add(TARGET, "AAAA", "fd01::1"),
        add(TARGET, "TXT", '"v=1"'),
        add(f"_autotunnel._udp.{ALICE}", "PTR", f"{DESK}."),
        add(f"alias.{ALICE}", "CNAME", f"{DESK}."),
        add(f"loop.{ALICE}", "CNAME", f"loop.{ALICE}."),
        add(f"away.{ALICE}", "CNAME", "elsewhere.example."),
        add(f"*.wild.{ALICE}", "TXT", '"wild"'),
    )
    assert rcode == "NOERROR"
    return made


def test_the_account_sees_its_records(zone: Rendezvous) -> None:
    answer = zone.ask(DESK, "AAAA")
    assert texts(answer) == [f"{DESK}. 120 IN AAAA fd01::1"]
    assert answer.flags & dns.flags.AA
    assert not answer.flags & dns.flags.RA


def test_an_srv_brings_the_addresses_of_its_target(zone: Rendezvous) -> None:
    """B13–B17, and RFC 2782: the chain of B48 in one round trip for who looks there."""
    answer = zone.ask(SERVICE, "SRV")
    assert texts(answer) == [f"{SERVICE}. 120 IN SRV 0 0 4500 {TARGET}."]
    extra = sorted(rrset.to_text() for rrset in answer.additional)
    assert extra == [f"{TARGET}. 120 IN A 198.51.100.7", f"{TARGET}. 120 IN AAAA fd01::1"]


def test_negative_answers_carry_the_soa(zone: Rendezvous) -> None:
    """RFC 2308 §3; an empty non-terminal is NODATA, not NXDOMAIN (RFC 4592 §2.2.2)."""
    for name, rdtype, rcode in (
        (f"nobody.{ALICE}", "AAAA", dns.rcode.NXDOMAIN),
        (DESK, "A", dns.rcode.NOERROR),
        (f"_udp.{DESK}", "TXT", dns.rcode.NOERROR),
        (f"wild.{ALICE}", "TXT", dns.rcode.NOERROR),
    ):
        answer = zone.ask(name, rdtype)
        assert (answer.rcode(), answer.answer) == (rcode, [])
        assert answer.authority[0].name.to_text() == ALICE + "."
        assert answer.authority[0].ttl == 60


def test_aliases_are_followed_within_the_zone(zone: Rendezvous) -> None:
    assert texts(zone.ask(f"alias.{ALICE}", "AAAA")) == [
        f"alias.{ALICE}. 120 IN CNAME {DESK}.",
        f"{DESK}. 120 IN AAAA fd01::1",
    ]
    assert texts(zone.ask(f"alias.{ALICE}", "CNAME")) == [f"alias.{ALICE}. 120 IN CNAME {DESK}."]
    assert len(zone.ask(f"away.{ALICE}", "AAAA").answer) == 1
    assert zone.ask(f"loop.{ALICE}", "AAAA").rcode() == dns.rcode.SERVFAIL


def test_wildcards_answer_for_names_that_do_not_exist(zone: Rendezvous) -> None:
    """RFC 4592 §3.3.1: at the closest encloser only."""
    assert texts(zone.ask(f"a.b.wild.{ALICE}", "TXT")) == [f'a.b.wild.{ALICE}. 120 IN TXT "wild"']
    assert zone.ask(f"a.wild.{ALICE}", "AAAA").rcode() == dns.rcode.NOERROR
    assert zone.ask(f"a.{DESK}", "TXT").rcode() == dns.rcode.NXDOMAIN


# --- What a stranger sees -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("service", "port"),
    [
        ("_dns-update._udp", 53),
        ("_dns-llq._udp", 53),
        ("_dns-update-tls._udp", 853),
        ("_dns-llq-tls._udp", 853),
        ("_dns-update-tls._tcp", 853),
        ("_dns-llq-tls._tcp", 853),
        ("_dns-query-tls._tcp", 853),
        ("_dns-push-tls._tcp", 853),
    ],
)
def test_bootstrap_names_are_public_b37_b43(zone: Rendezvous, service: str, port: int) -> None:
    answer = zone.unsigned(query_wire(f"{service}.{ALICE}", "SRV"))
    assert texts(answer) == [f"{service}.{ALICE}. 300 IN SRV 0 0 {port} ns.{ALICE}."]
    assert len(answer.additional) == 2


def test_soa_ns_and_the_servers_addresses_are_public(zone: Rendezvous) -> None:
    assert zone.unsigned(query_wire(ALICE, "SOA")).answer
    assert texts(zone.unsigned(query_wire(ALICE, "NS"))) == [f"{ALICE}. 300 IN NS ns.{ALICE}."]
    assert texts(zone.unsigned(query_wire(f"ns.{ALICE}", "A"))) == [
        f"ns.{ALICE}. 300 IN A 203.0.113.10"
    ]
    assert zone.unsigned(query_wire(f"ns.{ALICE}", "AAAA")).answer
    missing = zone.unsigned(query_wire(f"ns.{ALICE}", "TXT"))
    assert (missing.rcode(), missing.answer) == (dns.rcode.NOERROR, [])


@pytest.mark.parametrize(
    "name", [DESK, SERVICE, TARGET, f"nobody.{ALICE}", f"_853._tcp.ns.{ALICE}"]
)
@pytest.mark.parametrize("rdtype", ["AAAA", "SRV", "TXT", "ANY", "TLSA", "AXFR"])
def test_private_names_are_refused_whether_they_exist_or_not_b4(
    zone: Rendezvous, name: str, rdtype: str
) -> None:
    answer = zone.unsigned(query_wire(name, rdtype))
    assert answer.rcode() == dns.rcode.REFUSED
    assert answer.answer == answer.authority == answer.additional == []
    assert "signed questions only" in reason_of(answer)


def test_the_apex_tells_a_stranger_no_more_than_soa_and_ns(zone: Rendezvous) -> None:
    zone.update(add(ALICE, "TXT", '"private"'))
    for rdtype in ("TXT", "ANY", "A", "AXFR", "IXFR"):
        assert zone.unsigned(query_wire(ALICE, rdtype)).rcode() == dns.rcode.REFUSED


def test_finding_the_zone_of_a_name_tells_nothing_about_the_name(zone: Rendezvous) -> None:
    """RFC 8764 §4, RFC 8765 §6.1: SOA of the full name, answered in the authority section."""
    known = zone.unsigned(query_wire(DESK, "SOA"))
    unknown = zone.unsigned(query_wire(f"nobody.{ALICE}", "SOA"))
    for answer in (known, unknown):
        assert (answer.rcode(), answer.answer) == (dns.rcode.NOERROR, [])
        assert answer.authority[0].name.to_text() == ALICE + "."


def test_other_zones_and_classes_are_refused(zone: Rendezvous) -> None:
    assert zone.unsigned(query_wire("www.example", "A")).rcode() == dns.rcode.REFUSED
    assert zone.unsigned(query_wire("version.bind", "TXT", rdclass=3)).rcode() == dns.rcode.REFUSED
    assert zone.unsigned(query_wire(".", "NS")).rcode() == dns.rcode.REFUSED
    assert zone.unsigned(query_wire(ALICE, "SOA", rdclass=3)).rcode() == dns.rcode.REFUSED


def test_the_pin_is_answered_to_signed_questions(zone: Rendezvous) -> None:
    answer = zone.ask(f"_853._tcp.ns.{ALICE}", "TLSA").answer[0]
    assert answer[0].to_text() == "3 1 1 " + bytes(range(32)).hex()


def test_a_server_that_moves_rewrites_its_own_records() -> None:
    zone = Rendezvous()
    serial = zone.serial
    zone.restart()
    assert zone.serial == serial  # nothing changed, nothing stepped
    zone.place = ServerIdentity(("198.51.100.99",), 5353)
    zone.restart()
    assert zone.serial == serial + 1
    assert zone.data(f"ns.{ALICE}", "ANY") == ["198.51.100.99"]
    assert zone.data(f"_dns-update._udp.{ALICE}", "SRV") == [f"0 0 5353 ns.{ALICE}."]
    assert zone.ask(f"_dns-update-tls._udp.{ALICE}", "SRV").answer == []
    assert zone.ask(f"_853._tcp.ns.{ALICE}", "TLSA").answer == []


# --- Form, EDNS, sizes ----------------------------------------------------------------------


def test_unknown_edns_versions_are_badvers(zone: Rendezvous) -> None:
    answer = zone.unsigned(query_wire(ALICE, "SOA", additional=(opt(version=1),)))
    assert answer.rcode() == dns.rcode.BADVERS
    assert (answer.edns, answer.answer) == (0, [])


def test_edns_is_answered_with_edns_and_silence_with_silence(zone: Rendezvous) -> None:
    with_opt = zone.unsigned(query_wire(ALICE, "SOA"))
    assert (with_opt.edns, with_opt.payload) == (0, 1232)
    assert zone.unsigned(query_wire(ALICE, "SOA", additional=())).edns == -1


@pytest.mark.parametrize(
    "additional",
    [
        (opt(), opt()),
        (b"\x01x" + opt(),),
        (opt(options=b"\x00\x0a\x00\x09short"),),
        (opt()[:-1],),
        (opt() + b"!",),
    ],
)
def test_a_wrong_opt_is_formerr(zone: Rendezvous, additional: tuple[bytes, ...]) -> None:
    assert zone.unsigned(query_wire(ALICE, "SOA", additional=additional)).rcode() == 1


def test_an_opt_outside_the_additional_section_is_formerr(zone: Rendezvous) -> None:
    wire = bytearray(query_wire(ALICE, "SOA"))
    wire[6:8], wire[10:12] = b"\x00\x01", b"\x00\x00"
    assert zone.unsigned(bytes(wire)).rcode() == dns.rcode.FORMERR


def test_a_query_has_one_question(zone: Rendezvous) -> None:
    assert zone.unsigned(struct.pack("!HHHHHH", 7, 0, 0, 0, 0, 0)).rcode() == dns.rcode.FORMERR
    question = name_wire(ALICE) + b"\x00\x06\x00\x01"
    two = struct.pack("!HHHHHH", 7, 0, 2, 0, 0, 0) + question * 2
    assert zone.unsigned(two).rcode() == dns.rcode.FORMERR


@pytest.mark.parametrize("opcode", [1, 2, 3, 4, 6, 15])
def test_other_opcodes_are_notimp_signed_if_asked_so(zone: Rendezvous, opcode: int) -> None:
    wire = query_wire(ALICE, "SOA")
    wire = wire[:2] + bytes((opcode << 3, 0)) + wire[4:]
    assert zone.unsigned(wire).rcode() == dns.rcode.NOTIMP
    assert zone.signed(wire).rcode() == dns.rcode.NOTIMP


def test_a_dso_message_is_notimp_whatever_its_form(zone: Rendezvous) -> None:
    """RFC 8490 §5.2.2: so a client learns that there is no DSO here; TLVs are no DNS records."""
    keepalive = bytes.fromhex("00010008" + "00003a98" * 2)
    assert zone.unsigned(struct.pack("!HHHHHH", 7, 6 << 11, 0, 0, 0, 0) + keepalive).rcode() == 4


def test_responses_and_scraps_are_never_answered(zone: Rendezvous) -> None:
    """Two servers must not talk to each other for ever."""
    response = query_wire(ALICE, "SOA")
    response = response[:2] + b"\x80" + response[3:]
    for wire in (response, b"", b"x" * 11):
        assert zone.server.handle(wire, SOURCE, "udp", 0) == []
    assert zone.server.counters["dropped"] == 3


def fill(zone: Rendezvous, records: int) -> None:
    for start in range(0, records, 8):
        many = [add(f"big.{ALICE}", "TXT", f'"{n:03}{"x" * 200}"') for n in range(start, start + 8)]
        assert zone.update(*many) == "NOERROR"


def test_what_does_not_fit_in_udp_is_truncated_and_comes_whole_over_tcp(zone: Rendezvous) -> None:
    fill(zone, 16)
    question = query_wire(f"big.{ALICE}", "TXT")
    short = zone.signed(question, transport="udp")
    assert short.flags & dns.flags.TC
    assert (short.rcode(), short.answer) == (dns.rcode.NOERROR, [])
    whole = zone.signed(question, transport="tcp")
    assert not whole.flags & dns.flags.TC
    assert len(whole.answer[0]) == 16


@pytest.mark.parametrize(("payload", "limit"), [(0, 512), (511, 512), (800, 800), (65535, 1232)])
def test_udp_answers_keep_to_the_clients_payload_and_to_ours(
    zone: Rendezvous, payload: int, limit: int
) -> None:
    seen = []
    for records in range(1, 8):
        assert zone.update(add(f"p.{ALICE}", "TXT", f'"{records}{"y" * 150}"')) == "NOERROR"
        question = query_wire(f"p.{ALICE}", "TXT", additional=(opt(payload),))
        answer = zone.raw(tsig.sign(question, key_of(ALICE), UNIX)[0], "udp")
        assert len(answer) <= limit
        seen.append(bool(parse(answer).flags & dns.flags.TC))
    assert seen[0] is False
    assert seen[-1] is True


def test_additional_records_are_dropped_before_anything_is_truncated(zone: Rendezvous) -> None:
    name = f"many.{ALICE}"
    targets = [f"{'t' * 50}{n}.{ALICE}" for n in range(4)]
    for target in targets:
        zone.update(add(target, "AAAA", "fd01::1"), add(target, "A", "192.0.2.1"))
    zone.update(*[add(name, "SRV", f"0 0 1 {target}.") for target in targets])
    answer = zone.signed(query_wire(name, "SRV", additional=()), transport="udp")
    assert not answer.flags & dns.flags.TC
    assert len(answer.answer[0]) == 4
    assert len(answer.additional) < 8
