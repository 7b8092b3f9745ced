"""Group commit: UPDATEs that wait for the disk together (RFC 2136 §3.5, §3.7)."""

from __future__ import annotations

from dataclasses import dataclass, field

import dns.name
import dns.rcode

from discovery import batch as batches
from discovery import tsig
from discovery.content import SOA, ZoneChange
from discovery.store import StoreError
from discovery.update import ZoneLimits
from discovery.ways import Way
from tests.discovery.server.helpers import (
    ALICE,
    ANY,
    BOB,
    NONE,
    SOURCE,
    UNIX,
    Rendezvous,
    add,
    key_of,
    opt,
    parse,
    query_wire,
    rr,
    update_wire,
)
from tests.discovery.server.test_leases import data, lease_option, register

DESK, LAMP = f"desk.{ALICE}", f"lamp.{ALICE}"
ID1, ID2 = "fd01::1", "fd01::2"


@dataclass
class Slow:
    """A rendezvous whose disk takes its time: the test says when a write begins and ends."""

    zone: Rendezvous = field(default_factory=Rendezvous)
    heard: list[ZoneChange] = field(default_factory=list)
    unix: int = UNIX

    def __post_init__(self) -> None:
        self.zone.server.on_change = self.heard.append

    def wire(self, *updates: bytes, zone: str = ALICE, lease: int | None = None) -> bytes:
        options = b"" if lease is None else lease_option(lease)
        made = update_wire(
            zone,
            updates,
            identity=self.zone.next_identity(),
            additional=(opt(options=options),),
        )
        return tsig.sign(made, key_of(zone), self.unix)[0]

    def send(self, wire: bytes, ticket: object) -> None:
        assert self.zone.server.submit(wire, Way("udp", SOURCE), self.unix, ticket=ticket) is None

    def begin(self) -> batches.Batch:
        begun = self.zone.server.begin(self.unix)
        assert begun is not None
        return begun

    def end(self, begun: batches.Batch, error: StoreError | None = None) -> dict[object, str]:
        if error is None and begun.changes:
            self.zone.store.commit(begun.changes)
        answers = self.zone.server.end(begun, error, self.unix)
        return {ticket: dns.rcode.to_text(parse(wire).rcode()) for ticket, wire in answers}


def test_updates_that_come_during_a_write_share_the_next() -> None:
    slow = Slow()
    commits = slow.zone.store.commits
    slow.send(slow.wire(add(DESK, "AAAA", ID1)), "one")
    first = slow.begin()
    for number in range(20):
        slow.send(slow.wire(add(f"h{number}.{ALICE}", "AAAA", ID1)), number)
    assert slow.end(first) == {"one": "NOERROR"}
    second = slow.begin()
    assert slow.end(second) == dict.fromkeys(range(20), "NOERROR")
    assert slow.zone.store.commits == commits + 2
    assert slow.zone.server.begin(UNIX) is None


def test_nothing_is_true_before_it_is_written() -> None:
    """RFC 2136 §3.5, §3.7: neither answers, nor listeners, nor the serial."""
    slow = Slow()
    serial = slow.zone.serial
    slow.send(slow.wire(add(DESK, "AAAA", ID1)), "one")
    begun = slow.begin()
    assert data_now(slow.zone, DESK) == []
    assert slow.zone.server.content(ALICE).soa.serial == serial
    assert slow.heard == []
    slow.end(begun)
    assert data_now(slow.zone, DESK) == [ID1]
    assert len(slow.heard) == 1


def data_now(zone: Rendezvous, name: str) -> list[str]:
    """Ask as a driver does, which leaves the writing alone."""
    wire, mac = tsig.sign(query_wire(name, "AAAA"), key_of(ALICE), UNIX)
    (answer,) = zone.server.submit(wire, Way("tcp", SOURCE), UNIX) or [b""]
    verdict = tsig.verify(answer, lambda *_: key_of(ALICE), UNIX, request_mac=mac)
    assert isinstance(verdict, tsig.Verified)
    return sorted(item.to_text() for rrset in parse(answer).answer for item in rrset)


