"""``up`` itself with few privileges: one capability, none, and in a user namespace."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from tests.privilege.probe import HOST_ID, PEER
from tests.privilege.test_device import NO_CAPABILITY, NOBODY, ONE_CAPABILITY, shell, stage
from tunnel.io.capability import NET_ADMIN

pytestmark = pytest.mark.root

STORY = [sys.executable, "-m", "tests.privilege.up_story"]


def story(*command: str) -> dict[str, Any]:
    done = stage(*command)
    assert done.returncode == 0, done.stderr
    facts: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return facts


def assert_a_whole_life(facts: dict[str, Any], helpers: int) -> None:
    assert "error" not in facts, facts
    for thread in facts["threads"]:
        assert (thread["CapPrm"], thread["CapEff"], thread["CapAmb"]) == (0, 0, 0)
        assert thread["NoNewPrivs"] == 1
    assert [thread["CapEff"] for thread in facts["helpers"]] == [1 << NET_ADMIN] * helpers
    assert facts["status"]["host"]["id"] == str(HOST_ID)
    assert facts["status"]["host"]["device"] == "ptest0"
    assert facts["socket_mode"] == 0o600
    assert "a host runs already" in facts["second"]
    assert facts["down"] == 0
    assert facts["code"] == 0, facts["said"]
    assert "control.sock" not in facts["files_left"]


def test_up_with_one_capability() -> None:
    facts = story(*NOBODY, *ONE_CAPABILITY, *STORY)
    assert_a_whole_life(facts, helpers=1)
    assert facts["routes"] == [str(PEER), "dev", "ptest0"]
    assert facts["link_left"] == facts["route_left"] == ""


def test_up_without_any_capability_on_a_device_of_the_user() -> None:
    facts = story(
        *shell(
            "ip tuntap add dev ptest0 mode tun user nobody",
            f"ip -6 addr add {HOST_ID}/128 dev ptest0 nodad noprefixroute",
            "ip link set ptest0 mtu 1400 up",
            f"exec {' '.join([*NOBODY, *NO_CAPABILITY, *STORY])}",
        )
    )
    assert_a_whole_life(facts, helpers=0)
    assert facts["routes"] == []
    assert f"sudo ip -6 route add {PEER}/128 dev ptest0" in facts["said"]
    assert "ptest0" in facts["link_left"]  # it stays: it is the user's


def test_up_in_an_unprivileged_user_namespace() -> None:
    facts = story(*NOBODY, *NO_CAPABILITY, "unshare", "-Urn", *STORY)
    assert_a_whole_life(facts, helpers=1)
    assert facts["routes"] == [str(PEER), "dev", "ptest0"]
    assert facts["link_left"] == facts["route_left"] == ""


def test_up_without_a_capability_says_all_ways_out() -> None:
    facts = story(*NOBODY, *NO_CAPABILITY, *STORY)
    assert facts["code"] == 1
    assert "needs CAP_NET_ADMIN" in facts["error"]
    assert "Traceback" not in facts["said"]


def test_up_without_tun_says_how_to_load_it() -> None:
    facts = story(*shell("rm /dev/net/tun", f"exec {' '.join([*NOBODY, *ONE_CAPABILITY, *STORY])}"))
    assert facts["code"] == 1
    assert "sudo modprobe tun" in facts["error"]


def test_up_on_an_occupied_port_says_which() -> None:
    take = "import socket,time; s = socket.socket(type=socket.SOCK_DGRAM); s.bind(('', 4500))"
    hold = f'{sys.executable} -c "{take}; print(1, flush=True); time.sleep(600)"'
    facts = story(
        *shell(
            f"mkfifo /mnt/fifo; {hold} > /mnt/fifo & holder=$!; read _ < /mnt/fifo",
            "trap 'kill $holder' EXIT",
            " ".join([*NOBODY, *ONE_CAPABILITY, *STORY]),
        )
    )
    assert facts["code"] == 1
    assert "4500" in facts["error"]
    assert "host.listen" in facts["error"]
