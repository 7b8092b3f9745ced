"""``autotunnel lab`` for real: one scenario of each sort. The rest of them run in memory, from the
same descriptions (tests/sim/test_scenarios.py), and every pair of NATs in test_nat_table.py."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tunnel.io.lab import Lab, missing, read_packets
from tunnel.io.lab.scenario import Links
from tunnel.io.lab.wire import connect_badly

pytestmark = pytest.mark.root

PATIENCE = 400.0
BOTH_MOVE = """
[left]
kind = "restricted"
[[event]]
at = 1
do = "move"
who = "left"
kind = "mapped"
[[event]]
at = 1
do = "move"
who = "right"
kind = "double"
[[event]]
at = 12
do = "reboot"
who = "left"
"""
MINE = """
[host]
name = "mine.example"
id = "fd00::1"
[nat]
methods = []
[[peer]]
name = "other.example"
id = "fd00::2"
endpoint = "192.0.2.1:4500"
auth = "psk"
psk_file = "peer.psk"
"""


def play(*arguments: str) -> tuple[int, dict[str, Any], str]:
    if (reason := missing(("miniupnpd", "nft"))) is not None:
        pytest.skip(reason)
    command = [sys.executable, "-m", "tunnel", "lab", *arguments, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    return done.returncode, json.loads(done.stdout), done.stderr


def test_bad_links_slow_the_way_and_every_hop_is_captured(tmp_path: Path) -> None:
    code, told, said = play("bad-links", "--pcap", str(tmp_path / "hops"))
    assert code == 0, said
    assert (told["found"], told["path"], told["as_expected"]) == (True, "direct", True)
    assert told["rtt_ms"] > 110  # four links of 30 ms
    assert told["hosts"]["right"]["method"] == "pcp"
    names = {Path(one).name for one in told["captures"]}
    assert names >= {"left-eth0.pcap", "right-eth0.pcap", "internet.pcap"}
    assert {"left-router1-lan0.pcap", "left-router1-wan0.pcap"} <= names
    inner = {packet.source[0] for packet in read_packets(tmp_path / "hops" / "left-eth0.pcap")}
    outer = {packet.source[0] for packet in read_packets(tmp_path / "hops" / "internet.pcap")}
    assert "192.168.1.10" in inner - outer
    assert "192.0.1.21" in outer


def test_both_hosts_of_a_file_move_at_once_and_a_router_comes_back_elsewhere(
    tmp_path: Path,
) -> None:
    file = tmp_path / "travel.toml"
    file.write_text(BOTH_MOVE)
    code, told, said = play(str(file))
    assert code == 0, said
    assert (told["scenario"], told["path"]) == ("travel", "direct")
    moved, rebooted = told["events"]
    assert moved["what"].count("moves to a network of kind") == 2
    assert "comes back with another address" in rebooted["what"]
    assert rebooted["outage_s"] is not None, said
    assert told["hosts"]["left"]["endpoint"].startswith("192.0.1.")


def test_where_there_is_no_path_it_is_told_and_that_is_as_expected(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text(MINE)
    code, told, said = play("--left", "blocked", "--right", "mapped", "-c", str(config))
    assert code == 0, said
    assert (told["expected"], told["found"], told["as_expected"]) == (False, False, True)
    assert told["reason"]
    assert told["hosts"]["right"]["method"] is None  # the person's configuration asks no router


def test_a_bad_link_carries_frames_both_ways(lab: Lab) -> None:
    left, right = lab.machines_of("left", "right")
    connect_badly(left, "eth0", right, "eth7", Links(delay_ms=40, mtu=1400), seed=1)
    left.address("eth0", "192.0.2.1/24")
    right.address("eth7", "192.0.2.2/24")
    said = left.run("ping", "-c", "3", "-i", "0.2", "-s", "1372", "-M", "do", "192.0.2.2").stdout
    assert " 0% packet loss" in said
    assert (
        min(float(one.split("time=")[1].split()[0]) for one in said.splitlines() if "time=" in one)
        >= 80
    )
