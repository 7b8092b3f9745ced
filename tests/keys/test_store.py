"""Secret files and the host id of this boot."""

from __future__ import annotations

import json
import os
from ipaddress import IPv6Address
from pathlib import Path

import pytest

from keys import store
from keys.account import encode_secret
from keys.store import HostIdError, SecretFileError

MAC = bytes.fromhex("0022698e342a")
SECRET = bytes(range(32))


def private(path: Path, content: bytes, mode: int = 0o600) -> Path:
    path.write_bytes(content)
    path.chmod(mode)
    return path


def test_one_trailing_newline_is_ignored(tmp_path: Path) -> None:
    assert store.read_secret(private(tmp_path / "psk", b"octets\n")) == b"octets"
    assert store.read_secret(private(tmp_path / "psk", b"octets\n\n")) == b"octets\n"
    assert store.read_secret(private(tmp_path / "psk", b"octets")) == b"octets"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601, 0o777])
def test_a_file_open_to_others_is_refused_with_the_fix(tmp_path: Path, mode: int) -> None:
    path = private(tmp_path / "account.key", b"x", mode)
    with pytest.raises(SecretFileError, match=rf"mode {mode:04o}.*chmod 600 {path}"):
        store.read_secret(path)


def test_a_stricter_mode_is_fine(tmp_path: Path) -> None:
    assert store.read_secret(private(tmp_path / "k", b"x", 0o400)) == b"x"


def test_another_users_file_is_refused(tmp_path: Path) -> None:
    path = private(tmp_path / "k", b"x")
    if os.geteuid() == 0:
        os.chown(path, 12345, -1)
        with pytest.raises(SecretFileError, match="another user"):
            store.read_secret(path)


@pytest.mark.parametrize(
    ("content", "says"), [(b"", "empty"), (b"\n", "empty"), (b"x" * 9000, "longer than 8192")]
)
def test_senseless_content_is_refused(tmp_path: Path, content: bytes, says: str) -> None:
    with pytest.raises(SecretFileError, match=says):
        store.read_secret(private(tmp_path / "k", content))


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SecretFileError, match="no such file"):
        store.read_secret(tmp_path / "absent")
    with pytest.raises(SecretFileError, match="not a regular file"):
        store.read_secret(tmp_path)
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(SecretFileError, match="not a regular file"):
        store.read_secret(tmp_path / "pipe")


def test_the_account_secret_is_kept_as_base64_with_mode_0600(tmp_path: Path) -> None:
    path = tmp_path / "account.key"
    store.save_account_secret(path, SECRET)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_text() == encode_secret(SECRET) + "\n"
    assert store.load_account("Alice.example", path).secret == SECRET


def test_a_wrong_account_secret_says_so(tmp_path: Path) -> None:
    with pytest.raises(SecretFileError, match=r"not an account secret: .*join with an invitation"):
        store.load_account("alice.example", private(tmp_path / "k", b"hello"))


def test_an_existing_secret_is_not_overwritten_by_accident(tmp_path: Path) -> None:
    path = private(tmp_path / "k", b"old")
    with pytest.raises(SecretFileError, match="exists already"):
        store.write_secret(path, b"new")
    assert path.read_bytes() == b"old"
    store.write_secret(path, b"new", replace=True)
    assert path.read_bytes() == b"new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["k"]  # no temporary file stays


def test_a_directory_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(SecretFileError, match="cannot be written"):
        store.write_secret(tmp_path / "no" / "k", b"x")


def test_b52_the_host_id_stays_for_one_boot_whatever_the_mac(tmp_path: Path) -> None:
    first = store.load_or_make_host_id(tmp_path / "state", MAC)
    assert first.packed[0] == 0xFD
    assert first.packed[8:] == bytes.fromhex("002269fffe8e342a")
    assert store.load_or_make_host_id(tmp_path / "state", None) == first


def test_b54_another_boot_makes_another_host_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = store.load_or_make_host_id(tmp_path, MAC)
    monkeypatch.setattr(store, "boot_id", lambda: "another")
    second = store.load_or_make_host_id(tmp_path, MAC)
    assert second != first
    assert second.packed[8:] == first.packed[8:]


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b"\xff\xfe",
        json.dumps({"boot_id": store.boot_id(), "host_id": "2001:db8::1"}).encode(),
        json.dumps({"boot_id": store.boot_id(), "host_id": "nonsense"}).encode(),
    ],
)
def test_a_damaged_host_id_file_is_made_anew(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / store.HOST_ID_FILE).write_bytes(damage)
    made = store.load_or_make_host_id(tmp_path, None)
    assert made.packed[0] == 0xFD
    assert store.load_or_make_host_id(tmp_path, None) == made


def test_a_state_dir_that_cannot_be_made_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(HostIdError, match="state_dir"):
        store.load_or_make_host_id(tmp_path / "file" / "state", None)


def test_a_system_without_a_boot_id_is_told_to_fix_the_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "_BOOT_ID", tmp_path / "absent")
    with pytest.raises(HostIdError, match=r"\[host\] id"):
        store.boot_id()


def test_b16_the_primary_interface_is_that_of_the_best_default_route(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n"
    rows = [
        "wlan0 00000000 0101A8C0 0003 0 0 600 00000000 0 0 0",
        "eth0 00000000 0101A8C0 0003 0 0 100 00000000 0 0 0",
        "eth1 0001A8C0 00000000 0001 0 0 0 00FFFFFF 0 0 0",
    ]
    routes = tmp_path / "route"
    routes.write_text(head + "\n".join(rows) + "\n")
    monkeypatch.setattr(store, "_ROUTES4", routes)
    monkeypatch.setattr(store, "_ROUTES6", tmp_path / "absent")
    macs = {"eth0": MAC, "wlan0": bytes(6)}
    monkeypatch.setattr(store, "_mac_of", macs.get)
    assert store.primary_mac() == MAC
    macs["eth0"] = None
    macs["wlan0"] = b"\x02wlan0"
    assert store.primary_mac() == b"\x02wlan0"


def test_loopback_has_no_mac() -> None:
    assert store._mac_of("lo") is None
    assert store._mac_of("no-such-device") is None


def test_random_bytes_has_the_asked_size() -> None:
    assert len(store.random_bytes(7)) == 7
    assert IPv6Address(store.random_bytes(16)) != IPv6Address(store.random_bytes(16))
