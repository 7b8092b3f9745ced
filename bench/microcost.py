"""Instructions of a seal and an open, and what the engine adds to the bare library call.

Instructions are counted by callgrind (valgrind), so the same build gives the same figures on any
day, and an increase is a regression. Valgrind shows programs a CPU without AVX-512 and VAES: the
best backend there is ipsec-mb's for AVX2, as its name says. The times beside it are those of this
CPU: a loop in C around the engine's ``esp_seal``, and one around the library's own call.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench import bare, machine, native_calls, report
from tunnel.io.lab import LabError

ROOT = Path(__file__).parents[1]
COLLECTED = ("esp_seal", "esp_open")
BOUND = 1.5  # × the bare library call, for an AES-GCM seal of 1,400 octets
PATIENCE = 600.0  # seconds; valgrind makes it some fifty times slower
TOLERANCE = 1.05  # × the instructions kept in bench/results: more is a regression


def run(*, rounds: int, as_json: bool, save: bool) -> int:
    """Both measurements; what was kept before is the mark that instructions are held to.

    Exit code 1 when any of them takes more than :data:`TOLERANCE` allows.
    """
    before = _kept()
    with tempfile.TemporaryDirectory(prefix="autotunnel-micro-") as folder:
        loops = native_calls.build(Path(folder))
        steps = instructions(loops)
        ratios = bare.compare(loops, rounds)
    for step in steps:
        step["before"] = before.get(_key(step))
    worse = [s for s in steps if s["before"] and s["instructions"] > TOLERANCE * s["before"]]
    body = {"instructions": steps, "regressions": worse, "bound": BOUND, "seal": ratios}
    report.finish("micro", body, render(steps, ratios), as_json=as_json, save=save)
    for step in worse:
        more = step["instructions"] / step["before"]
        report.say(f"regression: {' '.join(_key(step))}: {more:.2f} × the instructions kept")
    return int(bool(worse))


def instructions(loops: Path) -> list[dict[str, Any]]:
    """Instructions per packet of each AEAD backend, suite and size, sealing and opening."""
    if shutil.which("valgrind") is None:
        raise LabError("valgrind is not installed; on Debian: apt install valgrind")
    counts = loops.with_name("counts")
    command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={counts}"]
    command += ["--combine-dumps=yes", "--dump-before=getppid"]
    command += [f"--toggle-collect=__pyx_f_8fastpath_4_esp_{name}" for name in COLLECTED]
    command += [sys.executable, "-m", "bench.microcost_run", str(loops)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    if done.returncode:
        raise LabError(f"{' '.join(command)}: {done.stderr[-500:]}")
    found = json.loads(done.stdout)
    lines = counts.read_text().splitlines()
    sums = [int(line.split()[1]) for line in lines if line.startswith("summary:")]
    steps: list[dict[str, Any]] = found["steps"]
    for step, count in zip(steps, sums[1:], strict=False):  # the first part came before any step
        step["instructions"] = count / found["packets"]
    return steps


def _key(step: dict[str, Any]) -> tuple[str, ...]:
    return step["backend"], step["suite"], str(step["octets"]), step["what"]


def _kept() -> dict[tuple[str, ...], float]:
    path = report.RESULTS / "micro.json"
    kept = json.loads(path.read_text())["instructions"] if path.exists() else []
    return {_key(step): step["instructions"] for step in kept}


def render(steps: list[dict[str, Any]], ratios: list[dict[str, Any]]) -> str:
    """Two tables."""
    rows = [
        [
            f"{step['suite']} {step['octets']} {step['what']}",
            step["backend"],
            f"{step['instructions']:.0f}",
            "–" if not step["before"] else f"{step['instructions'] / step['before']:.3f}",
        ]
        for step in steps
    ]
    head = ["suite, octets", "backend", "instructions", "× kept"]
    first = report.table("Instructions per packet (callgrind)", head, rows)
    rows = [
        [
            f"{one['suite']} {one['octets']}",
            one["backend"],
            f"{one['engine_ns']:.0f}",
            f"{one['bare_ns']:.0f}",
            f"{one['ratio']:.3f}",
        ]
        for one in ratios
    ]
    head = ["suite, octets", "backend", "engine ns", "bare ns", "× bare"]
    second = report.table(f"Seal beside the bare call; {machine.summary()}", head, rows)
    return f"{first}\n\n{second}"
