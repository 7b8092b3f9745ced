"""Certificates for both sides, by a CA that both trust: the files that either of them reads."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

from keys.ike.signature import SigningKey
from tests.interop.stage import OUR_NAME, THEIR_NAME, Papers

KINDS = ["ed25519", "ecdsa256", "ecdsa384", "rsa"]
_DAY = timedelta(days=1)


def new_key(kind: str) -> SigningKey:
    """A key of one of :data:`KINDS`."""
    match kind:
        case "ed25519":
            return ed25519.Ed25519PrivateKey.generate()
        case "ecdsa256":
            return ec.generate_private_key(ec.SECP256R1())
        case "ecdsa384":
            return ec.generate_private_key(ec.SECP384R1())
        case _:
            return rsa.generate_private_key(65537, 3072)


@dataclass(frozen=True, slots=True)
class Holder:
    """A key and the certificate for it."""

    key: SigningKey
    certificate: x509.Certificate

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    @property
    def certificate_pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)


def authority(name: str, kind: str = "ecdsa256", issuer: Holder | None = None) -> Holder:
    """A CA: its own, or below ``issuer``."""
    key = new_key(kind)
    return Holder(key, _sign(name, key, issuer, is_ca=True))


def leaf(issuer: Holder, name: str, kind: str) -> Holder:
    """A host's key and its certificate for ``name``."""
    key = new_key(kind)
    return Holder(key, _sign(name, key, issuer, is_ca=False))


def _sign(name: str, key: SigningKey, issuer: Holder | None, *, is_ca: bool) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    signer = key if issuer is None else issuer.key
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _DAY)
        .not_valid_after(now + _DAY)
        .add_extension(x509.BasicConstraints(is_ca, None), critical=True)
        .add_extension(_usage(is_ca), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), False
        )
    )
    if not is_ca:
        builder = builder.add_extension(
            x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False
        )
    pure = isinstance(signer, ed25519.Ed25519PrivateKey)
    return builder.sign(signer, None if pure else hashes.SHA256())


def _usage(is_ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_ca,
        crl_sign=is_ca,
        encipher_only=False,
        decipher_only=False,
    )


def papers(our_kind: str, their_kind: str, *, between: str | None = None) -> Papers:
    """A root, both sides' certificates, and with ``between`` an intermediate CA with a key of that
    kind for each chain, which both must then send."""
    root = authority("interop root")
    middle = authority("interop intermediate", between, root) if between else None
    issuer = middle or root
    us, them = leaf(issuer, OUR_NAME, our_kind), leaf(issuer, THEIR_NAME, their_kind)
    chain = b"" if middle is None else middle.certificate_pem
    return Papers(
        ours={
            "ca.crt": root.certificate_pem,
            "laptop.crt": us.certificate_pem + chain,
            "laptop.key": us.key_pem,
        },
        theirs={
            "x509ca/root.crt": root.certificate_pem,
            **({"x509ca/between.crt": chain} if chain else {}),
            "x509/gateway.crt": them.certificate_pem,
            "private/gateway.key": them.key_pem,
        },
    )
