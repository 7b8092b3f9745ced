"""Contenders in turns: in every round each one gets a fresh pair and is measured once.

What is compared is compared within a round: a shared machine changes more from one minute to the
next than the contenders do among each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench import report
from bench.cost import resident_mib
from bench.pair import Pair, pair
from bench.peers.types import Peer, Tunnel
from tunnel.io.lab import LabError

BASE = "raw"  # the contender that the others are divided by

Measure = Callable[[Pair, Tunnel, int], dict[str, float]]
"""Gives figures by name; the unit stands in the name."""


@dataclass(frozen=True)
class Turn:
    """What is done with one contender on one link in a round."""

    peer: Peer
    link: str
    measures: tuple[Measure, ...]


@dataclass(frozen=True)
class Ratio:
    """The median of the rounds' ratios, and their range."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Ratio:
        return cls(report.median(values), min(values), max(values))


@dataclass
class Series:
    """All rounds of one contender on one link: ``rounds[number][figure]``."""

    peer: str
    link: str
    engine: str = ""
    aead: str = ""
    rounds: dict[int, dict[str, float]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def add(self, number: int, figures: dict[str, float]) -> None:
        """What round ``number`` gave."""
        self.rounds.setdefault(number, {}).update(figures)

    @property
    def figures(self) -> dict[str, list[float]]:
        """The values of each figure, oldest round first."""
        found: dict[str, list[float]] = {}
        for figures in self.rounds.values():
            for name, value in figures.items():
                found.setdefault(name, []).append(value)
        return found

    def median(self, name: str) -> float:
        return report.median(self.figures[name])

    def ratio(self, base: Series, name: str) -> Ratio | None:
        """This one's figure divided by that of ``base`` in the same round."""
        ratios = [
            figures[name] / base.rounds[number][name]
            for number, figures in self.rounds.items()
            if name in figures and base.rounds.get(number, {}).get(name)
        ]
        return Ratio.of(ratios) if ratios else None

    def summary(self) -> dict[str, Any]:
        known = self.figures.items()
        return {
            "peer": self.peer,
            "link": self.link,
            "engine": self.engine,
            "aead": self.aead,
            "median": {name: round(report.median(v), 4) for name, v in known},
            "range": {name: [round(min(v), 4), round(max(v), 4)] for name, v in known},
            "failures": self.failures,
        }


def able(peers: Sequence[Peer]) -> list[Peer]:
    """Those that can run here; why one cannot is said."""
    found = []
    for peer in peers:
        reason = peer.missing()
        if reason is None:
            found.append(peer)
        else:
            report.say(f"{peer.name}: left out: {reason}")
    return found


def run(
    peers: Sequence[Peer],
    links: Sequence[str],
    rounds: int,
    seconds: int,
    *measures: Measure,
    after_round: Callable[[list[Series]], None] = lambda _: None,
) -> list[Series]:
    """:func:`run_turns` of every contender that can run, each on every link."""
    found = able(peers)
    return run_turns(
        [Turn(one, link, measures) for link in links for one in found],
        rounds,
        seconds,
        after_round,
    )


def run_turns(
    turns: Sequence[Turn],
    rounds: int,
    seconds: int,
    after_round: Callable[[list[Series]], None] = lambda _: None,
) -> list[Series]:
    """One series for each turn, in the order given; ``after_round`` gets them as they are.

    Raises :class:`LabError` when none could be measured at all.
    """
    series = [Series(turn.peer.name, turn.link) for turn in turns]
    for number in range(rounds):
        for one, turn in zip(series, turns, strict=True):
            _take(one, turn, number, seconds)
            shown = ", ".join(f"{k} {v:.4g}" for k, v in one.rounds.get(number, {}).items())
            report.say(f"round {number + 1}/{rounds}, {one.link} link, {one.peer}: {shown or '–'}")
        after_round(series)
    done = [one for one in series if one.figures]
    if not done:
        raise LabError("no contender could be measured; the reasons stand above")
    return done


def _take(one: Series, turn: Turn, number: int, seconds: int) -> None:
    """One turn. What fails is said and kept, and the others go on."""
    try:
        with pair(turn.link) as ends, turn.peer.tunnel(ends) as tunnel:
            one.engine, one.aead = tunnel.engine, tunnel.aead
            for measure in turn.measures:
                try:
                    one.add(number, measure(ends, tunnel, seconds))
                except LabError as error:
                    _failed(one, error)
            if tunnel.pids:
                memory = resident_mib(tunnel.pids)
                one.add(number, {"memory_mib": memory, "setup_s": tunnel.setup_seconds})
    except (LabError, OSError) as error:
        _failed(one, error)


def _failed(one: Series, error: Exception) -> None:
    one.failures.append(str(error))
    report.say(f"{one.link} link, {one.peer}: failed: {error}")


@dataclass(frozen=True)
class Column:
    """One figure of a table; with ``ratio`` also divided by that of the bare link."""

    head: str
    figure: str
    shape: str
    ratio: bool = False


def bases(series: Sequence[Series]) -> dict[str, Series]:
    """The bare link's series by link."""
    return {one.link: one for one in series if one.peer == BASE}


def body(series: Sequence[Series], with_ratio: Sequence[str]) -> list[dict[str, Any]]:
    """What is saved: medians and ranges of each series, and its ratios to the bare link."""
    base = bases(series)
    results = []
    for one in series:
        found = {name: one.ratio(base[one.link], name) for name in with_ratio if one.link in base}
        ratios = {
            name: [round(r.median, 4), round(r.low, 4), round(r.high, 4)]
            for name, r in found.items()
            if r is not None
        }
        results.append(one.summary() | {"ratio_to_raw": ratios})
    return results


def table(title: str, series: Sequence[Series], columns: Sequence[Column]) -> str:
    """One row for each series that has any of the figures."""
    base = bases(series)
    head = ["link, contender"]
    for column in columns:
        head += [column.head, f"× {BASE}"] if column.ratio else [column.head]
    rows = []
    for one in series:
        known = one.figures
        if not any(column.figure in known for column in columns):
            continue
        row = [f"{one.link} {one.peer}"]
        for column in columns:
            there = column.figure in known
            row.append(column.shape.format(one.median(column.figure)) if there else "–")
            if column.ratio:
                ratio = one.ratio(base[one.link], column.figure) if one.link in base else None
                row.append("–" if ratio is None else f"{ratio.median:.2f}")
        rows.append([*row, f"{one.engine}, {one.aead}"])
    return report.table(title, [*head, "engine, AEAD"], rows)
