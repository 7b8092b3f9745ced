"""The demo's own parts: the story it tells, the look for secrets, the times from a capture."""

from __future__ import annotations

import io
import json
import os
import struct
import subprocess
import sys
from ipaddress import IPv4Address
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from tunnel.cli.demo.pushed import measure_push
from tunnel.cli.demo.secrecy import Secrets, make_file
from tunnel.cli.demo.story import StepFailedError, Story
from tunnel.cli.demo.timing import (
    Handshake,
    esp_packets,
    measure_handshake,
    measure_question,
)
from tunnel.io.lab import Arrivals, Lab, LabError, find_all, read_packets
from tunnel.io.lab.requirements import missing

RENDEZVOUS, ONE, OTHER = "203.0.113.10", "192.0.2.2", "198.51.100.2"


def ethernet(source: tuple[str, int], target: tuple[str, int], payload: bytes, kind: int) -> bytes:
    """An Ethernet frame with an IPv4 packet; ``kind`` 17 is UDP and 6 TCP. Checksums are zero."""
    ports = struct.pack(">HH", source[1], target[1])
    if kind == 17:
        body = ports + struct.pack(">HH", 8 + len(payload), 0) + payload
    else:
        body = ports + bytes(8) + b"\x50\x18" + bytes(6) + payload
    addresses = IPv4Address(source[0]).packed + IPv4Address(target[0]).packed
    header = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(body), 0, 0, 64, kind, 0) + addresses
    return bytes(12) + b"\x08\x00" + header + body


