"""TSIG at the server (RFC 8945 §5.2): its error table, clocks, cut MACs, isolation."""

from __future__ import annotations

import struct
import time
from dataclasses import replace

import dns.message
import dns.name
import dns.rcode
import dns.tsig
import pytest

from discovery import tsig
from discovery.types import TsigKey
from tests.discovery.server.helpers import (
    ALICE,
    ANY,
    BOB,
    NONE,
    SOURCE,
    UNIX,
    Rendezvous,
    account,
    add,
    key_of,
    opt,
    parse,
    query_wire,
    reason_of,
    rr,
    update_wire,
)

DESK = f"desk.{ALICE}"
UPDATE = update_wire(updates=(add(DESK, "AAAA", "fd01::1"),))
ALGORITHM_NAME = b"\x0bhmac-sha256\x00"


@pytest.fixture
def zone() -> Rendezvous:
    return Rendezvous()


def error_record(answer: bytes) -> tsig.TsigRecord:
    """Read the TSIG record of an answer, whatever it says."""
    verdict = tsig.verify(answer, lambda *_: None, UNIX)
    assert isinstance(verdict, tsig.TsigFailure)
    assert verdict.record is not None
    return verdict.record


def cut_mac(wire: bytes, octets: int, algorithm: bytes = ALGORITHM_NAME, full: int = 32) -> bytes:
    """Shorten (or stretch) the MAC of a signed message."""
    at = wire.rindex(algorithm) + len(algorithm)
    head, fixed, tail = wire[:at], wire[at : at + 8], wire[at + 10 + full :]
    mac = (wire[at + 10 : at + 10 + full] + bytes(octets))[:octets]
    length_at = at - len(algorithm) - 2
    rdlength = len(algorithm) + 8 + 2 + octets + len(tail)
    head = head[:length_at] + struct.pack("!H", rdlength) + head[length_at + 2 :]
    return head + fixed + struct.pack("!H", octets) + mac + tail


def nothing_happened(zone: Rendezvous) -> bool:
    return zone.data(DESK, "AAAA") == []


def test_an_unknown_key_is_badkey_and_unsigned(zone: Rendezvous) -> None:
    stranger = TsigKey("carol.members.example.", bytes(32))
    answer = zone.raw(tsig.sign(UPDATE, stranger, UNIX)[0])
    record = error_record(answer)
    assert parse(answer).rcode() == dns.rcode.NOTAUTH
    assert (record.error, record.mac, record.other) == (tsig.BADKEY, b"", b"")
    assert zone.server.counters["tsig.BADKEY"] == 1
    assert nothing_happened(zone)


@pytest.mark.parametrize(
    "algorithm", ["hmac-sha1", "hmac-md5", "hmac-sha256-128", "hmac-sha512-256"]
)
def test_an_algorithm_that_is_not_allowed_is_badkey(zone: Rendezvous, algorithm: str) -> None:
    answer = zone.raw(tsig.sign(UPDATE, key_of(ALICE, algorithm), UNIX)[0])
    assert error_record(answer).error == tsig.BADKEY
    assert nothing_happened(zone)


def test_hmac_md5_serves_only_accounts_that_ask_for_it() -> None:
    zone = Rendezvous(accounts=(account(ALICE, legacy_md5=True), account(BOB)))
    assert zone.signed(UPDATE, key_of(ALICE, "hmac-md5")).rcode() == 0
    assert zone.data(DESK, "AAAA") == ["fd01::1"]  # and sha256 goes on
    bobs = update_wire(BOB, (add(f"x.{BOB}", "AAAA", "fd01::1"),))
    answer = zone.raw(tsig.sign(bobs, key_of(BOB, "hmac-md5"), UNIX)[0])
    assert error_record(answer).error == tsig.BADKEY


def test_a_wrong_mac_is_badsig_and_unsigned(zone: Rendezvous) -> None:
    wrong = TsigKey(ALICE + ".", bytes(32))
    answer = zone.raw(tsig.sign(UPDATE, wrong, UNIX)[0])
    record = error_record(answer)
    assert parse(answer).rcode() == dns.rcode.NOTAUTH
    assert (record.error, record.mac) == (tsig.BADSIG, b"")
    signed, _ = tsig.sign(UPDATE, key_of(ALICE), UNIX)
    tampered = signed.replace(bytes.fromhex("fd01"), bytes.fromhex("fd02"))
    assert tampered != signed
    assert error_record(zone.raw(tampered)).error == tsig.BADSIG
    assert nothing_happened(zone)


