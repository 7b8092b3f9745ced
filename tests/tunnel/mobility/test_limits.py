"""The rate of binding updates: at most three a second, and free when it says that it will be."""

from __future__ import annotations

import random

from tunnel.mobility.limits import MAX_UPDATE_RATE, Rate


def test_what_is_to_be_free_at_a_time_is_free_then() -> None:
    """``now - 1.0`` may be rounded to below a time whose sum with 1.0 is ``now``: a timer that
    trusted the one and a rate that asked the other would never come to rest."""
    chance = random.Random(6275)
    for _ in range(20_000):
        rate, now = Rate(), chance.uniform(0, 10_000)
        for _ in range(MAX_UPDATE_RATE):
            assert rate.allows(now)
            now += chance.uniform(0, 0.3)
        at = rate.free_at(now)
        assert at == now or not rate.allows(now)
        assert rate.allows(at)
