"""People with an empty home, with an account, or with a rendezvous that runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.support import Person, Served, settle


@pytest.fixture
def person(tmp_path: Path) -> Person:
    """Somebody who has nothing of autotunnel yet."""
    return Person(tmp_path)


@pytest.fixture
def owner(person: Person) -> Person:
    """Somebody who has run ``init``."""
    person.init()
    return person


@pytest.fixture
def landlord(person: Person) -> Person:
    """Somebody whose account's rendezvous is on this machine, on free ports."""
    settle(person, "--auth", "psk")
    return person


@pytest.fixture
def served(landlord: Person) -> Iterator[Served]:
    """That rendezvous, running."""
    running = Served(landlord)
    yield running
    if running.process.poll() is None:
        running.end()


@pytest.fixture
def newcomer(landlord: Person) -> Person:
    """Somebody else, with an empty home."""
    home = landlord.home / "newcomer"
    home.mkdir()
    return Person(home)
