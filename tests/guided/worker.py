"""One target under atheris: ``python -m tests.guided.worker TARGET [libFuzzer options]``.

Only ``keys`` is instrumented: what guides the fuzzer is the code that is to be reached.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["keys"]):
    from tests.guided.targets import ALL


def main() -> None:
    """Never returns: libFuzzer ends the process."""
    target = ALL[sys.argv[1]]
    atheris.Setup([sys.argv[0], *sys.argv[2:]], target.run)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
