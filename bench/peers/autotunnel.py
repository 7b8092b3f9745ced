"""Our pumps alone, with fixed SAs and no IKE (``bench.pump_end``): what no configuration offers."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import fastpath
from bench.pair import Pair, wait_for_ping
from bench.peers.types import Tunnel
from bench.pump_end import INNER
from fastpath.types import Mode, Suite

ROOT = str(Path(__file__).parents[2])


class Autotunnel:
    """One engine, suite, mode and AEAD backend of ours; ``idle`` peers beside the busy one."""

    def __init__(
        self,
        name: str,
        engine: str = "native",
        *,
        suite: Suite = Suite.AES128GCM16,
        mode: Mode = Mode.TUNNEL,
        aead: str = "auto",
        idle: int = 0,
    ) -> None:
        self.name = name
        self._options: tuple[str, ...] = (
            "--engine",
            engine,
            "--suite",
            str(suite),
            "--mode",
            str(mode),
        )
        self._options += ("--aead", aead, "--idle", str(idle))
        self._native = engine == "native"

    def missing(self) -> str | None:
        info = fastpath.engines()["native"]
        return info.reason if self._native and not info.available else None

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
    Autotunnel("autotunnel-transport", mode=Mode.TRANSPORT),
    Autotunnel("autotunnel-openssl", aead="openssl"),
    Autotunnel("autotunnel-openssl-chacha20", aead="openssl", suite=Suite.CHACHA20POLY1305),
)
