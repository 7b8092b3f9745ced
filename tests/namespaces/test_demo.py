"""``autotunnel demo`` keeps its contract, and takes everything away, also after Ctrl-C."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tunnel.io.lab import missing, wait_until
from tunnel.io.lab.leftovers import ETC_FOLDER, FOLDER_PREFIX, NETNS_FOLDER

pytestmark = pytest.mark.root

STEPS = [
    *("network", "account", "invitation", "up", "discovery", "file", "rekey", "ping"),
    *("recovery", "shutdown", "secrecy", "eavesdropper"),
]
FIGURES = {
    "discovery": {"discovery_ms", "handshake_ms", "lookup_ms"},
    "file": {"octets", "mib_per_s", "sha256"},
    "ping": {"rtt_ms"},
    "recovery": {"restart_s", "recovery_s"},
    "secrecy": {"packets", "esp_packets", "seen"},
}


@pytest.fixture(autouse=True)
def possible() -> None:
    if (reason := missing()) is not None:
        pytest.skip(reason)


def start() -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tunnel", "demo", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def leftovers(pid: int) -> list[str]:
    """What a demo of this process id has left on the machine."""
    places = ((NETNS_FOLDER, ""), (ETC_FOLDER, ""), (Path(tempfile.gettempdir()), FOLDER_PREFIX))
    return [str(path) for folder, prefix in places for path in folder.glob(f"{prefix}at{pid}-*")]


def test_the_demo_tells_every_step_with_its_figure() -> None:
    demo = start()
    out, said = demo.communicate(timeout=300)
    assert demo.returncode == 0, said
    told = json.loads(out)
    assert told["schema"] == "autotunnel/demo/v1"
    assert told["ok"] is True
    assert [step["name"] for step in told["steps"]] == STEPS
    details = {step["name"]: step["detail"] for step in told["steps"]}
    for step in told["steps"]:
        assert set(step) == {"name", "ok", "seconds", "detail"}
        assert step["ok"] is True
        assert step["seconds"] >= 0
        assert set(step["detail"]) >= FIGURES.get(step["name"], set())
        assert re.search(rf"^ok +{step['name']} ", said, re.MULTILINE)
    assert details["file"]["octets"] >= 50_000_000
    assert details["secrecy"]["seen"] == []
    assert details["secrecy"]["esp_packets"] > 0
    assert details["eavesdropper"]["host_ids_seen"]
    assert details["eavesdropper"]["names_seen"]
    assert leftovers(demo.pid) == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_demo_cleans_up_when_it_is_interrupted(number: signal.Signals, code: int) -> None:
    demo = start()
    assert demo.stderr is not None
    os.set_blocking(demo.stderr.fileno(), False)
    said = ""

    def hosts_are_up() -> bool:
        nonlocal said
        said += demo.stderr.read() or "" if demo.stderr is not None else ""
        return bool(re.search(r"^ok +up ", said, re.MULTILINE))

    wait_until(hosts_are_up, 60, "the demo has both hosts up")
    assert leftovers(demo.pid)
    demo.send_signal(number)
    out, _ = demo.communicate(timeout=60)
    assert demo.returncode == code
    assert leftovers(demo.pid) == []
    if number is signal.SIGINT:  # the story so far, as JSON
        assert json.loads(out)["ok"] is False
