"""The measurement of moves: its figures and verdict, and the line that takes its time."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bench import roam
from bench.roam import EVENTS, Roam, Series
from tunnel.io.lab import Lab, connect


def series(ping: list[float]) -> Series:
    return Series(ping, [2 * one for one in ping], [10.0 for _ in ping])


def test_each_event_is_summed_up_with_all_that_was_measured() -> None:
    summary = series([300.0, 100.0, 200.04]).summary()
    assert summary["ping_ms"] == {
        "median": 200.0,
        "least": 100.0,
        "most": 300.0,
        "all": [300.0, 100.0, 200.0],
    }
    assert summary["tcp_ms"]["most"] == 600.0
    assert set(summary) == {"ping_ms", "tcp_ms", "took_ms"}


@pytest.mark.parametrize(
    ("ping", "holds"),
    [([200.0, 250.0, 290.0], True), ([200.0, 301.0, 400.0], False), ([100.0, 100.0, 5001], False)],
)
def test_an_aim_is_the_median_and_the_worst(
    ping: list[float], holds: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = {name: series([1.0, 1.0, 1.0]) for name in EVENTS} | {"laptop moves": series(ping)}
    monkeypatch.setattr(Roam, "__init__", lambda *_: None)
    monkeypatch.setattr(Roam, "measure", lambda *_: measured)
    monkeypatch.setattr(roam, "Lab", _NoLab)
    assert roam.run(rounds=3, as_json=False, save=False) == (0 if holds else 1)


class _NoLab:
    def __enter__(self) -> None: ...
    def __exit__(self, *_: object) -> None: ...


@pytest.mark.root
def test_a_line_takes_its_time(lab: Lab) -> None:
    left, line, right = lab.machines_of("left", "line", "right")
    connect(left, "eth0", line, "in")
    connect(line, "out", right, "eth0")
    left.address("eth0", "192.0.2.1/24")
    right.address("eth0", "192.0.2.2/24")
    root = str(Path(roam.__file__).parents[1])
    command = (sys.executable, "-m", "bench.delay", "40")
    line.start(*command, env={"PYTHONPATH": root}).wait_for("carrying", 60)
    said = left.run("ping", "-c", "3", "-i", "0.2", "-W", "10", "192.0.2.2").stdout
    least = float(said.rpartition("= ")[2].split("/")[0])
    assert least >= 80.0
