"""Zone transfers read from whatever a primary may send."""

from __future__ import annotations

import random as pseudo
from collections.abc import Callable

import dns.name
import dns.rdata
import pytest

from discovery import message, tsig
from discovery.backing.reader import TransferError, TransferReader
from discovery.content import ZoneContent
from discovery.message import Reply, Request
from discovery.store import Item, RecordSet
from discovery.tsig_stream import StreamSigner, StreamVerifier
from discovery.types import TsigKey

ORIGIN = dns.name.from_text("alice.members.example.")
KEY = TsigKey("front.example.", bytes(range(32)))
MAC, UNIX = bytes(32), 1_800_000_000


def one(name: str, rdtype: str, data: str, ttl: int = 60) -> RecordSet:
    rdata = dns.rdata.from_text("IN", rdtype, data, origin=ORIGIN, relativize=False)
    return RecordSet(dns.name.from_text(name, ORIGIN), int(rdata.rdtype), ttl, (Item(rdata),))


def soa(serial: int) -> RecordSet:
    return one("@", "SOA", f"ns hostmaster {serial} 3600 600 86400 60")


A, B, C = (one(label, "AAAA", f"fd00::{label}") for label in "abc")
LEASED = RecordSet(A.name, A.rdtype, 60, (Item(A.items[0].rdata, UNIX + 5000),))
STRANGER = RecordSet(dns.name.from_text("a.example."), A.rdtype, 60, A.items)


def messages(*parts: list[RecordSet], rcode: int = 0) -> list[bytes]:
    """The signed messages of an answer, one per part."""
    asked = Request(7, 0, (message.Question(ORIGIN, message.TYPE_IXFR, 1),), (), (), None)
    signer = StreamSigner(KEY, MAC)
    out = []
    for part in parts:
        wire = message.render(asked, Reply(rcode=rcode, answer=part), 60_000)
        assert wire is not None
        out.append(signer.sign(wire, UNIX))
    return out


def reader(serial: int | None) -> TransferReader:
    return TransferReader(ORIGIN, 7, StreamVerifier(KEY, MAC), serial)


def content(*sets: RecordSet) -> ZoneContent:
    return ZoneContent(ORIGIN, sets)


def applied(base: ZoneContent, wires: list[bytes], serial: int | None) -> dict[str, str]:
    machine = reader(serial)
    assert [machine.take(wire, UNIX) for wire in wires] == [False] * (len(wires) - 1) + [True]
    base.merge(machine.changes(base))
    return {
        one.name.relativize(ORIGIN).to_text(): one.items[0].rdata.to_text()
        for one in base.sets()
        if one.rdtype == A.rdtype
    }


def test_a_whole_zone_replaces_what_there_was_and_keeps_leases() -> None:
    base = content(soa(1), LEASED, B)
    assert applied(base, messages([soa(9), A], [C, soa(9)]), 1) == {"a": "fd00::a", "c": "fd00::c"}
    kept = base.get(A.name, A.rdtype)
    assert kept is not None
    assert kept.items[0].expires == UNIX + 5000


def test_differences_are_taken_step_by_step() -> None:
    base = content(soa(1), LEASED)
    steps = [soa(3), soa(1), A, soa(2), B, soa(2), soa(3), C, A, soa(3)]
    assert set(applied(base, messages(steps[:4], steps[4:]), 1)) == {"a", "b", "c"}
    assert base.soa.serial == 3
    kept = base.get(A.name, A.rdtype)
    assert kept is not None
    assert kept.items[0].expires == UNIX + 5000  # it left and came again within one transfer


def test_the_newest_serial_is_answered_by_itself_alone() -> None:
    base = content(soa(5), B)
    assert applied(base, messages([soa(5)]), 5) == {"b": "fd00::b"}


def test_an_empty_zone_is_its_soa_twice() -> None:
    assert applied(content(soa(1), B), messages([soa(2), soa(2)]), None) == {}


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ([[A]], "begin with"),
        ([[soa(9), STRANGER]], "outside"),
        ([[soa(9), A, soa(9), A]], "follow its end"),
        ([[soa(9), one("b", "SOA", "ns hostmaster 9 1 1 1 1")]], "another zone"),
    ],
)
def test_what_is_no_transfer_is_refused_in_words(parts: list[list[RecordSet]], words: str) -> None:
    machine = reader(1)
    with pytest.raises(TransferError, match=words):
        for wire in messages(*parts):
            machine.take(wire, UNIX)


def test_differences_that_do_not_fit_are_refused() -> None:
    machine = reader(1)
    for wire in messages([soa(2), soa(1), A, soa(2), B, soa(2)]):
        machine.take(wire, UNIX)
    with pytest.raises(TransferError, match="do not fit"):
        machine.changes(content(soa(1)))


def test_a_refusal_is_named() -> None:
    with pytest.raises(TransferError, match="REFUSED"):
        reader(1).take(messages([], rcode=message.REFUSED)[0], UNIX)


@pytest.mark.parametrize(
    "change",
    [
        lambda wires: [wires[1], wires[0], *wires[2:]],
        lambda wires: [wires[0], *wires[2:]],
        lambda wires: [wires[0][:40] + bytes([wires[0][40] ^ 1]) + wires[0][41:], *wires[1:]],
        lambda wires: [tsig.without_tsig(wires[0], tsig.locate(wires[0])[1]), *wires[1:]],
    ],
    ids=["swapped", "one missing", "changed", "unsigned"],
)
def test_only_what_the_primary_signed_in_this_order_counts(
    change: Callable[[list[bytes]], list[bytes]],
) -> None:
    machine = reader(None)
    with pytest.raises(TransferError):
        for wire in change(messages([soa(9), A], [B], [C], [soa(9)])):
            machine.take(wire, UNIX)


def test_any_run_of_records_is_read_or_refused() -> None:
    """100,000 runs of records in any order, signed by the primary itself."""
    chance = pseudo.Random(6281)
    pool = [_bare(each) for each in (soa(1), soa(2), soa(3), A, B, C, STRANGER)]
    base = content(soa(1), A)
    outcomes = {"read": 0, "refused": 0}
    for _ in range(100_000):
        machine = reader(chance.choice((None, 1, 2)))
        try:
            for record in chance.choices(pool, k=chance.randrange(8)):
                machine._record(record)
            machine.changes(base)
            outcomes["read"] += 1
        except TransferError:
            outcomes["refused"] += 1
    assert min(outcomes.values()) > 1000


def _bare(found: RecordSet) -> message.Record:
    rdata = found.items[0].rdata
    return message.Record(found.name, found.rdtype, 1, found.ttl, 16, rdata)
