"""The stress under ThreadSanitizer: ``make tsan``.

Builds the native engine once more, with ``-fsanitize=thread``, into ``build/tsan``, and runs
:mod:`tests.stress.traffic` over it, gentle and rough, with one queue and with four, direct and
through a home agent. Python and its libraries are not instrumented: ThreadSanitizer sees there what
goes through the C library (locks, threads, memory, system calls), which is enough to know what the
GIL orders; so nothing needs to be suppressed.

Then the proof that it would see a race: ``--blind`` builds the engine with gates that let
everybody in, and that must be reported.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]
FLAGS = "-fsanitize=thread -g -O1"
SECONDS = 20.0  # of each run
FOUND = 66  # exit code when a race was reported
GATES = ("gate_enter_batch", "gate_leave_batch", "gate_enter_call", "gate_leave_call")


def build(folder: Path, *, blind: bool, flags: str = FLAGS) -> None:
    """A copy of ``fastpath`` in ``folder``, instrumented; ``blind``: its gates stand open."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    left_out = shutil.ignore_patterns("*.so", "*.c", "__pycache__")
    shutil.copytree(ROOT / "fastpath", folder / "fastpath", ignore=left_out)
    for name in ("setup.py", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, folder)
    if blind:
        _open_gates(folder / "fastpath" / "_core.pyx")
    _run(
        [sys.executable, "setup.py", "-q", "build_ext", "--inplace"],
        {"CFLAGS": flags, "LDFLAGS": flags},
        folder,
    )


def _open_gates(source: Path) -> None:
    """A gate whose function does nothing."""
    lines, inside = [], False
    for line in source.read_text().splitlines():
        if line.startswith("cdef void "):
            inside = line.startswith(tuple(f"cdef void {name}(" for name in GATES))
        elif inside and line.startswith("    pthread_mutex_"):
            line = "    pass"
        lines.append(line)
    source.write_text("\n".join(lines) + "\n")


def stress(folder: Path, seconds: float, *options: str) -> int:
    """Exit code of the stress over the engine in ``folder``: 0 ok, 66 a race, else it lost."""
    library = subprocess.run(
        ["cc", "-print-file-name=libtsan.so"], capture_output=True, text=True, check=True
    ).stdout.strip()
    # Without address randomisation, since newer kernels randomise more than libtsan can bear.
    command = ["setarch", "-R", sys.executable, "-P", "-m", "tests.stress.traffic"]
    command += ["--seconds", str(seconds), *options]
    environment = {
        "LD_PRELOAD": library,
        "TSAN_OPTIONS": f"exitcode={FOUND}",
        "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}",
    }
    print("tsan:", " ".join(command), file=sys.stderr, flush=True)
    return subprocess.run(
        command, env={**os.environ, **environment}, cwd=ROOT, check=False
    ).returncode


def _run(command: list[str], environment: Mapping[str, str], where: Path) -> None:
    subprocess.run(command, env={**os.environ, **environment}, cwd=where, check=True)


def main() -> int:
    """Exit code 0 when both runs are clean; with ``--blind``, when the race was seen."""
    parser = argparse.ArgumentParser(prog="tests.stress.tsan", description=__doc__)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--blind", action="store_true", help="prove that a race would be seen")
    options = parser.parse_args()
    folder = ROOT / "build" / ("tsan-blind" if options.blind else "tsan")
    build(folder, blind=options.blind)
    if options.blind:
        seen = stress(folder, options.seconds) != 0
        print("tsan: the race was " + ("seen" if seen else "NOT SEEN"), file=sys.stderr)
        return int(not seen)
    direct: list[tuple[str, ...]] = [(), ("--rough",), ("--queues", "4")]
    direct.append(("--rough", "--queues", "4"))
    runs = [*direct, *(("--relayed", *run) for run in direct)]
    codes = [stress(folder, options.seconds, *run) for run in runs]
    print("tsan: " + ("a race or a loss, see above" if any(codes) else "clean"), file=sys.stderr)
    return int(any(codes))


if __name__ == "__main__":
    sys.exit(main())