def test_updates_of_one_batch_see_each_other_in_their_order() -> None:
    slow = Slow()
    serial = slow.zone.serial
    free = rr(DESK, "ANY", NONE)
    claim = [
        tsig.sign(
            update_wire(
                updates=(add(DESK, "AAAA", value),), prerequisites=(free,), identity=number
            ),
            key_of(ALICE),
            UNIX,
        )[0]
        for number, value in enumerate((ID1, ID2))
    ]
    slow.send(claim[0], "first")
    slow.send(claim[1], "second")
    slow.send(slow.wire(rr(DESK, "ANY", ANY), add(LAMP, "AAAA", ID1)), "third")
    slow.send(slow.wire(add(LAMP, "AAAA", ID2)), "fourth")
    assert slow.end(slow.begin()) == {
        "first": "NOERROR",
        "second": "YXDOMAIN",
        "third": "NOERROR",
        "fourth": "NOERROR",
    }
    assert slow.zone.data(DESK, "AAAA") == []
    assert slow.zone.data(LAMP, "AAAA") == [ID1, ID2]
    assert slow.zone.serial == serial + 3
    (change,) = slow.heard  # what came and left within one write was never there
    assert {c.name.to_text() for c in change.added if c.rdtype != SOA} == {LAMP + "."}


def test_a_write_that_fails_fails_for_all_and_changes_nothing() -> None:
    slow = Slow()
    serial = slow.zone.serial
    slow.send(slow.wire(add(DESK, "AAAA", ID1)), "one")
    slow.send(slow.wire(add("x.example", "AAAA", ID1)), "by itself")
    slow.send(slow.wire(add(f"x.{BOB}", "AAAA", ID1), zone=BOB), "bob")
    told = slow.end(slow.begin(), StoreError("full"))
    assert told == {"one": "SERVFAIL", "by itself": "SERVFAIL", "bob": "SERVFAIL"}
    assert slow.heard == []
    assert slow.zone.serial == serial
    assert slow.zone.data(DESK, "AAAA") == []
    slow.send(slow.wire(add(DESK, "AAAA", ID2)), "again")
    assert slow.end(slow.begin()) == {"again": "NOERROR"}
    assert slow.zone.serial == serial + 1


def test_accounts_share_a_write_and_nothing_else() -> None:
    slow = Slow()
    serials = {zone: slow.zone.server.content(zone).soa.serial for zone in (ALICE, BOB)}
    slow.send(slow.wire(add(DESK, "AAAA", ID1)), "alice")
    slow.send(slow.wire(add(f"desk.{BOB}", "AAAA", ID2), zone=BOB), "bob")
    commits = slow.zone.store.commits
    slow.end(slow.begin())
    assert slow.zone.store.commits == commits + 1
    for zone, serial in serials.items():
        assert slow.zone.server.content(zone).soa.serial == serial + 1
    assert {change.zone.to_text() for change in slow.heard} == {ALICE + ".", BOB + "."}


def test_a_retransmission_in_the_same_batch_is_carried_out_once() -> None:
    slow = Slow()
    wire = slow.wire(add(DESK, "AAAA", ID1))
    slow.send(wire, "one")
    slow.send(slow.wire(rr(DESK, "ANY", ANY)), "two")
    slow.send(wire, "again")
    assert slow.end(slow.begin()) == {"one": "NOERROR", "two": "NOERROR", "again": "NOERROR"}
    assert slow.zone.data(DESK, "AAAA") == []
    assert slow.zone.server.counters["update.repeated"] == 1


