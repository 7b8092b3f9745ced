"""The limits that docs/security.md names are those of the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "security.md").read_text()
LIMITS = re.findall(r"^\|[^|]*\| (\d+) \| ([\w/]+\.py):(\w+) \|$", PAGE, re.MULTILINE)


@pytest.mark.parametrize(("value", "path", "name"), LIMITS)
def test_a_limit_is_as_the_page_says(value: str, path: str, name: str) -> None:
    found = re.search(rf"^\s*{name}(?:: \w+)? = ([\d_.]+)", (ROOT / path).read_text(), re.MULTILINE)
    assert found is not None, f"{path} has no {name}"
    assert float(found[1].replace("_", "")) == float(value)


def test_every_row_is_read() -> None:
    table = PAGE.partition("## Limits")[2].partition("\n## ")[0]
    assert len(LIMITS) == len([row for row in table.splitlines() if row.startswith("|")]) - 2


def test_every_file_that_the_page_names_is_there() -> None:
    for path in re.findall(r"`((?:tests|docs|keys|scripts)/[\w/.]*)`", PAGE):
        assert (ROOT / path).exists(), path
