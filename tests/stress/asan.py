"""Hostile packets under AddressSanitizer: ``make asan``.

Builds the native engine once more, with ``-fsanitize=address,undefined``, into ``build/asan``, and
runs the tests that feed it what somebody else wrote: fuzzed ESP and nested packets, any order of
table changes, sockets that behave badly. A read or write outside of its memory, or of memory that
was freed, ends the run.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys

from tests.stress.tsan import ROOT, build

FLAGS = (
    "-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -g -O1"
)
TESTS = (
    "tests/fuzz/test_fuzz_esp.py",
    "tests/fuzz/test_fuzz_relay.py",
    "tests/fuzz/test_fuzz_native_segment.py",
    "tests/fastpath/test_engines_agree.py",
    "tests/fastpath/test_pumps_agree.py",
    "tests/fastpath/test_relay_agrees.py",
    "tests/fastpath/test_relay_attacks.py",
    "tests/fastpath/test_relay_states.py",
    "tests/fastpath/test_native_merge.py",
    "tests/fastpath/test_native_tables.py",
)


def main() -> int:
    """Exit code 0 when nothing was found."""
    parser = argparse.ArgumentParser(prog="tests.stress.asan", description=__doc__)
    parser.add_argument("tests", nargs="*", default=TESTS, help="other tests than the usual")
    options = parser.parse_args()
    folder = ROOT / "build" / "asan"
    build(folder, blind=False, flags=FLAGS)
    library = subprocess.run(
        ["cc", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
    ).stdout.strip()
    environment = {
        "LD_PRELOAD": library,
        "ASAN_OPTIONS": "detect_leaks=0",  # Python itself keeps much until its end
        "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}",
    }
    command = ["setarch", "-R", sys.executable, "-P", "-m", "pytest", "-x", "-q"]
    command += list(options.tests)
    print("asan:", " ".join(command), file=sys.stderr, flush=True)
    found = subprocess.run(command, env={**os.environ, **environment}, cwd=ROOT, check=False)
    print("asan: " + ("clean" if found.returncode == 0 else "see above"), file=sys.stderr)
    return found.returncode


if __name__ == "__main__":
    sys.exit(main())