def test_limits_count_what_waits_in_the_same_batch() -> None:
    zone = Rendezvous(limits=ZoneLimits(names=12))
    slow = Slow(zone)
    room = 12 - zone.server.content(ALICE).names
    for number in range(room + 2):
        slow.send(slow.wire(add(f"h{number}.{ALICE}", "AAAA", ID1)), number)
    outcomes = slow.end(slow.begin())
    assert list(outcomes.values()) == ["NOERROR"] * room + ["REFUSED"] * 2
    assert zone.server.content(ALICE).names == 12


def test_no_more_than_a_bounded_number_waits_or_is_written_together() -> None:
    slow = Slow()
    names = [f"h{number % 50}.{ALICE}" for number in range(batches.MAX_WAITING)]
    for number, name in enumerate(names):
        slow.send(slow.wire(add(name, "AAAA", ID1)), number)
    one_more = slow.wire(add(DESK, "AAAA", ID1))
    (refused,) = slow.zone.server.submit(one_more, Way("udp", SOURCE), UNIX, ticket="x") or [b""]
    assert parse(refused).rcode() == dns.rcode.SERVFAIL
    assert len(slow.end(slow.begin())) == batches.MAX_TOGETHER


def test_a_lease_that_ends_during_a_write_is_not_answered_and_leaves_with_the_next() -> None:
    slow = Slow()
    register(slow.zone, add(DESK, "AAAA", ID1), add(LAMP, "AAAA", ID1))
    slow.heard.clear()
    slow.send(slow.wire(add(f"x.{ALICE}", "AAAA", ID1)), "one")
    begun = slow.begin()
    slow.unix = UNIX + 5400
    slow.zone.server.expire(slow.unix)
    assert slow.zone.server.content(ALICE).get(*key("desk")) is None
    slow.end(begun)
    assert slow.zone.server.content(ALICE).get(*key("desk")) is None
    slow.end(slow.begin())
    assert slow.zone.server.begin(slow.unix) is None
    assert [c.name.to_text() for c in slow.heard[1].removed if c.rdtype != SOA] == [
        DESK + ".",
        LAMP + ".",
    ]
    slow.zone.unix = slow.unix
    slow.zone.restart()
    assert data(slow.zone, DESK, "AAAA", slow.unix) == []


def test_a_refresh_that_is_being_written_when_the_lease_ends_holds() -> None:
    slow = Slow()
    register(slow.zone, add(DESK, "AAAA", ID1))
    slow.heard.clear()
    slow.unix = UNIX + 5399
    slow.send(slow.wire(add(DESK, "AAAA", ID1), lease=5400), "refresh")
    begun = slow.begin()
    slow.unix = UNIX + 5400
    slow.zone.server.expire(slow.unix)
    slow.end(begun)
    assert slow.zone.server.begin(slow.unix) is None
    assert data(slow.zone, DESK, "AAAA", slow.unix) == [ID1]
    assert slow.heard == []
    slow.zone.unix = slow.unix
    slow.zone.restart()
    assert data(slow.zone, DESK, "AAAA", slow.unix) == [ID1]


def test_a_record_that_ends_while_its_neighbours_end_is_written_ends_too() -> None:
    slow = Slow()
    register(slow.zone, add(DESK, "AAAA", ID1), asked=(1800,))
    register(slow.zone, add(DESK, "AAAA", ID2), asked=(1801,))
    slow.unix = UNIX + 1800
    slow.zone.server.expire(slow.unix)
    begun = slow.begin()
    slow.unix = UNIX + 1801
    slow.zone.server.expire(slow.unix)
    slow.end(begun)
    assert data(slow.zone, DESK, "AAAA", slow.unix) == []
    slow.zone.unix = slow.unix
    serial = slow.zone.server.content(ALICE).soa.serial
    slow.zone.restart()
    assert slow.zone.server.content(ALICE).soa.serial == serial
    removed = [c for change in slow.heard for c in change.removed if c.rdtype != SOA]
    assert len(removed) == 2


def key(label: str) -> tuple[dns.name.Name, int]:
    return dns.name.from_text(f"{label}.{ALICE}"), 28
