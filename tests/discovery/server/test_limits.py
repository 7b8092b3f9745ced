"""What an account may keep and ask, and what a stranger gets: each refusal says why."""

from __future__ import annotations

import dns.rcode

from discovery import message
from discovery.rates import BURST, MAX_NETWORKS, Bucket, RateLimits, Strangers
from discovery.update import ZoneLimits
from discovery.zone import ZoneServer
from tests.discovery.server.helpers import (
    ALICE,
    BOB,
    PLACE,
    UNIX,
    Rendezvous,
    account,
    add,
    key_of,
    opt,
    parse,
    query_wire,
    reason_of,
    update_wire,
)

DESK = f"desk.{ALICE}"


def test_an_account_that_updates_too_fast_is_refused_in_words_and_no_other_is() -> None:
    hasty = account(ALICE, rates=RateLimits(updates=2, queries=10**6))
    zone = Rendezvous(accounts=(hasty, account(BOB)))
    outcomes = [zone.update(add(DESK, "AAAA", f"fd01::{n:x}")) for n in range(1, 31)]
    assert outcomes == ["NOERROR"] * 2 * BURST + ["REFUSED"] * 10
    wire = update_wire(updates=(add(DESK, "AAAA", "fd02::1"),), additional=(opt(),), identity=99)
    refused = zone.signed(wire)
    assert refused.rcode() == dns.rcode.REFUSED
    assert reason_of(refused) == "this account may send 2 updates per second; wait a little"
    assert zone.update(add(f"x.{BOB}", "AAAA", "fd01::1"), zone=BOB) == "NOERROR"
    assert zone.signed(wire, unix=UNIX + 1).rcode() == 0


def test_an_account_that_asks_too_fast_is_refused_and_can_still_update() -> None:
    hasty = account(ALICE, rates=RateLimits(updates=10**6, queries=3))
    zone = Rendezvous(accounts=(hasty,))
    outcomes = [zone.ask(DESK, "AAAA").rcode() for _ in range(3 * BURST + 5)]
    assert outcomes == [3] * 3 * BURST + [5] * 5
    assert "3 questions per second" in zone.happenings[-1].reason
    assert zone.update(add(DESK, "AAAA", "fd01::1")) == "NOERROR"


def test_an_account_has_limits_of_its_own() -> None:
    small = account(ALICE, limits=ZoneLimits(names=13))
    zone = Rendezvous(accounts=(small, account(BOB)))
    outcomes = [zone.update(add(f"h{n}.{ALICE}", "AAAA", "fd01::1")) for n in range(10)]
    assert outcomes[-1] == "REFUSED"
    assert zone.happenings[-1].reason == "the zone is full: 13 names"
    assert {zone.update(add(f"h{n}.{BOB}", "AAAA", "fd01::1"), zone=BOB) for n in range(10)} == {
        "NOERROR"
    }


def stranger_server(per_second: int) -> ZoneServer:
    zone = Rendezvous()
    return ZoneServer(zone.accounts, zone.store, PLACE, unix=UNIX, unsigned_per_s=per_second)


def test_a_network_gets_a_bounded_rate_of_unsigned_answers_over_udp() -> None:
    """Beyond it every other question is answered with TC and without octets to throw."""
    server = stranger_server(1)
    wire = query_wire(ALICE, "SOA")
    full = [server.handle(wire, ("192.0.2.7", n), "udp", UNIX) for n in range(BURST)]
    assert all(parse(answer[0]).answer for answer in full)
    beyond = [server.handle(wire, ("192.0.2.99", n), "udp", UNIX) for n in range(10)]
    assert [len(answers) for answers in beyond] == [1, 0] * 5
    cut = beyond[0][0]
    assert cut[2] & message.TC >> 8
    assert len(cut) <= len(wire)
    assert parse(cut).question[0].name.to_text() == ALICE + "."
    assert server.counters["unsigned.cut"] == server.counters["unsigned.drop"] == 5
    assert parse(server.handle(wire, ("192.0.2.99", 1), "tcp", UNIX)[0]).answer  # who is real
    assert parse(server.handle(wire, ("198.51.100.1", 1), "udp", UNIX)[0]).answer  # who is else
    assert parse(server.handle(wire, ("192.0.2.99", 1), "udp", UNIX + 1)[0]).answer


