"""Which certificate proves which name: chain, validity, key usage, revocation (RFC 5280, RFC 4945).

The rules are few and explicit. A peer that says it is ``lap.alice.example`` (ID_FQDN) proves it
with a certificate that

* stands first in its CERT payloads and was issued, directly or through at most two CAs that it
  sent along, by a CA that its owner trusts for this peer;
* holds exactly that name as a subjectAltName dNSName (no wildcards; the subject is not looked at);
* is valid now, is for digital signatures, and is not revoked by its issuer.

Every refusal is one sentence. A critical extension that is not understood refuses a certificate.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha1
from typing import Final, Protocol, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID

from keys.ike.signature import SigningKey, VerifyingKey

_E = TypeVar("_E", bound=x509.ExtensionType)

X509_SIGNATURE: Final = 4  # certificate encoding, RFC 7296 §3.6
MAX_CHAIN: Final = 4  # certificates that a peer may send: its own, and CAs below the trusted one
MAX_PATH: Final = 2  # CAs between a peer's certificate and the trusted one
VERDICTS: Final = 128  # pairs of certificates of which we remember whether one issued the other
MIN_RSA_BITS: Final = 2048
MAX_RSA_BITS: Final = 8192  # a stranger's key: verifying with it is our work

_CURVES: Final = ("secp256r1", "secp384r1", "secp521r1")
_UNDERSTOOD: Final = frozenset(
    {
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
        ExtensionOID.SUBJECT_KEY_IDENTIFIER,
        ExtensionOID.AUTHORITY_KEY_IDENTIFIER,
    }
)
# What an IKE certificate is issued for, where it says so (RFC 4945 §5.1.3.12, RFC 4809 §3.1.6.3).
_PURPOSES: Final = frozenset(
    {
        ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,
        ExtendedKeyUsageOID.IPSEC_IKE,
        ExtendedKeyUsageOID.SERVER_AUTH,
        ExtendedKeyUsageOID.CLIENT_AUTH,
        x509.ObjectIdentifier("1.3.6.1.5.5.8.2.2"),  # iKEIntermediate, of older software
    }
)
# All that reading a stranger's certificate can raise.
UNREADABLE: Final = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.ExtensionNotFound,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)


def quietly() -> warnings.catch_warnings[None]:
    """While a stranger's octets are read: the library warns of oddities (a negative serial number,
    a wrong length of an attribute) that we refuse in words or do not mind; nobody here is to
    mend them, and a stranger is not to fill our log."""
    return warnings.catch_warnings(action="ignore")


class CertificateError(Exception):
    """A certificate does not prove what it should; the text is one sentence."""


@dataclass(frozen=True, slots=True)
class Credential:
    """What we prove ourselves with: our key, and our certificate first in ``chain``."""

    key: SigningKey = field(repr=False)
    chain: tuple[x509.Certificate, ...]

    @property
    def certificate(self) -> x509.Certificate:
        """Our own."""
        return self.chain[0]

    def payloads(self) -> list[bytes]:
        """The chain in DER, our own first (RFC 7296 §3.6)."""
        return [one.public_bytes(Encoding.DER) for one in self.chain]


@dataclass(frozen=True, slots=True)
class Trust:
    """Whom we believe: CA certificates, and the serial numbers that each has revoked.

    ``whose`` names the authority in sentences, as in "the CA of alice.example".
    """

    anchors: tuple[x509.Certificate, ...]
    revoked: frozenset[int] = frozenset()
    whose: str = "the trusted CA"

    def authorities(self) -> bytes:
        """For CERTREQ: SHA-1 of each CA's SubjectPublicKeyInfo (RFC 7296 §3.7)."""
        return b"".join(_key_hash(anchor) for anchor in self.anchors)


@dataclass(frozen=True, slots=True)
class Certified:
    """How one peer and we prove ourselves to each other."""

    credential: Credential
    trust: Trust


class Certification(Protocol):
    """The owner's word on certificates; what it says may change while SAs stand."""

    def for_peer(self, name: str) -> Certified | None:
        """For this peer (lower case), or ``None``: a pre-shared key, or nobody we know."""

    def authorities(self) -> bytes:
        """The CAs whose certificates a stranger may show, as in :meth:`Trust.authorities`."""


def _key_hash(certificate: x509.Certificate) -> bytes:
    key = certificate.public_key()
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return sha1(spki, usedforsecurity=False).digest()  # RFC 7296 §3.7 names SHA-1


# --- The check ------------------------------------------------------------------------------------


def check(payloads: Sequence[bytes], name: str, trust: Trust, unix: int) -> VerifyingKey:
    """The key with which ``name`` must have signed, from its CERT payloads (DER, its own first).

    Raises :exc:`CertificateError`.
    """
    if not payloads:
        raise CertificateError(f"{name} sent no certificate; we want one issued by {trust.whose}")
    if len(payloads) > MAX_CHAIN:
        raise CertificateError(f"{name} sent more than {MAX_CHAIN} certificates")
    try:
        with quietly():
            chain = [x509.load_der_x509_certificate(one) for one in payloads]
            return _check(chain, name, trust, unix)
    except UNREADABLE as error:
        raise CertificateError(
            f"a certificate that {name} sent cannot be read ({type(error).__name__})"
        ) from None


def _check(chain: Sequence[x509.Certificate], name: str, trust: Trust, unix: int) -> VerifyingKey:
    leaf = chain[0]
    what = f"the certificate of {name}"
    _check_path(leaf, chain[1:], trust, unix, what)
    _check_form(leaf, what)
    _check_dates(leaf, unix, what)
    _check_usage(leaf, what)
    _check_name(leaf, name)
    if leaf.serial_number in trust.revoked:
        raise CertificateError(
            f"{what} (serial {leaf.serial_number:x}) was revoked by {trust.whose}"
        )
    return _key(leaf, what)


