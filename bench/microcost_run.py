"""What ``bench.microcost`` runs under callgrind: seals and opens, and a mark after each step.

The mark is a call of ``getppid``, at which callgrind begins a new count. The one argument is the
library of the loops.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
from pathlib import Path
from typing import Any

from bench.crypto import SIZES, sa_params
from bench.native_calls import Sas, backends, load
from fastpath.types import Suite

PACKETS = 16  # of each step; the first one, which binds symbols, comes before the count


def main() -> None:
    """Prints the steps in order. What is counted before the first mark is no step's."""
    loops = load(Path(sys.argv[1]))
    # Under valgrind the best backend may be one that stands there by its own name, too.
    distinct = {shown: name for name, shown in reversed(backends().items())}
    steps: list[dict[str, Any]] = []
    ready = [
        (
            {"backend": shown, "suite": str(suite), "octets": size},
            Sas(loops, sa_params(suite), name, size, PACKETS),
        )
        for (shown, name), suite, size in itertools.product(distinct.items(), Suite, SIZES)
    ]
    for _, sas in ready:
        sas.seal(1)
        sas.open(1)
    os.getppid()
    for about, sas in ready:
        sas.seal(PACKETS)
        os.getppid()
        sas.open(PACKETS)
        os.getppid()
        steps += [about | {"what": "seal"}, about | {"what": "open"}]
    json.dump({"packets": PACKETS, "steps": steps}, sys.stdout)


if __name__ == "__main__":
    main()
