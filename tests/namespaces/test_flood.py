"""A flood of strangers from invented addresses, and an honest peer among them (issue 4)."""

from __future__ import annotations

import pytest

from bench.flood import scene
from tunnel.io.lab import missing, wait_until

pytestmark = pytest.mark.root

RATE = 5_000  # a second; `python -m bench flood` sends four times as many, for ten seconds
GROWTH_MIB = 24  # above what it took before, with the native queue full to the brim


def test_an_honest_peer_gets_in_and_memory_stays_bounded() -> None:
    if (reason := missing()) is not None:
        pytest.skip(reason)
    with scene() as place:
        before = place.resident_mib()
        flood = place.flood(RATE, 300)
        wait_until(lambda: place.demanded() > RATE / 10, 60.0, "the host asks for cookies")
        place.connect()
        assert flood.running
        answered = place.demanded()
        wait_until(lambda: place.demanded() > answered + RATE / 2, 60.0, "the flood goes on")
        flood.stop()
        strangers = place.host.status()["strangers"]
        assert strangers["half_open"] <= 256
        assert place.resident_mib() < before + GROWTH_MIB
        received = place.data(0.2)
        assert received["received"] > 0
