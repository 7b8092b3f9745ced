"""The account's certification authority: who may call itself what (RFC 5280, RFC 2986).

Three secrets are kept apart. The account secret is on every host and proves nothing but that a
host belongs to the account; each host's own key never leaves it; the CA's key is only on hosts
that the person made *issuers*, and it alone says which key may use which name::

    CA key ──signs──> host certificate   CN and dNSName <label>.<domain>, 30 days
           ──signs──> revocation list    serial numbers that count no more
           ──HKDF───> join key           one per invitation: the proof behind a signing request

All is Ed25519 (RFC 8410). Pure: ``unix`` is the wall clock, ``random`` gives entropy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from keys.ike.certificates import UNREADABLE, quietly

HOST_LIFETIME: Final = 30 * 86400  # seconds
RENEW_AFTER: Final = 2 / 3  # of a certificate's lifetime
AUTHORITY_LIFETIME: Final = 10 * 365 * 86400
BACKDATED: Final = 3600  # seconds: hosts whose clocks are behind take a new certificate too
LIST_LIFETIME: Final = 365 * 86400  # of a revocation list; a newer number replaces it long before
MAX_LIST: Final = 64  # serial numbers: one record of the zone must hold the list
JOIN_KEY_SIZE: Final = 32  # octets

_JOIN_LABEL: Final = b"autotunnel/1 join"
_SERIAL_SIZE: Final = 16  # octets


class AuthorityError(Exception):
    """Something is not signed, or not to be signed; the text is one sentence."""


def new_key(random: Callable[[int], bytes]) -> Ed25519PrivateKey:
    """A host's or a CA's new key."""
    return Ed25519PrivateKey.from_private_bytes(random(32))


def request(key: Ed25519PrivateKey, name: str) -> bytes:
    """The signing request (PKCS #10, DER) of the holder of ``key`` for ``name``."""
    builder = x509.CertificateSigningRequestBuilder(_subject(name)).add_extension(
        _alternative(name), critical=False
    )
    return builder.sign(key, None).public_bytes(Encoding.DER)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a good signing request asks for."""

    name: str
    key: Ed25519PublicKey


def read_request(octets: bytes) -> Wanted:
    """The name and the key of a signing request, which its own key has signed.

    Raises :exc:`AuthorityError`.
    """
    try:
        with quietly():
            asked = x509.load_der_x509_csr(octets)
            key = asked.public_key()
            names = asked.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        dns = names.get_values_for_type(x509.DNSName)
        good = asked.is_signature_valid and len(dns) == 1 and isinstance(key, Ed25519PublicKey)
    except UNREADABLE:
        good = False
    if not good:
        raise AuthorityError("the signing request is not one of ours, or is damaged")
    assert isinstance(key, Ed25519PublicKey)
    return Wanted(dns[0].lower(), key)


@dataclass(frozen=True, slots=True)
class Authority:
    """The CA of one account: its key, and its certificate, which every host trusts."""

    domain: str
    key: Ed25519PrivateKey = field(repr=False)
    certificate: x509.Certificate

    @classmethod
    def new(cls, domain: str, unix: int, random: Callable[[int], bytes]) -> Authority:
        """A new CA for ``domain``."""
        key = new_key(random)
        subject = _subject(f"autotunnel CA of {domain}")
        built = (
            _builder(subject, subject, key.public_key(), unix, AUTHORITY_LIFETIME, random)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(ca=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        )
        return cls(domain, key, built.sign(key, None))

    def issue(
        self,
        wanted: Wanted,
        unix: int,
        random: Callable[[int], bytes],
        lifetime: int = HOST_LIFETIME,
    ) -> x509.Certificate:
        """A host's certificate. Raises :exc:`AuthorityError` for a name that is not ours."""
        label = wanted.name.removesuffix("." + self.domain)
        if label == wanted.name or not label or "." in label or "*" in label:
            raise AuthorityError(f"{wanted.name} is not a host of {self.domain}")
        issuer = self.certificate.subject
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        built = (
            _builder(_subject(wanted.name), issuer, wanted.key, unix, lifetime, random)
            .add_extension(_alternative(wanted.name), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(ca=False), critical=True)
            .add_extension(authority, critical=False)
        )
        return built.sign(self.key, None)

    def revocations(self, serials: Mapping[int, int], number: int, unix: int) -> bytes:
        """The list (CRL, DER) of revoked serial numbers, each with its unix time of revocation."""
        if len(serials) > MAX_LIST:
            raise AuthorityError(f"the revocation list is full ({MAX_LIST} certificates)")
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificate.subject)
            .last_update(_time(unix))
            .next_update(_time(unix + LIST_LIFETIME))
            .add_extension(x509.CRLNumber(number), critical=False)
        )
        for serial, when in sorted(serials.items()):
            entry = x509.RevokedCertificateBuilder().serial_number(serial)
            builder = builder.add_revoked_certificate(entry.revocation_date(_time(when)).build())
        return builder.sign(self.key, None).public_bytes(Encoding.DER)

    def join_key(self, invitation_id: bytes, expires: int) -> bytes:
        """The key of one invitation's signing request, 32 octets. ``expires`` is unix seconds.

        Every issuer derives it alike, and nobody else can: the account secret is not enough.
        """
        domain = self.domain.encode("ascii")
        info = _JOIN_LABEL + bytes((0, len(domain))) + domain + expires.to_bytes(8) + invitation_id
        derive = HKDF(algorithm=SHA256(), length=JOIN_KEY_SIZE, salt=None, info=info)
        return derive.derive(self.key.private_bytes_raw())


