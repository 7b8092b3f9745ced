"""Documents that nobody checks become wrong: every name in docs/rfc-coverage.md must exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
COVERAGE = ROOT / "docs" / "rfc-coverage.md"
_REFERENCE = re.compile(r"((?:[\w-]+/)+[\w.-]+\.(?:pyx|pxd|py))(?:(::?)([\w.]+))?")


def _references() -> list[tuple[str, str, str]]:
    return sorted(set(_REFERENCE.findall(COVERAGE.read_text())))


@pytest.mark.parametrize(("path", "kind", "name"), _references())
def test_every_reference_of_the_coverage_page_exists(path: str, kind: str, name: str) -> None:
    file = ROOT / path
    assert file.is_file(), f"{path} is named in docs/rfc-coverage.md and is not there"
    text = file.read_text()
    for part in name.split("."):
        assert re.search(rf"\b{re.escape(part)}\b", text), f"{path} has no {kind}{part}"


def test_the_coverage_page_names_code_and_tests_in_every_line() -> None:
    for line in COVERAGE.read_text().splitlines():
        if line.startswith(("| B", "| RFC")):
            assert len(_REFERENCE.findall(line)) >= 1, line


def test_the_pages_of_the_readme_are_there() -> None:
    for page in re.findall(r"`(docs/[\w/.-]+)`", (ROOT / "README.md").read_text()):
        assert (ROOT / page).exists(), page
