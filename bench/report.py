"""Results: a table for people on stderr or stdout, JSON for programs, a file to keep."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import machine

RESULTS = Path(__file__).parent / "results"
SCHEMA = "autotunnel/bench-{kind}/v1"


def median(values: Sequence[float]) -> float:
    """The middle one; robust against the odd slow round of a shared machine."""
    return statistics.median(values)


def finish(kind: str, body: dict[str, Any], table: str, *, as_json: bool, save: bool) -> None:
    """Prints ``body`` (with schema, date and machine) as JSON or as ``table``; keeps it."""
    text = _text(kind, body)
    sys.stdout.write(text if as_json else table + "\n")
    if save:
        say(f"saved {keep(kind, body)}")


def keep(kind: str, body: dict[str, Any]) -> Path:
    """Writes ``body`` (with schema, date and machine) to its file, whole or not at all."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{kind}.json"
    unfinished = path.with_suffix(".new")
    unfinished.write_text(_text(kind, body))
    unfinished.replace(path)
    return path


def _text(kind: str, body: dict[str, Any]) -> str:
    about = {
        "schema": SCHEMA.format(kind=kind),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine.describe(),
    }
    return json.dumps(about | body, indent=2) + "\n"


def say(line: str) -> None:
    """Talk goes to stderr; stdout is data."""
    print(line, file=sys.stderr, flush=True)


def table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as they must be; the first one left-aligned, figures right."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        first = cells[0].ljust(widths[0])
        rest = (cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True))
        return "  ".join((first, *rest)).rstrip()

    rule = "  ".join("-" * width for width in widths)
    return "\n".join((title, line(head), rule, *(line(row) for row in rows)))
