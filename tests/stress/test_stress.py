"""Tables change under full traffic: nothing is lost, doubled, overtaken or changed unseen.

A longer run, also under ThreadSanitizer: ``make tsan``.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable

import pytest

from fastpath.types import Pump
from tests.fastpath.support import native_module
from tests.stress.relayed import RelayedStress
from tests.stress.traffic import BRUTAL, PACKETS, REKEYS, Result, Stress
from tunnel.io.portable_pump import PortablePump

SEED = int(os.environ.get("STRESS_SEED", random.randrange(2**32)))
RUNS = {
    ("native", 1, Stress): 4.0,
    ("native", 4, Stress): 4.0,
    ("reference", 2, Stress): 2.0,
    ("native", 1, RelayedStress): 3.0,
    ("native", 4, RelayedStress): 3.0,
    ("reference", 1, RelayedStress): 2.0,
}
"""Seconds (at least) for each engine, number of queues, and direct or through a home agent."""


@pytest.fixture(params=RUNS, ids=[f"{kind.__name__}-{name}-{n}" for name, n, kind in RUNS])
def stress(request: pytest.FixtureRequest) -> Callable[[bool], Result]:
    engine, queues, kind = request.param
    make: Callable[..., Pump] = PortablePump
    if engine == "native":
        make = native_module("_pump").NativePump
    print(f"seed {SEED}; STRESS_SEED=… picks another")

    def run(rough: bool) -> Result:
        rig = kind(make, rough=rough, seed=SEED, queues=queues)
        result = rig.run(RUNS[engine, queues, kind])
        print(result)
        return result

    return run


def test_rekeys_and_other_peers_lose_no_packet(stress: Callable[[bool], Result]) -> None:
    """In the order of IKE (receiver first, the old SA last) a rekey is not noticed at all."""
    result = stress(False)
    assert result.wrong == []
    assert result.drops == {}
    assert result.lost == 0
    assert result.received >= PACKETS
    assert result.changes["rekey"] >= REKEYS


def test_what_is_lost_to_brutal_changes_is_counted(stress: Callable[[bool], Result]) -> None:
    """SAs replaced and taken away in use: every packet that did not arrive was counted."""
    result = stress(True)
    assert result.wrong == []
    assert result.lost == 0
    assert result.received >= PACKETS
    assert BRUTAL & result.drops.keys()