@pytest.mark.parametrize("skew", [-301, 301, -86400, 10**9])
def test_a_clock_outside_the_fudge_is_badtime_signed_with_our_clock(
    zone: Rendezvous, skew: int
) -> None:
    """RFC 8945 §5.2.3: Time Signed is the client's, Other Data the server's 48-bit clock."""
    key = key_of(ALICE)
    signed, mac = tsig.sign(UPDATE, key, UNIX + skew)
    answer = zone.raw(signed)
    assert parse(answer).rcode() == dns.rcode.NOTAUTH
    verdict = tsig.verify(answer, lambda *_: key, UNIX + skew, request_mac=mac)
    assert isinstance(verdict, tsig.Verified)
    assert verdict.record.error == tsig.BADTIME
    assert verdict.record.time_signed == UNIX + skew
    assert verdict.server_time == UNIX
    assert nothing_happened(zone)


@pytest.mark.parametrize("skew", [-300, 300])
def test_a_clock_at_the_edge_of_the_fudge_is_right(zone: Rendezvous, skew: int) -> None:
    key = key_of(ALICE)
    signed, mac = tsig.sign(UPDATE, key, UNIX + skew)
    verdict = tsig.verify(zone.raw(signed), lambda *_: key, UNIX, request_mac=mac)
    assert isinstance(verdict, tsig.Verified)
    assert verdict.record.error == 0
    assert zone.data(DESK, "AAAA") == ["fd01::1"]


@pytest.mark.parametrize(
    ("algorithm", "least", "policy", "full"),
    [
        (tsig.HMAC_MD5, 10, 16, 16),
        ("hmac-sha224", 14, 16, 28),
        ("hmac-sha256", 16, 16, 32),
        ("hmac-sha384", 24, 24, 48),
        ("hmac-sha512", 32, 32, 64),
    ],
)
def test_cut_macs_by_algorithm(algorithm: str, least: int, policy: int, full: int) -> None:
    """RFC 8945 §5.2.2.1: at least half the hash and ten octets, else FORMERR; §5.2.4: what is
    lawful and yet too short for us is BADTRUNC, signed."""
    key = key_of(ALICE, algorithm)
    for octets in range(1, full + 2):
        zone = Rendezvous(accounts=(account(ALICE, legacy_md5=True),))
        name = dns.name.from_text(algorithm).to_wire()
        signed, mac = tsig.sign(UPDATE, key, UNIX)
        answer = zone.raw(cut_mac(signed, octets, name, full))
        if not least <= octets <= full:
            assert parse(answer).rcode() == dns.rcode.FORMERR, octets
            continue
        verdict = tsig.verify(answer, lambda *_: key, UNIX, request_mac=mac[:octets])
        assert isinstance(verdict, tsig.Verified), octets
        assert verdict.record.error == (0 if octets >= policy else tsig.BADTRUNC)
        assert nothing_happened(zone) == (octets < policy)


@pytest.mark.parametrize("octets", [9, 10, 15, 33])
def test_a_mac_of_unlawful_length_is_formerr(zone: Rendezvous, octets: int) -> None:
    """RFC 8945 §5.2.2.1: shorter than half the hash, or longer than it."""
    key = key_of(ALICE)
    answer = zone.raw(cut_mac(tsig.sign(UPDATE, key, UNIX)[0], octets))
    assert parse(answer).rcode() == dns.rcode.FORMERR
    assert nothing_happened(zone)


def test_a_lawfully_cut_mac_is_taken_and_digested_as_it_came(zone: Rendezvous) -> None:
    key = key_of(ALICE)
    signed, mac = tsig.sign(UPDATE, key, UNIX)
    answer = zone.raw(cut_mac(signed, 16))
    verdict = tsig.verify(answer, lambda *_: key, UNIX, request_mac=mac[:16])
    assert isinstance(verdict, tsig.Verified)
    assert parse(answer).rcode() == 0
    assert zone.data(DESK, "AAAA") == ["fd01::1"]


