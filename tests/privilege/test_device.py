"""Few privileges, with real processes: as nobody with one capability, as nobody with none, and in
an unprivileged user namespace. Each has a network and a /dev/net/tun of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.privilege.probe import HOST_ID, PEER, PEER_WITHOUT_ROUTE
from tests.privilege.stage import ROOT
from tunnel.io.capability import NET_ADMIN

pytestmark = pytest.mark.root

ENTER = ["unshare", "--mount", "--net", "--propagation", "private"]
STAGE = [sys.executable, "-m", "tests.privilege.stage"]
NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
ONE_CAPABILITY = ["--inh-caps=-all,+net_admin", "--ambient-caps=+net_admin"]
NO_CAPABILITY = ["--inh-caps=-all"]
PROBE = [sys.executable, "-m", "tests.privilege.probe", "ptest0"]


def stage(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*ENTER, *STAGE, *command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONPATH": str(ROOT)},
    )


def probe(*command: str) -> dict[str, Any]:
    done = stage(*command)
    assert done.returncode == 0, done.stderr
    facts: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return facts


def shell(*commands: str) -> list[str]:
    return ["sh", "-ec", "\n".join(commands)]


def assert_nothing_is_left(facts: dict[str, Any]) -> None:
    held = facts["after"]
    assert (held["CapPrm"], held["CapEff"], held["CapInh"], held["CapAmb"]) == (0, 0, 0, 0)
    assert held["NoNewPrivs"] == 1
    assert not facts["may_still_configure"]


def test_an_ordinary_user_with_one_capability_drops_it_after_set_up() -> None:
    facts = probe(*NOBODY, *ONE_CAPABILITY, *PROBE)
    assert facts["uid"] == 65534
    assert facts["before"] == 1 << NET_ADMIN
    assert_nothing_is_left(facts)
    assert facts["helper"]["CapEff"] == facts["helper"]["CapPrm"] == 1 << NET_ADMIN
    assert facts["helper"]["NoNewPrivs"] == 1
    assert facts["routes"] == [str(PEER), str(PEER_WITHOUT_ROUTE)]
    assert facts["routes_after_removal"] == [str(PEER_WITHOUT_ROUTE)]
    assert "no unique local address" in facts["wide"]
    assert facts["helper_ended"]
    assert facts["routes_after_close"] == []


def test_root_drops_all_and_leaves_its_helper_one() -> None:
    facts = probe(*PROBE)
    assert facts["before"] >> NET_ADMIN & 1
    assert_nothing_is_left(facts)
    assert facts["after"]["CapBnd"] == 0
    assert facts["helper"]["CapEff"] == facts["helper"]["CapBnd"] == 1 << NET_ADMIN
    assert facts["routes"] == [str(PEER), str(PEER_WITHOUT_ROUTE)]
    assert (facts["inheritable"], facts["blocking"]) == (False, False)


def test_without_any_capability_on_a_device_that_the_user_owns() -> None:
    facts = probe(
        *shell(
            "ip tuntap add dev ptest0 mode tun user nobody",
            f"ip -6 addr add {HOST_ID}/128 dev ptest0 nodad noprefixroute",
            "ip link set ptest0 mtu 1400 up",
            f"ip -6 route add {PEER}/128 dev ptest0",
            f"exec {' '.join([*NOBODY, *NO_CAPABILITY, *PROBE])}",
        )
    )
    assert facts["before"] == 0
    assert facts["helper"] is None
    assert facts["first"] == ""
    wanted = f"run `sudo ip -6 route add {PEER_WITHOUT_ROUTE}/128 dev ptest0`"
    assert facts["second"].endswith(wanted)
    assert facts["routes"] == facts["routes_after_close"] == [str(PEER)]  # not ours to take away


def test_without_any_capability_the_device_must_be_set_up() -> None:
    facts = probe(
        *shell(
            "ip tuntap add dev ptest0 mode tun user nobody",
            f"exec {' '.join([*NOBODY, *NO_CAPABILITY, *PROBE])}",
        )
    )
    assert f"sudo ip -6 addr add {HOST_ID}/128 dev ptest0 nodad noprefixroute" in facts["error"]
    assert "sudo ip link set ptest0 mtu 1400 up" in facts["error"]


def test_several_queues_are_opened_before_the_capability_goes() -> None:
    facts = probe(*NOBODY, *ONE_CAPABILITY, *PROBE, "4")
    assert_nothing_is_left(facts)
    assert facts["queues"] == 4
    assert (facts["inheritable"], facts["blocking"]) == (False, False)
    assert facts["routes_after_close"] == []


OWN_WITH_QUEUES = (
    "ip tuntap add dev ptest0 mode tun user nobody multi_queue",
    f"ip -6 addr add {HOST_ID}/128 dev ptest0 nodad noprefixroute",
    "ip link set ptest0 mtu 1400 up",
    f"ip -6 route add {PEER}/128 dev ptest0",
)


@pytest.mark.parametrize("queues", [1, 3])
def test_a_device_of_the_user_with_several_queues(queues: int) -> None:
    own = f"exec {' '.join([*NOBODY, *NO_CAPABILITY, *PROBE, str(queues)])}"
    facts = probe(*shell(*OWN_WITH_QUEUES, own))
    assert facts["before"] == 0
    assert facts["queues"] == queues
    assert "in use by another process" in facts["again"], "the kernel would let a second one in"


def test_a_device_with_one_queue_is_told_with_the_fix() -> None:
    facts = probe(
        *shell(
            "ip tuntap add dev ptest0 mode tun user nobody",
            f"exec {' '.join([*NOBODY, *NO_CAPABILITY, *PROBE, '2'])}",
        )
    )
    assert facts["error"] == (
        "the device ptest0 was made with one queue, and engine.threads is 2; "
        "run `sudo ip link delete ptest0` and make it anew "
        "(`sudo autotunnel device create --user NAME`), or set engine.threads to 1"
    )


def test_in_an_unprivileged_user_namespace() -> None:
    # setpriv leaves root, and the machine's root has no part in what follows.
    facts = probe(*NOBODY, *NO_CAPABILITY, "unshare", "-Urn", *PROBE)
    assert facts["uid"] == 0  # the namespace's own root
    assert_nothing_is_left(facts)
    assert facts["routes"] == [str(PEER), str(PEER_WITHOUT_ROUTE)]
    assert facts["routes_after_close"] == []


def test_a_missing_capability_is_told_with_all_ways_out() -> None:
    facts = probe(*NOBODY, *NO_CAPABILITY, *PROBE)
    assert "needs CAP_NET_ADMIN" in facts["error"]
    assert "autotunnel service install" in facts["error"]
    assert "sudo autotunnel device create --user NAME" in facts["error"]


def test_somebody_else_s_device_cannot_be_taken() -> None:
    facts = probe(
        *shell(
            "ip tuntap add dev ptest0 mode tun user root",
            f"exec {' '.join([*NOBODY, *NO_CAPABILITY, *PROBE])}",
        )
    )
    assert "needs CAP_NET_ADMIN" in facts["error"]


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        ("rm /dev/net/tun", "there is no /dev/net/tun; load the module with `sudo modprobe tun`"),
        ("chmod 0600 /dev/net/tun", "run `sudo chmod 0666 /dev/net/tun`"),
        ("ip link add ptest0 type bridge", "ptest0 exists and is no TUN device; choose another"),
    ],
)
def test_a_missing_tun_is_told(spoil: str, sentence: str) -> None:
    facts = probe(*shell(spoil, f"exec {' '.join([*NOBODY, *ONE_CAPABILITY, *PROBE])}"))
    assert sentence in facts["error"]


def test_a_device_that_stays_is_left_as_it_was_found() -> None:
    done = stage(
        *shell(
            "ip tuntap add dev ptest0 mode tun",
            " ".join(PROBE),
            "ip -6 -oneline addr show dev ptest0",
            "ip -6 route",
        )
    )
    assert done.returncode == 0, done.stderr
    _, *left = done.stdout.splitlines()
    assert left == []


@pytest.mark.parametrize("queues", [1, 4])
def test_device_create_makes_what_up_needs_without_a_capability(queues: int) -> None:
    config = '[host]\nname = "desk.example"\nid = "{id}"\ndevice = "ptest0"\n{more}{peer}'.format(
        id=HOST_ID,
        more=f"[engine]\nthreads = {queues}\n",
        peer=f'[[peer]]\nname = "gw"\nid = "{PEER}"\nendpoint = "192.0.2.1"\npsk_file = "k"\n',
    )
    create = f"{sys.executable} -m tunnel device create --user nobody --json -c /dev/net/c.toml"
    done = stage(
        *shell(
            f"cat > /dev/net/c.toml <<'EOF'\n{config}\nEOF",
            create,
            create,  # once more: what is there already is fine
            f"exec {' '.join([*NOBODY, *NO_CAPABILITY, *PROBE, str(queues)])}",
        )
    )
    assert done.returncode == 0, done.stderr
    created, _, told = done.stdout.splitlines()
    assert json.loads(created)["routes"] == [str(PEER)]
    facts = json.loads(told)
    assert facts["first"] == ""
    assert facts["before"] == 0
    assert facts["queues"] == queues
