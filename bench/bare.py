"""The engine's seal beside the bare library call, both in a loop in C, in turns.

The best turn of each counts: nothing but disturbance makes the same work take longer.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.crypto import SIZES, sa_params
from bench.native_calls import ROOM, Sas, backends, load
from fastpath.types import Suite
from tunnel.io.lab import LabError

TURNS, PACKETS = 15, 2000  # in each round
BITS = {Suite.AES128GCM16: 128, Suite.AES256GCM16: 256, Suite.CHACHA20POLY1305: 0}
ARCHITECTURES = {"ipsec-mb": 0, "ipsec-mb/sse": 2, "ipsec-mb/avx2": 4}  # IMB_ARCH_*


def compare(
    loops: Path, rounds: int, suites: Sequence[Suite] = tuple(Suite), sizes: Sequence[int] = SIZES
) -> list[dict[str, Any]]:
    """For each backend, suite and size: nanoseconds of both, and their ratio.

    ChaCha20-Poly1305 of ipsec-mb has no single call and is left out.
    """
    calls = load(loops)
    return [
        {"backend": shown, "suite": str(suite), "octets": octets}
        | _one(calls, name, suite, octets, rounds)
        for name, shown in backends().items()
        for suite in suites
        for octets in sizes
        if BITS[suite] or name == "openssl"
    ]


def _one(loops: ctypes.CDLL, name: str, suite: Suite, octets: int, rounds: int) -> dict[str, Any]:
    sas = Sas(loops, sa_params(suite), name, octets, 1)
    payload, target = (ctypes.create_string_buffer(octets + ROOM) for _ in range(2))
    # The engine encrypts two octets of trailer and up to three of padding, too.
    arguments = (sa_params(suite).key, payload, octets + 4, target, PACKETS)
    engine, bare = [], []
    for _ in range(rounds * TURNS):
        engine.append(sas.seal(PACKETS))
        if name == "openssl":
            bare.append(loops.loop_openssl(BITS[suite], *arguments))
        else:
            bare.append(loops.loop_ipsec_mb(ARCHITECTURES[name], BITS[suite], *arguments))
    if min(bare) < 0:
        raise LabError(f"{name} cannot seal {suite} in a loop")
    return {
        "engine_ns": round(min(engine), 1),
        "bare_ns": round(min(bare), 1),
        "ratio": round(min(engine) / min(bare), 3),
    }
