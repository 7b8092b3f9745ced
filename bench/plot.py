"""Draws the saved results: ``bench/results/*.json`` to ``bench/results/*.svg``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench import report

FIGURES = {
    "tcp": [("forward_gbit_s", "one TCP stream, Gbit/s"), ("cpu_s_per_gb", "CPU-seconds per GB")],
    "pps": [("overload_delivered_pps", "64-octet packets delivered a second, at overload")],
    "latency": [("idle_p50_us", "ping p50 idle, µs"), ("loaded_p50_us", "ping p50 loaded, µs")],
}


def run() -> int:
    """Exit code: 1 when matplotlib or every result is missing."""
    try:
        import matplotlib as mpl
    except ImportError:
        report.say(
            "bench: plots need matplotlib; install it with `pip install 'autotunnel[bench]'`"
        )
        return 1
    mpl.use("Agg")
    drawn = [draw(path) for path in sorted(report.RESULTS.glob("*.json")) if path.stem in FIGURES]
    if not drawn:
        report.say("bench: no results; `python -m bench tcp --save` makes some")
        return 1
    for path in drawn:
        report.say(f"drew {path}")
    return 0


def draw(path: Path) -> Path:
    """One picture for each kind of measurement: bars by contender, one panel a figure and link."""
    from matplotlib import pyplot as plt

    result = json.loads(path.read_text())
    links = list(dict.fromkeys(one["link"] for one in result["results"]))
    figures = FIGURES[path.stem]
    panels = [(link, *figure) for figure in figures for link in links]
    canvas, axes = plt.subplots(
        len(figures), len(links), squeeze=False, figsize=(6 * len(links), 3.2 * len(figures))
    )
    for axis, (link, name, title) in zip(axes.flat, panels, strict=True):
        bars(axis, [one for one in result["results"] if one["link"] == link], name)
        axis.set_title(f"{title}: {link} link", fontsize=9)
    about = result["machine"]
    canvas.suptitle(f"{about['processor']}, {about['cores']} cores, {result['date'][:10]}", size=9)
    canvas.tight_layout()
    target = path.with_suffix(".svg")
    canvas.savefig(target)
    plt.close(canvas)
    return target


def bars(axis: Any, series: list[dict[str, Any]], name: str) -> None:
    """Medians with their range, best on top as given."""
    known = [one for one in series if name in one["median"]][::-1]
    values = [one["median"][name] for one in known]
    low = [value - one["range"][name][0] for value, one in zip(values, known, strict=True)]
    high = [one["range"][name][1] - value for value, one in zip(values, known, strict=True)]
    colours = ["#1f77b4" if one["peer"].startswith("autotunnel") else "#999999" for one in known]
    axis.barh([one["peer"] for one in known], values, xerr=[low, high], color=colours, height=0.7)
    axis.tick_params(labelsize=8)
