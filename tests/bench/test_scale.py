"""A crowd of idle peers takes no more than it may, and a packet costs no more than it must."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench import bare, microcost, native_calls, report, scale, turns
from bench.scale import ENGINE_BOUND, TOTAL_BOUND
from fastpath.types import Suite
from tests.fastpath.support import native_module

ROOT = Path(__file__).parents[2]
MOST_RUNS = 50  # of some hundredths of a second


def crowd(module: str, peers: int, *options: str) -> dict[str, float]:
    command = [sys.executable, "-m", module, "--peers", str(peers), *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found: dict[str, float] = json.loads(done.stdout)
    return found


def test_a_run_that_is_ended_early_has_kept_its_rounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three rounds, in one of which a host fails; in the last size the person has had enough."""

    def run(hosts: list[Any], *_: Any, after_round: Any) -> None:
        series = [turns.Series(host.name, "offloading") for host in hosts]
        for number in range(3):
            for place, one in enumerate(series):
                if (number, place) != (1, 0):
                    one.add(number, dict.fromkeys(scale.DIRECTIONS, 10.0 - number - place))
            after_round(series)

    def memory(crowd: int) -> dict[str, Any]:
        if crowd == 10_000:
            raise KeyboardInterrupt
        return {"peers": crowd}

    monkeypatch.setattr(report, "RESULTS", tmp_path)
    monkeypatch.setattr(turns, "run", run)
    monkeypatch.setattr(scale, "_memory", memory)
    with pytest.raises(KeyboardInterrupt):
        scale.run(crowds=[1, 1000, 10_000], rounds=9, seconds=1, as_json=False, save=True)
    [file] = tmp_path.iterdir()
    kept = json.loads(file.read_text())
    assert kept["rounds"] == 3
    one, many, _ = kept["throughput"]
    assert one["loss_percent"] == 0.0
    assert many["ratio_range"]["forward_gbit_s"] == [0.875, 0.9]
    assert kept["memory"] == [{"peers": 1000}]


@pytest.mark.parametrize("engine", ["native", "reference"])
def test_an_idle_peer_takes_less_than_16_kib_in_the_engine(engine: str) -> None:
    if engine == "native":
        native_module("_pump")
    found = crowd("bench.crowd", 2000, "--engine", engine)
    assert 500 < found["octets_per_peer"] < ENGINE_BOUND


def test_an_idle_peer_takes_less_than_64_kib_in_all() -> None:
    found = crowd("bench.crowd_node", 200)
    assert 1000 < found["octets_per_peer"] < TOTAL_BOUND - ENGINE_BOUND


def test_sealing_1400_octets_costs_at_most_half_more_than_the_bare_call(tmp_path: Path) -> None:
    """The issue's bound; both in one run, in turns, the best turn of each. Only disturbance makes
    a turn longer: on a busy machine it takes more of them until both had an undisturbed one."""
    native_module("_esp")
    loops, best = native_calls.build(tmp_path), dict[str, tuple[float, float]]()
    for _ in range(MOST_RUNS):
        for one in bare.compare(loops, 2, [Suite.AES128GCM16], [1400]):
            before = best.get(one["backend"], (math.inf, math.inf))
            best[one["backend"]] = min(before[0], one["engine_ns"]), min(before[1], one["bare_ns"])
        print(best)
        if all(engine <= microcost.BOUND * alone for engine, alone in best.values()):
            break
    assert best
    assert all(engine <= microcost.BOUND * alone for engine, alone in best.values()), best


@pytest.mark.parametrize(("more", "code"), [(1.0, 0), (1.04, 0), (1.06, 1)])
def test_a_packet_that_costs_more_instructions_than_those_kept_is_a_regression(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    more: float,
    code: int,
) -> None:
    def steps(factor: float) -> list[dict[str, Any]]:
        about = {"backend": "any 1.0", "suite": "aes128gcm16", "octets": 64, "what": "seal"}
        return [about | {"instructions": 700.0 * factor}]

    monkeypatch.setattr(report, "RESULTS", tmp_path)
    monkeypatch.setattr(native_calls, "build", lambda folder: folder)
    monkeypatch.setattr(bare, "compare", lambda *_: [])
    for factor, expected in ((1.0, 0), (more, code)):
        monkeypatch.setattr(microcost, "instructions", lambda _, times=factor: steps(times))
        assert microcost.run(rounds=1, as_json=False, save=factor == 1.0) == expected
    said = capsys.readouterr()
    assert ("regression: any 1.0 aes128gcm16 64 seal: 1.06 ×" in said.err) is bool(code)


def test_instructions_are_counted_for_every_backend_and_grow_with_the_packet(
    tmp_path: Path,
) -> None:
    native_module("_esp")
    if shutil.which("valgrind") is None:
        pytest.skip("valgrind is not installed; on Debian: apt install valgrind")
    steps = microcost.instructions(native_calls.build(tmp_path))
    assert {step["suite"] for step in steps} == {str(suite) for suite in Suite}
    assert any("OpenSSL" in step["backend"] for step in steps)
    found = {
        (step["backend"], step["suite"], step["what"], step["octets"]): step["instructions"]
        for step in steps
    }
    assert len(found) == len(steps)
    for (backend, suite, what, octets), count in found.items():
        if octets == 64:
            assert 100 < count < found[backend, suite, what, 1400] < 50_000
