"""The harness measures what it says, names engine and AEAD, and leaves out what is not there."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench import report, turns
from bench.peers import PEERS
from tests.fastpath.support import native_module
from tunnel.io.lab import missing

ROOT = Path(__file__).parents[2]


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench", *arguments]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=180, check=False
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
def test_tcp_names_engine_and_aead_and_gives_ratios() -> None:
    reason = missing(("iperf3", "ethtool"))
    if reason is not None:
        pytest.skip(reason)
    native_module("_pump")
    peers = "raw,autotunnel,autotunnel-transport,autotunnel-reference"
    found = results("tcp", "--peers", peers, "--rounds", "1", "--seconds", "1", "--link", "plain")
    assert found["schema"] == "autotunnel/bench-tcp/v1"
    by_peer = {one["peer"]: one for one in found["results"]}
    assert list(by_peer) == peers.split(",")
    for one in by_peer.values():
        assert one["median"]["forward_gbit_s"] > 0
        assert one["median"]["reverse_gbit_s"] > 0
        assert one["ratio_to_raw"]["forward_gbit_s"] > 0
    assert by_peer["raw"]["ratio_to_raw"] == {"forward_gbit_s": 1.0, "reverse_gbit_s": 1.0}
    assert by_peer["autotunnel"]["engine"] == "native"
    assert by_peer["autotunnel-reference"]["engine"] == "reference"
    assert "cryptography" in by_peer["autotunnel-reference"]["aead"]
    assert by_peer["autotunnel-reference"]["median"]["cpu_s_per_gb"] > 0


@pytest.mark.root
def test_pps_and_latency_measure_a_link() -> None:
    reason = missing(("iperf3", "ethtool", "ping"))
    if reason is not None:
        pytest.skip(reason)
    options = ("--peers", "raw", "--rounds", "1", "--seconds", "1", "--link", "offloading")
    [pps] = results("pps", *options)["results"]
    assert pps["median"]["overload_delivered_pps"] > 0
    assert 0 <= pps["median"]["paced_50k_lost_percent"] <= 100
    [latency] = results("latency", *options)["results"]
    assert 0 < latency["median"]["idle_p50_us"] <= latency["median"]["idle_p99_us"]
    assert latency["median"]["loaded_p50_us"] > 0


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


def series(peer: str, link: str, *values: float) -> turns.Series:
    made = turns.Series(peer, link)
    for value in values:
        made.add({"figure": value})
    return made


def test_ratios_divide_medians_of_the_same_link() -> None:
    all_series = [
        series("raw", "plain", 10, 12, 50),
        series("us", "plain", 3, 6, 9),
        series("us", "offloading", 1),
    ]
    assert turns.ratios(all_series, "figure") == {("plain", "raw"): 1.0, ("plain", "us"): 0.5}
    body = turns.body(all_series, 3, 1.0, ["figure"])
    assert body["results"][1]["ratio_to_raw"] == {"figure": 0.5}
    assert body["results"][1]["range"] == {"figure": [3, 9]}
    assert body["results"][2]["ratio_to_raw"] == {}


def test_tables_line_up() -> None:
    text = report.table("title", ("who", "n"), [("us", "1"), ("everyone", "10")])
    assert text.splitlines() == [
        "title",
        "who        n",
        "--------  --",
        "us         1",
        "everyone  10",
    ]