def write_pcap(path: Path, frames: list[tuple[float, bytes]]) -> Path:
    text = struct.pack("<IHHIIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)
    for time, frame in frames:
        micros = round(time * 1e6)
        text += struct.pack("<IIII", *divmod(micros, 1_000_000), len(frame), len(frame)) + frame
    path.write_bytes(text)
    return path


def ike(exchange: int, *, response: bool) -> bytes:
    header = bytes(16) + bytes([33, 0x20, exchange, 0x20 if response else 0x08]) + bytes(8)
    return bytes(4) + header


def handshake() -> list[tuple[float, bytes]]:
    out, back = ((ONE, 4500), (OTHER, 4500)), ((OTHER, 4500), (ONE, 4500))
    return [
        (10.000, ethernet((ONE, 40000), (RENDEZVOUS, 853), b"", 6)),  # no question yet
        (10.010, ethernet((ONE, 40000), (RENDEZVOUS, 853), b"question", 6)),
        (10.015, ethernet((RENDEZVOUS, 853), (ONE, 40000), b"answer", 6)),
        (10.020, ethernet(*out, ike(34, response=False), 17)),
        (10.030, ethernet(*back, ike(34, response=True), 17)),
        (10.035, ethernet(*out, ike(35, response=False), 17)),
        (10.050, ethernet(*back, ike(35, response=True), 17)),
        (10.060, ethernet(*out, b"\x00\x00\x00\x07" + bytes(60), 17)),
        (10.070, ethernet(*out, b"\xff", 17)),
    ]


def test_the_times_of_a_tunnel_are_read_from_the_capture(tmp_path: Path) -> None:
    file = write_pcap(tmp_path / "a.pcap", handshake())
    assert measure_question(file, ONE, RENDEZVOUS, 9.0) == 5.0
    assert measure_handshake(file, 9.0) == Handshake(30.0, 4)
    assert esp_packets(file) == 1


def test_what_has_not_ended_is_not_measured(tmp_path: Path) -> None:
    file = write_pcap(tmp_path / "a.pcap", handshake())
    assert measure_handshake(file, 10.055) is None
    assert measure_question(file, ONE, RENDEZVOUS, 10.012) is None
    assert measure_question(file, OTHER, RENDEZVOUS, 9.0) is None
    unfinished = write_pcap(tmp_path / "b.pcap", handshake()[:6])
    assert measure_handshake(unfinished, 9.0) is None


def test_a_capture_that_is_cut_short_or_foreign_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    whole = write_pcap(tmp_path / "a.pcap", handshake())
    cut = tmp_path / "cut.pcap"
    cut.write_bytes(whole.read_bytes()[:-7])
    assert len(list(read_packets(cut))) == len(handshake()) - 1
    noise = write_pcap(tmp_path / "noise.pcap", [(1.0, os.urandom(n)) for n in range(64)])
    assert list(read_packets(noise)) == []
    for text in (b"", b"short", bytes(24)):
        cut.write_bytes(text)
        with pytest.raises(LabError):
            list(read_packets(cut))


def test_a_push_is_measured_from_both_hosts_logs() -> None:
    desk = (
        "2026-11-21T14:00:00.000000Z [info] the zone has this host's records at=192.0.2.1:4500\n"
        "2026-11-21T14:00:05.500000Z [info] the zone has this host's records at=192.0.2.9:4500\n"
    )
    laptop = (
        "2026-11-21T14:00:01.000000Z [info] the zone says where desk is at=192.0.2.1:4500\n"
        "2026-11-21T14:00:05.502500Z [info] the zone says where desk is "
        "at='192.0.2.9:4500, [2001:db8::1]:4500'\n"
    )
    pushed = measure_push(desk, laptop, "192.0.2.9")
    assert pushed is not None and pushed.milliseconds == 2.5
    assert pushed.words == "2.5 ms after it was acknowledged"
    assert measure_push(desk, laptop, "192.0.2.10") is None


def test_a_gap_in_what_arrives_is_measured_while_the_capture_grows(tmp_path: Path) -> None:
    moments = [10.0, 10.1, 10.2, 11.5, 11.6, *(11.7 + 0.1 * n for n in range(11))]
    frames = [(one, ethernet((ONE, 1), (OTHER, 2), b"data", 17)) for one in moments]
    whole = write_pcap(tmp_path / "whole.pcap", frames).read_bytes()
    growing = tmp_path / "growing.pcap"
    arrivals = Arrivals(SimpleNamespace(file=growing))
    seen = []
    for end in (24, 100, len(whole) // 2, len(whole)):
        growing.write_bytes(whole[:end])
        seen.append(len(arrivals.times()))
    assert seen[0] == 0
    assert seen == sorted(seen)
    assert arrivals.times() == pytest.approx(moments)
    assert arrivals.longest_gap(10.15) == pytest.approx(1.3)
    assert arrivals.longest_gap(11.55) == pytest.approx(0.1)
    assert arrivals.flow_since(10.15, 1.0, 0.3)
    assert not arrivals.flow_since(10.15, 2.0, 0.3)  # it had stopped
    assert not arrivals.flow_since(12.0, 1.0, 0.3)  # not for so long yet
    assert not arrivals.flow_since(13.0, 1.0, 0.3)


def test_the_look_finds_what_is_there_and_only_that(tmp_path: Path) -> None:
    secrets = Secrets()
    secrets.file = make_file(tmp_path / "film.bin", 64 * 1024)
    secrets.add_host("office-desk", "alice.members.example", "fd00::1234")
    capture = tmp_path / "capture"
    capture.write_bytes(os.urandom(100_000))
    assert secrets.look(capture) == []
    whole = (tmp_path / "film.bin").read_bytes()
    for octets, kind in (
        (whole[5000:7000], secrets.file),
        (b"GET /film.bin HTTP/1.1", secrets.file),
        (bytes.fromhex("fd000000000000000000000000001234"), secrets.host_ids),
        (b"FD00".lower() + b"::1234", secrets.host_ids),
        (b"\x0boffice-desk\xc0\x0c", secrets.names),
        (b"\x05alice\x07members\x07example\x00", secrets.names),
    ):
        capture.write_bytes(os.urandom(1000) + octets + os.urandom(1000))
        seen = {sighting.what for sighting in secrets.look(capture)}
        assert seen
        assert seen <= set(kind)


def test_a_sighting_is_counted_and_placed(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"..x..x")
    assert [(s.what, s.times, s.offset) for s in find_all(file, {"x": b"x"})] == [("x", 2, 2)]
    file.write_bytes(b"")
    assert find_all(file, {"x": b"x"}) == []


def test_the_story_keeps_the_contract_when_a_step_fails() -> None:
    said = io.StringIO()
    story = Story(Console(file=said, width=200))
    with story.step("first", "beginning") as step:
        step.tell("it began", started_ms=1.5)
    with pytest.raises(StepFailedError), story.step("second", "going on"):
        raise StepFailedError("it broke")
    told = json.loads(json.dumps(story.as_dict()))
    assert told["schema"] == "autotunnel/demo/v1"
    assert told["ok"] is False
    first, second = told["steps"]
    assert set(first) == {"name", "ok", "seconds", "detail"}
    assert (first["ok"], first["detail"]) == (True, {"started_ms": 1.5})
    assert (second["ok"], second["detail"]) == (False, {"error": "it broke"})
    assert "failed while going on: it broke" in said.getvalue()


def test_without_root_the_demo_says_what_it_needs() -> None:
    # All modules are loaded first, also those that rich loads at its first line with a colon:
    # another user may not be able to read this folder.
    script = (
        "import io, os, sys; from rich.console import Console; from tunnel.cli import demo; "
        "Console(file=io.StringIO()).print('[b]:a:[/b]'); "
        "os.setuid(65534); sys.exit(demo.run(True, True))"
    )
    if missing() is not None:
        pytest.skip(str(missing()))
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 1
    assert "run this as root" in done.stderr
    told = json.loads(done.stdout)
    assert told["ok"] is False
    assert "root" in told["error"]


def test_a_lab_names_its_machines(lab: Lab) -> None:
    machines = lab.machines_of("one", "other")
    assert lab.machines == list(machines)
    with pytest.raises(LabError):
        lab.namespace("../etc")