@dataclass(frozen=True, slots=True)
class Revocations:
    """What a revocation list says. A list with a higher ``number`` replaces one with a lower."""

    number: int = 0
    serials: frozenset[int] = frozenset()
    times: Mapping[int, int] = field(default_factory=dict, compare=False)  # unix seconds


def read_revocations(octets: bytes, authority: x509.Certificate) -> Revocations:
    """The content of a list that ``authority`` has signed. Raises :exc:`AuthorityError`."""
    key = authority.public_key()
    assert isinstance(key, Ed25519PublicKey)
    try:
        with quietly():
            found = x509.load_der_x509_crl(octets)
            good = found.issuer == authority.subject and found.is_signature_valid(key)
            number = found.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
            times = {one.serial_number: int(one.revocation_date_utc.timestamp()) for one in found}
    except (*UNREADABLE, InvalidSignature):
        good = False
    if not good:
        raise AuthorityError("the revocation list is not signed by the account's CA")
    return Revocations(number, frozenset(times), times)


def issued_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    """Whether ``authority`` has signed ``certificate``."""
    try:
        certificate.verify_directly_issued_by(authority)
    except (*UNREADABLE, InvalidSignature):
        return False
    return True


def renew_at(certificate: x509.Certificate) -> int:
    """When a host asks for its next certificate, in unix seconds: at two thirds of its life."""
    first, last = begins(certificate), expires(certificate)
    return int(first + (last - first) * RENEW_AFTER)


def begins(certificate: x509.Certificate) -> int:
    """From when it is valid, in unix seconds."""
    return int(certificate.not_valid_before_utc.timestamp())


def expires(certificate: x509.Certificate) -> int:
    """Until when it is valid, in unix seconds."""
    return int(certificate.not_valid_after_utc.timestamp())


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])  # X.520: at most 64


def _alternative(name: str) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName([x509.DNSName(name)])


def _time(unix: int) -> datetime:
    return datetime.fromtimestamp(unix, UTC)


def _usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: Ed25519PublicKey,
    unix: int,
    lifetime: int,
    random: Callable[[int], bytes],
) -> x509.CertificateBuilder:
    backdated = min(BACKDATED, lifetime // 10)
    return x509.CertificateBuilder(
        issuer_name=issuer,
        subject_name=subject,
        public_key=key,
        serial_number=int.from_bytes(b"\x01" + random(_SERIAL_SIZE - 1)),  # positive, not zero
        not_valid_before=_time(unix - backdated),
        not_valid_after=_time(unix + lifetime),
    )
