"""OpenVPN in TLS mode with AES-128-GCM, peers known by the fingerprints of their certificates."""

from __future__ import annotations

import datetime
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from bench.pair import Pair, wait_for_ping
from bench.peers.types import Tunnel

INNER = ("10.99.0.1", "10.99.0.2")
CIPHER = "AES-128-GCM"
COMMON = (
    *("--dev", "tun0", "--proto", "udp", "--port", "1194", "--dh", "none"),
    *("--cipher", CIPHER, "--data-ciphers", CIPHER, "--disable-dco", "--verb", "1"),
    *("--sndbuf", "4194304", "--rcvbuf", "4194304"),
)


class OpenVpn:
    """Point to point; ``left`` is the TLS server."""

    name = "openvpn"

    def missing(self) -> str | None:
        return None if shutil.which("openvpn") else "not installed (Debian: openvpn)"

    @contextmanager
    def tunnel(self, pair: Pair) -> Iterator[Tunnel]:
        started = time.monotonic()
        prints = [_certificate(end.folder, end.role) for end in (pair.left, pair.right)]
        processes = []
        for number, (end, ours, theirs) in enumerate(pair.ends):
            inner = INNER if number == 0 else INNER[::-1]
            processes.append(
                end.start(
                    "openvpn",
                    *COMMON,
                    *("--local", ours, "--remote", theirs, "--ifconfig", *inner),
                    "--tls-server" if number == 0 else "--tls-client",
                    *("--cert", str(end.folder / "cert.pem"), "--key", str(end.folder / "key.pem")),
                    *("--peer-fingerprint", prints[1 - number]),
                )
            )
        wait_for_ping(pair.left, INNER[1])
        said = pair.left.run("openvpn", "--version", check=False).stdout.split()
        yield Tunnel(
            *INNER,
            engine=f"OpenVPN {said[1]}",
            aead=CIPHER,
            pids=tuple(process.pid for process in processes),
            setup_seconds=time.monotonic() - started,
        )


def _certificate(folder: Path, role: str) -> str:
    """Writes ``cert.pem`` and ``key.pem``; the certificate's SHA-256 fingerprint."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, role)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / "cert.pem").write_bytes(certificate.public_bytes(pem))
    (folder / "key.pem").touch(0o600)
    (folder / "key.pem").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return certificate.fingerprint(hashes.SHA256()).hex(":").upper()
