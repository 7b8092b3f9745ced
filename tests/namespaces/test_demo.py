"""``autotunnel demo`` keeps its contract, and takes everything away, also after Ctrl-C."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tunnel.io.lab import missing, wait_until
from tunnel.io.lab.leftovers import ETC_FOLDER, FOLDER_PREFIX, NETNS_FOLDER

pytestmark = pytest.mark.root

# A shell that starts the tests in the background has them ignore Ctrl-C, which is inherited.
DEFAULT_SIGINT = ("env", "--default-signal=INT")
STEPS = [
    *("network", "account", "invitation", "up", "discovery", "file", "rekey", "ping"),
    *("push", "punch", "move", "move-desk", "reboot"),
    *("agent", "relay", "direct", "cut", "alone", "sealed"),
    *("recovery", "shutdown", "secrecy", "eavesdropper"),
]
FIGURES = {
    "discovery": {"discovery_ms", "handshake_ms", "lookup_ms"},
    "file": {"octets", "mib_per_s", "sha256"},
    "ping": {"rtt_ms"},
    "push": {"push_ms", "changed_to_told_s", "by"},
    "punch": {"met_ms", "nat", "path"},
    "move": {"outage_ms"},
    "move-desk": {"outage_ms"},
    "reboot": {"outage_ms", "away_ms", "sha256"},
    "relay": {"met_ms", "path", "why", "mtu"},
    "direct": {"outage_ms", "path"},
    "cut": {"outage_ms", "path"},
    "alone": {"longest_gap_ms", "transfer_s", "sha256"},
    "sealed": {"capture_octets", "seen"},
    "recovery": {"restart_s", "recovery_s"},
    "secrecy": {"packets", "esp_packets", "seen"},
}


@pytest.fixture(autouse=True)
def possible() -> None:
    if (reason := missing()) is not None:
        pytest.skip(reason)


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    running = Demo(tmp_path)
    yield running
    if running.process.poll() is None:
        running.process.terminate()
        running.process.wait(120)


class Demo:
    """``demo --json`` as a process of its own."""

    def __init__(self, folder: Path) -> None:
        self._out, self._err = folder / "out", folder / "err"
        with self._out.open("w") as out, self._err.open("w") as err:
            self.process = subprocess.Popen(
                [*DEFAULT_SIGINT, sys.executable, "-m", "tunnel", "demo", "--quick", "--json"],
                stdout=out,
                stderr=err,
            )

    def said(self) -> str:
        return self._err.read_text()

    def told(self) -> dict[str, Any]:
        told: dict[str, Any] = json.loads(self._out.read_text())
        return told

    def has_done(self, step: str) -> bool:
        return bool(re.search(rf"^ok +{step} ", self.said(), re.MULTILINE))


def leftovers(pid: int) -> list[str]:
    """What a demo of this process id has left on the machine."""
    places = ((NETNS_FOLDER, ""), (ETC_FOLDER, ""), (Path(tempfile.gettempdir()), FOLDER_PREFIX))
    return [str(path) for folder, prefix in places for path in folder.glob(f"{prefix}at{pid}-*")]


def test_the_demo_tells_every_step_with_its_figure(demo: Demo) -> None:
    assert demo.process.wait(900) == 0, demo.said()
    told = demo.told()
    assert told["schema"] == "autotunnel/demo/v1"
    assert told["ok"] is True
    assert [step["name"] for step in told["steps"]] == STEPS
    details = {step["name"]: step["detail"] for step in told["steps"]}
    for step in told["steps"]:
        assert set(step) == {"name", "ok", "seconds", "detail"}
        assert step["ok"] is True
        assert step["seconds"] >= 0
        assert set(step["detail"]) >= FIGURES.get(step["name"], set())
        assert demo.has_done(step["name"])
    assert details["file"]["octets"] >= 50_000_000
    whole = {details[step]["sha256"] for step in ("file", "reboot", "alone")}
    assert len(whole) == 1
    paths = [details[step]["path"] for step in ("relay", "direct", "cut")]
    assert paths == ["relay", "direct", "relay"]
    assert details["sealed"]["seen"] == []
    assert details["sealed"]["capture_octets"] > 1_000_000
    assert details["secrecy"]["seen"] == []
    assert details["secrecy"]["esp_packets"] > 0
    assert details["eavesdropper"]["host_ids_seen"]
    assert details["eavesdropper"]["names_seen"]
    assert leftovers(demo.process.pid) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_demo_cleans_up_when_it_is_interrupted(demo: Demo, number: signal.Signals) -> None:
    wait_until(lambda: demo.has_done("up"), 300, "the demo has both hosts up")
    assert leftovers(demo.process.pid)
    demo.process.send_signal(number)
    assert demo.process.wait(120) == 1, demo.said()
    assert leftovers(demo.process.pid) == []
    told = demo.told()  # the story so far
    assert told["ok"] is False
    assert told["steps"][-1]["detail"]["error"] == "interrupted"
