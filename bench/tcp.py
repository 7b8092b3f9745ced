"""TCP through a tunnel: one stream each way, four streams, and CPU-seconds per GB."""

from __future__ import annotations

from bench.cost import Cost
from bench.pair import Pair, iperf
from bench.peers.types import Tunnel
from bench.turns import Column

COLUMNS = (
    Column("1 stream Gbit/s", "forward_gbit_s", "{:.2f}", ratio=True),
    Column("reverse Gbit/s", "reverse_gbit_s", "{:.2f}", ratio=True),
    Column("4 streams Gbit/s", "four_gbit_s", "{:.2f}", ratio=True),
    Column("CPU s/GB", "cpu_s_per_gb", "{:.2f}"),
    Column("machine s/GB", "machine_cpu_s_per_gb", "{:.2f}"),
    Column("MiB", "memory_mib", "{:.0f}"),
    Column("set-up s", "setup_s", "{:.2f}"),
)


def measure(ends: Pair, tunnel: Tunnel, seconds: int) -> dict[str, float]:
    """Forward: left to right; reverse: right to left, both asked for by left. The processor time
    is that of these two."""
    cost = Cost(tunnel.pids)
    forward = _received(ends, tunnel, seconds)
    reverse = _received(ends, tunnel, seconds, "-R")
    figures = cost.per_gb(forward["bytes"] + reverse["bytes"])
    four = _received(ends, tunnel, seconds, "-P", "4")
    return {
        "forward_gbit_s": forward["bits_per_second"] / 1e9,
        "reverse_gbit_s": reverse["bits_per_second"] / 1e9,
        "four_gbit_s": four["bits_per_second"] / 1e9,
        **figures,
    }


def _received(ends: Pair, tunnel: Tunnel, seconds: int, *options: str) -> dict[str, float]:
    found: dict[str, float] = iperf(ends, tunnel.right, seconds, *options)["end"]["sum_received"]
    return found