def _check_path(
    leaf: x509.Certificate,
    others: Sequence[x509.Certificate],
    trust: Trust,
    unix: int,
    what: str,
) -> None:
    """From the leaf to an anchor; each CA on the way is good itself."""
    current, below = leaf, 0
    while below <= MAX_PATH:
        anchor = next((one for one in trust.anchors if _issued(one, current)), None)
        if anchor is not None:
            _check_authority(anchor, below, unix, f"the certificate of {trust.whose}")
            return
        issuer = next((one for one in others if one != current and _issued(one, current)), None)
        if issuer is None:
            break
        _check_authority(issuer, below, unix, f"a CA certificate behind {what}")
        if issuer.serial_number in trust.revoked:
            raise CertificateError(f"a CA behind {what} was revoked by {trust.whose}")
        current, below = issuer, below + 1
    raise CertificateError(
        f"{what} was not issued by {trust.whose} but by {_printable(leaf.issuer)}"
    )


@lru_cache(VERDICTS)
def _issued(issuer: x509.Certificate, certificate: x509.Certificate) -> bool:
    """Whether the names match and the signature is right, by an algorithm that we accept.

    Two certificates stay what they are: a peer that comes back shows the same ones, and the
    signature is a fifth of a handshake. Strangers can only drive verdicts out.
    """
    if certificate.issuer != issuer.subject or not _is_usable(issuer.public_key()):
        return False
    digest = certificate.signature_hash_algorithm
    if digest is not None and not isinstance(digest, (hashes.SHA256, hashes.SHA384, hashes.SHA512)):
        return False
    try:
        certificate.verify_directly_issued_by(issuer)
    except InvalidSignature:
        return False
    return True


def _check_authority(ca: x509.Certificate, below: int, unix: int, what: str) -> None:
    _check_form(ca, what)
    _check_dates(ca, unix, what)
    basic = _extension(ca, x509.BasicConstraints)
    if basic is None or not basic.ca:
        raise CertificateError(f"{what} is not one of a CA (RFC 5280 §4.2.1.9)")
    if basic.path_length is not None and below > basic.path_length:
        raise CertificateError(f"{what} does not allow so many CAs below it")
    usage = _extension(ca, x509.KeyUsage)
    if usage is not None and not usage.key_cert_sign:
        raise CertificateError(f"{what} is not for signing certificates")


def _check_form(certificate: x509.Certificate, what: str) -> None:
    for extension in certificate.extensions:
        if extension.critical and extension.oid not in _UNDERSTOOD:
            number = extension.oid.dotted_string
            raise CertificateError(
                f"{what} has a critical extension that we do not know ({number})"
            )


def _check_dates(certificate: x509.Certificate, unix: int, what: str) -> None:
    now = datetime.fromtimestamp(unix, UTC)
    if now < certificate.not_valid_before_utc:
        since = certificate.not_valid_before_utc
        raise CertificateError(f"{what} is valid from {since:%Y-%m-%d %H:%M} UTC on; {_clock(now)}")
    if now > certificate.not_valid_after_utc:
        until = certificate.not_valid_after_utc
        raise CertificateError(f"{what} expired on {until:%Y-%m-%d %H:%M} UTC; {_clock(now)}")


def _clock(now: datetime) -> str:
    return f"our clock says {now:%Y-%m-%d %H:%M} UTC"


def _check_usage(leaf: x509.Certificate, what: str) -> None:
    usage = _extension(leaf, x509.KeyUsage)
    # RFC 4945 §5.1.3.2: either bit will do for IKE.
    if usage is not None and not (usage.digital_signature or usage.content_commitment):
        raise CertificateError(f"{what} is not for digital signatures (its key usage)")
    purposes = _extension(leaf, x509.ExtendedKeyUsage)
    if purposes is not None and not _PURPOSES & set(purposes):
        raise CertificateError(f"{what} is not for IKE (its extended key usage)")


def _check_name(leaf: x509.Certificate, name: str) -> None:
    names = names_in(leaf)
    if name.lower() not in names:
        listed = ", ".join(sorted(names)[:4]) or "no dNSName at all"
        raise CertificateError(f"{name} showed a certificate that is for {listed}")


def _key(leaf: x509.Certificate, what: str) -> VerifyingKey:
    key = leaf.public_key()
    if not _is_usable(key):
        raise CertificateError(
            f"{what} holds a key that we do not accept; Ed25519, ECDSA P-256, P-384 and P-521 and "
            f"RSA from {MIN_RSA_BITS} bits on are"
        )
    assert isinstance(key, (ed25519.Ed25519PublicKey, ec.EllipticCurvePublicKey, rsa.RSAPublicKey))
    return key


def _is_usable(key: object) -> bool:
    if isinstance(key, rsa.RSAPublicKey):
        return MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS
    if isinstance(key, ec.EllipticCurvePublicKey):
        return key.curve.name in _CURVES
    return isinstance(key, ed25519.Ed25519PublicKey)


# --- Reading --------------------------------------------------------------------------------------


def names_in(certificate: x509.Certificate) -> Collection[str]:
    """The dNSNames of the subjectAltName, in lower case."""
    alternative = _extension(certificate, x509.SubjectAlternativeName)
    found: Iterable[str] = (
        [] if alternative is None else alternative.get_values_for_type(x509.DNSName)
    )
    return {one.lower() for one in found}


def _extension(certificate: x509.Certificate, kind: type[_E]) -> _E | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _printable(name: x509.Name) -> str:
    text = name.rfc4514_string()[:80]
    return "".join(c if c.isprintable() else "?" for c in text) or "an issuer without a name"
