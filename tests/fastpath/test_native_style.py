"""What ruff does for Python: the native sources have no long lines and no unused names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

SOURCES = sorted(
    path
    for end in ("pyx", "pxd", "h")
    for path in (Path(__file__).parents[2] / "fastpath").glob(f"*.{end}")
)
IMPORT = re.compile(r"^from \S+ c?import (\([^)]*\)|[^\n]*)", re.MULTILINE)
MOST_LINES = 600


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_lines_are_short_and_files_too(path: Path) -> None:
    lines = path.read_text().split("\n")
    assert [number for number, line in enumerate(lines, 1) if len(line) > 100] == []
    assert [number for number, line in enumerate(lines, 1) if line != line.rstrip()] == []
    assert len(lines) <= MOST_LINES


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_every_imported_name_is_used(path: Path) -> None:
    text = path.read_text()
    names = {
        name.strip()
        for match in IMPORT.finditer(text)
        for name in match[1].strip("()").split(",")
        if name.strip() not in ("", "*")
    }
    unused = [name for name in names if len(re.findall(rf"\b{name}\b", text)) < 2]
    assert unused == []
