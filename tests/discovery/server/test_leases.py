"""Update Lease at the server (RFC 9664; B38-B41): both forms, limits, refresh, expiry, restarts."""

from __future__ import annotations

import struct

import dns.message
import dns.rcode
import pytest

from discovery.content import SOA, ZoneChange, ZoneContent
from discovery.io_store import SqliteStore
from discovery.lease import OPTION, Lease, LeaseError, LeaseLimits, asked_in
from tests.discovery.server.helpers import (
    ALICE,
    ANY,
    BOB,
    UNIX,
    Rendezvous,
    add,
    key_of,
    opt,
    query_wire,
    reason_of,
    rr,
    update_wire,
)

DESK, LAMP = f"desk.{ALICE}", f"lamp.{ALICE}"
ID1, ID2 = "fd01::1", "fd01::2"
DESK_KEY = add(DESK, "KEY", "0 3 13 " + "QUFB" * 22)


def lease_option(*seconds: int) -> bytes:
    return struct.pack(f"!HH{len(seconds)}I", OPTION, 4 * len(seconds), *seconds)


def register(
    zone: Rendezvous, *updates: bytes, asked: tuple[int, ...] = (5400,), unix: int = UNIX
) -> dns.message.Message:
    wire = update_wire(
        updates=updates,
        additional=(opt(options=lease_option(*asked)),),
        identity=zone.next_identity(),
    )
    return zone.signed(wire, unix=unix)


def granted(answer: dns.message.Message) -> tuple[int, ...] | None:
    for option in answer.options:
        if option.otype == OPTION:
            data = option.to_wire()
            assert data is not None
            return struct.unpack(f"!{len(data) // 4}I", data)
    return None


def data(zone: Rendezvous, name: str, rdtype: str, unix: int) -> list[str]:
    answer = zone.signed(query_wire(name, rdtype), unix=unix)
    return sorted(item.to_text() for rrset in answer.answer for item in rrset)


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        # B40: at least 30 minutes, at most 2 hours
        ((600,), (1800,)),
        ((5400,), (5400,)),
        ((7200,), (7200,)),
        ((86400,), (7200,)),
        ((0,), (1800,)),
        ((0xFFFFFFFF,), (7200,)),  # RFC 6281 calls it signed; -1 is no lease of minus one second
        # RFC 9664 §4.3: the form of the request is the form of the answer
        ((600, 86400), (1800, 86400)),
        ((5400, 0), (5400, 1800)),
        ((5400, 0xFFFFFFFF), (5400, 604800)),
    ],
)
def test_a_lease_is_granted_within_its_limits_and_in_the_form_asked(
    asked: tuple[int, ...], given: tuple[int, ...]
) -> None:
    zone = Rendezvous()
    answer = register(zone, add(DESK, "AAAA", ID1), asked=asked)
    assert answer.rcode() == 0
    assert granted(answer) == given
    assert data(zone, DESK, "AAAA", UNIX + given[0] - 1) == [ID1]
    assert data(zone, DESK, "AAAA", UNIX + given[0]) == []


@pytest.mark.parametrize(
    "options",
    [
        lease_option(),
        struct.pack("!HHH", OPTION, 2, 1),
        lease_option(5400, 5400, 5400),
        lease_option(5400) + lease_option(5400),
    ],
)
def test_an_option_of_no_lawful_form_is_refused_in_words(options: bytes) -> None:
    zone = Rendezvous()
    wire = update_wire(updates=(add(DESK, "AAAA", ID1),), additional=(opt(options=options),))
    answer = zone.signed(wire)
    assert answer.rcode() == dns.rcode.FORMERR
    assert "Update Lease option" in reason_of(answer)
    assert granted(answer) is None
    assert zone.data(DESK, "AAAA") == []


def test_a_lease_is_echoed_only_where_the_update_was_carried_out() -> None:
    """RFC 9664 §4.3: in successful answers; and no option without one in the request."""
    zone = Rendezvous()
    failing = add("x.example", "AAAA", ID1)
    assert granted(register(zone, failing)) is None
    zone.store.fail = True
    refused = register(zone, add(DESK, "AAAA", ID1))
    assert (refused.rcode(), granted(refused)) == (dns.rcode.SERVFAIL, None)
    zone.store.fail = False
    plain = update_wire(updates=(add(DESK, "AAAA", ID1),), additional=(opt(),))
    assert granted(zone.signed(plain)) is None
    assert data(zone, DESK, "AAAA", UNIX + 10**9) == [ID1]  # and then it stays