def test_a_tsig_that_is_not_last_is_formerr(zone: Rendezvous) -> None:
    signed, _ = tsig.sign(UPDATE, key_of(ALICE), UNIX)
    late_opt = bytes.fromhex("00002904d0000000000000")
    moved = signed[:10] + b"\x00\x02" + signed[12:] + late_opt
    assert parse(zone.raw(moved)).rcode() == dns.rcode.FORMERR


def test_key_names_compare_without_case(zone: Rendezvous) -> None:
    shouting = replace(key_of(ALICE), name=ALICE.upper() + ".")
    assert zone.signed(UPDATE, shouting).rcode() == 0


def test_an_unsigned_update_is_refused_in_words(zone: Rendezvous) -> None:
    answer = zone.unsigned(update_wire(updates=(add(DESK, "A", "192.0.2.1"),), additional=(opt(),)))
    assert answer.rcode() == dns.rcode.REFUSED
    assert "signed" in reason_of(answer)
    assert zone.data(DESK, "A") == []


def test_dnspython_accepts_our_signature(zone: Rendezvous) -> None:
    """An independent judge; its clock is its own, so sign and answer at that time."""
    now = int(time.time())
    key = dns.tsig.Key(ALICE, key_of(ALICE).secret, "hmac-sha256")
    question = dns.message.make_query(ALICE, "SOA")
    question.use_tsig(key)
    wire = question.to_wire()
    (answer,) = zone.server.handle(wire, SOURCE, "tcp", now)
    read = dns.message.from_wire(answer, keyring=key, request_mac=question.mac)
    assert read.had_tsig
    assert read.rcode() == 0


# --- Accounts are strangers to each other ---------------------------------------------------


def test_one_accounts_key_opens_nothing_of_another(zone: Rendezvous) -> None:
    assert zone.update(add(DESK, "AAAA", "fd01::1")) == "NOERROR"
    serial = zone.serial
    attack = update_wire(ALICE, (add(DESK, "AAAA", "fd01::666"),))
    assert zone.signed(attack, key_of(BOB)).rcode() == dns.rcode.REFUSED
    for name in (DESK, f"nothing.{ALICE}", ALICE):
        answer = zone.signed(query_wire(name, "AAAA"), key_of(BOB))
        assert answer.rcode() == dns.rcode.REFUSED
        assert answer.answer == answer.authority == []
    assert zone.serial == serial
    assert zone.data(DESK, "AAAA") == ["fd01::1"]


def test_prerequisites_tell_strangers_nothing(zone: Rendezvous) -> None:
    """Permission comes first, or a stranger could probe for names (our order, not RFC 2136's)."""
    zone.update(add(DESK, "AAAA", "fd01::1"))
    for rdclass in (ANY, NONE):
        probe = update_wire(ALICE, (), (rr(DESK, "ANY", rdclass),))
        assert zone.signed(probe, key_of(BOB)).rcode() == dns.rcode.REFUSED
        assert zone.unsigned(probe).rcode() == dns.rcode.REFUSED


def test_another_accounts_name_of_a_key_does_not_help(zone: Rendezvous) -> None:
    """Alice's key name with Bob's secret."""
    mixed = TsigKey(ALICE + ".", key_of(BOB).secret)
    assert error_record(zone.raw(tsig.sign(UPDATE, mixed, UNIX)[0])).error == tsig.BADSIG


def test_an_account_below_another_is_its_own_zone() -> None:
    inner = f"inner.{ALICE}"
    zone = Rendezvous(accounts=(account(ALICE), account(inner)))
    record = add(f"desk.{inner}", "AAAA", "fd01::1")
    assert zone.signed(update_wire(inner, (record,)), key_of(inner)).rcode() == 0
    question = query_wire(f"desk.{inner}", "AAAA")
    assert zone.signed(question, key_of(ALICE)).rcode() == dns.rcode.REFUSED
    assert zone.signed(question, key_of(inner)).answer


def test_a_domain_in_two_accounts_is_an_error() -> None:
    with pytest.raises(ValueError, match="stands in two accounts"):
        Rendezvous(accounts=(account(ALICE), account(ALICE.upper())))
