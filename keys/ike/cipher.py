"""The SK payload: everything after IKE_SA_INIT travels in it (RFC 7296 §3.14, RFC 5282).

::

    IKE header 28 | SK header 4 | IV 8 | ciphertext | tag 16
    `-------- associated data ------'        ^ payloads | pad length 0
    nonce = salt 4 | IV 8

The IV is a counter: never twice under one key, which is all that the ciphers ask for.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import replace

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from keys.ike.errors import InvalidSyntaxError
from keys.ike.header import HEADER_OCTETS, Header
from keys.ike.keymat import SALT_OCTETS
from keys.ike.payloads import GENERIC, Payload, PayloadType, decode_chain, encode_chain

_IV = struct.Struct(">Q")
TAG_OCTETS = 16
_AAD_OCTETS = HEADER_OCTETS + GENERIC.size  # 32
OVERHEAD = GENERIC.size + _IV.size + 1 + TAG_OCTETS


class IntegrityError(Exception):
    """Not made with our keys: drop it, answer nothing, change nothing."""


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
        first, chain = encode_chain(payloads)
        size = len(chain) + OVERHEAD
        whole = replace(header, next_payload=PayloadType.SK, length=HEADER_OCTETS + size)
        associated = whole.encode() + GENERIC.pack(first, 0, size)
        iv = _IV.pack(self._counter)
        self._counter += 1
        return associated + iv + self._aead.encrypt(self._salt + iv, chain + b"\0", associated)

    def open(self, data: bytes) -> bytes:
        """The plaintext of a protected message: see :func:`inner_payloads`.

        ``data`` is a message whose header has been checked against its length.

        Raises:
            IntegrityError: not a lone SK payload, or the tag does not verify.
        """
        if len(data) < HEADER_OCTETS + OVERHEAD or data[16] != PayloadType.SK:
            raise IntegrityError
        _, _, size = GENERIC.unpack_from(data, HEADER_OCTETS)
        if HEADER_OCTETS + size != len(data):
            raise IntegrityError
        iv = data[_AAD_OCTETS : _AAD_OCTETS + _IV.size]
        sealed = data[_AAD_OCTETS + _IV.size :]
        try:
            return self._aead.decrypt(self._salt + iv, sealed, data[:_AAD_OCTETS])
        except InvalidTag:
            raise IntegrityError from None


def inner_payloads(data: bytes, plain: bytes) -> list[Payload]:
    """The payloads inside an opened SK payload of message ``data``; raises InvalidSyntaxError."""
    end = len(plain) - 1 - plain[-1]
    if end < 0:
        raise InvalidSyntaxError("the padding is longer than the SK payload")
    return decode_chain(data[HEADER_OCTETS], plain[:end])
