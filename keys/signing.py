"""Signing requests and their answers, as they lie in the zone for an issuer to find.

Whoever holds the account secret can write into the zone, so that place proves nothing; the
messages do. A *join* request is sealed with the join key of an invitation, which only the issuer
that made it and the holder of its token know; so is the answer, which is how the new host knows
that the CA certificate in it is the account's. A *renewal* shows the present certificate and is
signed by its key; its answer is worth what the CA's signature in it is worth.

::

    request  version 1 | J | id length 1 | id | expires u48 | GCM nonce 12 | sealed signing request
             version 1 | R | certificate length u16 | certificate | signing request
    answer   version 1 | J or R | status 1 | for J: GCM nonce 12 and all that follows sealed:
             0: certificate length u16 | certificate | CA certificate        1: a sentence
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

VERSION: Final = 1
MAX_MESSAGE: Final = 2800  # octets: in base64, with room to spare, one record of the zone
MAX_SENTENCE: Final = 200  # octets

_NONCE: Final = 12
_JOIN, _RENEW = b"J", b"R"
_GRANTED, _REFUSED = b"\x00", b"\x01"


class SigningError(Exception):
    """The octets are not such a message, or are not sealed with the key; one sentence."""


@dataclass(frozen=True, slots=True)
class JoinRequest:
    """A sealed request: ``identity`` and ``expires`` are the invitation's, unproven."""

    identity: bytes
    expires: int
    sealed: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class RenewRequest:
    """A present certificate, and the request for the next one, both in DER and unchecked."""

    certificate: bytes
    request: bytes


@dataclass(frozen=True, slots=True)
class Granted:
    """The host's new certificate and the CA's, in DER."""

    certificate: bytes
    authority: bytes


@dataclass(frozen=True, slots=True)
class Refused:
    """Why there is none, in one sentence."""

    reason: str


def request_id(octets: bytes) -> str:
    """The label under which the answer to a request is laid down."""
    return sha256(b"autotunnel/1 signing request" + octets).hexdigest()[:32]


# --- Requests -------------------------------------------------------------------------------------


def seal_join(
    join_key: bytes, identity: bytes, expires: int, request: bytes, random: Callable[[int], bytes]
) -> bytes:
    """A join request around a signing request (DER)."""
    head = _join_head(identity, expires)
    nonce = random(_NONCE)
    return head + nonce + _cipher(join_key, b"request").encrypt(nonce, request, head)


def open_join(asked: JoinRequest, join_key: bytes) -> bytes:
    """The signing request inside. Raises :exc:`SigningError`: it was sealed with another key."""
    head = _join_head(asked.identity, asked.expires)
    return _open(_cipher(join_key, b"request"), asked.sealed, head)


def _join_head(identity: bytes, expires: int) -> bytes:
    return bytes((VERSION,)) + _JOIN + bytes((len(identity),)) + identity + expires.to_bytes(6)


def renewal(certificate: bytes, request: bytes) -> bytes:
    """A renewal request."""
    return bytes((VERSION,)) + _RENEW + _counted(certificate) + request


def read_request(octets: bytes) -> JoinRequest | RenewRequest:
    """Tells the two apart. Raises :exc:`SigningError`."""
    kind, rest = _kind(octets)
    if kind == _RENEW:
        certificate, request = _uncounted(rest)
        return RenewRequest(certificate, request)
    size = rest[0] if rest else 0
    if len(rest) < 1 + size + 6 + _NONCE:
        raise SigningError("a signing request is cut short")
    expires = int.from_bytes(rest[1 + size : 7 + size])
    return JoinRequest(rest[1 : 1 + size], expires, rest[7 + size :])


# --- Answers --------------------------------------------------------------------------------------


def write_answer(
    answer: Granted | Refused, join_key: bytes | None, asked: str, random: Callable[[int], bytes]
) -> bytes:
    """The answer to request ``asked``; sealed if it is a join, whose key is given."""
    if isinstance(answer, Granted):
        body = _GRANTED + _counted(answer.certificate) + answer.authority
    else:
        body = _REFUSED + answer.reason.encode()[:MAX_SENTENCE]
    head = bytes((VERSION,)) + (_RENEW if join_key is None else _JOIN)
    if join_key is None:
        return head + body
    nonce = random(_NONCE)
    return head + nonce + _cipher(join_key, b"answer").encrypt(nonce, body, asked.encode())


def read_answer(octets: bytes, join_key: bytes | None, asked: str) -> Granted | Refused:
    """What an issuer answered to request ``asked``. Raises :exc:`SigningError`."""
    kind, body = _kind(octets)
    if (kind == _JOIN) != (join_key is not None):
        raise SigningError("an answer to another kind of request")
    if join_key is not None:
        body = _open(_cipher(join_key, b"answer"), body, asked.encode())
    if body[:1] == _REFUSED:
        text = body[1:].decode("utf-8", "replace")[:MAX_SENTENCE]
        return Refused("".join(c if c.isprintable() else "?" for c in text))
    if body[:1] != _GRANTED:
        raise SigningError("an answer that says neither yes nor no")
    return Granted(*_uncounted(body[1:]))


# --- Both -----------------------------------------------------------------------------------------


def _cipher(join_key: bytes, purpose: bytes) -> AESGCM:
    info = b"autotunnel/1 join " + purpose
    return AESGCM(HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(join_key))


def _open(cipher: AESGCM, sealed: bytes, bound: bytes) -> bytes:
    try:
        return cipher.decrypt(sealed[:_NONCE], sealed[_NONCE:], bound)
    except (InvalidTag, ValueError):
        raise SigningError("it is not sealed with the key of this invitation") from None


def _kind(octets: bytes) -> tuple[bytes, bytes]:
    if len(octets) > MAX_MESSAGE or octets[:1] != bytes((VERSION,)):
        raise SigningError("not a signing message of a version that we know")
    if octets[1:2] not in (_JOIN, _RENEW):
        raise SigningError("not a signing message that we know")
    return octets[1:2], octets[2:]


def _counted(octets: bytes) -> bytes:
    return len(octets).to_bytes(2) + octets


def _uncounted(octets: bytes) -> tuple[bytes, bytes]:
    size = int.from_bytes(octets[:2])
    if len(octets) < 2 + size:
        raise SigningError("a signing message is cut short")
    return octets[2 : 2 + size], octets[2 + size :]
