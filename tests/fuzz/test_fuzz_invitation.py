"""Invitation tokens of 100,000 kinds: read right, or refused in words."""

from __future__ import annotations

from keys.invitation import InvitationError, _checksum, _read, decode
from tests.fuzz.mutate import mutants
from tests.keys.test_invitation import INVITATION, NOW, TOKEN

INPUTS = 100_000


def test_every_text_is_the_token_or_refused() -> None:
    refused = 0
    for text in mutants([TOKEN.encode()], INPUTS):
        try:
            # Changes of case and white space are allowed, and so the same invitation comes out.
            assert decode(text.decode("latin-1"), NOW) == INVITATION
        except InvitationError as error:
            assert 20 < len(str(error)) < 250
            refused += 1
    assert refused > INPUTS // 2


def test_every_body_with_a_right_checksum_is_read_or_refused() -> None:
    from base64 import b32decode

    letters = TOKEN[4:].upper()
    framed = b32decode(letters + "=" * (-len(letters) % 8))[:-4]
    assert len(_checksum(framed)) == 4
    read = 0
    for number, body in enumerate(mutants([framed[2:]], INPUTS)):
        try:
            _read(body, 1 + number % 2)
            read += 1
        except InvitationError:
            continue
    assert 0 < read < INPUTS
