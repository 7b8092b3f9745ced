"""Certificates, signatures and signing messages of 100,000 kinds: read right, or refused."""

from __future__ import annotations

import random

from cryptography.hazmat.primitives.serialization import Encoding

from keys import ca, signing
from keys.ca import Authority, AuthorityError
from keys.ike import signature
from keys.ike.certificates import CertificateError, Trust, check
from keys.ike.signature import SignatureError
from keys.issuer import Issuer, Ledger
from keys.signing import SigningError
from tests.fuzz.mutate import mutants

INPUTS = 100_000
UNIX = 1_800_000_000
NAME = "desk.alice.example"
RANDOM = random.Random(11).randbytes
AUTHORITY = Authority.new("alice.example", UNIX, RANDOM)
KEY = ca.new_key(RANDOM)
REQUEST = ca.request(KEY, NAME)
CERTIFICATE = AUTHORITY.issue(ca.read_request(REQUEST), UNIX, RANDOM).public_bytes(Encoding.DER)
JOIN_KEY = AUTHORITY.join_key(b"id", UNIX)


def test_no_changed_certificate_proves_anything() -> None:
    trust, passed = Trust((AUTHORITY.certificate,)), 0
    check([CERTIFICATE], NAME, trust, UNIX)
    for octets in mutants([CERTIFICATE], INPUTS):
        try:
            check([octets], NAME, trust, UNIX)
            passed += octets != CERTIFICATE
        except CertificateError as error:
            assert len(str(error)) < 400
    assert passed == 0


def test_no_changed_signature_verifies() -> None:
    data = signature.sign(KEY, frozenset(signature.HashId), b"octets")
    passed = 0
    for octets in mutants([data], INPUTS):
        try:
            signature.verify(KEY.public_key(), octets, b"octets", "desk")
            passed += octets != data
        except SignatureError as error:
            assert len(str(error)) < 400
    assert passed == 0


def test_signing_messages_are_answered_or_refused_and_never_forged() -> None:
    """A changed join request is never granted; a changed renewal at most to its own key."""
    issuer = Issuer(AUTHORITY, Ledger(), RANDOM)
    join = signing.seal_join(JOIN_KEY, b"id", UNIX, REQUEST, RANDOM)
    renewal = signing.renewal(CERTIFICATE, REQUEST)
    for octets in mutants([join, renewal, b"\x01J\x02id", b"\x01R\xff\xff"], INPUTS // 4):
        try:
            answer = issuer.answer(octets, UNIX)
        except SigningError:
            continue
        assert len(answer) <= signing.MAX_MESSAGE
        issuer.ledger.issued.clear()
    granted = signing.write_answer(signing.Refused("no"), JOIN_KEY, "x", RANDOM)
    for octets in mutants([granted], INPUTS):
        for key in (JOIN_KEY, None):
            try:
                told = signing.read_answer(octets, key, "x")
            except SigningError:
                continue
            assert key is None or octets == granted
            assert isinstance(told, (signing.Granted, signing.Refused))


def test_requests_and_revocation_lists_are_read_or_refused() -> None:
    revoked = AUTHORITY.revocations({5: UNIX}, 1, UNIX)
    for octets in mutants([REQUEST], INPUTS):
        try:
            assert ca.read_request(octets).name == NAME
        except AuthorityError:
            continue
    for octets in mutants([revoked], INPUTS):
        try:
            assert ca.read_revocations(octets, AUTHORITY.certificate).serials == {5}
        except AuthorityError:
            continue
