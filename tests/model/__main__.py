"""``python -m tests.model [--depth N] [WORLD …]``: explore and say how much was seen."""

from __future__ import annotations

import argparse
import sys
import time

from tests.model.explore import WrongError, explore
from tests.model.scenarios import WORLDS


def main() -> int:
    """Exit code 0 if every property holds everywhere, 1 with the shortest way to where not."""
    options = argparse.ArgumentParser(prog="python -m tests.model", description=__doc__)
    options.add_argument("--depth", type=int, help="actions from the beginning (else as recorded)")
    options.add_argument("worlds", nargs="*", choices=[[], *WORLDS], help="which; else all")
    given = options.parse_args()
    for name in given.worlds or WORLDS:
        make, _, deep = WORLDS[name]
        depth, began = given.depth or deep, time.process_time()
        try:
            found = explore(make(), depth)
        except WrongError as error:
            print(f"{name}: {error}", file=sys.stderr)
            return 1
        took = time.process_time() - began
        end = "complete" if found.complete else f"depth {depth}"
        print(
            f"{name}: {found.states:,} states, {found.steps:,} steps, {end}, "
            f"at most {found.longest} steps to arrive without loss, {took:.0f} s of a processor",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
