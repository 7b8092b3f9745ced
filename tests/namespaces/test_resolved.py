"""The account's names on a machine that runs the real systemd-resolved."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator

import pytest

from tests.namespaces.account import DESK_NAME, LAPTOP_NAME, Account
from tests.namespaces.resolved import ROOT, STUB, ResolvedMachine
from tunnel.io.lab import Lab, missing, wait_until

UPSTREAM = "203.0.113.53"
DOMAIN = DESK_NAME.partition(".")[2]


class Story:
    """An account whose laptop has systemd-resolved; desk goes without."""

    def __init__(self, lab: Lab) -> None:
        self.account = Account(lab)
        self.lab, self.laptop = lab, self.account.laptop
        self.laptop.change("resolver", {"listen": "127.0.0.1:4553"})
        outside = lab.namespace("upstream")
        self.account.stage.internet.plug(outside, "eth0", f"{UPSTREAM}/24")
        outside.ip("route", "add", "192.0.2.0/24", "via", "203.0.113.1")  # the laptop's home
        self.upstream = outside.start(
            *(sys.executable, "-m", "tests.namespaces.upstream", UPSTREAM),
            name="upstream",
            env={"PYTHONPATH": str(ROOT)},
        )
        self.upstream.wait_for("listening", 60)
        self.resolved = ResolvedMachine(self.laptop.machine, UPSTREAM)
        self.resolved.start()
        self.account.desk.up()

    def dig(self, *words: str) -> str:
        """What dig says, asking resolved."""
        return self.laptop.machine.run("dig", f"@{STUB}", "+tries=1", *words, check=False).stdout

    def resolver(self) -> dict[str, object]:
        """The resolver part of the laptop's status."""
        found: dict[str, object] = self.laptop.status()["resolver"]
        return found

    def link(self, device: str = "at0") -> str:
        """What resolved knows of a device."""
        return self.resolved.ctl("status", device)


@pytest.fixture(scope="module")
def story() -> Iterator[Story]:
    reason = missing()
    if reason is not None:
        pytest.skip(reason)
    assert shutil.which("busctl"), "systemd is part of the test set-up"
    with Lab() as lab:
        yield Story(lab)


def test_up_routes_the_accounts_names_to_the_stub_and_no_others(story: Story) -> None:
    story.laptop.up()
    assert story.resolver()["integrated"] is True
    assert story.resolver()["reason"] is None
    link = story.link()
    assert "127.0.0.1:4553" in link
    assert f"~{DOMAIN}" in link
    assert "-DefaultRoute" in link
    desk_id = story.account.host_id(story.account.desk)
    assert story.dig("+short", DESK_NAME, "AAAA") == f"{desk_id}\n"
    assert f"{desk_id} " in story.laptop.machine.run("getent", "ahostsv6", DESK_NAME).stdout
    reverse = story.dig("+short", "-x", desk_id)
    assert reverse == f"{DESK_NAME}.\n"
    before = story.resolver()["questions"]
    assert story.dig("+short", "www.example.org", "A") == "192.0.2.7\n"
    story.dig("+short", LAPTOP_NAME, "A")
    assert story.resolver()["questions"]["forwarded"] == before["forwarded"]
    asked = story.upstream.output().lower()
    assert "www.example.org. in a" in asked  # by resolved's own way
    assert "alice" not in asked
    assert "ip6.arpa" not in asked


def test_a_strangers_reverse_name_does_not_go_in_circles(story: Story) -> None:
    assert "status: NXDOMAIN" in story.dig("-x", "fd12:3456::1")
    assert "6.5.4.3.2.1.d.f.ip6.arpa" in story.upstream.output()
    questions = story.resolver()["questions"]
    assert questions["forwarded"] < 4


def test_down_takes_it_back(story: Story) -> None:
    assert story.laptop.down() == 0, story.laptop.log()
    assert "at0" not in story.resolved.ctl("domain")
    assert DOMAIN not in story.resolved.ctl("domain")


def test_a_persistent_device_is_told_anew_after_a_crash(story: Story) -> None:
    """After kill -9 the device has no carrier, so resolved leaves it; the next start heals."""
    machine = story.laptop.machine
    machine.ip("tuntap", "add", "dev", "at0", "mode", "tun")
    try:
        story.laptop.up()
        assert story.resolver()["integrated"] is True
        assert story.laptop.process is not None
        story.laptop.process.kill()
        wait_until(
            lambda: "none" in story.link().partition("Scopes:")[2].splitlines()[0],
            60,
            "resolved leaves the device alone",
        )
        assert story.dig("+short", "mail.example.org", "A") == "192.0.2.7\n"
        story.laptop.up()
        assert story.resolver()["integrated"] is True
        desk_id = story.account.host_id(story.account.desk)
        assert story.dig("+short", DESK_NAME, "AAAA") == f"{desk_id}\n"
        assert story.laptop.down() == 0
        assert DOMAIN not in story.resolved.ctl("domain")
    finally:
        machine.ip("link", "delete", "at0")


def test_a_resolved_that_comes_late_or_again_is_told(story: Story) -> None:
    story.resolved.stop()
    story.laptop.up()
    story.laptop.machine.run("rm", "-rf", "/run/systemd/resolve/netif")
    story.resolved.start()
    wait_until(lambda: story.resolver()["integrated"], 60, "resolved is told when it comes")
    desk_id = story.account.host_id(story.account.desk)
    assert story.dig("+short", DESK_NAME, "AAAA") == f"{desk_id}\n"
    doctor = story.laptop.cli("doctor", "-c", str(story.laptop.config), check=False).stdout
    assert "systemd-resolved asks us" in doctor
    assert story.laptop.down() == 0, story.laptop.log()


def test_integration_can_be_switched_off(story: Story) -> None:
    story.laptop.change("resolver", {"integrate": "off"})
    story.laptop.up()
    assert story.resolver()["integrated"] is False
    assert DOMAIN not in story.resolved.ctl("domain")
    assert story.laptop.down() == 0, story.laptop.log()
