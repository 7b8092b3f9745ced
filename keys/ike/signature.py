"""AUTH with a digital signature, method 14 (RFC 7427; RFC 8420 for Ed25519).

::

    AUTH data = length 1 | AlgorithmIdentifier, DER | signature over the signed octets

Both sides name the hashes that they take in SIGNATURE_HASH_ALGORITHMS of IKE_SA_INIT; a side signs
only with a hash that the other named. The AlgorithmIdentifier is compared octet for octet with
those of RFC 7427 Appendix A and RFC 8420 §3.2: no parser of ours reads ASN.1 of a stranger here.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from enum import IntEnum
from typing import TypeAlias

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

METHOD = 14  # "Digital Signature", RFC 7427 §3

SigningKey: TypeAlias = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
VerifyingKey: TypeAlias = ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey | rsa.RSAPublicKey


class HashId(IntEnum):
    """Hash algorithms (RFC 7427 §7; IDENTITY: RFC 8420 §2). SHA-1 is neither named nor taken."""

    SHA256 = 2
    SHA384 = 3
    SHA512 = 4
    IDENTITY = 5  # no hash before the signature: Ed25519


ACCEPTED = (HashId.SHA256, HashId.SHA384, HashId.SHA512, HashId.IDENTITY)

_HASHES: dict[HashId, hashes.HashAlgorithm] = {
    HashId.SHA256: hashes.SHA256(),
    HashId.SHA384: hashes.SHA384(),
    HashId.SHA512: hashes.SHA512(),
}

# --- AlgorithmIdentifiers (RFC 7427 Appendix A, RFC 8420 §3.2) ------------------------------------

ED25519 = bytes.fromhex("300506032b6570")
ECDSA = {
    HashId.SHA256: bytes.fromhex("300a06082a8648ce3d040302"),
    HashId.SHA384: bytes.fromhex("300a06082a8648ce3d040303"),
    HashId.SHA512: bytes.fromhex("300a06082a8648ce3d040304"),
}
_PSS_OID = bytes.fromhex("06092a864886f70d01010a")
_MGF1_OID = bytes.fromhex("06092a864886f70d010108")
_HASH_OID = {
    HashId.SHA256: bytes.fromhex("0609608648016503040201"),
    HashId.SHA384: bytes.fromhex("0609608648016503040202"),
    HashId.SHA512: bytes.fromhex("0609608648016503040203"),
}
_NULL = bytes.fromhex("0500")
_TRAILER = bytes.fromhex("a303020101")  # its default: DER leaves it out, RFC 7427 A.4.3 prints it


def _tlv(tag: int, content: bytes) -> bytes:
    return bytes((tag, len(content))) + content


def pss(hash_id: HashId, *, null: bool = True, trailer: bool = False) -> bytes:
    """RSASSA-PSS with this hash, MGF1 of the same and a salt as long as it (RFC 4055 §3.1).

    Parameters of a hash may be NULL or absent (RFC 4055 §2.1): a verifier takes both.
    """
    digest = _tlv(0x30, _HASH_OID[hash_id] + (_NULL if null else b""))
    salt = _tlv(0x02, bytes((_HASHES[hash_id].digest_size,)))
    parameters = _tlv(0xA0, digest) + _tlv(0xA1, _tlv(0x30, _MGF1_OID + digest)) + _tlv(0xA2, salt)
    return _tlv(0x30, _PSS_OID + _tlv(0x30, parameters + (_TRAILER if trailer else b"")))


def _pss_spellings() -> Iterator[tuple[bytes, HashId]]:
    for hash_id in _HASHES:
        for null in (True, False):
            for trailer in (True, False):
                yield pss(hash_id, null=null, trailer=trailer), hash_id


_PSS = dict(_pss_spellings())
_ECDSA = {blob: hash_id for hash_id, blob in ECDSA.items()}
# For a sentence: what others use and we do not take.
_KNOWN = {
    bytes.fromhex("300d06092a864886f70d0101050500"): "RSA PKCS#1 v1.5 with SHA-1",
    bytes.fromhex("300d06092a864886f70d01010b0500"): "RSA PKCS#1 v1.5 with SHA-256",
    bytes.fromhex("300d06092a864886f70d01010c0500"): "RSA PKCS#1 v1.5 with SHA-384",
    bytes.fromhex("300d06092a864886f70d01010d0500"): "RSA PKCS#1 v1.5 with SHA-512",
    bytes.fromhex("300506032b6571"): "Ed448",
}

# --- SIGNATURE_HASH_ALGORITHMS --------------------------------------------------------------------


def encode_hashes(named: Iterable[HashId] = ACCEPTED) -> bytes:
    """The notification's data: u16 each (RFC 7427 §4)."""
    return b"".join(struct.pack(">H", hash_id) for hash_id in named)


