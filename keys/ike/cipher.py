"""The SK and SKF payloads: everything after IKE_SA_INIT travels in them (RFC 7296 §3.14, RFC 5282).

::

    IKE header 28 | SK header 4                            | IV 8 | ciphertext | tag 16
    IKE header 28 | SKF header 4 | number 2 | fragments 2  | IV 8 | ciphertext | tag 16
    `------------------ associated data ------------------'        ^ payloads | pad length 0
    nonce = salt 4 | IV 8

The IV is a counter: never twice under one key, which is all that the ciphers ask for. SKF holds
one fragment of what SK would hold (RFC 7383 §2.5); :mod:`keys.ike.fragments` cuts and joins.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from keys.ike.errors import InvalidSyntaxError
from keys.ike.header import HEADER_OCTETS, Header
from keys.ike.keymat import SALT_OCTETS
from keys.ike.payloads import GENERIC, Payload, PayloadType, decode_chain, encode_chain

_IV = struct.Struct(">Q")
TAG_OCTETS = 16
_PLACE = struct.Struct(">HH")
OVERHEAD = GENERIC.size + _IV.size + 1 + TAG_OCTETS
FRAGMENT_OVERHEAD = OVERHEAD + _PLACE.size


class IntegrityError(Exception):
    """Not made with our keys: drop it, answer nothing, change nothing."""


@dataclass(frozen=True, slots=True)
class Place:
    """Which fragment of how many an SKF payload holds, counted from 1 (RFC 7383 §2.5)."""

    number: int
    total: int


@dataclass(frozen=True, slots=True)
class Opened:
    """What an SK or SKF payload held: the type of its first payload, its flags, its plaintext."""

    first: int
    flags: int
    plain: bytes

    @property
    def chain(self) -> bytes:
        """The plaintext without its padding; raises InvalidSyntaxError."""
        end = len(self.plain) - 1 - self.plain[-1] if self.plain else -1
        if end < 0:
            raise InvalidSyntaxError("the padding is longer than the SK payload")
        return self.plain[:end]

    def payloads(self) -> list[Payload]:
        """The payloads of a whole message; raises InvalidSyntaxError."""
        return decode_chain(self.first, self.chain)


class MessageCipher:
    """One direction of one IKE SA. ``key`` is cipher key and salt."""

    __slots__ = ("_aead", "_counter", "_salt")

    def __init__(self, suite: str, key: bytes) -> None:
        secret, self._salt = key[:-SALT_OCTETS], key[-SALT_OCTETS:]
        self._aead: AESGCM | ChaCha20Poly1305 = (
            ChaCha20Poly1305(secret) if suite == "chacha20poly1305" else AESGCM(secret)
        )
        self._counter = 0

    def seal(self, header: Header, payloads: Sequence[Payload]) -> bytes:
        """A whole protected message."""
        return self.seal_chain(header, *encode_chain(payloads))

    def seal_chain(self, header: Header, first: int, chain: bytes) -> bytes:
        """A whole protected message from an encoded payload chain."""
        return self._seal(header, PayloadType.SK, first, b"", chain)

    def seal_fragment(self, header: Header, first: int, piece: bytes, place: Place) -> bytes:
        """One fragment of a message; ``first`` is the message's in fragment 1, else NONE."""
        fixed = _PLACE.pack(place.number, place.total)
        return self._seal(header, PayloadType.SKF, first, fixed, piece)

    def _seal(self, header: Header, kind: int, first: int, fixed: bytes, chain: bytes) -> bytes:
        size = OVERHEAD + len(fixed) + len(chain)
        whole = replace(header, next_payload=kind, length=HEADER_OCTETS + size)
        associated = whole.encode() + GENERIC.pack(first, 0, size) + fixed
        iv = _IV.pack(self._counter)
        self._counter += 1
        return associated + iv + self._aead.encrypt(self._salt + iv, chain + b"\0", associated)

    def open(self, data: bytes) -> Opened:
        """What a protected message held.

        ``data`` is a message whose header has been checked against its length.

        Raises:
            IntegrityError: not a lone SK payload, or the tag does not verify.
        """
        return self._open(data, PayloadType.SK, 0)

    def open_fragment(self, data: bytes) -> Opened:
        """What one fragment held; ``place_of(data)`` says which. Raises IntegrityError."""
        return self._open(data, PayloadType.SKF, _PLACE.size)

    def _open(self, data: bytes, kind: int, fixed: int) -> Opened:
        if len(data) < HEADER_OCTETS + fixed + OVERHEAD or data[16] != kind:
            raise IntegrityError
        first, flags, size = GENERIC.unpack_from(data, HEADER_OCTETS)
        if HEADER_OCTETS + size != len(data):
            raise IntegrityError
        end = HEADER_OCTETS + GENERIC.size + fixed
        iv, sealed = data[end : end + _IV.size], data[end + _IV.size :]
        try:
            plain = self._aead.decrypt(self._salt + iv, sealed, data[:end])
        except InvalidTag:
            raise IntegrityError from None
        return Opened(first, flags, plain)


def place_of(data: bytes) -> Place | None:
    """Where a fragment belongs; None for a datagram that cannot be one (RFC 7383 §2.6)."""
    if len(data) < HEADER_OCTETS + FRAGMENT_OVERHEAD:
        return None
    number, total = _PLACE.unpack_from(data, HEADER_OCTETS + GENERIC.size)
    return Place(number, total) if 1 <= number <= total else None
