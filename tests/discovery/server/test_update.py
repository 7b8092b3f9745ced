"""DNS UPDATE, RFC 2136 §3: prerequisites, prescan, application, serial, atomicity."""

from __future__ import annotations

import pytest

from discovery import tsig
from discovery.content import serial_greater
from discovery.update import ZoneLimits
from tests.discovery.server.helpers import (
    ALICE,
    ANY,
    IN,
    NONE,
    Rendezvous,
    account,
    add,
    key_of,
    name_wire,
    parse,
    rr,
    update_wire,
)

DESK = f"desk.{ALICE}"
LAMP = f"lamp.{ALICE}"
ID1, ID2 = "fd01::1", "fd01::2"


@pytest.fixture
def zone() -> Rendezvous:
    """A zone with two AAAA at desk, a TXT below an empty non-terminal, and an alias."""
    made = Rendezvous()
    assert (
        made.update(
            add(DESK, "AAAA", ID1),
            add(DESK, "AAAA", ID2),
            add(f"leaf.empty.{ALICE}", "TXT", '"x"'),
            add(f"alias.{ALICE}", "CNAME", DESK + "."),
        )
        == "NOERROR"
    )
    return made


PREREQUISITES = {
    # RFC 2136 §2.4.1: RRset exists (value independent)
    "rrset-exists-true": (rr(DESK, "AAAA", ANY), "NOERROR"),
    "rrset-exists-false-type": (rr(DESK, "TXT", ANY), "NXRRSET"),
    "rrset-exists-false-name": (rr(LAMP, "AAAA", ANY), "NXRRSET"),
    "rrset-exists-ignores-case": (rr(DESK.upper(), "AAAA", ANY), "NOERROR"),
    # §2.4.2: RRset exists (value dependent), whole set
    "rrset-equals-part-only": (rr(DESK, "AAAA", IN, 0, ID1), "NXRRSET"),
    "rrset-equals-other-value": (rr(DESK, "AAAA", IN, 0, "fd01::9"), "NXRRSET"),
    "rrset-equals-missing": (rr(LAMP, "AAAA", IN, 0, ID1), "NXRRSET"),
    "rrset-equals-alias": (rr(f"alias.{ALICE}", "CNAME", IN, 0, DESK.upper() + "."), "NOERROR"),
    # §2.4.3: RRset does not exist
    "rrset-missing-true": (rr(DESK, "TXT", NONE), "NOERROR"),
    "rrset-missing-false": (rr(DESK, "AAAA", NONE), "YXRRSET"),
    # §2.4.4: name in use
    "name-in-use-true": (rr(DESK, "ANY", ANY), "NOERROR"),
    "name-in-use-false": (rr(LAMP, "ANY", ANY), "NXDOMAIN"),
    "name-in-use-empty-non-terminal": (rr(f"empty.{ALICE}", "ANY", ANY), "NXDOMAIN"),
    "name-in-use-apex": (rr(ALICE, "ANY", ANY), "NOERROR"),
    # §2.4.5: name not in use
    "name-free-true": (rr(LAMP, "ANY", NONE), "NOERROR"),
    "name-free-false": (rr(DESK, "ANY", NONE), "YXDOMAIN"),
    "name-free-empty-non-terminal": (rr(f"empty.{ALICE}", "ANY", NONE), "NOERROR"),
    # §3.2: form
    "ttl-any": (rr(DESK, "AAAA", ANY, 1), "FORMERR"),
    "ttl-none": (rr(DESK, "TXT", NONE, 1), "FORMERR"),
    "ttl-value": (rr(DESK, "AAAA", IN, 1, ID1), "FORMERR"),
    "data-any": (rr(DESK, "AAAA", ANY, 0, ID1), "FORMERR"),
    "data-none": (rr(DESK, "AAAA", NONE, 0, ID1), "FORMERR"),
    "class-chaos": (rr(DESK, "AAAA", 3), "FORMERR"),
    "outside": (rr("desk.bob.members.example", "AAAA", ANY), "NOTZONE"),
    "meta-type": (rr(DESK, "AXFR", ANY), "FORMERR"),
    "meta-type-value": (name_wire(DESK) + bytes.fromhex("00fc0001000000000000"), "FORMERR"),
}


@pytest.mark.parametrize("case", PREREQUISITES)
def test_prerequisites_decide_as_rfc_2136_3_2_says(zone: Rendezvous, case: str) -> None:
    prerequisite, expected = PREREQUISITES[case]
    assert zone.update(add(LAMP, "TXT", '"new"'), prerequisites=(prerequisite,)) == expected
    assert bool(zone.data(LAMP, "TXT")) == (expected == "NOERROR")


