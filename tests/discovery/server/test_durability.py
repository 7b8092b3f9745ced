"""Nothing that was acknowledged is lost when the server is killed at any moment (RFC 2136 §3.5)."""

from __future__ import annotations

import os
import random
from pathlib import Path

from tests.discovery.server.kills import kill_often

KILLS = 10


async def test_killed_under_load_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    seed = int(os.environ.get("FUZZ_SEED", "0")) or random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}; FUZZ_SEED=… repeats it")
    scene = await kill_often(tmp_path, KILLS, seed)
    assert scene.acknowledged > KILLS
