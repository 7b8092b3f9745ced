"""A host's files on disks that fail: the host lives on, says so once, and loses nothing."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from keys import store
from keys.store import SecretFileError
from tests import disks
from tests.discovery.client.waiting import until
from tunnel.io import keeping
from tunnel.io.keeping import Keeping
from tunnel.mobility.proofs import PER_PEER, Proofs

NOW = 1_700_000_000


def proofs_of(peers: int) -> bytes:
    """What a host with proofs of many peers keeps on disk."""
    proofs = Proofs()
    for number in range(peers):
        for network in range(PER_PEER):
            proofs.add(f"h{number}.alice.example", (f"203.0.113.{network}", 4500), NOW)
    return proofs.dump(NOW)


def names(folder: Path) -> set[str]:
    return {one.name for one in folder.iterdir()}


class Disk:
    """Writes where it is told to, as a host does; ``problem`` is raised instead."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.tries = folder, 0
        self.problem: Exception | None = None

    def write(self, what: str, content: bytes) -> None:
        self.tries += 1
        if self.problem is not None:
            raise self.problem
        store.write_atomically(self.folder / what, content)


@pytest.mark.parametrize("fault", ["full", "read-only"])
async def test_a_disk_that_fails_costs_a_sentence_and_no_proof(
    small_disk: Path, capfd: pytest.CaptureFixture[str], fault: str
) -> None:
    """ENOSPC and EROFS of a real file system; the old file stays whole, and the new one comes."""
    disk, old, new = Disk(small_disk), proofs_of(20), proofs_of(200)
    kept = Keeping(disk.write)
    kept.keep("proofs", old)
    if fault == "full":
        ballast = disks.fill(small_disk)
    else:
        disks.allow_writing(small_disk, allowed=False)
    for _ in range(5):
        kept.keep("proofs", new)
    said = capfd.readouterr().out
    assert said.count("could not be written") == 1
    cause = "No space left on device; make room" if fault == "full" else "Read-only file system; ch"
    assert f"the proofs could not be written: {small_disk / 'proofs'}: {cause}" in said
    assert (small_disk / "proofs").read_bytes() == old
    assert names(small_disk) <= {"proofs", "ballast"}
    if fault == "full":
        ballast.unlink()
    else:
        disks.allow_writing(small_disk, allowed=True)
    kept.end()
    assert (small_disk / "proofs").read_bytes() == new
    assert "the proofs could be written again" in capfd.readouterr().out


async def test_a_device_that_errs_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """EIO when the octets are to reach the disk."""
    disk = Disk(tmp_path)
    kept = Keeping(disk.write)
    kept.keep("records", b"old")

    def broken(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", broken)
        kept.keep("records", b"new")
    assert names(tmp_path) == {"records"}
    assert (tmp_path / "records").read_bytes() == b"old"
    said = capfd.readouterr().out
    assert f"{tmp_path / 'records'}: Input/output error; its disk fails: look into" in said
    kept.end()
    assert (tmp_path / "records").read_bytes() == b"new"


async def test_what_waits_is_tried_again_in_time_and_told_again_after_an_hour(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(keeping, "AGAIN", 0.01)
    disk = Disk(tmp_path)
    disk.problem = SecretFileError("the ledger is damaged; restore it")
    kept = Keeping(disk.write)
    kept.keep("ledger", b"1")
    kept.keep("ledger", b"2")
    await until(lambda: disk.tries >= 10)
    assert capfd.readouterr().out.count("the ledger is damaged; restore it") == 1
    monkeypatch.setattr(keeping, "REMIND", 0.0)
    await until(lambda: disk.tries >= 20)
    assert capfd.readouterr().out.count("the ledger is damaged; restore it") > 1
    disk.problem = None
    await until((tmp_path / "ledger").exists)
    assert (tmp_path / "ledger").read_bytes() == b"2"
    kept.end()
    assert names(tmp_path) == {"ledger"}
