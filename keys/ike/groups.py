"""Key exchange methods: Curve25519 (RFC 8031), the 256-bit random ECP group (RFC 5903), and
ML-KEM (FIPS 203, draft-ietf-ipsecme-ikev2-mlkem).

A private key is made from octets that the caller's ``random`` gives, so that a run can be
repeated. Public values that are not on the curve, the all-zero shared secret (RFC 8031 §5 →
RFC 7748 §6.1; RFC 6989 §2.3), and encapsulation keys that fail the check of FIPS 203 §7.2 are
refused. The two sides of ML-KEM differ: the initiator makes a key pair, the responder seals a
secret to it; :func:`respond` does the responder's side of any method.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric import ec, mlkem, x25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from keys.ike.errors import InvalidSyntaxError
from keys.ike.proposals import GROUP, METHOD, METHOD_NAMES

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


class _MlKem:
    """The initiator's half: ``public`` is the encapsulation key, ``shared`` takes a ciphertext."""

    def __init__(self, group: int, random: Callable[[int], bytes]) -> None:
        kind = (
            mlkem.MLKEM768PrivateKey if group == METHOD["mlkem768"] else mlkem.MLKEM1024PrivateKey
        )
        self._key: mlkem.MLKEM768PrivateKey | mlkem.MLKEM1024PrivateKey
        self._key = kind.from_seed_bytes(random(_SEED_OCTETS))
        self.group = group
        self.public = self._key.public_key().public_bytes_raw()

    def shared(self, peer: bytes) -> bytes:
        if len(peer) != _CIPHERTEXT_OCTETS[self.group]:
            raise InvalidSyntaxError(
                f"an {METHOD_NAMES[self.group]} ciphertext of {len(peer)} octets"
            )
        # A ciphertext of another key decapsulates to a random secret: AUTH then fails.
        return self._key.decapsulate(peer)


_SEED_OCTETS = 64  # d | z (FIPS 203 §7.1)
_CIPHERTEXT_OCTETS = {METHOD["mlkem768"]: 1088, METHOD["mlkem1024"]: 1568}

Encapsulate = Callable[[int, bytes], tuple[bytes, bytes]]
"""From an ML-KEM method and the peer's encapsulation key to ciphertext and shared secret."""


def encapsulate(method: int, public: bytes) -> tuple[bytes, bytes]:
    """ML-KEM encapsulation with the library's own randomness: it takes none from outside, which
    is why an endpoint is given this function as it is given ``random``.

    Raises InvalidSyntaxError for a key of another length, or one that fails the modulus check.
    """
    kind = mlkem.MLKEM768PublicKey if method == METHOD["mlkem768"] else mlkem.MLKEM1024PublicKey
    try:
        secret, ciphertext = kind.from_public_bytes(public).encapsulate()
    except ValueError as error:
        raise InvalidSyntaxError(f"an {METHOD_NAMES[method]} key that is none") from error
    return ciphertext, secret


def generate(group: int, random: Callable[[int], bytes]) -> PrivateKey:
    """A fresh private key of a method that we know, from the caller's randomness."""
    if group in _CIPHERTEXT_OCTETS:
        return _MlKem(group, random)
    return _X25519(random) if NAMES[group] == "x25519" else _Ecp256(random)


def respond(
    method: int, public: bytes, random: Callable[[int], bytes], seal: Encapsulate
) -> tuple[bytes, bytes]:
    """The responder's side: what goes back, and the shared secret. Raises InvalidSyntaxError."""
    if method in _CIPHERTEXT_OCTETS:
        return seal(method, public)
    key = generate(method, random)
    return key.public, key.shared(public)
