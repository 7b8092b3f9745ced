"""The harness measures what it says, names engine and AEAD, and leaves out what is not there."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench import __main__ as program
from bench import report, turns, udp
from bench.handshake_end import RECIPES
from bench.peers import PEERS
from bench.verdict import BEST, Bound, judge, table
from tests.fastpath.support import native_module
from tunnel.io.lab import Lab, LabError, missing

ROOT = Path(__file__).parents[2]


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench", *arguments]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=400, check=False
    )


def results(*arguments: str) -> dict[str, Any]:
    done = bench(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_crypto_measures_every_engine_beside_the_bare_call() -> None:
    native_module("_pump")
    found = results("crypto", "--rounds", "1", "--packets", "20")
    assert found["schema"] == "autotunnel/bench-crypto/v1"
    assert found["machine"]["cores"] >= 1
    contenders = {one["contender"] for one in found["results"]}
    for word in ("bare", "reference, cryptography", "native, OpenSSL"):
        assert any(word in contender for contender in contenders), contenders
    assert {one["octets"] for one in found["results"]} == {64, 512, 1400}
    assert all(one["seal_ns"] > 0 and one["open_ns"] > 0 for one in found["results"])


@pytest.mark.root
def test_a_run_names_engine_and_aead_and_gives_ratios_and_verdicts() -> None:
    reason = missing(("iperf3", "ethtool"))
    if reason is not None:
        pytest.skip(reason)
    native_module("_pump")
    peers = "raw,autotunnel,autotunnel-reference,autotunnel-transport"
    found = results("tcp", "--peers", peers, "--rounds", "1", "--seconds", "1", "--link", "plain")
    assert found["schema"] == "autotunnel/bench-network/v1"
    by_peer = {one["peer"]: one for one in found["results"]}
    assert list(by_peer) == peers.split(",")
    for one in by_peer.values():
        assert one["failures"] == []
        for name in ("forward_gbit_s", "reverse_gbit_s", "four_gbit_s"):
            assert one["median"][name] > 0
            assert one["ratio_to_raw"][name][0] > 0
    assert by_peer["raw"]["ratio_to_raw"]["forward_gbit_s"] == [1.0, 1.0, 1.0]
    assert by_peer["autotunnel"]["engine"] == "native"
    assert by_peer["autotunnel-reference"]["engine"] == "reference"
    assert "cryptography" in by_peer["autotunnel-reference"]["aead"]
    assert by_peer["autotunnel-reference"]["median"]["cpu_s_per_gb"] > 0
    assert {one["verdict"] for one in found["verdict"]} <= {"met", "NOT MET", "not measured"}


@pytest.mark.root
def test_pps_and_latency_measure_a_link() -> None:
    reason = missing(("iperf3", "ethtool", "ping"))
    if reason is not None:
        pytest.skip(reason)
    options = ("--peers", "raw", "--rounds", "1", "--seconds", "1", "--link", "offloading")
    done = bench("pps", "latency", *options, "--json")
    assert done.returncode == 0, done.stderr
    [one] = json.loads(done.stdout)["results"]
    median = one["median"]
    assert median["overload_delivered_pps"] > 0
    assert 0 <= median["paced_50k_lost_percent"] <= median["paced_50k_missing_percent"] <= 100
    assert 0 < median["idle_p50_us"] <= median["idle_p99_us"]
    assert median["loaded_p50_us"] > 0


@pytest.mark.root
def test_handshakes_are_measured_beside_a_stock_strongswan() -> None:
    reason = missing(("ping",))
    if reason is not None:
        pytest.skip(reason)
    found = results("handshakes", "--rounds", "1", "--handshakes", "5")
    assert found["schema"] == "autotunnel/bench-handshakes/v1"
    names = {one["contender"] for one in found["results"]}
    assert any("strongSwan" in name for name in names), names
    assert {one["key_exchange"] for one in found["results"]} == set(RECIPES)
    for one in found["results"]:
        assert one["handshakes_per_second"] > 0
    alone = found["results"][0]
    assert alone["cpu_ms_per_handshake"] > 0


@pytest.mark.root
def test_the_udp_tool_counts_what_it_sends(lab: Lab) -> None:
    machine = lab.namespace("alone")
    target = ("::1", "5300")
    receiver = machine.start(*udp.command("receive", *target), name="udp", env=udp.ENVIRONMENT)
    receiver.wait_for("ready", 60)
    done = machine.run(*udp.command("send", *target, "0.3", "2000"), env=udp.ENVIRONMENT)
    receiver.stop()
    sent, found = json.loads(done.stdout), json.loads(receiver.output().splitlines()[-1])
    assert found["received"] == sent["sent"]
    assert 1 <= sent["sent"] <= 2000 * sent["seconds"] + udp.BATCH


def test_every_usual_measurement_runs_when_none_is_named_and_one_failure_takes_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ran: list[object] = []

    def fail(kinds: object, _: object) -> int:
        ran.append(kinds)
        raise LabError("no lab today")

    def work(kind: object, _: object) -> int:
        ran.append(kind)
        return 0

    monkeypatch.setattr(program, "_through", fail)
    monkeypatch.setattr(program, "_alone", work)
    assert program.main([]) == 1
    assert ran == [["tcp", "pps", "latency"], "crypto", "micro"]


def test_an_unknown_contender_is_a_usage_error_that_names_the_known() -> None:
    reason = missing(("iperf3", "ethtool"))
    if reason is not None:
        pytest.skip(reason)
    done = bench("tcp", "--peers", "telepathy")
    assert done.returncode == 2
    assert "telepathy" in done.stderr
    assert "autotunnel" in done.stderr


def test_a_peer_that_is_not_installed_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    for name in ("strongswan", "openvpn", "fastd", "wireguard-go"):
        assert "not installed" in (PEERS[name].missing() or ""), name


def series(peer: str, link: str, *values: float, figure: str = "figure") -> turns.Series:
    made = turns.Series(peer, link)
    for number, value in enumerate(values):
        made.add(number, {figure: value})
    return made


def test_ratios_are_taken_within_a_round_of_the_same_link() -> None:
    raw, us = series("raw", "plain", 10, 12, 50), series("us", "plain", 3, 6, 10)
    del raw.rounds[1]  # it failed there
    ratio = us.ratio(raw, "figure")
    assert ratio == turns.Ratio(median=0.25, low=0.2, high=0.3)
    [_, ours, elsewhere] = turns.body([raw, us, series("us", "offloading", 1)], ["figure"])
    assert ours["ratio_to_raw"] == {"figure": [0.25, 0.2, 0.3]}
    assert ours["range"] == {"figure": [3, 10]}
    assert elsewhere["ratio_to_raw"] == {}


def test_bounds_are_judged_by_the_median_of_the_rounds() -> None:
    fast = Bound("speed", "figure", 2, "them", aim=4)
    small = Bound("size", "figure", 5, at_most=True)
    best = Bound("speed", "figure", 2, BEST)
    absent = Bound("speed", "figure", 2, "nobody")
    other = Bound("speed", "another figure", 2)
    run = [
        series("autotunnel", "offloading", 6, 9, 60),
        series("them", "offloading", 3, 3, 3),
        series("slower", "offloading", 1, 1, 1),
        series("raw", "offloading", 90, 90, 90),
    ]
    lines = judge(run, [fast, small, best, absent, other])
    assert [line.verdict for line in lines] == ["met", "NOT MET", "met", "not measured"]
    assert lines[0].aim == "4: not yet"
    assert lines[2].bound.against == "them"
    assert lines[0].summary()["range"] == [2, 20]
    assert "NOT MET" in table(lines)


def test_tables_line_up() -> None:
    text = report.table("title", ("who", "n"), [("us", "1"), ("everyone", "10")])
    assert text.splitlines() == [
        "title",
        "who        n",
        "--------  --",
        "us         1",
        "everyone  10",
    ]
