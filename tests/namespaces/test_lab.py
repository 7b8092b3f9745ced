"""The lab builds networks that carry packets, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tunnel.io.lab import Lab, LabError, connect, find_all, make_router, missing, wait_until
from tunnel.io.lab.leftovers import (
    ETC_FOLDER,
    FOLDER_PREFIX,
    NETNS_FOLDER,
    owner_pid,
    remove_leftovers,
)
from tunnel.io.lab.namespace import Namespace
from tunnel.io.lab.process import alive

pytestmark = pytest.mark.root

HOLDING = """
import signal, sys
from tunnel.io.lab import Lab
with Lab() as lab:
    machine = lab.namespace("held")
    machine.set_resolver("127.0.0.1")
    sleeper = machine.start("sleep", "600")
    print(machine.name, lab.folder, sleeper.pid, flush=True)
    signal.pause()
"""


class Held:
    """A lab in a process of its own, which waits for a signal."""

    def __init__(self) -> None:
        self.popen = subprocess.Popen(
            # Ctrl-C works, also where the tests themselves run in the background.
            ["env", "--default-signal=INT", sys.executable, "-c", HOLDING],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.popen.stdout is not None
        name, folder, sleeper = self.popen.stdout.readline().split()
        self.name, self.folder, self.sleeper = name, Path(folder), int(sleeper)

    def traces(self) -> list[Path]:
        """What is left of it on this machine."""
        paths = [NETNS_FOLDER / self.name, ETC_FOLDER / self.name, self.folder]
        found = [path for path in paths if path.exists()]
        return [*found, Path(f"/proc/{self.sleeper}")] if alive(self.sleeper) else found

    def end(self, number: signal.Signals) -> int:
        self.popen.send_signal(number)
        code = self.popen.wait(60)
        assert self.popen.stdout is not None
        self.popen.stdout.close()
        return code


@pytest.fixture
def held(lab: Lab) -> Held:
    assert lab.folder.is_dir()  # the fixture skips where no lab can be
    return Held()


def test_two_machines_on_a_switch_hear_each_other(lab: Lab) -> None:
    net = lab.switch("net")
    left, right = lab.machines_of("left", "right")
    net.plug(left, "eth0", "192.0.2.1/24", "2001:db8::1/64")
    net.plug(right, "eth0", "192.0.2.2/24", "2001:db8::2/64")
    capture = lab.capture(net.namespace, net.device)
    left.run("ping", "-c", "1", "-W", "30", "-p", "c0ffee", "192.0.2.2")
    left.run("ping", "-c", "1", "-W", "30", "2001:db8::2")
    wait_until(lambda: capture.octets > 500, 60, "four packets were written down")
    capture.stop()
    assert capture.packets() >= 4
    assert capture.lost() == 0
    needles = {"pattern": bytes.fromhex("c0ffee") * 4, "absent": b"not on this network"}
    assert [sighting.what for sighting in find_all(capture.file, needles)] == ["pattern"]


def test_a_router_joins_two_networks(lab: Lab) -> None:
    left, router, right = lab.machines_of("left", "router", "right")
    connect(left, "eth0", router, "left")
    connect(right, "eth0", router, "right")
    for machine, device, net in ((left, "left", 1), (right, "right", 2)):
        machine.address("eth0", f"10.0.{net}.2/24", f"fd00:{net}::2/64")
        router.address(device, f"10.0.{net}.1/24", f"fd00:{net}::1/64")
        machine.gateway(f"10.0.{net}.1")
        machine.gateway(f"fd00:{net}::1")
    assert left.run("ping", "-c1", "-W2", "10.0.2.2", check=False).returncode != 0
    make_router(router)
    left.run("ping", "-c", "1", "-W", "30", "10.0.2.2")
    left.run("ping", "-c", "1", "-W", "30", "fd00:2::2")


def test_a_machine_has_its_own_resolver_file(lab: Lab) -> None:
    before = Path("/etc/resolv.conf").read_bytes()
    machine = lab.namespace("machine")
    machine.set_resolver("127.0.0.99")
    assert "nameserver 127.0.0.99\n" in machine.run("cat", "/etc/resolv.conf").stdout
    assert Path("/etc/resolv.conf").read_bytes() == before


def test_a_failing_program_is_quoted(lab: Lab) -> None:
    machine = lab.namespace("machine")
    with pytest.raises(LabError, match=r"exit code 3: the reason"):
        machine.run("sh", "-c", "echo the reason >&2; exit 3")
    with pytest.raises(LabError, match="not done after"):
        machine.run("sleep", "60", timeout=0.2)
    failing = machine.start("sh", "-c", "echo why; exit 4", name="failing")
    with pytest.raises(LabError, match=r"(?s)ended with 4 before it said 'ready':\nwhy"):
        failing.wait_for("ready", 60)


def test_a_process_that_ignores_sigterm_is_killed(lab: Lab) -> None:
    machine = lab.namespace("machine")
    stubborn = machine.start("sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1; done")
    stubborn.wait_for("ready", 60)
    assert machine.pids()
    assert stubborn.stop(timeout=0.3) == -signal.SIGKILL


def test_nothing_is_left_after_an_exception() -> None:
    if (reason := missing()) is not None:
        pytest.skip(reason)
    with pytest.raises(ZeroDivisionError), Lab() as lab:
        machine = lab.namespace("machine")
        machine.set_resolver("127.0.0.1")
        # A child of a child, which the lab did not start itself.
        machine.run("sh", "-c", "sleep 600 >/dev/null 2>&1 &")
        (orphan,) = machine.pids()
        raise ZeroDivisionError
    assert not (NETNS_FOLDER / machine.name).exists()
    assert not (ETC_FOLDER / machine.name).exists()
    assert not lab.folder.exists()
    assert not alive(orphan)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_nothing_is_left_after_a_signal(held: Held, number: signal.Signals) -> None:
    assert len(held.traces()) == 4
    assert held.end(number) != 0
    assert held.traces() == []


def test_a_machine_that_a_signal_tore_from_its_lab_goes_with_it() -> None:
    """It came just before the lab could note that there is something to take away."""
    if (reason := missing()) is not None:
        pytest.skip(reason)
    with Lab() as lab:
        prefix = lab.namespace("machine").name.removesuffix("machine")
        torn = Namespace("torn", prefix, lab.folder, [])
        assert (NETNS_FOLDER / torn.name).exists()
    assert not (NETNS_FOLDER / torn.name).exists()


def test_leftovers_of_a_killed_run_are_removed_by_the_next(held: Held) -> None:
    """Whoever that is: other tests, which run beside these, make labs, too."""
    assert len(held.traces()) == 4
    held.end(signal.SIGKILL)
    remove_leftovers()
    wait_until(lambda: not held.traces(), 60, "nothing is left")


def test_what_belongs_to_a_living_run_stays(lab: Lab) -> None:
    machine = lab.namespace("machine")
    assert owner_pid(machine.name) == os.getpid()
    assert machine.name not in remove_leftovers()
    assert (NETNS_FOLDER / machine.name).exists()
    assert lab.folder.parent == Path(tempfile.gettempdir())
    assert lab.folder.name.startswith(FOLDER_PREFIX)


def test_foreign_names_are_no_leftovers() -> None:
    for name in ("attic-1", "at-12", "blue", "at12-xyz", "autotunnel"):
        assert owner_pid(name) is None
    assert owner_pid("at12-00ffee-desk") == 12
