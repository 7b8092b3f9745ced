"""Which proof the configuration gives which peer, and the files behind it."""

from __future__ import annotations

import secrets
import time
from contextlib import nullcontext
from pathlib import Path
from typing import cast

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from keys import ca, store
from keys.ike.certificates import CertificateError, Credential, check
from keys.issuer import Entry, Ledger
from keys.store import SecretFileError
from tests.keys.ike.pki import UNIX, Authority, Shown, make_key
from tunnel.config import ConfigError, HostConfig, load_host
from tunnel.credentials import Credentials
from tunnel.io import identity as who
from tunnel.io.papers import Papers, keep_ledger
from tunnel.mobility.proofs import MAX_FILE

ALONE = """
[host]
name = "laptop.example"
id = "fd12:3456:789a::1"
[[peer]]
name = "gateway.example"
id = "fd12:3456:789a::2"
endpoint = "192.0.2.2:4500"
"""
CERTIFIED = (
    'auth = "cert"\nca_file = "ca.pem"\ncertificate_file = "own.crt"\nkey_file = "own.key"\n'
)


def configure(folder: Path, text: str) -> HostConfig:
    path = folder / "config.toml"
    path.write_text(text)
    return load_host(path)


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        ("", 'psk_file: it is missing, with auth = "psk"'),
        ('auth = "cert"\n', 'ca_file: it is missing, with auth = "cert"'),
        ('auth = "cert"\nca_file = "c"\nkey_file = "k"\n', "certificate_file: it is missing"),
        ('auth = "pin"\n', "psk"),
    ],
)
def test_a_peer_s_proof_is_complete_or_refused(tmp_path: Path, lines: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as refused:
        configure(tmp_path, ALONE + lines)
    assert sentence in str(refused.value)


def test_a_static_peer_may_show_a_certificate_of_any_ca(tmp_path: Path) -> None:
    """The files of another pki, an ECDSA key among them; no account is needed."""
    config = configure(tmp_path, ALONE + CERTIFIED)
    authority, key = Authority("their CA"), make_key("p256")
    store.save_private_key(tmp_path / "own.key", key)
    store.save_certificates(tmp_path / "own.crt", [authority.issue("laptop.example", key)])
    store.save_certificates(tmp_path / "ca.pem", [authority.certificate])
    papers = Papers(config)
    assert papers.credentials is not None
    assert papers.issuer is None
    certified = papers.credentials.for_peer("gateway.example")
    assert certified is not None
    assert certified.trust.anchors == (authority.certificate,)
    assert papers.credentials.for_peer("other.example") is None
    assert (
        papers.credentials.authorities()
        == Shown(certified.credential, certified.trust).authorities()
    )
    (peer,) = who.static_peers_of(config)
    assert peer.psk is None


def test_a_peer_that_wants_a_certificate_of_ours_needs_one(tmp_path: Path) -> None:
    config = configure(tmp_path, ALONE + 'auth = "cert"\nca_file = "ca.pem"\n')
    with pytest.raises(SecretFileError, match="add certificate_file and key_file"):
        Papers(config)


@pytest.mark.parametrize("name", ["ca_file", "certificate_file", "key_file"])
def test_a_file_without_an_end_is_refused(tmp_path: Path, name: str) -> None:
    files = {"ca_file": "ca.pem", "certificate_file": "own.crt", "key_file": "own.key"}
    config = configure(tmp_path, ALONE + CERTIFIED.replace(files[name], "/dev/zero"))
    authority, key = Authority("their CA"), make_key()
    store.save_private_key(tmp_path / "own.key", key)
    store.save_certificates(tmp_path / "own.crt", [authority.issue("laptop.example", key)])
    store.save_certificates(tmp_path / "ca.pem", [authority.certificate])
    with pytest.raises(SecretFileError, match=r"File too large|not a regular file"):
        Papers(config)


def test_two_processes_write_one_ledger(tmp_path: Path) -> None:
    text = ALONE.split("[[peer]]")[0].replace("laptop.example", "laptop")
    config = configure(tmp_path, text + '[account]\ndomain = "alice.example"\n')
    until = int(time.time()) + 9999
    one = Ledger([Entry("a", "desk.alice.example", "k", until)])
    two = Ledger([Entry("b", "tv.alice.example", "l", until)], {"a": 5}, 1)
    keep_ledger(config, one)
    kept = Ledger.from_json(keep_ledger(config, two))
    assert {entry.serial for entry in kept.issued} == {"a", "b"}
    assert (kept.revoked, kept.number) == ({"a": 5}, 1)
    assert Ledger.from_json((tmp_path / "issued.json").read_text()) == kept


def test_a_host_that_is_no_issuer_watches_no_files_of_one(tmp_path: Path) -> None:
    config = configure(tmp_path, ALONE + CERTIFIED)
    authority, key = Authority("their CA"), make_key()
    store.save_private_key(tmp_path / "own.key", key)
    store.save_certificates(tmp_path / "own.crt", [authority.issue("laptop.example", key)])
    store.save_certificates(tmp_path / "ca.pem", [authority.certificate])
    assert Papers(config).invited() is None
    assert Papers(config).changed_ledger() is None
    assert authority.certificate.public_bytes(Encoding.PEM) == (tmp_path / "ca.pem").read_bytes()


def test_serial_numbers_of_the_configuration_are_believed_no_more(tmp_path: Path) -> None:
    """Of a static peer's CA, which has no zone to publish a list in."""
    authority, key = Authority("their CA"), make_key("p256")
    store.save_private_key(tmp_path / "own.key", key)
    store.save_certificates(tmp_path / "own.crt", [authority.issue("laptop.example", key)])
    store.save_certificates(tmp_path / "ca.pem", [authority.certificate])
    leaf = authority.issue("gateway.example")
    shown = [leaf.public_bytes(Encoding.DER)]
    for serials, refused in (("", False), (f'"{leaf.serial_number:x}", "FF"', True)):
        config = configure(tmp_path, f"{ALONE}{CERTIFIED}revoked = [{serials}]\n")
        credentials = Papers(config).credentials
        assert credentials is not None
        certified = credentials.for_peer("gateway.example")
        assert certified is not None
        with pytest.raises(CertificateError, match="was revoked") if refused else nullcontext():
            check(shown, "gateway.example", certified.trust, UNIX)
    with pytest.raises(ConfigError):
        configure(tmp_path, f'{ALONE}{CERTIFIED}revoked = ["serial 7"]\n')


def test_a_list_of_the_zone_does_not_undo_the_configuration() -> None:
    authority = ca.Authority.new("a.example", UNIX, secrets.token_bytes)
    credentials = Credentials("a.example", None, authority.certificate, revoked={7})
    credentials.own = cast(Credential, object())
    listed = authority.revocations({9: UNIX}, 1, UNIX)
    for serials in ({7}, {7, 9}):
        certified = credentials.for_peer("desk.a.example")
        assert certified is not None
        assert certified.trust.revoked == serials
        credentials.take_revocations(listed)


def test_proofs_are_kept_in_the_state_folder(tmp_path: Path) -> None:
    state = tmp_path / "state"
    text = ALONE.replace("[host]\n", f'[host]\nstate_dir = "{state}"\n')
    config = configure(tmp_path, text + 'psk_file = "k"\n')
    papers = Papers(config)
    assert papers.proofs() == b""
    state.mkdir()
    (state / "proofs.json").write_bytes(b"x" * (MAX_FILE + 7))
    assert len(papers.proofs()) == MAX_FILE + 1, "no more is read than says that it is too much"
