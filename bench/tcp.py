"""One TCP stream, each way: Gbit/s, its ratio to the bare link, CPU-seconds per GB."""

from __future__ import annotations

from collections.abc import Sequence

from bench import report, turns
from bench.pair import Pair, iperf
from bench.peers.types import Peer, Tunnel


def measure(ends: Pair, tunnel: Tunnel, seconds: int) -> dict[str, float]:
    """Forward: left to right; reverse: right to left, both asked for by left."""
    forward = iperf(ends, tunnel.right, seconds)["end"]["sum_received"]
    reverse = iperf(ends, tunnel.right, seconds, "-R")["end"]["sum_received"]
    return {
        "forward_gbit_s": forward["bits_per_second"] / 1e9,
        "reverse_gbit_s": reverse["bits_per_second"] / 1e9,
        "octets": float(forward["bytes"] + reverse["bytes"]),
    }


def run(
    *,
    peers: Sequence[Peer],
    links: Sequence[str],
    rounds: int,
    seconds: int,
    as_json: bool,
    save: bool,
) -> None:
    """Every contender in turns, on each kind of link; ratios to ``raw`` where it took part."""
    series = turns.run(peers, links, rounds, seconds, measure)
    columns = [
        turns.Column("forward Gbit/s", "forward_gbit_s", "{:.2f}", ratio=True),
        turns.Column("reverse Gbit/s", "reverse_gbit_s", "{:.2f}", ratio=True),
        turns.Column("CPU s/GB", "cpu_s_per_gb", "{:.2f}"),
        turns.Column("MiB", "memory_mib", "{:.0f}"),
        turns.Column("set-up s", "setup_s", "{:.2f}"),
    ]
    body = turns.body(series, rounds, seconds, ["forward_gbit_s", "reverse_gbit_s"])
    table = turns.table("One TCP stream", series, columns)
    report.finish("tcp", body, table, as_json=as_json, save=save)