def test_wrong_signatures_and_senseless_datagrams_count_as_unsigned() -> None:
    from discovery import tsig
    from discovery.types import TsigKey

    server = stranger_server(1)
    wrong = tsig.sign(query_wire(DESK, "AAAA"), TsigKey(ALICE + ".", bytes(32)), UNIX)[0]
    source = ("192.0.2.7", 1)
    sizes = [len(server.handle(wrong, source, "udp", UNIX)) for _ in range(BURST + 4)]
    assert sizes == [1] * BURST + [1, 0, 1, 0]
    assert server.handle(bytes(12), source, "udp", UNIX) == []  # not worth a TC
    update = update_wire(updates=(add(DESK, "AAAA", "fd01::1"),))
    assert server.handle(update, source, "udp", UNIX) == []


def test_signed_datagrams_are_answered_however_loud_the_neighbours_are() -> None:
    from discovery import tsig

    server = stranger_server(1)
    for number in range(50):
        server.handle(query_wire(ALICE, "SOA"), ("192.0.2.7", number), "udp", UNIX)
    honest = tsig.sign(query_wire(ALICE, "SOA"), key_of(ALICE), UNIX)[0]
    assert parse(server.handle(honest, ("192.0.2.7", 1), "udp", UNIX)[0]).answer


def test_no_unsigned_answer_over_udp_is_much_larger_than_its_question() -> None:
    """RFC 5358: no amplifier, also within the rate."""
    server = stranger_server(10**6)
    largest = 0.0
    for name in (ALICE, DESK, f"ns.{ALICE}", f"_dns-update-tls._udp.{ALICE}", "example"):
        for rdtype in ("SOA", "NS", "A", "AAAA", "SRV", "TXT", "ANY", "AXFR", "TLSA"):
            wire = query_wire(name, rdtype, additional=(opt(4096),))
            for answer in server.handle(wire, ("192.0.2.7", 1), "udp", UNIX):
                largest = max(largest, len(answer) / len(wire))
    assert largest < 4


def test_strangers_are_remembered_in_bounded_memory() -> None:
    strangers = Strangers(1)
    for number in range(MAX_NETWORKS + 100):
        strangers.verdict(f"2001:db8:{number >> 8:x}:{(number & 255) << 8:x}::1", 0.0)
    assert len(strangers) == MAX_NETWORKS
    assert strangers.verdict("2001:db8:0:0::1", 0.0) == "answer"


def test_one_network_is_24_bits_of_ipv4_and_56_of_ipv6() -> None:
    strangers = Strangers(1)
    for address in ("192.0.2.1", "192.0.2.255", "2001:db8:0:ff00::1", "2001:db8:0:ffff::2"):
        strangers.verdict(address, 0.0)
    assert len(strangers) == 2
    strangers.verdict("192.0.3.1", 0.0)
    strangers.verdict("::ffff:192.0.2.1", 0.0)
    assert len(strangers) == 4


def test_a_bucket_never_holds_more_than_its_burst_and_clocks_may_go_back() -> None:
    bucket = Bucket(2, 100.0)
    assert sum(bucket.take(10_000.0) for _ in range(100)) == 2 * BURST
    assert not bucket.take(50.0)
    assert bucket.take(51.0)


def test_types_that_nobody_knows_are_not_remembered() -> None:
    """dnspython keeps a class for each type that it ever read; strangers could fill that."""
    import dns.rdata

    zone = Rendezvous()
    before = len(dns.rdata._rdata_classes)
    for rdtype in range(40_000, 40_200):
        record = add(DESK, "A", "192.0.2.1").replace(
            b"\x00\x01\x00\x01", rdtype.to_bytes(2) + b"\x00\x01"
        )
        zone.server.handle(update_wire(updates=(record,)), ("192.0.2.7", 1), "udp", UNIX)
    assert len(dns.rdata._rdata_classes) < before + 20