def test_key_records_have_a_lease_of_their_own_in_the_long_form_only() -> None:
    zone = Rendezvous()
    register(zone, add(DESK, "AAAA", ID1), DESK_KEY, asked=(1800, 86400))
    assert data(zone, DESK, "AAAA", UNIX + 1800) == []
    assert len(data(zone, DESK, "KEY", UNIX + 86399)) == 1
    assert data(zone, DESK, "KEY", UNIX + 86400) == []
    register(zone, add(DESK, "AAAA", ID1), DESK_KEY, asked=(1800,), unix=UNIX + 86400)
    assert data(zone, DESK, "KEY", UNIX + 86400 + 1800) == []


def test_a_refresh_moves_the_end_durably_and_leaves_the_serial() -> None:
    """RFC 9664 §5.3."""
    zone = Rendezvous()
    register(zone, add(DESK, "AAAA", ID1))
    serial, commits = zone.serial, zone.store.commits
    heard: list[ZoneChange] = []
    zone.server.on_change = heard.append
    answer = register(zone, add(DESK, "AAAA", ID1), unix=UNIX + 4400)
    assert granted(answer) == (5400,)
    assert (zone.serial, zone.store.commits, heard) == (serial, commits + 1, [])
    assert data(zone, DESK, "AAAA", UNIX + 4400 + 5399) == [ID1]
    assert data(zone, DESK, "AAAA", UNIX + 4400 + 5400) == []


def test_a_refresh_that_comes_too_late_registers_anew() -> None:
    """RFC 9664 §5.3: the server's state may not match; then the serial moves."""
    zone = Rendezvous()
    register(zone, add(DESK, "AAAA", ID1))
    serial = zone.serial
    assert register(zone, add(DESK, "AAAA", ID1), unix=UNIX + 6000).rcode() == 0
    assert data(zone, DESK, "AAAA", UNIX + 6001) == [ID1]
    assert zone.serial == serial + 2  # it left, and it came


def test_each_record_of_a_set_has_its_own_end() -> None:
    zone = Rendezvous()
    register(zone, add(DESK, "AAAA", ID1), asked=(1800,))
    register(zone, add(DESK, "AAAA", ID2), asked=(3600,))
    assert data(zone, DESK, "AAAA", UNIX + 1799) == [ID1, ID2]
    assert data(zone, DESK, "AAAA", UNIX + 1800) == [ID2]
    assert data(zone, DESK, "AAAA", UNIX + 3600) == []


def test_whoever_adds_a_record_last_says_how_long_it_stays() -> None:
    zone = Rendezvous()
    assert zone.update(add(DESK, "AAAA", ID1)) == "NOERROR"
    register(zone, add(DESK, "AAAA", ID1))
    register(zone, add(LAMP, "AAAA", ID2))
    assert zone.update(add(LAMP, "AAAA", ID2)) == "NOERROR"
    assert data(zone, DESK, "AAAA", UNIX + 5400) == []
    assert data(zone, LAMP, "AAAA", UNIX + 5400) == [ID2]


def test_the_soa_and_the_ns_of_a_zone_never_end() -> None:
    zone = Rendezvous()
    soa = f"ns.{ALICE}. hostmaster.{ALICE}. {zone.serial + 5} 7200 900 1209600 60"
    assert register(zone, add(ALICE, "NS", "ns2.example."), add(ALICE, "SOA", soa)).rcode() == 0
    assert len(data(zone, ALICE, "NS", UNIX + 10**6)) == 2
    assert len(data(zone, ALICE, "SOA", UNIX + 10**6)) == 1


def test_an_end_is_a_durable_change_that_steps_the_serial_and_is_told() -> None:
    zone = Rendezvous()
    register(zone, add(DESK, "AAAA", ID1), add(DESK, "TXT", '"x"'))
    heard: list[ZoneChange] = []
    zone.server.on_change = heard.append
    serial, commits = zone.serial, zone.store.commits
    assert zone.server.next_end == UNIX + 5400
    zone.server.tick(UNIX + 5399)
    assert (heard, zone.store.commits) == ([], commits)
    zone.server.tick(UNIX + 5400)
    assert (zone.serial, zone.store.commits) == (serial + 1, commits + 1)
    (change,) = heard
    assert {content.rdtype for content in change.removed} == {16, 28, SOA}
    assert {content.rdtype for content in change.added} == {SOA}
    assert zone.server.next_end is None
    stored = [found.rdtype for found in zone.store.load(change.zone) if found.name == change.zone]
    assert sorted(stored) == [2, 6]
    zone.restart()
    assert zone.serial == serial + 1


