"""One host with many peers: what one busy peer still gets, and what an idle one takes.

Throughput: the pump's tables hold the SAs of so many peers, and one of them is busy; each size in
turns, in every round, and the ratio to the host with one peer is taken within the round, since a
noisy machine changes more between rounds than within one. Memory: in processes of their own, an
engine with the SAs and a node with IKE SA, child and records of each (``bench.crowd``,
``bench.crowd_node``).
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import machine, report, tcp, turns
from bench.peers.autotunnel import Autotunnel
from fastpath.types import Suite
from tunnel.io.lab import LabError

CROWDS = (1, 1000, 10_000)
ENGINE_BOUND, TOTAL_BOUND = 16 * 1024, 64 * 1024  # octets for an idle peer
LOSS_BOUND = 5.0  # percent of the throughput
DIRECTIONS = ("forward_gbit_s", "reverse_gbit_s")
ROOT = Path(__file__).parents[1]
PATIENCE = 1200.0  # seconds for 10,000 peers to join in memory


def run(*, crowds: Sequence[int], rounds: int, seconds: int, as_json: bool, save: bool) -> None:
    """Sizes of the crowd in turns; the first one is what the others are compared with.

    With ``save``, the file holds all that is known after every round and every size, so that a run
    that is ended early has not been in vain.
    """
    memory: list[dict[str, Any]] = []
    hosts = [Autotunnel(f"{crowd} peers", idle=crowd - 1) for crowd in crowds]
    series: list[turns.Series] = []

    def body() -> dict[str, Any]:
        return {
            "rounds": max((len(one.rounds) for one in series), default=0),
            "seconds": seconds,
            "bounds": {
                "engine_octets": ENGINE_BOUND,
                "total_octets": TOTAL_BOUND,
                "loss_percent": LOSS_BOUND,
            },
            "throughput": [_throughput(one, series[0]) for one in series if common(one, series[0])],
            "memory": memory,
        }

    def keep(so_far: list[turns.Series]) -> None:
        series[:] = so_far
        if save:
            report.keep("scale", body())

    turns.run(hosts, ["offloading"], rounds, seconds, tcp.measure, after_round=keep)
    for crowd in crowds:
        if crowd > 1:
            memory.append(_memory(crowd))
            keep(series)
    tables = render(body()["throughput"], memory)
    report.finish("scale", body(), tables, as_json=as_json, save=save)


def common(one: turns.Series, first: turns.Series) -> list[int]:
    """The rounds in which both were measured."""
    return [
        number
        for number, figures in one.rounds.items()
        if all(
            name in place
            for name in DIRECTIONS
            for place in (figures, first.rounds.get(number, {}))
        )
    ]


def _throughput(one: turns.Series, first: turns.Series) -> dict[str, Any]:
    """Medians, and the median over the rounds of the ratio to the first in the same round."""
    rounds = common(one, first)
    ratios = {
        name: [one.rounds[number][name] / first.rounds[number][name] for number in rounds]
        for name in DIRECTIONS
    }
    both = [sum(pair) / 2 for pair in zip(*ratios.values(), strict=True)]
    return {
        "host": one.peer,
        "median": {name: round(one.median(name), 3) for name in one.figures},
        "ratio": {name: round(report.median(values), 4) for name, values in ratios.items()},
        "ratio_range": {name: [round(min(v), 4), round(max(v), 4)] for name, v in ratios.items()},
        "loss_percent": round(100 * (1 - report.median(both)), 2),
    }


def _memory(crowd: int) -> dict[str, Any]:
    """Octets of an idle peer, and the work of the control plane for all of them."""
    report.say(f"memory of {crowd} peers")
    engine = {
        str(suite): round(_crowd("bench.crowd", crowd, "--suite", str(suite))["octets_per_peer"])
        for suite in Suite
    }
    node = _crowd("bench.crowd_node", crowd)
    control = round(node.pop("octets_per_peer"))
    return {
        "peers": crowd,
        "engine_octets": engine,
        "control_octets": control,
        "total_octets": control + max(engine.values()),
        **{name: round(value, 3) for name, value in node.items()},
    }


def _crowd(module: str, peers: int, *options: str) -> dict[str, float]:
    command = [sys.executable, "-m", module, "--peers", str(peers), *options]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    if done.returncode:
        raise LabError(f"{' '.join(command)}: {done.stderr[-500:]}")
    found: dict[str, float] = json.loads(done.stdout)
    return found


def render(throughput: Sequence[dict[str, Any]], memory: Sequence[dict[str, Any]]) -> str:
    """Two tables."""
    rows = [
        [
            one["host"],
            *(f"{one['median'][name]:.2f}" for name in DIRECTIONS),
            *(f"{one['ratio'][name]:.3f}" for name in DIRECTIONS),
            f"{one['loss_percent']:.1f} %",
        ]
        for one in throughput
    ]
    head = ["host", "forward Gbit/s", "reverse Gbit/s", "forward ×", "reverse ×", "lost"]
    first = report.table(f"One busy peer of many; {machine.summary()}", head, rows)
    rows = [
        [
            str(one["peers"]),
            str(max(one["engine_octets"].values())),
            str(one["control_octets"]),
            str(one["total_octets"]),
            f"{one['activity_ms']:.1f}",
            f"{one['timer_ms']:.2f}",
            f"{one['advance_ms']:.2f}",
        ]
        for one in memory
    ]
    head = ["peers", "engine", "control", "in all", "activity ms/s", "timer ms", "advance ms"]
    second = report.table("Octets of an idle peer; the control plane's work for all", head, rows)
    return f"{first}\n\n{second}"
