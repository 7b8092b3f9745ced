"""The list of a host's services on disk, as host and command line share it."""

from __future__ import annotations

import dataclasses
import stat
from pathlib import Path

import pytest

from discovery.services import MAX_SERVICES
from discovery.types import Service
from tunnel.io.services import ServicesFile, ServicesFileError

SHELL = Service("_ssh._tcp", "Desk", 22, ("user=me",))


def test_what_is_written_is_read_and_only_by_its_owner(tmp_path: Path) -> None:
    file = ServicesFile(tmp_path / "state")
    assert file.load() == ((), ())
    file.advertise(SHELL)
    file.advertise(dataclasses.replace(SHELL, port=2222))  # in place of the one before
    assert file.load() == ((dataclasses.replace(SHELL, port=2222),), ())
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert file.withdraw("_SSH._tcp", "desk")
    assert not file.withdraw("_ssh._tcp", "Desk")
    assert file.load() == ((), (dataclasses.replace(SHELL, port=2222),))
    file.advertise(dataclasses.replace(SHELL, port=2222))
    assert file.load()[1] == ()


def test_a_damaged_or_unreadable_list_is_told_with_the_fix(tmp_path: Path) -> None:
    file = ServicesFile(tmp_path)
    file.path.write_text("[")
    with pytest.raises(ServicesFileError, match=r"services\.json is damaged .*remove it"):
        file.load()
    file.path.unlink()
    file.path.mkdir()
    with pytest.raises(ServicesFileError):
        file.load()


def test_the_list_is_bounded(tmp_path: Path) -> None:
    file = ServicesFile(tmp_path)
    for number in range(MAX_SERVICES):
        file.advertise(dataclasses.replace(SHELL, name=str(number)))
    with pytest.raises(ServicesFileError, match="withdraw one"):
        file.advertise(SHELL)
    for number in range(MAX_SERVICES):
        assert file.withdraw("_ssh._tcp", str(number))
    file.advertise(SHELL)
    assert file.withdraw("_ssh._tcp", "Desk")
    assert len(file.load()[1]) == MAX_SERVICES