def decode_hashes(data: bytes) -> frozenset[HashId]:
    """The hashes of the list that we know; an odd octet at the end makes none of them wrong."""
    numbers = {int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data) - 1, 2)}
    return frozenset(hash_id for hash_id in HashId if hash_id in numbers)


# --- Signing and verifying ------------------------------------------------------------------------


class SignatureError(Exception):
    """No right signature; the text is a sentence that says which side wanted what."""


def sign(key: SigningKey, peer_takes: frozenset[HashId], octets: bytes) -> bytes:
    """The AUTH data over ``octets``, with a hash that the peer takes.

    Raises :exc:`SignatureError` if it takes none that goes with our key.
    """
    if isinstance(key, ed25519.Ed25519PrivateKey):
        _pick(peer_takes, (HashId.IDENTITY,), "Ed25519")
        return _framed(ED25519, key.sign(octets))
    if isinstance(key, ec.EllipticCurvePrivateKey):
        hash_id = _pick(peer_takes, _order_for(key.curve), f"ECDSA {key.curve.name}")
        return _framed(ECDSA[hash_id], key.sign(octets, ec.ECDSA(_HASHES[hash_id])))
    hash_id = _pick(peer_takes, tuple(_HASHES), "RSA-PSS")
    return _framed(pss(hash_id), key.sign(octets, _pss_padding(hash_id), _HASHES[hash_id]))


def verify(key: VerifyingKey, data: bytes, octets: bytes, who: str) -> None:
    """Checks AUTH data of ``who`` over ``octets``. Raises :exc:`SignatureError`."""
    blob, signature = _split(data, who)
    try:
        if isinstance(key, ed25519.Ed25519PublicKey) and blob == ED25519:
            key.verify(signature, octets)
        elif isinstance(key, ec.EllipticCurvePublicKey) and blob in _ECDSA:
            key.verify(signature, octets, ec.ECDSA(_HASHES[_ECDSA[blob]]))
        elif isinstance(key, rsa.RSAPublicKey) and blob in _PSS:
            hash_id = _PSS[blob]
            key.verify(signature, octets, _pss_padding(hash_id), _HASHES[hash_id])
        else:
            raise SignatureError(
                f"{who} signed with {describe(blob)}; its certificate holds a key for "
                f"{_named(key)}, and we accept Ed25519, ECDSA and RSA-PSS with SHA-2"
            )
    except InvalidSignature:
        raise SignatureError(
            f"the signature of {who} is wrong: it does not hold the key of its certificate, or "
            "somebody on the way changed a message"
        ) from None


def describe(blob: bytes) -> str:
    """An AlgorithmIdentifier for a sentence."""
    if blob == ED25519:
        return "Ed25519"
    if blob in _ECDSA:
        return f"ECDSA with {_ECDSA[blob].name}"
    if blob in _PSS:
        return f"RSA-PSS with {_PSS[blob].name}"
    return _KNOWN.get(blob, f"an unknown algorithm ({blob[:24].hex()})")


def _order_for(curve: ec.EllipticCurve) -> tuple[HashId, ...]:
    """The hash as strong as the curve first."""
    first = HashId.SHA384 if curve.key_size == 384 else HashId.SHA256
    return (first, *(hash_id for hash_id in _HASHES if hash_id != first))


def _pick(peer_takes: frozenset[HashId], order: tuple[HashId, ...], ours: str) -> HashId:
    for hash_id in order:
        if hash_id in peer_takes:
            return hash_id
    named = ", ".join(sorted(hash_id.name for hash_id in peer_takes)) or "none that we know"
    raise SignatureError(
        f"our certificate's key signs with {ours} and {' or '.join(h.name for h in order)}; "
        f"the peer takes {named}"
    )


def _pss_padding(hash_id: HashId) -> padding.PSS:
    chosen = _HASHES[hash_id]
    return padding.PSS(mgf=padding.MGF1(chosen), salt_length=chosen.digest_size)


def _framed(blob: bytes, signature: bytes) -> bytes:
    return bytes((len(blob),)) + blob + signature


def _split(data: bytes, who: str) -> tuple[bytes, bytes]:
    if not data or len(data) <= 1 + data[0]:
        raise SignatureError(f"{who} sent a signature that is cut short")
    return data[1 : 1 + data[0]], data[1 + data[0] :]


def _named(key: VerifyingKey) -> str:
    if isinstance(key, ed25519.Ed25519PublicKey):
        return "Ed25519"
    return f"ECDSA {key.curve.name}" if isinstance(key, ec.EllipticCurvePublicKey) else "RSA"
