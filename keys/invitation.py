"""Invitation tokens: the text that ``invite`` prints and ``join`` reads (decision 0004).

``at1-`` or ``at2-`` and base32 (RFC 4648 §6) in lower case, without padding: it survives being read
aloud, typed in capitals, wrapped over lines, and fits a QR code's alphanumeric mode in capitals::

    length u16 | domain | server | DNS port u16 | TLS port u16 | pin | id | expires u48 | key
      | join key, in version 2 only | sum

``domain``, ``server``, ``pin`` and ``id`` have one octet of length before them; port 0 and an
empty pin mean none; ``key`` and ``join key`` are 32 octets; ``sum`` is the first four octets of
SHA-256 over all before it. The length tells a token that lost its end from one that was mistyped.

The token carries an invitation key, never the account secret, and works once, until it expires.
Version 2 is of an account whose hosts have certificates: its join key, which only issuers can make,
is the proof behind the new host's signing request (:mod:`keys.signing`).
"""

from __future__ import annotations

import binascii
import re
from base64 import b32decode, b32encode
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

PLAIN, WITH_JOIN_KEY = 1, 2  # versions of the token
VERSION: Final = WITH_JOIN_KEY  # the newest that this software reads
PIN_SIZE: Final = 32  # octets, SHA-256 of the SPKI
KEY_SIZE: Final = 32  # octets
ID_SIZE: Final = 8  # octets of an invitation id that we make
MAX_ID_SIZE: Final = 24  # octets; the TSIG key name's first label must hold it in hex
MAX_TEXT: Final = 2000  # characters: the longest token that is looked at

_PREFIX = re.compile(r"^at([0-9]{1,4})-")
_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyz234567")
_HOST_CHARACTERS = re.compile(r"^[a-z0-9._:-]{1,255}$", re.IGNORECASE)
_SUM_SIZE = 4
_NEW_ONE = "ask for a new one (`autotunnel invite` on a host of the account)"


