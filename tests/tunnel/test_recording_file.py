"""The file of a recording: sealed, private, bounded, and read back to the last whole chunk."""

from __future__ import annotations

import os
import stat
from ipaddress import IPv6Address
from pathlib import Path

import pytest

from keys.account import Account
from tunnel.io import recording as form
from tunnel.io.recording import Reading, RecordingError, RecordingFile, read, secret_for
from tunnel.peers import StaticPeer

SECRET = bytes(range(32))


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def items(path: Path, secret: bytes = SECRET) -> list[bytes]:
    return list(Reading(path, read(path), secret).items())


def test_what_is_written_is_read_back_with_the_reason_for_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a.recording"
    written = [os.urandom(size) for size in (0, 1, 500, form.CHUNK + 1, 3)]
    file = RecordingFile(path, SECRET)
    for item in written:
        file.write(item)
    file.end("enough")
    file.end("again")
    reading = Reading(path, read(path), SECRET)
    assert list(reading.items()) == written
    assert reading.ended == "enough"


def test_the_file_is_private_and_holds_nothing_in_clear(tmp_path: Path) -> None:
    path = tmp_path / "a.recording"
    file = RecordingFile(path, SECRET)
    secret = os.urandom(64)
    file.write(secret)
    file.end("enough")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert secret not in path.read_bytes()
    assert SECRET not in path.read_bytes()
    other = RecordingFile(tmp_path / "b.recording", SECRET)
    other.write(secret)
    other.end("enough")
    head = len(form.MAGIC)
    assert path.read_bytes()[head : head + 32] != other.path.read_bytes()[head : head + 32]


def test_no_file_is_overwritten_and_no_link_followed(tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for name in ("there", "link"):
        with pytest.raises(RecordingError, match="is there already; name another"):
            RecordingFile(tmp_path / name, SECRET)
    with pytest.raises(RecordingError, match="cannot be written"):
        RecordingFile(tmp_path / "no" / "folder", SECRET)
    assert there.read_text() == "mine"


def test_another_secret_opens_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.recording"
    RecordingFile(path, SECRET).end("at once")
    with pytest.raises(RecordingError, match="another secret"):
        items(path, bytes(32))


def test_what_was_broken_off_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    path = tmp_path / "a.recording"
    clock = Clock()
    file = RecordingFile(path, SECRET, clock=clock)
    ends = []
    for number in range(3):
        clock.now += 2
        file.write(b"%d" % number)
        ends.append(path.stat().st_size)
    whole = path.read_bytes()
    for size in range(len(form.MAGIC) + 32, len(whole) + 1):
        reading = Reading(path, whole[:size], SECRET)
        assert list(reading.items()) == [b"0", b"1", b"2"][: sum(end <= size for end in ends)]
        assert reading.ended is None


def test_chunks_cannot_be_changed_left_out_or_reordered(tmp_path: Path) -> None:
    path = tmp_path / "a.recording"
    clock = Clock()
    file = RecordingFile(path, SECRET, clock=clock)
    ends = [path.stat().st_size]
    for _ in range(3):
        clock.now += 2
        file.write(b"same")
        ends.append(path.stat().st_size)
    whole = path.read_bytes()
    first, second = whole[ends[0] : ends[1]], whole[ends[1] : ends[2]]
    flipped = whole[:-1] + bytes((whole[-1] ^ 1,))
    for octets in (
        whole[: ends[0]] + second + first + whole[ends[2] :],
        whole[: ends[0]] + second,
        flipped,
    ):
        with pytest.raises(RecordingError, match=r"another secret|damaged"):
            list(Reading(path, octets, SECRET).items())
    with pytest.raises(RecordingError, match="is no recording"):
        Reading(path, b"something else", SECRET)


def test_it_ends_before_it_is_too_large(tmp_path: Path) -> None:
    path = tmp_path / "a.recording"
    file = RecordingFile(path, SECRET, largest=20_000)
    for _ in range(100):
        file.write(bytes(1000))
    assert file.ended == "it has reached 20000 octets"
    assert path.stat().st_size < 21_000
    assert set(items(path)) == {bytes(1000)}


def test_a_full_disk_ends_it_after_a_whole_chunk(
    small_disk: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = small_disk / "a.recording"
    clock = Clock()
    file = RecordingFile(path, SECRET, clock=clock)
    (small_disk / "ballast").write_bytes(bytes(256 << 10))
    written = [os.urandom(40_000) for _ in range(20)]
    for item in written:
        clock.now += 20
        file.write(item)
    file.end("the host ended")
    assert file.ended == "No space left on device"
    read_back = items(path)
    assert 0 < len(read_back) < len(written)
    assert read_back == written[: len(read_back)]
    said = capfd.readouterr().out
    assert f"the recording has ended: {path}: No space left on device; make room there" in said
    assert said.count("No space") == 1


def test_it_ends_in_a_flood_rather_than_with_a_gap(tmp_path: Path) -> None:
    path, clock = tmp_path / "a.recording", Clock()
    file = RecordingFile(path, SECRET, burst=5_000, clock=clock)
    for number in range(100):
        clock.now += 3.0
        file.write(number.to_bytes(1000))
    assert file.ended is None
    for number in range(100):
        file.write(number.to_bytes(1000))
    assert "a flood?" in str(file.ended)
    assert len(items(path)) >= 100


def test_hosts_without_an_account_seal_with_their_pre_shared_keys() -> None:
    first = StaticPeer("a", IPv6Address("fd00::1"), ("192.0.2.1", 4500), b"one")
    second = StaticPeer("b", IPv6Address("fd00::2"), ("192.0.2.2", 4500), b"two")
    keyless = StaticPeer("c", IPv6Address("fd00::3"), ("192.0.2.3", 4500), None)
    account = Account("alice.members.example", SECRET)
    assert secret_for(None, (first, second)) == secret_for(None, (second, first, keyless))
    assert secret_for(None, (first,)) != secret_for(None, (first, second))
    assert secret_for(account, (first,)) == account.recording_key
    with pytest.raises(RecordingError, match="has neither"):
        secret_for(None, (keyless,))
