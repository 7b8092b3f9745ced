"""The running rendezvous under hostile messages (:mod:`tests.fuzz.running_zone` sends more)."""

from __future__ import annotations

import os
import random
from pathlib import Path

from tests.fuzz.running_zone import fuzz

MESSAGES = 20_000


async def test_a_running_server_survives_and_serves_honest_clients(tmp_path: Path) -> None:
    seed = int(os.environ.get("FUZZ_SEED", "0")) or random.SystemRandom().randrange(1 << 32)
    print(f"FUZZ_SEED={seed}")
    outcome = await fuzz(tmp_path, MESSAGES, seed)
    assert outcome.sent >= MESSAGES
    assert outcome.honest > 0
