"""The rendezvous' TLS identity: a self-signed certificate that says nothing (decision 0003).

It is made once and kept in the state directory. Hosts trust its key because the account's signed
TLSA record names it (RFC 6698, 3 1 1), not because of anything written in it: no account or host
name stands there, and it does not end.
"""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import NameOID

FILE_NAME: Final = "rendezvous-tls.pem"

# RFC 5280 §4.1.2.5: 9999-12-31 means "no well-defined end"; the start is older than any clock.
_NOT_BEFORE: Final = datetime(2020, 1, 1, tzinfo=UTC)
_NOT_AFTER: Final = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)


class CertificateError(Exception):
    """The kept certificate cannot be used; says cause and fix."""


@dataclass(frozen=True, slots=True)
class TlsIdentity:
    """A server context for TLS 1.3, and the SHA-256 of its key's SubjectPublicKeyInfo."""

    context: ssl.SSLContext
    pin: bytes


def load_or_make(state_dir: Path) -> TlsIdentity:
    """Load the TLS identity of ``state_dir``, or make and keep one.

    Raises :exc:`CertificateError` and OSError.
    """
    path = state_dir / FILE_NAME
    if not path.exists():
        _write_secret(path, _make())
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.set_alpn_protocols(["dot"])
        context.load_cert_chain(path)
    except (ValueError, ssl.SSLError) as error:
        raise CertificateError(
            f"{path} holds no usable certificate and key ({error}); restore it from a backup, or "
            "delete it: a new one is made, and hosts that pinned the old one must join again"
        ) from error
    public = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return TlsIdentity(context, sha256(public).digest())


def _make() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "rendezvous")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_NOT_BEFORE)
        .not_valid_after(_NOT_AFTER)
        .sign(key, SHA256())
    )
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return secret + certificate.public_bytes(Encoding.PEM)


def _write_secret(path: Path, content: bytes) -> None:
    """Write a file of mode 0600 that is whole or not there."""
    draft = path.with_suffix(".new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())
    draft.replace(path)
