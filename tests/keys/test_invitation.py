"""Invitation tokens: what they carry, and a clear sentence for each way to spoil one."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keys.invitation import Invitation, InvitationError, _checksum, decode, encode

NOW = 1700000000
INVITATION = Invitation(
    domain="alice.members.example",
    server="203.0.113.10",
    dns_port=53,
    tls_port=853,
    pin=bytes(range(32)),
    identity=b"\x00\x01\x02\x03\x04\x05\x06\x07",
    expires=NOW + 86400,
    key=bytes(range(100, 132)),
)
TOKEN = encode(INVITATION)

HOSTS = st.text("abcdefghijklmnopqrstuvwxyz0123456789-.:", min_size=1, max_size=150)
PORTS = st.none() | st.integers(1, 65535)
INVITATIONS = st.builds(
    Invitation,
    domain=HOSTS,
    server=HOSTS,
    dns_port=PORTS,
    tls_port=PORTS,
    pin=st.none() | st.binary(min_size=32, max_size=32),
    identity=st.binary(min_size=1, max_size=24),
    expires=st.integers(NOW + 1, 2**48 - 1),
    key=st.binary(min_size=32, max_size=32),
)


@given(INVITATIONS)
def test_a_token_reads_back(invitation: Invitation) -> None:
    assert decode(encode(invitation), NOW) == invitation


def test_a_token_survives_capitals_wrapping_and_white_space() -> None:
    spoiled = "\n ".join(TOKEN[at : at + 30].upper() for at in range(0, len(TOKEN), 30)) + "\n"
    assert decode(spoiled, NOW) == INVITATION
    assert TOKEN.startswith("at1-")
    assert TOKEN.isascii()
    assert len(TOKEN) < 250


@pytest.mark.parametrize("kept", [5, 20, 100, len(TOKEN) - 3, len(TOKEN) - 1])
def test_a_truncated_token_says_that_it_is_cut_short(kept: int) -> None:
    with pytest.raises(InvitationError, match="cut short"):
        decode(TOKEN[:kept], NOW)


@given(
    at=st.integers(8, len(TOKEN) - 2), letter=st.sampled_from("abcdefghijklmnopqrstuvwxyz234567")
)
def test_a_mistyped_letter_is_noticed(at: int, letter: str) -> None:
    mistyped = TOKEN[:at] + letter + TOKEN[at + 1 :]
    if letter == TOKEN[at]:
        assert decode(mistyped, NOW) == INVITATION
    else:
        with pytest.raises(InvitationError, match="mistyped"):
            decode(mistyped, NOW)


def test_two_swapped_letters_are_noticed() -> None:
    at = next(i for i in range(20, len(TOKEN)) if TOKEN[i] != TOKEN[i + 1])
    swapped = TOKEN[:at] + TOKEN[at + 1] + TOKEN[at] + TOKEN[at + 2 :]
    with pytest.raises(InvitationError, match="mistyped"):
        decode(swapped, NOW)


def test_a_letter_that_never_stands_in_a_token_is_named() -> None:
    with pytest.raises(InvitationError, match="'0' never stands in one"):
        decode(TOKEN[:30] + "0" + TOKEN[31:], NOW)


def test_an_expired_token_says_since_when() -> None:
    for late, words in ((0, "0 s"), (90, "1 minute"), (7300, "2 hours"), (90000, "1 day")):
        with pytest.raises(InvitationError, match=f"expired {words} ago; ask for a new one"):
            decode(TOKEN, INVITATION.expires + late)
    assert decode(TOKEN, INVITATION.expires - 1) == INVITATION


def test_a_token_of_a_newer_version_asks_for_an_upgrade() -> None:
    with pytest.raises(InvitationError, match=r"newer version.*upgrade"):
        decode("at3-" + TOKEN[4:], NOW)


@pytest.mark.parametrize("text", ["", "hello", "AT-abc", TOKEN[1:], "https://example.com/" + TOKEN])
def test_other_text_is_no_token(text: str) -> None:
    with pytest.raises(InvitationError, match="not an invitation token"):
        decode(text, NOW)


def test_version_zero_and_endless_texts_are_refused() -> None:
    with pytest.raises(InvitationError, match="no token version 0"):
        decode("at0-" + TOKEN[4:], NOW)
    with pytest.raises(InvitationError, match="too long"):
        decode(TOKEN * 50, NOW)


def test_something_behind_the_token_is_noticed() -> None:
    for tail in ("a", "abcdefgh", "ab cd"):
        with pytest.raises(InvitationError, match="behind the token"):
            decode(TOKEN + tail, NOW)


def test_right_checksums_over_nonsense_are_refused() -> None:
    from base64 import b32encode

    for body in (b"", b"\x05a", b"\x01a\x01b" + bytes(90), b"\x01\x00" * 40, b"\xff" * 300):
        framed = len(body).to_bytes(2) + body
        text = b32encode(framed + _checksum(framed)).decode().rstrip("=")
        with pytest.raises(InvitationError, match="makes no sense"):
            decode("at1-" + text, NOW)


@pytest.mark.parametrize(
    "wrong",
    [
        {"key": b"short"},
        {"identity": b""},
        {"identity": bytes(25)},
        {"pin": b"short"},
        {"domain": "white space"},
        {"server": ""},
    ],
)
def test_what_does_not_fit_is_not_encoded(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"."):
        encode(replace(INVITATION, **wrong))


def test_the_key_is_never_shown() -> None:
    assert "key=" not in repr(INVITATION)


def test_a_token_with_a_join_key_is_of_version_2_and_keeps_it() -> None:
    certified = replace(INVITATION, join_key=bytes(range(32)))
    token = encode(certified)
    assert token.startswith("at2-")
    assert decode(token, NOW) == certified
    assert decode(token.upper(), NOW) == certified
    assert "join_key" not in repr(certified), "secrets are not shown"
    for spoilt in ("at1-" + token[4:], "at2-" + TOKEN[4:]):
        with pytest.raises(InvitationError, match="makes no sense"):
            decode(spoilt, NOW)
    with pytest.raises(ValueError, match="a join key has 32 octets"):
        encode(replace(INVITATION, join_key=b"short"))