def test_a_value_prerequisite_takes_the_whole_set_in_any_order(zone: Rendezvous) -> None:
    both = (rr(DESK, "AAAA", IN, 0, ID2), rr(DESK, "AAAA", IN, 0, ID1))
    assert zone.update(prerequisites=both) == "NOERROR"
    assert zone.update(prerequisites=(*both, rr(DESK, "AAAA", IN, 0, "fd01::3"))) == "NXRRSET"


PRESCAN = {
    "add-outside": (add("x.bob.members.example", "TXT", '"x"'), "NOTZONE"),
    "add-above": (add("members.example", "TXT", '"x"'), "NOTZONE"),
    "add-any": (rr(LAMP, "ANY", IN), "FORMERR"),
    "add-axfr": (rr(LAMP, "AXFR", IN), "FORMERR"),
    "add-mailb": (rr(LAMP, "MAILB", IN), "FORMERR"),
    "add-maila": (rr(LAMP, "MAILA", IN), "FORMERR"),
    "add-short-data": (name_wire(LAMP) + bytes.fromhex("001c0001000000780004fd010203"), "FORMERR"),
    "delete-set-ttl": (rr(DESK, "AAAA", ANY, 1), "FORMERR"),
    "delete-set-data": (rr(DESK, "AAAA", ANY, 0, ID1), "FORMERR"),
    "delete-set-axfr": (rr(DESK, "AXFR", ANY), "FORMERR"),
    "delete-name-ttl": (rr(DESK, "ANY", ANY, 1), "FORMERR"),
    "delete-one-ttl": (rr(DESK, "AAAA", NONE, 1, ID1), "FORMERR"),
    "delete-one-any": (rr(DESK, "ANY", NONE), "FORMERR"),
    "class-chaos": (rr(DESK, "AAAA", 3), "FORMERR"),
}


@pytest.mark.parametrize("case", PRESCAN)
def test_the_prescan_refuses_before_anything_is_done(zone: Rendezvous, case: str) -> None:
    bad, expected = PRESCAN[case]
    serial, commits = zone.serial, zone.store.commits
    assert zone.update(add(LAMP, "TXT", '"first"'), bad) == expected
    assert zone.data(LAMP, "TXT") == []
    assert (zone.serial, zone.store.commits) == (serial, commits)


def test_the_zone_section_is_one_soa_of_a_zone_that_is_here() -> None:
    zone = Rendezvous()

    def rcode(**changed: int) -> int:
        return zone.signed(update_wire(**changed)).rcode()

    assert rcode(zones=0) == 1
    assert rcode(zones=2) == 1
    assert rcode(ztype=1) == 1
    assert rcode(zclass=3) == 9
    assert zone.signed(update_wire("carol.members.example")).rcode() == 9
    assert zone.signed(update_wire(f"below.{ALICE}")).rcode() == 9


def test_adding_a_record_again_replaces_its_ttl_and_keeps_one(zone: Rendezvous) -> None:
    assert zone.update(add(DESK, "AAAA", ID1, 60)) == "NOERROR"
    answer = zone.ask(DESK, "AAAA").answer[0]
    assert answer.ttl == 60  # the whole set, RFC 2181 §5.2
    assert zone.data(DESK, "AAAA") == [ID1, ID2]


def test_a_ttl_with_the_top_bit_means_zero(zone: Rendezvous) -> None:
    assert zone.update(add(LAMP, "AAAA", ID1, 0x80000001)) == "NOERROR"
    assert zone.ask(LAMP, "AAAA").answer[0].ttl == 0


def test_deletions_take_one_record_a_set_or_a_name(zone: Rendezvous) -> None:
    assert zone.update(rr(DESK, "AAAA", NONE, 0, ID1)) == "NOERROR"
    assert zone.data(DESK, "AAAA") == [ID2]
    assert zone.update(add(DESK, "TXT", '"t"'), rr(DESK, "AAAA", ANY)) == "NOERROR"
    assert zone.data(DESK, "ANY") == ['"t"']
    assert zone.update(rr(DESK, "ANY", ANY)) == "NOERROR"
    assert zone.ask(DESK, "TXT").rcode() == 3


def test_what_is_not_there_is_deleted_in_silence(zone: Rendezvous) -> None:
    serial = zone.serial
    gone = (rr(LAMP, "ANY", ANY), rr(DESK, "TXT", ANY), rr(DESK, "AAAA", NONE, 0, "fd01::9"))
    assert zone.update(*gone) == "NOERROR"
    assert zone.serial == serial


def test_operations_apply_in_order(zone: Rendezvous) -> None:
    assert (
        zone.update(add(LAMP, "AAAA", ID1), rr(LAMP, "ANY", ANY), add(LAMP, "AAAA", ID2))
        == "NOERROR"
    )
    assert zone.data(LAMP, "AAAA") == [ID2]


