"""Draws what was saved: ``bench/results/network.json`` as small pictures for the README."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import report

OURS, OTHERS = "#1f6fb4", "#9a9a9a"
INCHES_PER_BAR, DPI = 0.3, 80


@dataclass(frozen=True)
class Panel:
    """One diagram: bars of one figure on one link."""

    link: str
    figure: str
    title: str


PICTURES = {
    "tcp": (
        Panel("offloading", "forward_gbit_s", "one TCP stream, Gbit/s, offloading link"),
        Panel("plain", "forward_gbit_s", "one TCP stream, Gbit/s, plain link"),
        Panel("offloading", "four_gbit_s", "four TCP streams, Gbit/s, offloading link"),
        Panel("offloading", "cpu_s_per_gb", "CPU-seconds per GB, both ends (less is better)"),
    ),
    "packets": (
        Panel("offloading", "overload_delivered_pps", "64-octet UDP delivered a second, overload"),
        Panel(
            "offloading", "paced_150k_delivered_pps", "64-octet UDP delivered of 150,000 a second"
        ),
        Panel("offloading", "idle_p50_us", "ping p50 when idle, µs (less is better)"),
        Panel("offloading", "loaded_p50_us", "ping p50 beside a TCP stream, µs (less is better)"),
    ),
}


def run() -> int:
    """Exit code: 1 when matplotlib or the results are missing."""
    try:
        import matplotlib as mpl
    except ImportError:
        report.say("bench: plots need matplotlib; `make bench-plot` installs it")
        return 1
    path = report.RESULTS / "network.json"
    if not path.exists():
        report.say("bench: no results; `make bench` makes some")
        return 1
    mpl.use("Agg")
    found = json.loads(path.read_text())
    for name, panels in PICTURES.items():
        report.say(f"drew {draw(found, panels, path.with_name(f'{name}.png'))}")
    return 0


def draw(found: dict[str, Any], panels: Sequence[Panel], target: Path) -> Path:
    """The panels, two in a row; medians as bars, with their range."""
    from matplotlib import pyplot as plt

    known = [(panel, chosen) for panel in panels if (chosen := series(found, panel))]
    rows = max(1, (len(known) + 1) // 2)
    tallest = max((len(chosen) for _, chosen in known), default=1)
    height = rows * (tallest * INCHES_PER_BAR + 0.7) + 0.4
    canvas, axes = plt.subplots(rows, 2, squeeze=False, figsize=(11, height))
    for axis in axes.flat[len(known) :]:
        axis.set_visible(False)
    for axis, (panel, chosen) in zip(axes.flat, known, strict=False):
        bars(axis, chosen, panel.figure)
        axis.set_title(panel.title, fontsize=9)
    about = found["machine"]
    canvas.suptitle(
        f"{about['processor']}, {about['cores']} cores, {about['kernel']}; {found['date'][:10]}; "
        f"medians and ranges of {found['rounds']} rounds",
        fontsize=9,
    )
    canvas.tight_layout()
    canvas.savefig(target, dpi=DPI)
    plt.close(canvas)
    return target


def series(found: dict[str, Any], panel: Panel) -> list[dict[str, Any]]:
    """Who has this figure on this link."""
    return [
        one
        for one in found["results"]
        if one["link"] == panel.link and panel.figure in one["median"]
    ]


def bars(axis: Any, chosen: Sequence[dict[str, Any]], name: str) -> None:
    """One bar for each contender, in the order of the run, with its value."""
    known = list(reversed(chosen))
    values = [one["median"][name] for one in known]
    low = [value - one["range"][name][0] for value, one in zip(values, known, strict=True)]
    high = [one["range"][name][1] - value for value, one in zip(values, known, strict=True)]
    colours = [OURS if one["peer"].startswith("autotunnel") else OTHERS for one in known]
    drawn = axis.barh(
        [one["peer"] for one in known], values, xerr=[low, high], color=colours, height=0.7
    )
    axis.bar_label(
        drawn,
        [f"{value:,.3g}" if value < 1000 else f"{value:,.0f}" for value in values],
        padding=3,
        fontsize=7,
    )
    axis.tick_params(labelsize=8)
    axis.margins(x=0.12)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
