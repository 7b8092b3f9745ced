"""Ourselves: two real pumps with fixed SAs and no IKE (``bench.pump_end``)."""

from __future__ import annotations

import importlib.util
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.pair import Pair, wait_for_ping
from bench.peers.types import Tunnel
from fastpath.types import Mode, Suite

INNER = ("fd00:b::1", "fd00:b::2")
ROOT = str(Path(__file__).parents[2])


class Autotunnel:
    """One engine, suite and mode of ours."""

    def __init__(self, name: str, engine: str, suite: Suite, mode: Mode = Mode.TUNNEL) -> None:
        self.name = name
        self._options = ("--engine", engine, "--suite", str(suite), "--mode", str(mode))
        self._native = engine == "native"

    def missing(self) -> str | None:
        if self._native and importlib.util.find_spec("fastpath._pump") is None:
            return "the native engine is not built; run `make build`"
        return None

    @contextmanager
    def tunnel(self, pair: Pair) -> Iterator[Tunnel]:
        started = time.monotonic()
        processes = []
        for side, (end, ours, theirs) in zip(("left", "right"), pair.ends, strict=True):
            command = [sys.executable, "-m", "bench.pump_end", side, ours, theirs]
            processes.append(
                end.start(*command, *self._options, name="pump", env={"PYTHONPATH": ROOT})
            )
        for process in processes:
            process.wait_for("ready", 20.0)
        ready = next(
            line for line in processes[0].output().splitlines() if line.startswith("ready ")
        )
        about = json.loads(ready.removeprefix("ready "))
        wait_for_ping(pair.left, INNER[1])
        yield Tunnel(
            *INNER,
            engine=about["engine"],
            aead=about["aead"],
            pids=tuple(process.pid for process in processes),
            setup_seconds=time.monotonic() - started,
        )


VARIANTS = (
    Autotunnel("autotunnel", "native", Suite.AES128GCM16),
    Autotunnel("autotunnel-aes256", "native", Suite.AES256GCM16),
    Autotunnel("autotunnel-chacha20", "native", Suite.CHACHA20POLY1305),
    Autotunnel("autotunnel-transport", "native", Suite.AES128GCM16, Mode.TRANSPORT),
    Autotunnel("autotunnel-reference", "reference", Suite.AES128GCM16),
)
