"""Key exchange methods: Curve25519 (RFC 8031) and the 256-bit random ECP group (RFC 5903).

A private key is made from octets that the caller's ``random`` gives, so that a run can be
repeated. Public values that are not on the curve, and the all-zero shared secret, are refused
(RFC 8031 §5 → RFC 7748 §6.1; RFC 6989 §2.3).
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric import ec, x25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from keys.ike.errors import InvalidSyntaxError
from keys.ike.proposals import GROUP

_P256_OCTETS = 64  # x | y (RFC 5903 §7)
_P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_UNCOMPRESSED = b"\x04"

NAMES: dict[int, str] = {transform.id: name for name, transform in GROUP.items()}
"""Transform ID → name."""


class PrivateKey(Protocol):
    """One side's half of a key exchange."""

    group: int
    public: bytes

    def shared(self, peer: bytes) -> bytes:
        """The shared secret; raises InvalidSyntaxError for a public value that is not one."""


class _X25519:
    def __init__(self, random: Callable[[int], bytes]) -> None:
        self._key = x25519.X25519PrivateKey.from_private_bytes(random(32))
        self.group = GROUP["x25519"].id
        self.public = self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    def shared(self, peer: bytes) -> bytes:
        if len(peer) != 32:
            raise InvalidSyntaxError("an x25519 public value that is not 32 octets long")
        try:
            secret = self._key.exchange(x25519.X25519PublicKey.from_public_bytes(peer))
        except ValueError as error:
            raise InvalidSyntaxError("an x25519 public value of small order") from error
        if hmac.compare_digest(secret, bytes(32)):
            raise InvalidSyntaxError("an x25519 public value of small order")
        return secret


class _Ecp256:
    def __init__(self, random: Callable[[int], bytes]) -> None:
        # 40 octets reduced modulo n - 1 leave a bias below 2^-64 (FIPS 186-5 A.2.1).
        scalar = int.from_bytes(random(40), "big") % (_P256_ORDER - 1) + 1
        self._key = ec.derive_private_key(scalar, ec.SECP256R1())
        self.group = GROUP["ecp256"].id
        point = self._key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        self.public = point[1:]

    def shared(self, peer: bytes) -> bytes:
        if len(peer) != _P256_OCTETS:
            raise InvalidSyntaxError("an ecp256 public value that is not 64 octets long")
        try:
            point = ec.EllipticCurvePublicKey.from_encoded_point(
                ec.SECP256R1(), _UNCOMPRESSED + peer
            )
        except ValueError as error:
            raise InvalidSyntaxError("an ecp256 public value that is not on the curve") from error
        return self._key.exchange(ec.ECDH(), point)


def generate(group: int, random: Callable[[int], bytes]) -> PrivateKey:
    """A fresh private key of a group that we know, from the caller's randomness."""
    return _X25519(random) if NAMES[group] == "x25519" else _Ecp256(random)
