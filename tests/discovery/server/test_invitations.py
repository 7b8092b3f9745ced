"""Invitations at the rendezvous: once, not too late, one nonce (decision 0004)."""

from __future__ import annotations

import dns.message
import dns.rcode
import pytest

from discovery import invitations, tsig
from discovery.invitations import Invitation, SealError, open_sealed, seal
from discovery.types import TsigKey
from tests.discovery.server.helpers import (
    ALICE,
    BOB,
    UNIX,
    Rendezvous,
    account_secret_of,
    add,
    invitation_key_of,
    key_of,
    query_wire,
    reason_of,
    update_wire,
)

IDENTITY = bytes.fromhex("00112233445566778899")
EXPIRES = UNIX + 600
NONCE = bytes(range(16))
OTHER_NONCE = bytes(range(1, 17))


def key(identity: bytes = IDENTITY, expires: int = EXPIRES, domain: str = ALICE) -> TsigKey:
    name = invitations.key_name(Invitation(identity, expires), domain)
    return TsigKey(name, invitation_key_of(domain, identity, expires))


def question(nonce: bytes = NONCE, identity: bytes = IDENTITY, domain: str = ALICE) -> bytes:
    return query_wire(invitations.question_name(identity, nonce, domain), "TXT")


def secret_in(answer: dns.message.Message, nonce: bytes = NONCE) -> bytes:
    (text,) = answer.answer[0]
    sealed = b"".join(text.strings).decode()
    return open_sealed(sealed, key().secret, nonce, ALICE)


@pytest.fixture
def zone() -> Rendezvous:
    return Rendezvous()


def test_an_invitation_yields_the_account_secret_sealed(zone: Rendezvous) -> None:
    answer = zone.signed(question(), key())
    assert secret_in(answer) == account_secret_of(ALICE)
    assert answer.answer[0].ttl == 0
    assert account_secret_of(ALICE) not in zone.raw(tsig.sign(question(), key(), UNIX)[0])


def test_the_same_nonce_may_ask_again_until_the_invitation_expires(zone: Rendezvous) -> None:
    """A lost answer costs nothing."""
    for unix in (UNIX, UNIX + 1, EXPIRES):
        assert secret_in(zone.signed(question(), key(), unix=unix)) == account_secret_of(ALICE)
    late = zone.signed(question(), key(), unix=EXPIRES + 1)
    assert late.rcode() == dns.rcode.REFUSED
    assert "has expired" in reason_of(late)


def test_another_nonce_is_refused_in_words_also_after_a_restart(zone: Rendezvous) -> None:
    assert zone.signed(question(), key()).rcode() == 0
    for _ in range(2):
        second = zone.signed(question(OTHER_NONCE), key())
        assert (second.rcode(), second.answer) == (dns.rcode.REFUSED, [])
        assert "used already" in reason_of(second)
        zone.restart()
    assert zone.signed(question(), key()).rcode() == 0


def test_an_expired_invitation_is_refused_and_not_bound(zone: Rendezvous) -> None:
    old = key(expires=UNIX - 1)
    answer = zone.signed(question(), old)
    assert answer.rcode() == dns.rcode.REFUSED
    assert "has expired" in reason_of(answer)


def test_a_forged_expiry_is_a_wrong_key(zone: Rendezvous) -> None:
    later = invitations.key_name(Invitation(IDENTITY, EXPIRES + 1), ALICE)
    forged, _ = tsig.sign(question(), TsigKey(later, key().secret), UNIX)
    assert zone.server.handle(forged, ("192.0.2.1", 1), "tls", UNIX)[0][3] & 15 == 9
    assert zone.server.counters["tsig.BADSIG"] == 1


def test_the_store_that_fails_gives_nothing_away(zone: Rendezvous) -> None:
    zone.store.fail = True
    assert zone.signed(question(), key()).rcode() == dns.rcode.SERVFAIL
    zone.store.fail = False
    assert zone.signed(question(OTHER_NONCE), key()).rcode() == 0  # nothing had been bound


@pytest.mark.parametrize(
    "wire",
    [
        query_wire(f"desk.{ALICE}", "AAAA"),
        query_wire(ALICE, "SOA"),
        query_wire(ALICE, "AXFR"),
        query_wire(invitations.question_name(IDENTITY, NONCE, ALICE), "ANY"),
        query_wire(invitations.question_name(IDENTITY, NONCE, ALICE), "TXT", rdclass=255),
        query_wire(invitations.question_name(IDENTITY + b"\x01", NONCE, ALICE), "TXT"),
        query_wire(invitations.question_name(IDENTITY, NONCE, BOB), "TXT"),
        query_wire(invitations.question_name(IDENTITY, NONCE[:15], ALICE), "TXT"),
        query_wire("x." + invitations.question_name(IDENTITY, NONCE, ALICE), "TXT"),
        query_wire(f"_invite.{ALICE}", "TXT"),
        query_wire(".", "TXT"),
        update_wire(updates=(add(f"evil.{ALICE}", "AAAA", "fd01::1"),)),
    ],
)
def test_an_invitations_key_serves_for_nothing_else(zone: Rendezvous, wire: bytes) -> None:
    answer = zone.signed(wire, key())
    assert answer.rcode() == dns.rcode.REFUSED
    assert answer.answer == []
    assert zone.data(f"evil.{ALICE}", "AAAA") == []


def test_the_accounts_own_key_finds_no_record_there(zone: Rendezvous) -> None:
    zone.signed(question(), key())
    assert zone.signed(question(), key_of(ALICE)).rcode() == dns.rcode.NXDOMAIN


@pytest.mark.parametrize(
    "label",
    [
        "",
        "zz-1",
        "00-",
        "0-1",
        "00-1x",
        "00--1",
        "00-1-2",
        "00" * 25 + "-1",
        "00-" + "9" * 13,
        "é-1",
    ],
)
def test_other_key_names_are_no_invitations(label: str) -> None:
    assert invitations.parse_key_label(label) is None


def test_key_labels_round_trip() -> None:
    name = invitations.key_name(Invitation(IDENTITY, EXPIRES), ALICE)
    assert invitations.parse_key_label(name.split(".")[0]) == Invitation(IDENTITY, EXPIRES)


def test_the_seal_opens_only_with_its_key_nonce_and_domain() -> None:
    sealed = seal(b"secret", b"k" * 32, NONCE, ALICE)
    assert open_sealed(sealed, b"k" * 32, NONCE, ALICE.upper() + ".") == b"secret"
    for args in (
        (sealed, b"K" * 32, NONCE, ALICE),
        (sealed, b"k" * 32, OTHER_NONCE, ALICE),
        (sealed, b"k" * 32, NONCE, BOB),
        (sealed[:-4] + "AAA=", b"k" * 32, NONCE, ALICE),
        ("not base64!", b"k" * 32, NONCE, ALICE),
        ("", b"k" * 32, NONCE, ALICE),
    ):
        with pytest.raises(SealError):
            open_sealed(*args)
