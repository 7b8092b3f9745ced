"""Every target of the guided fuzzer (tests/guided) for a moment, without its guide.

What it found is told as ladders in tests/keys/ike/test_leftovers.py and test_mobike.py.
"""

from __future__ import annotations

import pytest

from tests.fuzz.mutate import mutants
from tests.guided.targets import ALL, Target

FEWER = {"session": 150, "strangers": 2_000, "certificates": 2_000, "exchanges": 2_000}


@pytest.mark.parametrize("target", ALL.values(), ids=list(ALL))
def test_seeds_and_their_mutants(target: Target) -> None:
    seeds = target.seeds()
    for data in seeds:
        target.run(data)
    for data in mutants(seeds, FEWER.get(target.name, 5_000)):
        target.run(data)
