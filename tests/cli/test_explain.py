"""``explain`` and ``up --record``: what a person gets wrong, in words."""

from __future__ import annotations

from tests.cli.support import Person


def test_a_moment_is_of_a_recording(owner: Person) -> None:
    done = owner.ours("explain", "laptop", "--until", "5")
    assert (done.returncode, done.stdout) == (2, "")
    assert "--replay" in done.stderr


def test_what_is_no_recording_says_how_one_is_made(owner: Person) -> None:
    (owner.home / "notes").write_text("not this one")
    done = owner.ours("explain", "laptop", "--replay", "notes")
    assert done.returncode == 1
    assert "is no recording; `autotunnel up --record FILE` makes one" in done.stderr
    assert "No such file" in owner.json("explain", "laptop", "--replay", "gone", code=1)["error"]


def test_no_file_is_overwritten_by_a_recording(owner: Person) -> None:
    (owner.home / "notes").write_text("mine")
    done = owner.ours("up", "--record", "notes")
    assert done.returncode == 1
    assert "notes is there already; name another file" in done.stderr
    assert "whoever has both can read" in done.stderr
    assert (owner.home / "notes").read_text() == "mine"
