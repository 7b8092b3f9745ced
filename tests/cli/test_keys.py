"""``keys export``: consent first, files that are the person's alone, nothing of theirs lost."""

from __future__ import annotations

import stat
from pathlib import Path

from tests.cli.support import Person
from tunnel.cli.keys import TABLES, write_tables

LINES = {"esp_sa": ["one", "two"], "ikev2_decryption_table": ["three"], "notes": []}


def test_without_a_terminal_nobody_can_agree(tmp_path: Path) -> None:
    person = Person(tmp_path)
    person.init()
    done = person.ours("keys", "export", "--wireshark", "laptop", "--dir", "out")
    assert done.returncode == 1
    assert "say --yes if you mean it" in done.stderr
    assert not (tmp_path / "out").exists()


def test_with_consent_the_running_host_is_asked(tmp_path: Path) -> None:
    person = Person(tmp_path)
    person.init()
    done = person.ours("keys", "export", "--wireshark", "laptop", "--dir", "out", "--yes")
    assert done.returncode == 1
    assert "no host runs here" in done.stderr


def test_the_tables_are_the_person_s_alone(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    write_tables(folder, LINES)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for name in TABLES:
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600
        assert (folder / name).read_text().splitlines() == LINES[name]


def test_lines_that_are_there_stay_and_none_comes_twice(tmp_path: Path) -> None:
    (tmp_path / "esp_sa").write_text("the person's own\n")
    for _ in range(2):
        write_tables(tmp_path, LINES)
    assert (tmp_path / "esp_sa").read_text() == "the person's own\none\ntwo\n"
