"""Documents that nobody checks become wrong: what they name exists, and what exists is named."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
COVERAGE = ROOT / "docs" / "rfc-coverage.md"
_REFERENCE = re.compile(r"((?:[\w-]+/)+[\w.-]+\.(?:pyx|pxd|py))(?:(::?)([\w.]+))?")
_LINK = re.compile(r"\]\((?!https?:)([^)#]+)[^)]*\)")
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
SOURCES = [
    file
    for room in ("keys", "fastpath", "discovery", "tunnel", "bench")
    for ending in ("py", "pyx", "pxd", "h")
    for file in (ROOT / room).rglob(f"*.{ending}")
]


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
        if line.startswith(("| B", "| I", "| RFC")):
            assert len(_REFERENCE.findall(line)) >= 1, line


def test_the_pages_of_the_readme_are_there() -> None:
    for page in re.findall(r"`(docs/[\w/.-]+)`", (ROOT / "README.md").read_text()):
        assert (ROOT / page).exists(), page


def test_every_behaviour_of_route_optimisation_has_its_line() -> None:
    """They are numbered from I1 to I53 (docs/behaviours.md)."""
    lines = [line for line in COVERAGE.read_text().splitlines() if line.startswith("| I")]
    named = {
        int(number) for line in lines for number in re.findall(r"\bI(\d+)", line.split("|")[1])
    }
    assert named >= set(range(1, 54))


def test_behaviours_that_are_cited_are_listed() -> None:
    page = (ROOT / "docs" / "behaviours.md").read_text()
    listed = set(re.findall(r"^- \*\*([BI]\d+)\*\* ", page, re.MULTILINE))
    assert {f"B{number}" for number in range(1, 66)} | {f"I{n}" for n in range(1, 54)} == listed
    cited = {
        name: file
        for file in (*PAGES, *SOURCES)
        for name in re.findall(r"\b[BI][1-9]\d?\b", file.read_text())
    }
    assert {name: file for name, file in cited.items() if name not in listed} == {}


def test_what_is_cited_of_the_design_stands_there() -> None:
    page = (ROOT / "docs" / "design.md").read_text()
    for file in SOURCES:
        for number, word in re.findall(r'\bDESIGN (?:§(\d)|"([^"]+)")', file.read_text()):
            there = f"\n## {number}. " if number else f"\n**{word}"
            assert there in page, f"{file} cites DESIGN {number or word}"


def test_links_between_pages_lead_somewhere() -> None:
    found = [(page, link) for page in PAGES for link in _LINK.findall(page.read_text())]
    assert found
    assert [one for one in found if not (one[0].parent / one[1]).exists()] == []


def test_the_decisions_that_are_cited_are_there() -> None:
    pages = {page.name[:4] for page in (ROOT / "docs" / "decisions").glob("*.md")}
    cited = {
        number: file
        for file in (*PAGES, *SOURCES)
        for number in re.findall(r"decision (\d{4})\b", file.read_text())
    }
    assert cited
    assert {number: file for number, file in cited.items() if number not in pages} == {}


@pytest.mark.parametrize("package", ["discovery", "tunnel", "tunnel/io"])
def test_the_map_of_a_large_package_names_all_its_files(package: str) -> None:
    text = (ROOT / package / "__init__.py").read_text()
    files = {file.stem for file in (ROOT / package).glob("*.py") if file.stem[0] != "_"}
    named = {name.removesuffix(".py") for name in re.findall(r"``([\w.]+)``", text)}
    assert files - named == set()
