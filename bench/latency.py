"""Round trips of ping, idle and while one TCP stream loads the same tunnel."""

from __future__ import annotations

import re
import statistics

from bench.pair import IPERF_PORT, Pair, iperf_server
from bench.peers.types import Tunnel
from bench.turns import Column
from tunnel.io.lab import LabError

INTERVAL = 0.004  # seconds between two pings
_TIME = re.compile(r"time=([0-9.]+) ms")

COLUMNS = tuple(
    Column(f"{state} {part} µs", f"{state}_{part}_us", "{:.0f}", ratio=True)
    for state in ("idle", "loaded")
    for part in ("p50", "p99")
)


def measure(ends: Pair, tunnel: Tunnel, seconds: int) -> dict[str, float]:
    """Medians and 99th percentiles in microseconds."""
    seconds = max(1, seconds // 2)
    figures = _ping(ends, tunnel, seconds, "idle")
    with iperf_server(ends.right):
        family = "-6" if ":" in tunnel.right else "-4"
        load = ends.left.start(
            *("iperf3", family, "-c", tunnel.right, "-p", str(IPERF_PORT)),
            *("-t", f"{seconds + 30}", "--forceflush"),
            name="load",
        )
        try:
            load.wait_for("connected to", 10.0)
            figures |= _ping(ends, tunnel, seconds, "loaded")
        finally:
            load.stop()
    return figures


def _ping(ends: Pair, tunnel: Tunnel, seconds: int, name: str) -> dict[str, float]:
    family = "-6" if ":" in tunnel.right else "-4"
    count = str(max(2, int(seconds / INTERVAL)))
    done = ends.left.run(
        *("ping", family, "-i", str(INTERVAL), "-c", count, "-W", "2", tunnel.right),
        timeout=seconds * 20 + 30,
        check=False,
    )
    times = [float(text) * 1000 for text in _TIME.findall(done.stdout)]
    if len(times) < 2:
        raise LabError(f"ping to {tunnel.right} had no answers: {done.stdout[-300:]}")
    return {
        f"{name}_p50_us": statistics.median(times),
        f"{name}_p99_us": statistics.quantiles(times, n=100, method="inclusive")[98],
        f"{name}_lost_percent": 100 * (1 - len(times) / int(count)),
    }
