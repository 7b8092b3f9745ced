"""Worlds by seed. ``AUTOTUNNEL_SIM_SEED=n`` runs every scenario with that one seed instead."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from tests.sim.watch import watched
from tests.sim.world import Weather, World

Make = Callable[..., World]


@pytest.fixture
def world_of() -> Iterator[Make]:
    """Makes worlds; if the test fails, their seeds are printed."""
    seeds: list[int] = []

    def make(seed: int, weather: Weather | None = None, *, tells: bool = True) -> World:
        chosen = int(os.environ.get("AUTOTUNNEL_SIM_SEED", seed))
        seeds.append(chosen)
        print(f"seed {chosen}: repeat with AUTOTUNNEL_SIM_SEED={chosen}")  # shown on failure
        return watched(chosen, weather, tells=tells)

    yield make
