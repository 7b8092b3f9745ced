"""Texts and files of ``keys``, each alone: invitations, secrets, ledgers, vouchers.

The rules are those of :mod:`tests.guided.parsers`.
"""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Sequence

from keys.account import AccountSecretError, decode_secret, encode_secret
from keys.ca import AuthorityError
from keys.invitation import Invitation, InvitationError, decode, encode
from keys.invitation import _read as read_invitation_body
from keys.issuer import Entry, Issuer, Ledger, entry_of
from tests.guided.parsers import AUTHORITY, NAME, UNIX

_RANDOM = random.Random(7296).randbytes

_INVITATION = Invitation(
    domain="alice.example",
    server="203.0.113.10",
    dns_port=53,
    tls_port=853,
    pin=bytes(32),
    identity=b"identity",
    expires=UNIX + 60,
    key=bytes(32),
    join_key=bytes(range(32)),
)


def invitation_seeds() -> Sequence[bytes]:
    from base64 import b32decode

    token = encode(_INVITATION)
    letters = token[4:].upper()
    body = b32decode(letters + "=" * (-len(letters) % 8))[2:-4]
    return [b"T" + token.encode(), b"T" + token.upper().encode(), b"\2" + body, b"\1" + body[:-32]]


def invitation(data: bytes) -> None:
    """A token, or what is inside one whose checksum is right."""
    if not data:
        return
    try:
        if data[:1] == b"T":
            read = decode(data[1:].decode("latin-1"), UNIX)
        else:
            read = read_invitation_body(data[1:], 1 + data[0] % 2)
            read.check(UNIX)
    except InvitationError as error:
        assert len(str(error)) < 300
        return
    assert decode(encode(read), UNIX) == read


def secret_seeds() -> Sequence[bytes]:
    return [encode_secret(bytes(range(32))).encode() + b"\n"]


def secret(data: bytes) -> None:
    try:
        read = decode_secret(data)
    except AccountSecretError as error:
        assert len(data) < 8 or data[:8].decode("latin-1") not in str(error)
        return
    assert decode_secret(encode_secret(read).encode()) == read


def ledger_seeds() -> Sequence[bytes]:
    made = Ledger([Entry("1f", NAME, "ab", UNIX, "69")], {"1f": UNIX}, 1)
    return [made.to_json().encode(), b'{"issued": [], "revoked": {}, "number": 0}']


def ledger(data: bytes) -> None:
    """An issuer's file, damaged: refused, or every use of it works."""
    try:
        read = Ledger.from_json(data.decode("utf-8", "replace"))
    except ValueError:
        return
    again = Ledger.from_json(read.to_json())
    assert again == read
    read.merge(again)
    issuer = Issuer(AUTHORITY, read, _RANDOM)
    issuer.revoke(NAME, UNIX)
    with contextlib.suppress(AuthorityError):  # full
        issuer.revocations(UNIX)
    read.forget(UNIX)
    json.loads(read.to_json())


def voucher_seeds() -> Sequence[bytes]:
    return [json.dumps(["1f", NAME, "ab", UNIX, "69"]).encode()]


def voucher(data: bytes) -> None:
    """What one issuer tells another about a certificate."""
    try:
        read = entry_of(data)
    except ValueError:
        return
    assert Ledger.from_json(Ledger([read]).to_json()).issued == [read]