def test_what_ended_is_no_longer_in_use_for_prerequisites() -> None:
    zone = Rendezvous()
    register(zone, add(DESK, "AAAA", ID1))
    free = update_wire(prerequisites=(rr(DESK, "ANY", 254),))
    assert zone.signed(free).rcode() == dns.rcode.YXDOMAIN
    again = update_wire(prerequisites=(rr(DESK, "ANY", 254),), identity=9)
    assert zone.signed(again, unix=UNIX + 5400).rcode() == 0


def test_a_store_that_fails_answers_no_ended_record_and_is_tried_again() -> None:
    """RFC 9664 §7: MUST NOT be returned, whatever the disk says."""
    zone = Rendezvous()
    register(zone, add(DESK, "AAAA", ID1))
    serial = zone.serial
    heard: list[ZoneChange] = []
    zone.server.on_change = heard.append
    zone.store.fail = True
    assert data(zone, DESK, "AAAA", UNIX + 5400) == []
    assert zone.server.counters["lease.SERVFAIL"] == 1
    data(zone, DESK, "AAAA", UNIX + 5400)
    assert zone.server.counters["lease.SERVFAIL"] == 1  # not with every message
    assert zone.happenings[-1].what == "lease.SERVFAIL"
    assert (zone.serial, heard) == (serial, [])
    assert zone.server.next_end == UNIX + 5401
    zone.store.fail = False
    zone.server.tick(UNIX + 5401)
    assert zone.serial == serial + 1
    assert [content.rdtype for content in heard[0].removed] == [28, SOA]
    assert zone.server.next_end is None
    zone.restart()
    assert zone.data(DESK, "AAAA") == []


def test_what_ended_while_the_store_failed_can_be_registered_again() -> None:
    zone = Rendezvous()
    register(zone, add(DESK, "AAAA", ID1))
    zone.store.fail = True
    zone.server.tick(UNIX + 5400)
    zone.store.fail = False
    assert register(zone, add(DESK, "AAAA", ID2), unix=UNIX + 5400).rcode() == 0
    assert data(zone, DESK, "AAAA", UNIX + 5401) == [ID2]
    zone.restart()
    assert zone.data(DESK, "AAAA") == [ID2]


def test_leases_survive_restarts_and_end_while_the_server_is_down() -> None:
    zone = Rendezvous(store=SqliteStore(":memory:"))
    register(zone, add(DESK, "AAAA", ID1))
    register(zone, add(LAMP, "AAAA", ID2), asked=(7200,))
    serial = zone.serial
    zone.restart()
    assert zone.serial == serial
    assert zone.server.next_end == UNIX + 5400
    zone.unix = UNIX + 5400
    zone.restart()
    assert data(zone, DESK, "AAAA", UNIX + 5400) == []
    assert data(zone, LAMP, "AAAA", UNIX + 5400) == [ID2]
    assert zone.serial == serial + 1


def test_leases_of_one_account_do_not_touch_another() -> None:
    zone = Rendezvous()
    register(zone, add(DESK, "AAAA", ID1))
    assert zone.update(add(f"x.{BOB}", "AAAA", ID2), zone=BOB) == "NOERROR"
    zone.server.tick(UNIX + 10**6)
    assert zone.signed(query_wire(f"x.{BOB}", "AAAA"), key_of(BOB)).answer


def test_a_withdrawal_ends_a_lease_for_good() -> None:
    zone = Rendezvous()
    register(zone, add(DESK, "AAAA", ID1))
    assert zone.update(rr(DESK, "ANY", ANY)) == "NOERROR"
    serial = zone.serial
    zone.server.tick(UNIX + 5400)
    assert zone.serial == serial


def test_many_refreshes_do_not_grow_the_memory_of_ends() -> None:
    zone = Rendezvous()
    for second in range(1000):
        register(zone, add(DESK, "AAAA", ID1), unix=UNIX + second)
    content: ZoneContent = zone.server.content(ALICE)
    assert len(content._ends) < 200
    assert data(zone, DESK, "AAAA", UNIX + 999 + 5399) == [ID1]
    assert data(zone, DESK, "AAAA", UNIX + 999 + 5400) == []


def test_options_are_read_as_rfc_9664_4_writes_them() -> None:
    assert asked_in([(10, b"cookie"), (2, bytes.fromhex("00001518"))]) == Lease(5400)
    assert asked_in([(2, bytes.fromhex("0000151800093a80"))]) == Lease(5400, 604800)
    assert asked_in([]) is None
    assert Lease(5400, 604800).octets().hex() == "0000151800093a80"
    assert LeaseLimits(60, 120).grant(Lease(90)) == Lease(90)
    with pytest.raises(LeaseError):
        asked_in([(2, b"")])