def test_a_cname_never_stands_beside_other_data(zone: Rendezvous) -> None:
    """RFC 2136 §3.4.2.2: the conflicting addition is ignored, both ways."""
    alias = f"alias.{ALICE}"
    assert zone.update(add(DESK, "CNAME", LAMP + "."), add(alias, "TXT", '"x"')) == "NOERROR"
    assert zone.data(DESK, "ANY") == [ID1, ID2]
    assert zone.data(alias, "ANY") == [DESK + "."]
    assert zone.update(add(alias, "CNAME", LAMP + ".")) == "NOERROR"  # one CNAME replaces another
    assert zone.data(alias, "ANY") == [LAMP + "."]


def test_the_apex_keeps_its_soa_and_ns(zone: Rendezvous) -> None:
    """RFC 2136 §3.4.2.3 and §3.4.2.4."""
    server = f"ns.{ALICE}."
    assert zone.update(add(ALICE, "TXT", '"apex"')) == "NOERROR"
    assert zone.update(rr(ALICE, "ANY", ANY)) == "NOERROR"
    assert len(zone.data(ALICE, "ANY")) == 2
    assert zone.update(rr(ALICE, "NS", ANY), rr(ALICE, "SOA", ANY)) == "NOERROR"
    assert zone.update(rr(ALICE, "NS", NONE, 0, server)) == "NOERROR"
    assert zone.data(ALICE, "NS") == [server]
    assert zone.update(add(ALICE, "NS", "ns2.example."), rr(ALICE, "NS", NONE, 0, server))
    assert zone.data(ALICE, "NS") == ["ns2.example."]


def soa(serial: int) -> str:
    return f"ns.{ALICE}. hostmaster.{ALICE}. {serial % 2**32} 7200 900 1209600 60"


def test_a_soa_is_taken_only_with_a_greater_serial(zone: Rendezvous) -> None:
    """RFC 2136 §3.4.2.2 with RFC 1982 arithmetic; then no further step is made."""
    before = zone.serial
    for stale in (before, before - 1, before + 2**31):
        assert zone.update(add(ALICE, "SOA", soa(stale))) == "NOERROR"
        assert zone.serial == before
    assert zone.update(add(ALICE, "SOA", soa(before + 10)), add(LAMP, "TXT", '"x"')) == "NOERROR"
    assert zone.serial == (before + 10) % 2**32
    assert zone.update(add(DESK, "SOA", soa(before + 99))) == "NOERROR"
    assert zone.ask(DESK, "SOA").answer == []


def test_the_serial_wraps_as_rfc_1982_says(zone: Rendezvous) -> None:
    # From about 1.7e9 to the end of the space in two lawful steps.
    assert zone.update(add(ALICE, "SOA", soa(zone.serial + 2**31 - 1))) == "NOERROR"
    assert zone.update(add(ALICE, "SOA", soa(2**32 - 1))) == "NOERROR"
    assert zone.serial == 2**32 - 1
    assert zone.update(add(LAMP, "TXT", '"x"')) == "NOERROR"
    assert zone.serial == 0
    assert serial_greater(0, 2**32 - 1)
    assert not serial_greater(5, 5)
    assert not serial_greater(2**31, 0)


def test_the_serial_steps_with_content_and_only_with_content(zone: Rendezvous) -> None:
    serial = zone.serial
    assert zone.update(add(LAMP, "AAAA", ID1)) == "NOERROR"
    assert zone.serial == serial + 1
    commits = zone.store.commits
    assert zone.update(add(LAMP, "AAAA", ID1)) == "NOERROR"  # a refresh
    assert zone.update(add(LAMP, "AAAA", ID2), rr(LAMP, "AAAA", NONE, 0, ID2)) == "NOERROR"
    assert (zone.serial, zone.store.commits) == (serial + 1, commits)
    assert zone.update(rr(LAMP, "ANY", ANY)) == "NOERROR"
    assert zone.serial == serial + 2


def test_a_failing_store_means_servfail_and_nothing_changed(zone: Rendezvous) -> None:
    """RFC 2136 §3.4.2.7: full undo."""
    serial = zone.serial
    zone.store.fail = True
    assert zone.update(add(LAMP, "AAAA", ID1), rr(DESK, "ANY", ANY)) == "SERVFAIL"
    assert zone.serial == serial
    assert zone.data(LAMP, "AAAA") == []
    assert zone.data(DESK, "AAAA") == [ID1, ID2]
    zone.store.fail = False
    assert zone.update(add(LAMP, "AAAA", ID1)) == "NOERROR"
    zone.restart()
    assert zone.data(LAMP, "AAAA") == [ID1]
    assert zone.serial == serial + 1


