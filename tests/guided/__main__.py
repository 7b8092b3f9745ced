"""Runs the targets one after the other, each in a process of its own, and prints what was tried.

``python -m tests.guided [--inputs N | --seconds S] [--json FILE] [TARGET …]``

``--inputs`` is shared among the targets by their weights (default 200,000 in all); ``--seconds``
is for each of them. Corpora grow in ``.fuzz/``, which may be deleted. A find stops the run: its
input is named, and ``python -m tests.guided.worker TARGET FILE`` plays it again. Exit code 1.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from pathlib import Path

from tests.guided.targets import ALL, Target

FOLDER = Path(".fuzz")
MEMORY = 1024  # MiB; more is a find
ONE_INPUT = 20  # seconds; more is a find
_TRACE = "=== Uncaught Python exception"
_EDGES = re.compile(r"cov: (\d+)")
_PEAK = re.compile(r"peak_rss_mb:\s+(\d+)")
_COUNT = re.compile(r"number_of_executed_units:\s+(\d+)")


def fuzz(target: Target, inputs: int, seconds: int) -> dict[str, object]:
    """One target until it has had so many inputs or seconds (0: no limit). What was seen."""
    corpus = FOLDER / target.name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds()):
        (corpus / f"seed-{number}").write_bytes(seed)
    command = [
        *(sys.executable, "-m", "tests.guided.worker", target.name, str(corpus)),
        *(f"-max_len={target.octets}", f"-rss_limit_mb={MEMORY}", f"-timeout={ONE_INPUT}"),
        *("-print_final_stats=1", f"-artifact_prefix={FOLDER}/{target.name}-"),
        *([f"-runs={inputs}"] if inputs else []),
        *([f"-max_total_time={seconds}"] if seconds else []),
    ]
    started = time.monotonic()
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    text = done.stdout.decode("utf-8", "replace")
    if done.returncode:
        sys.stderr.write(text[max(text.find(_TRACE), len(text) - 6000) :])
    return {
        "target": target.name,
        "inputs": int((_COUNT.findall(text) or ["0"])[-1]),
        "seconds": round(time.monotonic() - started),
        "edges": int((_EDGES.findall(text) or ["0"])[-1]),
        "peak_mib": int((_PEAK.findall(text) or ["0"])[-1]),
        "found": bool(done.returncode),
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.guided", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(ALL))
    parser.add_argument("--inputs", type=int, default=0)
    parser.add_argument("--seconds", type=int, default=0)
    parser.add_argument("--json", type=Path, help="append one line for each target")
    asked = parser.parse_args()
    unknown = set(asked.targets) - set(ALL)
    if unknown:
        parser.error(f"no such target: {', '.join(sorted(unknown))}; there are {', '.join(ALL)}")
    if not (asked.inputs or asked.seconds):
        asked.inputs = 200_000
    chosen = [ALL[name] for name in asked.targets or ALL]
    whole = sum(target.weight for target in chosen)
    print(f"{'target':<14}{'inputs':>12}{'seconds':>9}{'edges':>7}{'MiB':>6}  finds", flush=True)
    total, found = 0, False
    for target in chosen:
        seen = fuzz(target, asked.inputs * target.weight // whole, asked.seconds)
        total, found = total + int(str(seen["inputs"])), found or bool(seen["found"])
        print(
            f"{target.name:<14}{seen['inputs']:>12,}{seen['seconds']:>9}{seen['edges']:>7}"
            f"{seen['peak_mib']:>6}  {'see above' if seen['found'] else 0}",
            flush=True,
        )
        if asked.json:
            with asked.json.open("a") as file:
                file.write(json.dumps(seen) + "\n")
    print(f"{'in all':<14}{total:>12,}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
