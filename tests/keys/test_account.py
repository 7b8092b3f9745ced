"""The account's keys: derived, distinct, and stable from version to version."""

from __future__ import annotations

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keys.account import Account, AccountSecretError, decode_secret, encode_secret, new_secret

SECRET = bytes(range(32))
ALICE = Account("alice.members.example", SECRET)


def hkdf(info: bytes) -> bytes:
    """RFC 5869 with no salt and one block, written out: an independent oracle."""
    extracted = hmac.digest(bytes(32), SECRET, hashlib.sha256)
    return hmac.digest(extracted, info + b"\x01", hashlib.sha256)


DOMAIN = b"\x00\x00\x15alice.members.example"


def test_each_key_is_hkdf_under_its_own_label() -> None:
    assert ALICE.tsig_secret == hkdf(b"autotunnel/1 tsig" + DOMAIN)
    assert ALICE.psk == hkdf(b"autotunnel/1 ike psk" + DOMAIN)
    assert ALICE.recording_key == hkdf(b"autotunnel/1 recording" + DOMAIN)
    expires = (1700000000).to_bytes(8)
    expected = hkdf(b"autotunnel/1 invitation" + DOMAIN + expires + b"12345678")
    assert ALICE.invitation_key(b"12345678", 1700000000) == expected


def test_no_two_keys_are_alike() -> None:
    bob = Account("bob.members.example", SECRET)
    made = [
        key
        for account in (ALICE, bob)
        for key in (
            account.tsig_secret,
            account.psk,
            account.nearby_key,
            account.recording_key,
            account.invitation_key(b"a", 1),
            account.invitation_key(b"b", 1),
            account.invitation_key(b"a", 2),
        )
    ]
    assert len(set(made)) == len(made)
    assert SECRET not in made


def test_the_domain_is_one_name_however_it_is_written() -> None:
    same = Account("Alice.Members.EXAMPLE.", SECRET)
    assert same == ALICE
    assert same.tsig_name == "alice.members.example."


def test_a_secret_is_never_shown() -> None:
    assert "secret" not in repr(ALICE)


@given(st.binary(min_size=32, max_size=32), st.sampled_from(["", "\n", "\r\n"]))
def test_the_text_of_a_secret_reads_back(secret: bytes, ending: str) -> None:
    assert decode_secret((encode_secret(secret) + ending).encode()) == secret


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"not base64!", "not base64"),
        (b"AAAA", "3 octets where 32"),
        (encode_secret(SECRET).encode() + b"\n\n", "not base64"),
        (b"", "0 octets"),
    ],
)
def test_a_wrong_text_is_refused_in_words(text: bytes, says: str) -> None:
    with pytest.raises(AccountSecretError, match=says):
        decode_secret(text)


def test_secrets_of_another_size_are_refused() -> None:
    with pytest.raises(AccountSecretError):
        Account("alice.example", b"short")
    with pytest.raises(AccountSecretError):
        encode_secret(b"short")
    assert len(new_secret(lambda size: bytes(size))) == 32
