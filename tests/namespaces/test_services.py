"""Services of an account, found by other people's programs through the stub resolver (RFC 6763)."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.namespaces.account import DESK_NAME, Account
from tests.namespaces.resolved import ResolvedMachine, libraries, program
from tunnel.io.lab import HostMachine, Lab, Process, missing, wait_until
from tunnel.io.lab.hosts import COMMAND

DOMAIN = DESK_NAME.partition(".")[2]
_AVAHI = """[server]
use-ipv4=yes
use-ipv6=no
allow-interfaces=lo
[wide-area]
enable-wide-area=yes
[publish]
disable-publishing=yes
"""


class Story:
    """An account that is up; its desk is the one that advertises."""

    def __init__(self, lab: Lab) -> None:
        self.account = Account(lab)
        self.desk, self.laptop = self.account.desk, self.account.laptop
        self.bus = ResolvedMachine(self.laptop.machine, "203.0.113.10")  # its resolver stays off
        self.account.up()

    def ask(self, host: HostMachine, *words: str) -> list[dict[str, object]]:
        """What a command of ours says in JSON."""
        done = host.cli(*words, "--json", "-c", str(host.config))
        found: list[dict[str, object]] = json.loads(done.stdout)["services"]
        return found

    def dig(self, *words: str) -> list[str]:
        """What dig says in short, asking the laptop's stub resolver."""
        command = ("dig", "@127.0.0.53", "+short", "+tries=1", *words)
        return self.laptop.machine.run(*command).stdout.splitlines()


@pytest.fixture(scope="module")
def story() -> Iterator[Story]:
    reason = missing()
    if reason is not None:
        pytest.skip(reason)
    with Lab() as lab:
        yield Story(lab)


@pytest.fixture(scope="module")
def advertised(story: Story) -> Story:
    """Desk advertises its shell, as its owner says."""
    words = ("advertise", "_ssh._tcp", "22", "--name", "Desk one", "--txt", "user=me", "--yes")
    story.desk.cli(*words, "-c", str(story.desk.config))
    return story


def test_what_desk_advertises_laptop_browses(advertised: Story) -> None:
    found = {"type": "_ssh._tcp", "name": "Desk one", "port": 22, "texts": ["user=me"]}
    assert advertised.ask(advertised.laptop, "browse") == [{**found, "host": DESK_NAME}]
    assert advertised.ask(advertised.laptop, "browse", "_ipp._tcp") == []
    (own,) = advertised.ask(advertised.desk, "advertise", "--list")
    assert own["state"] == "published"


def test_rfc6763_4_dig_and_kdig_find_it_step_by_step(advertised: Story) -> None:
    assert advertised.dig(f"b._dns-sd._udp.{DOMAIN}", "PTR") == [f"{DOMAIN}."]
    assert advertised.dig(f"_services._dns-sd._udp.{DOMAIN}", "PTR") == [f"_ssh._tcp.{DOMAIN}."]
    (instance,) = advertised.dig(f"_ssh._tcp.{DOMAIN}", "PTR")
    assert instance == rf"Desk\032one._ssh._tcp.{DOMAIN}."
    assert advertised.dig(instance, "SRV") == [f"0 0 22 {DESK_NAME}."]
    assert advertised.dig(instance, "TXT") == ['"user=me"']
    desk_id = advertised.account.host_id(advertised.desk)
    assert advertised.dig(DESK_NAME, "AAAA") == [desk_id]  # and the tunnel stands
    said = advertised.laptop.machine.run(
        "kdig", "@127.0.0.53", "+tcp", "+short", f"_ssh._tcp.{DOMAIN}", "PTR"
    )
    assert said.stdout.splitlines() == [instance]


def test_avahi_finds_it_as_it_finds_any_wide_area_domain(advertised: Story) -> None:
    machine, env = advertised.laptop.machine, {"LD_LIBRARY_PATH": libraries()}
    conf = machine.folder / "avahi.conf"
    conf.write_text(_AVAHI)
    daemon = machine.start(
        *(str(program("sbin/avahi-daemon")), "--no-drop-root", "--no-chroot", "--no-rlimits"),
        *("--no-proc-title", "--debug", "-f", str(conf)),
        name="avahi",
        env=env,
    )
    daemon.wait_for("Server startup complete", 60)
    browse = (str(program("bin/avahi-browse")), "-k", "-p", "-t", "-r", "-d", DOMAIN, "_ssh._tcp")

    def resolved() -> str:
        return machine.run(*browse, env=env, check=False).stdout

    wait_until(lambda: DESK_NAME in resolved(), 60, "avahi resolves the service")
    (line,) = [line for line in resolved().splitlines() if line.startswith("=")]
    desk_id = advertised.account.host_id(advertised.desk)
    words = line.split(";")
    assert words[3:] == [r"Desk\032one", "_ssh._tcp", DOMAIN, DESK_NAME, desk_id, "22", '"user=me"']
    daemon.stop()


def test_browse_watch_shows_what_comes_and_goes(advertised: Story) -> None:
    laptop, desk = advertised.laptop, advertised.desk
    watch: Process = laptop.machine.start(
        *(*COMMAND, "browse", "--watch", "-c", str(laptop.config)), name="watch", env=laptop.env
    )
    watch.wait_for("+ 'Desk one' (_ssh._tcp, port 22)", 60)
    desk.cli("advertise", "_http._tcp", "8080", "--yes", "-c", str(desk.config))
    watch.wait_for("+ 'office-desk' (_http._tcp, port 8080)", 90)
    desk.cli("advertise", "_http._tcp", "--withdraw", "-c", str(desk.config))
    watch.wait_for("- 'office-desk' (_http._tcp, port 8080)", 90)
    watch.stop()


def test_services_go_with_their_host_and_come_back_with_it(advertised: Story) -> None:
    assert advertised.desk.down() == 0
    assert advertised.ask(advertised.laptop, "browse") == []
    advertised.desk.up()
    wait_until(lambda: advertised.ask(advertised.laptop, "browse"), 60, "it stands again")
