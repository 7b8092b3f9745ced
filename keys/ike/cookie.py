"""COOKIE: proof that a stranger can hear us, before we do any work for it (RFC 7296 §2.6).

::

    cookie = version 1 | HMAC-SHA-256(secret[version], Ni | IPi | port | SPIi)[:16]

The secret changes every minute; the one before is still good, so that no honest initiator is
caught by the change.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable

from keys.ike.types import Endpoint

_MAC_OCTETS = 16
_SECRET_OCTETS = 32


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