RESERVED = (
    add(f"ns.{ALICE}", "A", "198.51.100.1"),
    rr(f"NS.{ALICE}", "ANY", ANY),
    add(f"_dns-update-tls._udp.{ALICE}", "SRV", "0 0 1 evil.example."),
    rr(f"_853._tcp.ns.{ALICE}", "TLSA", ANY),
    add(f"_invite.{ALICE}", "TXT", '"x"'),
    add(f"a.b._invite.{ALICE}", "TXT", '"x"'),
)


@pytest.mark.parametrize("index", range(len(RESERVED)))
def test_names_of_the_rendezvous_itself_are_refused(zone: Rendezvous, index: int) -> None:
    assert zone.update(add(LAMP, "TXT", '"x"'), RESERVED[index]) == "REFUSED"
    assert zone.data(LAMP, "TXT") == []
    assert "keeps this name itself" in zone.happenings[-1].reason


def test_delegations_and_dnssec_records_are_refused(zone: Rendezvous) -> None:
    assert zone.update(add(f"sub.{ALICE}", "NS", "ns.example.")) == "REFUSED"
    assert zone.update(add(DESK, "DNAME", "example.")) == "REFUSED"
    assert zone.update(add(DESK, "DS", "1 13 2 " + "00" * 32)) == "REFUSED"


def test_limits_of_an_account_refuse_in_words_and_shrinking_is_allowed() -> None:
    limits = ZoneLimits(names=14, records=20, records_per_set=3, record_octets=200)
    zone = Rendezvous(limits=limits)
    room = limits.names - zone.server.content(ALICE).names
    hosts = [f"h{number}.{ALICE}" for number in range(room + 1)]
    for host in hosts[:room]:
        assert zone.update(add(host, "AAAA", ID1)) == "NOERROR"
    assert zone.update(add(hosts[room], "AAAA", ID1)) == "REFUSED"
    assert zone.happenings[-1].reason == "the zone is full: 14 names"
    many = [add(hosts[0], "AAAA", f"fd01::{n + 2}") for n in range(3)]
    assert zone.update(*many) == "REFUSED"
    assert zone.happenings[-1].reason == "a name may hold 3 records of one type"
    assert zone.update(*many[:2]) == "NOERROR"
    large = '"' + "x" * 201 + '"'
    assert zone.update(add(hosts[0], "TXT", large)) == "REFUSED"
    assert zone.happenings[-1].reason == "a record may hold 200 octets"
    for number in range(20):
        rcode = zone.update(add(hosts[1], "TXT", f'"{number}"'), add(hosts[2], "HINFO", "a b"))
        if rcode != "NOERROR":
            break
    assert zone.server.content(ALICE).records <= 20
    assert zone.update(rr(hosts[0], "ANY", ANY)) == "NOERROR"
    assert zone.update(add(hosts[0], "AAAA", ID1)) == "NOERROR"


def test_an_update_of_too_many_records_is_refused() -> None:
    zone = Rendezvous(limits=ZoneLimits(update_records=5))
    assert zone.update(*[rr(DESK, "AAAA", ANY)] * 6) == "REFUSED"
    assert "send several" in zone.happenings[-1].reason


def test_the_same_signed_update_is_carried_out_once() -> None:
    """A replay within TSIG's fudge gets the same answer and undoes nothing."""
    zone = Rendezvous()
    first, _ = tsig.sign(
        update_wire(updates=(add(DESK, "AAAA", ID1),)), key_of(ALICE), 1_700_000_000
    )
    answer = zone.raw(first)
    assert zone.update(rr(DESK, "ANY", ANY)) == "NOERROR"
    assert zone.raw(first) == answer
    other_id = b"\x99\x99" + first[2:]  # a forwarder may change the ID; Original ID stays
    again = zone.raw(other_id)
    assert again == b"\x99\x99" + answer[2:]
    assert zone.data(DESK, "AAAA") == []
    assert zone.server.counters["update.repeated"] == 2


def test_owner_names_keep_the_case_they_came_with() -> None:
    zone = Rendezvous(accounts=(account(ALICE),))
    target = f"AutoTunnel-00-22-69-FF-FE-8E-34-2A.{ALICE}."
    service = f"_autotunnel._udp.myMacPro.{ALICE}"
    assert zone.update(add(service, "SRV", f"0 0 7809 {target}")) == "NOERROR"
    assert zone.update(add(target, "AAAA", ID1)) == "NOERROR"
    assert zone.update(add(target.lower(), "A", "198.51.100.9")) == "NOERROR"
    zone.restart()
    answer = zone.ask(service.lower(), "SRV")
    assert answer.answer[0].to_text().endswith(f"IN SRV 0 0 7809 {target}")
    assert [r.name.to_text().split(".")[0][:10] for r in answer.additional] == [
        "AutoTunnel",
        "AutoTunnel",
    ]
    assert parse(zone.raw(update_wire())).rcode() == 5
