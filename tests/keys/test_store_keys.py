"""Private keys and certificates in their files: modes, kinds, and what is said when wrong."""

from __future__ import annotations

import random
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import x25519

from keys import store
from keys.ca import Authority, new_key
from keys.store import SecretFileError
from tests.keys.ike.pki import make_key

RANDOM = random.Random(3).randbytes


@pytest.mark.parametrize("kind", ["ed25519", "p256", "p384", "rsa2048"])
def test_a_key_comes_back_as_it_was_kept(tmp_path: Path, kind: str) -> None:
    key, path = make_key(kind), tmp_path / "host.key"
    store.save_private_key(path, key)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert store.load_private_key(path).public_key() == key.public_key()
    with pytest.raises(SecretFileError, match="exists already"):
        store.save_private_key(path, new_key(RANDOM))
    path.chmod(0o640)
    with pytest.raises(SecretFileError, match="chmod 600"):
        store.load_private_key(path)


def test_keys_that_cannot_sign_or_be_read_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "host.key"
    exchange = x25519.X25519PrivateKey.generate()
    pem = exchange.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    store.write_secret(path, pem)
    with pytest.raises(SecretFileError, match="a kind that IKE does not sign with"):
        store.load_private_key(path)
    store.write_secret(path, b"-----BEGIN PRIVATE KEY-----", replace=True)
    with pytest.raises(SecretFileError, match="not a private key in PEM"):
        store.load_private_key(path)


def test_certificates_are_kept_and_read_in_their_order(tmp_path: Path) -> None:
    path = tmp_path / "ca.crt"
    both = [Authority.new(f"{n}.example", 1_800_000_000, RANDOM).certificate for n in "ab"]
    store.save_certificates(path, both)
    assert store.load_certificates(path) == tuple(both)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    with pytest.raises(SecretFileError, match="exists already"):
        store.save_certificates(path, both)
    store.save_certificates(path, both[:1], replace=True)
    assert len(store.load_certificates(path)) == 1
    with pytest.raises(SecretFileError, match="cannot be written"):
        store.save_certificates(tmp_path / "none" / "x", both)
    with pytest.raises(SecretFileError, match="cannot be read"):
        store.load_certificates(tmp_path / "none")
