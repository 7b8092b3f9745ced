"""``up --detach``: the background host, its log, and the sentence when it did not start."""

from __future__ import annotations

import json
import sys

import pytest

from tests.privilege.stage import HOME
from tests.privilege.test_device import NOBODY, ONE_CAPABILITY, shell, stage

pytestmark = pytest.mark.root

OURS = f"{sys.executable} -m tunnel"
WRITE = f'{sys.executable} -c "from tests.privilege.up_story import write_files as w; w()"'
HERE = f"-c {HOME}/config.toml"


def test_a_detached_host_outlives_its_command_and_a_second_one_is_told_why_not() -> None:
    lines = shell(
        f"{WRITE}",
        f"{OURS} up --detach --json {HERE}",
        f"{OURS} status --json {HERE}",
        f"{OURS} up --detach --json {HERE} || true",
        f"{OURS} status --json {HERE}",
        f"{OURS} down --json {HERE}",
        f"{OURS} status --json {HERE} || true",
    )
    done = stage(*NOBODY, *ONE_CAPABILITY, *lines)
    assert done.returncode == 0, done.stderr
    up, status, second, still, down, gone = map(json.loads, done.stdout.splitlines())
    assert up["schema"] == "autotunnel/up/v1"
    assert status["host"]["name"] == still["host"]["name"] == "desk.example"
    assert "did not start" in second["error"]
    assert "a host runs already" in second["error"]
    assert down["pid"] == up["pid"]
    assert "no host runs here" in gone["error"]
