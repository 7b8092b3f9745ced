"""The bounds that were set for us, each beside what was measured: met or not.

A bound is on the ratio of one of our figures to another contender's in the same round; the median
of the rounds decides, and the range is shown. A line without an ``against`` is about the figure
itself. ``BEST`` stands for the other VPN that is best at that figure in this run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from bench import report
from bench.turns import BASE, Ratio, Series

US = "autotunnel"
OPENSSL = "autotunnel-openssl"
CURRENT = "wireguard-go-named"  # what WIREGUARD_GO names: a current build
BEST = "best of the others"
STREAM = "forward_gbit_s"
CPU = "cpu_s_per_gb"


@dataclass(frozen=True)
class Bound:
    """``figure`` of ``ours`` must be at least (``at_most``: at most) ``bound`` × ``against``'s.

    ``aim`` is what we want beyond.
    """

    what: str
    figure: str
    bound: float
    against: str = ""
    link: str = "offloading"
    ours: str = US
    at_most: bool = False
    aim: float | None = None
    unit: str = ""

    def holds(self, value: float) -> bool:
        return value <= self.bound if self.at_most else value >= self.bound

    def text(self) -> str:
        sign = "≤" if self.at_most else "≥"
        return f"{sign} {self.bound:.3g} × {self.against}" if self.against else self._plain(sign)

    def _plain(self, sign: str) -> str:
        return f"{sign} {self.bound:g} {self.unit}"


def _stream(bound: float, against: str, **more: Any) -> Bound:
    return Bound("one TCP stream", STREAM, bound, against, **more)


BOUNDS = (
    _stream(0.45, BASE, aim=0.55),
    _stream(8, "strongswan"),
    _stream(6, "openvpn"),
    _stream(6, "fastd"),
    _stream(6, "wireguard-go"),
    _stream(3, CURRENT, aim=4),
    Bound("CPU per GB", CPU, 1 / 3, CURRENT, at_most=True),
    *(
        _stream(2.5, name, link="plain")
        for name in (CURRENT, "wireguard-go", "strongswan", "openvpn", "fastd")
    ),
    Bound("lost of 150k/s", "paced_150k_lost_percent", 0.5, at_most=True, unit="%"),
    Bound("delivered at overload", "overload_delivered_pps", 2, BEST),
    Bound("delivered at overload", "overload_delivered_pps", 0, unit="/s", aim=400_000),
    Bound("ping p50", "idle_p50_us", 1, BEST, at_most=True),
    Bound("memory after load", "memory_mib", 64, at_most=True, unit="MiB"),
    _stream(2, CURRENT, ours=OPENSSL),
)


@dataclass(frozen=True)
class Line:
    """What one bound came to; ``found`` is ``None`` where someone was not measured."""

    bound: Bound
    found: Ratio | None
    values: str  # both figures, for people

    @property
    def verdict(self) -> str:
        if self.found is None:
            return "not measured"
        return "met" if self.bound.holds(self.found.median) else "NOT MET"

    @property
    def aim(self) -> str:
        """Whether what we want beyond the bound is reached."""
        if self.bound.aim is None or self.found is None:
            return ""
        reached = replace(self.bound, bound=self.bound.aim).holds(self.found.median)
        return f"{self.bound.aim:g}: {'reached' if reached else 'not yet'}"

    def summary(self) -> dict[str, Any]:
        found = self.found
        return {
            "what": self.bound.what,
            "link": self.bound.link,
            "contender": self.bound.ours,
            "bound": self.bound.text(),
            "measured": None if found is None else round(found.median, 4),
            "range": None if found is None else [round(found.low, 4), round(found.high, 4)],
            "figures": self.values,
            "verdict": self.verdict,
            "aim": self.aim,
        }


def judge(series: Sequence[Series], bounds: Sequence[Bound] = BOUNDS) -> list[Line]:
    """Each bound that the run has anything to say about."""
    measured = {name for one in series for name in one.figures}
    return [_line(bound, series) for bound in bounds if bound.figure in measured]


def _line(bound: Bound, series: Sequence[Series]) -> Line:
    here = {
        one.peer: one for one in series if one.link == bound.link if bound.figure in one.figures
    }
    ours = here.get(bound.ours)
    if bound.against == BEST:
        bound = _with_best(bound, here)
    if ours is None:
        return Line(bound, None, "–")
    mine = ours.median(bound.figure)
    if not bound.against:
        return Line(bound, Ratio.of(ours.figures[bound.figure]), f"{mine:.4g}")
    other = here.get(bound.against)
    if other is None:
        return Line(bound, None, f"{mine:.4g} / –")
    values = f"{mine:.4g} / {other.median(bound.figure):.4g}"
    return Line(bound, ours.ratio(other, bound.figure), values)


def _with_best(bound: Bound, here: dict[str, Series]) -> Bound:
    """The same bound against the other VPN with the best median."""
    others = [name for name in here if name != BASE and not name.startswith(US)]
    if not others:
        return bound
    choose = min if bound.at_most else max
    return replace(bound, against=choose(others, key=lambda name: here[name].median(bound.figure)))


def table(lines: Sequence[Line]) -> str:
    """All lines, for people."""
    rows = []
    for line in lines:
        found = line.found
        rows.append(
            [
                f"{line.bound.link}: {line.bound.what}"
                + ("" if line.bound.ours == US else f" ({line.bound.ours})"),
                line.bound.text(),
                "–" if found is None else f"{found.median:.4g}",
                "–" if found is None else f"{found.low:.4g} to {found.high:.4g}",
                line.values,
                line.verdict,
                line.aim,
            ]
        )
    head = ("what we promised", "bound", "measured", "range", "figures", "verdict", "aim")
    return report.table("The bounds", head, rows)
