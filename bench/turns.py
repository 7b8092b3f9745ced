"""Contenders in turns: in every round each one gets a fresh pair and runs once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench import machine, report
from bench.pair import Pair, cpu_seconds, pair, resident_mib
from bench.peers.types import Peer, Tunnel
from tunnel.io.lab import LabError

BASE = "raw"  # the contender that the others are divided by

Measure = Callable[[Pair, Tunnel, int], dict[str, float]]
"""Gives figures by name; the unit stands in the name. ``octets`` is what CPU time is divided by."""


@dataclass
class Series:
    """All rounds of one contender on one link."""

    peer: str
    link: str
    engine: str = ""
    aead: str = ""
    figures: dict[str, list[float]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def add(self, figures: dict[str, float]) -> None:
        for name, value in figures.items():
            self.figures.setdefault(name, []).append(value)

    def median(self, name: str) -> float:
        return report.median(self.figures[name])

    def summary(self) -> dict[str, Any]:
        medians = {name: round(report.median(v), 4) for name, v in self.figures.items()}
        ranges = {name: [round(min(v), 4), round(max(v), 4)] for name, v in self.figures.items()}
        return {
            "peer": self.peer,
            "link": self.link,
            "engine": self.engine,
            "aead": self.aead,
            "median": medians,
            "range": ranges,
            "failures": self.failures,
        }


def run(
    peers: Sequence[Peer], links: Sequence[str], rounds: int, seconds: int, measure: Measure
) -> list[Series]:
    """One series for each contender that can run and each link, in the order given.

    Raises :class:`LabError` when none could be measured at all.
    """
    able = []
    for peer in peers:
        reason = peer.missing()
        if reason is None:
            able.append(peer)
        else:
            report.say(f"{peer.name}: left out: {reason}")
    series = {(link, peer.name): Series(peer.name, link) for link in links for peer in able}
    for number in range(rounds):
        for link in links:
            for peer in able:
                turn = f"round {number + 1}/{rounds}, {link} link, {peer.name}"
                try:
                    shown = _turn(series[link, peer.name], peer, seconds, measure)
                except LabError as error:  # the others go on; what is missing is said
                    series[link, peer.name].failures.append(str(error))
                    shown = f"failed: {error}"
                report.say(f"{turn}: {shown}")
    done = [one for one in series.values() if one.figures]
    if not done:
        raise LabError("no contender could be measured; the reasons stand above")
    return done


def _turn(one: Series, peer: Peer, seconds: int, measure: Measure) -> str:
    with pair(one.link) as ends, peer.tunnel(ends) as tunnel:
        one.engine, one.aead = tunnel.engine, tunnel.aead
        figures = _with_cost(ends, tunnel, seconds, measure)
    one.add(figures)
    return ", ".join(f"{name} {value:.4g}" for name, value in figures.items())


def _with_cost(ends: Pair, tunnel: Tunnel, seconds: int, measure: Measure) -> dict[str, float]:
    before = cpu_seconds(tunnel.pids)
    figures = measure(ends, tunnel, seconds)
    octets = figures.pop("octets", 0.0)
    if tunnel.pids:
        if octets:
            figures["cpu_s_per_gb"] = (cpu_seconds(tunnel.pids) - before) / (octets / 1e9)
        figures["memory_mib"] = resident_mib(tunnel.pids)
        figures["setup_s"] = tunnel.setup_seconds
    return figures


@dataclass(frozen=True)
class Column:
    """One figure of a table; with ``ratio`` also divided by that of the bare link."""

    head: str
    figure: str
    shape: str
    ratio: bool = False


def ratios(series: Sequence[Series], figure: str) -> dict[tuple[str, str], float]:
    """``figure`` of each (link, peer), divided by that of :data:`BASE` on the same link."""
    bases = {one.link: one.median(figure) for one in series if one.peer == BASE}
    return {
        (one.link, one.peer): one.median(figure) / bases[one.link]
        for one in series
        if bases.get(one.link)
    }


def body(
    series: Sequence[Series], rounds: int, seconds: int, with_ratio: Sequence[str]
) -> dict[str, Any]:
    """What is saved: medians and ranges of each series, and its ratios to the bare link."""
    of = {figure: ratios(series, figure) for figure in with_ratio}
    results = [
        one.summary()
        | {
            "ratio_to_raw": {
                figure: round(found[one.link, one.peer], 4)
                for figure, found in of.items()
                if (one.link, one.peer) in found
            }
        }
        for one in series
    ]
    return {"rounds": rounds, "seconds": seconds, "results": results}


def table(title: str, series: Sequence[Series], columns: Sequence[Column]) -> str:
    """One row for each series: who, on which link, with which engine and AEAD, and the figures."""
    head = ["link, contender"]
    for column in columns:
        head += [column.head, f"× {BASE}"] if column.ratio else [column.head]
    of = {column.figure: ratios(series, column.figure) for column in columns if column.ratio}
    rows = []
    for one in series:
        row = [f"{one.link} {one.peer}"]
        for column in columns:
            known = column.figure in one.figures
            row.append(column.shape.format(one.median(column.figure)) if known else "–")
            if column.ratio:
                ratio = of[column.figure].get((one.link, one.peer))
                row.append("–" if ratio is None else f"{ratio:.2f}")
        rows.append([*row, f"{one.engine}, {one.aead}"])
    return report.table(f"{title}; {machine.summary()}", [*head, "engine, AEAD"], rows)
