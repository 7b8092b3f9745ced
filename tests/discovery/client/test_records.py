"""Names, UPDATE messages and answers of a host's records (B11-B20), and round trips."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import dns.message
import dns.name
import dns.rdata
import dns.update
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from discovery import exchange, rcodes, records
from discovery.exchange import ResponseError, read_response
from discovery.lookup import Lookup
from discovery.records import RecordsError
from discovery.types import HostFound, HostNotFound, HostRecords

DOMAIN = "bob.members.me.com"
TARGET = "AutoTunnel-00-22-69-FF-FE-8E-34-2A"
MAC_PRO = HostRecords(
    "mymacpro", IPv6Address("fd01:203:405:607:22:69ff:fe8e:342a"), TARGET, (("17.9.8.7", 7809),)
)

LABELS = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)
PORTS = st.integers(1, 65535)
OUTER4 = st.builds(
    lambda n, p: (str(IPv4Address(n)), p), st.integers(0x01000000, 0xDFFFFFFF), PORTS
)
OUTER6 = st.builds(
    lambda n, p: (str(IPv6Address(0x20 << 120 | n)), p), st.integers(0, 2**120 - 1), PORTS
)
RECORDS = st.builds(
    HostRecords,
    label=LABELS,
    host_id=st.builds(lambda n: IPv6Address(0xFD << 120 | n), st.integers(0, 2**120 - 1)),
    target=st.builds(
        lambda e: "AutoTunnel-" + e.hex("-").upper(), st.binary(min_size=8, max_size=8)
    ),
    endpoints=st.tuples(OUTER4) | st.tuples(OUTER6) | st.tuples(OUTER4, OUTER6),
    info=st.lists(st.text(min_size=1, max_size=60), max_size=4).map(tuple),
)


def added(wire: bytes) -> set[str]:
    """The records that an UPDATE adds, as text."""
    message = dns.message.from_wire(wire)
    assert isinstance(message, dns.update.UpdateMessage)
    return {
        f"{rrset.name} {rdata.rdtype.name} {rdata.to_text()}"
        for rrset in message.update
        if rrset.rdclass == 1 and rrset.deleting is None
        for rdata in rrset
    }


def test_b18_the_complete_example_of_the_draft() -> None:
    wire = records.update_message(MAC_PRO, DOMAIN, 1)
    assert f"_autotunnel._udp.mymacpro.{DOMAIN}. SRV 0 0 7809 {TARGET}.{DOMAIN}." in added(wire)


def test_b13_b16_names() -> None:
    assert records.service_name("myMacPro", DOMAIN).to_text() == (
        f"_autotunnel._udp.myMacPro.{DOMAIN}."
    )
    assert records.target_name(TARGET, DOMAIN + ".").to_text() == f"{TARGET}.{DOMAIN}."
    assert records.hosts_name(DOMAIN).to_text() == f"_autotunnel._udp.{DOMAIN}."


def test_b19_the_four_types_are_updated_together_and_no_a_stands_beside_the_host_id() -> None:
    assert added(records.update_message(MAC_PRO, DOMAIN, 1)) == {
        f"mymacpro.{DOMAIN}. AAAA {MAC_PRO.host_id}",
        f"_autotunnel._udp.mymacpro.{DOMAIN}. SRV 0 0 7809 {TARGET}.{DOMAIN}.",
        f"{TARGET}.{DOMAIN}. A 17.9.8.7",
        f"{TARGET}.{DOMAIN}. AAAA {MAC_PRO.host_id}",
        f'{TARGET}.{DOMAIN}. TXT ""',
        f"_autotunnel._udp.{DOMAIN}. PTR mymacpro.{DOMAIN}.",
    }


@pytest.mark.parametrize(
    "wrong",
    [
        HostRecords("a.b", MAC_PRO.host_id, TARGET, ()),
        HostRecords("", MAC_PRO.host_id, TARGET, ()),
        HostRecords("x" * 64, MAC_PRO.host_id, TARGET, ()),
        HostRecords("desk", MAC_PRO.host_id, TARGET, (("192.0.2.1", 1), ("192.0.2.2", 2))),
        HostRecords("desk", MAC_PRO.host_id, TARGET, (("nonsense", 1),)),
        HostRecords("desk", MAC_PRO.host_id, TARGET, (("192.0.2.1", 0),)),
        HostRecords("desk", MAC_PRO.host_id, TARGET, (), ("x" * 256,)),
    ],
)
def test_what_cannot_be_published_is_refused(wrong: HostRecords) -> None:
    with pytest.raises(RecordsError):
        records.update_message(wrong, DOMAIN, 1)


def answer(name: dns.name.Name, rdtype: int, wire: bytes) -> exchange.Response:
    """What a server that took this UPDATE would answer."""
    update = dns.message.from_wire(wire)
    assert isinstance(update, dns.update.UpdateMessage)
    query = dns.message.from_wire(exchange.query(name, rdtype, 9))
    response = dns.message.make_response(query)
    response.answer = [
        rrset
        for rrset in update.update
        if rrset.deleting is None and (rrset.name, int(rrset.rdtype)) == (name, rdtype)
    ]
    return read_response(response.to_wire())


def chain(label: str, wire: bytes) -> object:
    """Run the lookup of a host against the content of an UPDATE."""
    lookup = Lookup(label, DOMAIN)
    questions = lookup.first()
    while questions:
        question = questions.pop(0)
        step = lookup.take(question, answer(*question, wire))
        if not isinstance(step, list):
            return step
        questions += step
    raise AssertionError("the lookup asks nothing more and has no outcome")


@settings(deadline=None)  # a busy machine is no fault
@given(RECORDS)
def test_what_is_published_is_what_is_found(wanted: HostRecords) -> None:
    assert chain(wanted.label, records.update_message(wanted, DOMAIN, 1)) == HostFound(wanted)


def test_the_aaaa_at_the_target_is_the_host_id_and_never_an_endpoint() -> None:
    found = chain("mymacpro", records.update_message(MAC_PRO, DOMAIN, 1))
    assert isinstance(found, HostFound)
    assert found.records.endpoints == MAC_PRO.endpoints


def rdatas(rdtype: str, *texts: str) -> list[dns.rdata.Rdata]:
    return [dns.rdata.from_text("IN", rdtype, text) for text in texts]


def test_only_a_unique_local_address_is_a_host_id() -> None:
    assert records.host_id_in(rdatas("AAAA", "2001:db8::1", "fe80::1")) is None
    assert records.host_id_in(rdatas("AAAA", "2001:db8::1", "fd00::1")) == IPv6Address("fd00::1")


def test_home_agents_are_host_ids_in_one_order_and_few() -> None:
    data = rdatas("AAAA", "2001:db8::1", *(f"fd00::{number}" for number in (9, 3, 7, 5, 1)))
    found = records.home_agents_in(data)
    assert [str(one) for one in found] == ["fd00::1", "fd00::3", "fd00::5", "fd00::7"]
    assert records.home_agents_in(rdatas("A", "192.0.2.1")) == ()


def test_services_that_lead_nowhere_are_left_out() -> None:
    found = records.services_in(
        rdatas(
            "SRV",
            f"1 0 4500 {TARGET}-v6.{DOMAIN}.",
            f"0 0 7809 {TARGET}.{DOMAIN}.",
            f"0 0 0 {TARGET}.{DOMAIN}.",
            "0 0 4500 .",
            "0 0 4500 elsewhere.example.",
            f"0 0 4500 too.deep.{DOMAIN}.",
        ),
        DOMAIN,
    )
    assert [(priority, port) for priority, port, _ in found] == [(0, 7809), (1, 4500)]


@pytest.mark.parametrize("address", ["0.0.0.0", "224.0.0.1", "255.255.255.255"])
def test_addresses_to_which_nothing_can_be_sent_are_no_endpoints(address: str) -> None:
    assert records.outer_address_in(rdatas("A", address), 0, MAC_PRO.host_id) is None


def test_the_host_list_holds_only_labels_of_the_account() -> None:
    listed = rdatas(
        "PTR", f"Desk.{DOMAIN}.", f"a.b.{DOMAIN}.", "evil.example.", f"desk.{DOMAIN}.",
        f"sp\\032ace.{DOMAIN}.", f"\\200.{DOMAIN}.", f"{DOMAIN}.",
    )  # fmt: skip
    assert records.labels_in(listed, DOMAIN) == ("desk",)


@pytest.mark.parametrize("rcode", [2, 4, 5, 9])
def test_an_error_at_any_step_ends_the_lookup_and_names_the_servers_words(rcode: int) -> None:
    lookup = Lookup("desk", DOMAIN)
    question = lookup.first()[1]
    response = exchange.Response(1, 0, rcode, False, question, (), None, "a reason")
    outcome = lookup.take(question, response)
    assert isinstance(outcome, HostNotFound)
    assert not outcome.definite
    assert "a reason" in outcome.reason


def test_a_cut_answer_ends_the_lookup() -> None:
    lookup = Lookup("desk", DOMAIN)
    question = lookup.first()[0]
    outcome = lookup.take(question, exchange.Response(1, 0, 0, True, question, ()))
    assert isinstance(outcome, HostNotFound)
    assert "use transport tls or tcp" in outcome.reason


def test_a_host_name_without_a_host_id_is_definite() -> None:
    lookup = Lookup("desk", DOMAIN)
    question = lookup.first()[0]
    (public,) = rdatas("AAAA", "2001:db8::1")
    response = exchange.Response(1, 0, 0, False, question, ((*question, public),))
    outcome = lookup.take(question, response)
    assert isinstance(outcome, HostNotFound)
    assert outcome.definite


@pytest.mark.parametrize(
    "wire",
    [
        b"",
        bytes(12),  # a query
        bytes.fromhex("000180000002000000000000"),  # two questions announced
        bytes.fromhex("000180000000000000000000") + b"\x00",  # octets behind
        bytes.fromhex("0001800000000001000000000000010001000000000003c00002"),  # a short A
    ],
)
def test_malformed_responses_are_one_error(wire: bytes) -> None:
    with pytest.raises(ResponseError):
        read_response(wire)


def test_the_lease_and_the_servers_words_are_read() -> None:
    options = bytes.fromhex("0002000400000708") + bytes.fromhex("000f0005") + b"\x00\x12why"
    opt = b"\x00\x00\x29\x04\xd0\x01\x00\x00\x00" + len(options).to_bytes(2) + options
    response = read_response(bytes.fromhex("0001a8000000000000000001") + opt)
    assert (response.lease, response.words, response.rcode) == (1800, "why", rcodes.BADVERS)
    assert response.says == "BADVERS: why"
