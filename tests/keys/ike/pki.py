"""A small certification authority for tests: right certificates, and wrong ones of every kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID

from keys.ike.certificates import Certified, Credential, Trust

UNIX = 1_800_000_000
NOW = datetime.fromtimestamp(UNIX, UTC)
DAY = timedelta(days=1)


@cache
def rsa_key(bits: int = 2048) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, bits)


def make_key(kind: str = "ed25519") -> Any:
    match kind:
        case "ed25519":
            return ed25519.Ed25519PrivateKey.generate()
        case "p256":
            return ec.generate_private_key(ec.SECP256R1())
        case "p384":
            return ec.generate_private_key(ec.SECP384R1())
    return rsa_key(int(kind.removeprefix("rsa")))


def common(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def usage(*bits: str) -> x509.KeyUsage:
    first = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment")
    names = (*first, "key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only")
    return x509.KeyUsage(**{name: name in bits for name in names})


@dataclass
class Authority:
    """A CA; :meth:`issue` makes a good host certificate unless told otherwise."""

    name: str = "the CA of alice.example"
    kind: str = "ed25519"
    key: Any = None
    certificate: x509.Certificate = field(init=False)

    def __post_init__(self) -> None:
        self.key = self.key or make_key(self.kind)
        self.certificate = self.sign(self.name, self.key, self.authority())

    def authority(self, **changes: Any) -> list[tuple[x509.ExtensionType, bool]]:
        basic = x509.BasicConstraints(ca=True, path_length=changes.get("path_length"))
        return [(basic, True), (usage("key_cert_sign", "crl_sign"), True)]

    def sign(
        self,
        subject: str,
        key: Any,
        extensions: Sequence[tuple[x509.ExtensionType, bool]],
        *,
        first: datetime = NOW - DAY,
        last: datetime = NOW + DAY,
        serial: int | None = None,
    ) -> x509.Certificate:
        builder = x509.CertificateBuilder(
            issuer_name=common(self.name),
            subject_name=common(subject),
            public_key=key.public_key(),
            serial_number=serial or x509.random_serial_number(),
            not_valid_before=first,
            not_valid_after=last,
        )
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        digest = None if isinstance(self.key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
        return builder.sign(self.key, digest)

    def issue(self, name: str, key: Any = None, **changes: Any) -> x509.Certificate:
        names = x509.SubjectAlternativeName([x509.DNSName(name)])
        extensions = changes.pop("extensions", [(names, False), (usage("digital_signature"), True)])
        return self.sign(name, key or make_key(), extensions, **changes)

    def below(self, name: str = "a CA below") -> Authority:
        """A CA that this one has signed."""
        lower = Authority(name)
        lower.certificate = self.sign(name, lower.key, self.authority())
        return lower


@dataclass
class Shown:
    """A certification as an owner has it: one credential, one trust, for all peers but some."""

    credential: Credential
    trust: Trust
    without: tuple[str, ...] = ()

    def for_peer(self, name: str) -> Certified | None:
        return None if name in self.without else Certified(self.credential, self.trust)

    def authorities(self) -> bytes:
        return self.trust.authorities()


def shown(authority: Authority, name: str, kind: str = "ed25519", **changes: Any) -> Shown:
    key = make_key(kind)
    chain = (authority.issue(name, key, **changes),)
    return Shown(Credential(key, chain), Trust((authority.certificate,), whose=authority.name))