class InvitationError(ValueError):
    """The token cannot be used; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Invitation:
    """What a token says.

    ``server`` is the rendezvous, an address or a name; ``dns_port`` (UDP and TCP) and
    ``tls_port`` are ``None`` where it does not offer that; ``pin`` is the SHA-256 (32 octets) of
    its public key; ``expires`` is unix seconds.
    """

    domain: str
    server: str
    dns_port: int | None
    tls_port: int | None
    pin: bytes | None
    identity: bytes
    expires: int
    key: bytes = field(repr=False)
    join_key: bytes | None = field(default=None, repr=False)

    def check(self, unix: int) -> None:
        """Raise :exc:`InvitationError` if the invitation has expired at ``unix``."""
        if unix >= self.expires:
            raise InvitationError(
                f"the invitation expired {_duration(unix - self.expires)} ago; {_NEW_ONE}, "
                "or set this host's clock if it is wrong"
            )


def encode(invitation: Invitation) -> str:
    """Return the token. Raises ValueError for a field that does not fit."""
    if len(invitation.key) != KEY_SIZE or not 1 <= len(invitation.identity) <= MAX_ID_SIZE:
        raise ValueError("the invitation's key or id has a wrong size")
    if invitation.pin is not None and len(invitation.pin) != PIN_SIZE:
        raise ValueError(f"a pin has {PIN_SIZE} octets")
    if not all(_HOST_CHARACTERS.match(text) for text in (invitation.domain, invitation.server)):
        raise ValueError("the domain or the server is not a name or an address")
    if invitation.join_key is not None and len(invitation.join_key) != KEY_SIZE:
        raise ValueError(f"a join key has {KEY_SIZE} octets")
    body = (
        _counted(invitation.domain.encode("ascii"))
        + _counted(invitation.server.encode("ascii"))
        + (invitation.dns_port or 0).to_bytes(2)
        + (invitation.tls_port or 0).to_bytes(2)
        + _counted(invitation.pin or b"")
        + _counted(invitation.identity)
        + invitation.expires.to_bytes(6)
        + invitation.key
        + (invitation.join_key or b"")
    )
    framed = len(body).to_bytes(2) + body
    text = b32encode(framed + _checksum(framed)).decode("ascii").rstrip("=").lower()
    return f"at{PLAIN if invitation.join_key is None else WITH_JOIN_KEY}-{text}"


def decode(text: str, unix: int) -> Invitation:
    """Read a token at the wall clock ``unix``. Raises :exc:`InvitationError`."""
    version, letters = _letters(text)
    framed = _unframe(_octets(letters), len(letters))
    invitation = _read(framed[2:], version)
    invitation.check(unix)
    return invitation


def _letters(text: str) -> tuple[int, str]:
    """Return the version and the base32 part, lower case, without white space."""
    if len(text) > MAX_TEXT:
        raise InvitationError("this is too long for an invitation token; copy only the token")
    compact = "".join(text.split()).lower()
    found = _PREFIX.match(compact)
    if found is None:
        raise InvitationError(
            f'this is not an invitation token, which begins with "at{PLAIN}-" or "at{VERSION}-"; '
            "copy the whole line that `autotunnel invite` printed"
        )
    version = int(found[1])
    if version > VERSION:
        raise InvitationError(
            f"the invitation was made by a newer version of autotunnel (token version {version}, "
            f"this one reads {VERSION}); upgrade autotunnel on this host"
        )
    if version < PLAIN:
        raise InvitationError(f"there is no token version {version}; {_NEW_ONE}")
    return version, compact[found.end() :]


def _octets(letters: str) -> bytes:
    wrong = next((letter for letter in letters if letter not in _LETTERS), None)
    if wrong is not None:
        raise InvitationError(
            f"the token is mistyped: {wrong!r} never stands in one; copy it again"
        )
    whole = letters
    # A base32 text never ends 1, 3 or 6 letters after a group of 8: octets end elsewhere. The
    # last letter then says nothing, and the length field judges the rest.
    while len(whole) % 8 in (1, 3, 6):
        whole = whole[:-1]
    try:
        return b32decode(whole.upper() + "=" * (-len(whole) % 8))
    except binascii.Error:
        raise InvitationError("the token is mistyped; copy it again") from None


def _unframe(octets: bytes, letters: int) -> bytes:
    """Return length and body after checking length and checksum."""
    size = 2 + int.from_bytes(octets[:2]) + _SUM_SIZE if len(octets) >= 2 else None
    if size is None or len(octets) < size:
        raise InvitationError(
            "the token is cut short (or mistyped in its beginning); copy the whole line"
        )
    expected_letters = -(-size * 8 // 5)
    framed, checksum = octets[: size - _SUM_SIZE], octets[size - _SUM_SIZE : size]
    if _checksum(framed) != checksum:
        raise InvitationError("the token is mistyped (its checksum does not match); copy it again")
    if letters != expected_letters:
        raise InvitationError("something stands behind the token; copy only the token")
    return framed


def _read(body: bytes, version: int) -> Invitation:
    reader = _Reader(body)
    domain, server = reader.text(), reader.text()
    dns_port, tls_port = reader.number(2), reader.number(2)
    pin, identity = reader.counted(), reader.counted()
    expires, key = reader.number(6), reader.take(KEY_SIZE)
    join_key = reader.take(KEY_SIZE) if version == WITH_JOIN_KEY else None
    sizes_fit = len(pin) in (0, PIN_SIZE) and 1 <= len(identity) <= MAX_ID_SIZE
    if reader.left() or not sizes_fit:
        raise _malformed()
    return Invitation(
        domain=domain,
        server=server,
        dns_port=dns_port or None,
        tls_port=tls_port or None,
        pin=pin or None,
        identity=identity,
        expires=expires,
        key=key,
        join_key=join_key,
    )


def _malformed() -> InvitationError:
    return InvitationError(f"the token's content makes no sense; {_NEW_ONE}")


class _Reader:
    """Takes fields off a body whose checksum was right; a wrong one is still refused in words."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._at = 0

    def take(self, size: int) -> bytes:
        if size > self.left():
            raise _malformed()
        self._at += size
        return self._body[self._at - size : self._at]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size))

    def counted(self) -> bytes:
        return self.take(self.number(1))

    def text(self) -> str:
        text = self.counted().decode("latin-1")
        if not _HOST_CHARACTERS.match(text):
            raise _malformed()
        return text

    def left(self) -> int:
        return len(self._body) - self._at


def _counted(octets: bytes) -> bytes:
    return len(octets).to_bytes(1) + octets


def _checksum(framed: bytes) -> bytes:
    return sha256(b"autotunnel/1 invitation token" + framed).digest()[:_SUM_SIZE]


def _duration(seconds: int) -> str:
    """Return a length of time in words, in its largest unit."""
    for unit, size in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= size:
            count = seconds // size
            return f"{count} {unit}{'s' if count > 1 else ''}"
    return f"{seconds} s"
