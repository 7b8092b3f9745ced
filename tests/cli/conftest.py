"""A person with an empty home."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.support import Person


@pytest.fixture
def person(tmp_path: Path) -> Person:
    """Somebody who has nothing of autotunnel yet."""
    return Person(tmp_path)


@pytest.fixture
def owner(person: Person) -> Person:
    """Somebody who has run ``init``."""
    person.init()
    return person
