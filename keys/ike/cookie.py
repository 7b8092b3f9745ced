"""COOKIE: proof that a stranger can hear us, before we do any work for it (RFC 7296 §2.6).

::

    cookie = version 1 | HMAC-SHA-256(secret[version], Ni | IPi | port | SPIi)[:16]

The secret changes every minute; the one before is still good, so that no honest initiator is
caught by the change.

In a flood nearly every request has no good cookie. So no more is read of one than ``glance`` does,
which makes no object of any payload; a demand is written without any either.
"""

from __future__ import annotations

import hmac
import struct
from collections.abc import Callable
from typing import NamedTuple

from keys.ike.header import HEADER, HEADER_OCTETS, NO_SPI, RESPONSE, VERSION, Exchange
from keys.ike.notify import NotifyType
from keys.ike.payloads import GENERIC, MAX_PAYLOADS, NONCE_OCTETS, PayloadType
from keys.ike.types import Endpoint

_MAC_OCTETS = 16
_SECRET_OCTETS = 32
_NOTIFY = struct.Struct(">BBHBBH")  # generic header; protocol, SPI size, type
_NEEDED = frozenset((PayloadType.SA, PayloadType.KE, PayloadType.NONCE))


class Glance(NamedTuple):
    """What a COOKIE depends on: the nonce of a request, and the cookie that it brings, or b""."""

    nonce: bytes
    cookie: bytes


def glance(data: bytes) -> Glance | None:
    """Walks an IKE_SA_INIT request; None for one without SA, KE or nonce, or with a broken chain.

    Asking for the three keeps our demand smaller than what was asked with.
    """
    kind, offset, end = data[16], HEADER_OCTETS, len(data)
    nonce = cookie = b""
    seen: set[int] = set()
    for _ in range(MAX_PAYLOADS):
        if kind == PayloadType.NONE:
            whole = offset == end and len(nonce) in NONCE_OCTETS and seen >= _NEEDED
            return Glance(nonce, cookie) if whole else None
        if offset + GENERIC.size > end:
            return None
        following, _, octets = GENERIC.unpack_from(data, offset)
        if octets < GENERIC.size or offset + octets > end:
            return None
        seen.add(kind)
        if kind == PayloadType.NONCE:
            nonce = data[offset + GENERIC.size : offset + octets]
        elif kind == PayloadType.NOTIFY and octets > _NOTIFY.size and not cookie:
            size, number = _NOTIFY.unpack_from(data, offset)[4:]
            if number == NotifyType.COOKIE:
                cookie = data[offset + _NOTIFY.size + size : offset + octets]
        kind, offset = following, offset + octets
    return None


def demand(spi_i: bytes, cookie: bytes) -> bytes:
    """The whole answer that asks for ``cookie``."""
    octets = _NOTIFY.size + len(cookie)
    head = (PayloadType.NOTIFY, VERSION, Exchange.IKE_SA_INIT, RESPONSE, 0, HEADER_OCTETS + octets)
    notify = _NOTIFY.pack(PayloadType.NONE, 0, octets, 0, 0, NotifyType.COOKIE)
    return HEADER.pack(spi_i, NO_SPI, *head) + notify + cookie


class CookieJar:
    """Makes and checks cookies without keeping anything per stranger."""

    def __init__(self, random: Callable[[int], bytes], lifetime: float) -> None:
        self._random = random
        self._lifetime = lifetime
        self._version = 0
        self._secrets: dict[int, bytes] = {}
        self._changes_at = float("-inf")

    def make(self, nonce: bytes, spi_i: bytes, remote: Endpoint, now: float) -> bytes:
        """The cookie that this initiator is to send back."""
        self._turn(now)
        return self._compute(self._version, nonce, spi_i, remote)

    def check(
        self, cookie: bytes, nonce: bytes, spi_i: bytes, remote: Endpoint, now: float
    ) -> bool:
        """Whether ``cookie`` is one that we made for this initiator lately."""
        self._turn(now)
        if not cookie or cookie[0] not in self._secrets:
            return False
        return hmac.compare_digest(self._compute(cookie[0], nonce, spi_i, remote), cookie)

    def _compute(self, version: int, nonce: bytes, spi_i: bytes, remote: Endpoint) -> bytes:
        data = nonce + f"{remote[0]}|{remote[1]}|".encode() + spi_i
        mac = hmac.digest(self._secrets[version], data, "sha256")[:_MAC_OCTETS]
        return bytes([version]) + mac

    def _turn(self, now: float) -> None:
        if now < self._changes_at:
            return
        long_ago = now >= self._changes_at + self._lifetime
        previous = {} if long_ago else {self._version: self._secrets[self._version]}
        self._version = (self._version + 1) % 256
        self._secrets = previous | {self._version: self._random(_SECRET_OCTETS)}
        self._changes_at = now + self._lifetime
