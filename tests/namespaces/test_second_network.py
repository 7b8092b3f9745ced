"""A host with two uplinks, each behind a router: a planned move in one transfer, and back (I20)."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.namespaces.homes import Home, Homes
from tunnel.io.lab import Lab, LabError, connect, missing, wait_until
from tunnel.io.lab.nat import INSIDE, OUTSIDE, make_nat

pytestmark = pytest.mark.root

PATIENCE = 90.0
OCTETS = 3_000_000
RATE = "200k"
SECOND, BEHIND, SEEN = "eth1", "192.168.120", "192.0.1.120"
FIRST = "192.168.20"  # of the first home (tests.namespaces.homes)


@pytest.fixture(scope="module")
def homes() -> Iterator[Homes]:
    """A laptop behind one router, a public desk, and a home agent."""
    if (reason := missing()) is not None:
        pytest.skip(reason)
    with Lab() as lab:
        made = Homes(lab, "restricted", "public", agents=1)
        give_second(made)
        made.up()
        for home in made.homes[:2]:
            wait_until(lambda home=home: registered(home) or None, PATIENCE, "it is registered")
        yield made


def give_second(homes: Homes) -> None:
    """One more network for the laptop, that the routes do not prefer."""
    laptop = homes.homes[0].host.machine
    router = homes.lab.namespace("r-second")
    connect(laptop, SECOND, router, INSIDE)
    laptop.address(SECOND, f"{BEHIND}.10/24")
    router.address(INSIDE, f"{BEHIND}.1/24")
    homes.internet.plug(router, OUTSIDE, f"{SEEN}/24")
    make_nat(router, "restricted")
    for which in ("all", "default", "eth0", SECOND):
        laptop.write_sysctl(f"net/ipv4/conf/{which}/rp_filter", "0")
    laptop.ip("route", "add", "default", "via", f"{BEHIND}.1", "metric", "200")


def registered(home: Home) -> bool:
    return any(one["registered"] for one in home.host.status()["home_agents"])


def explained(home: Home, other: Home) -> list[dict[str, Any]]:
    done = home.host.cli("explain", other.label, "--json", "-c", str(home.host.config))
    events: list[dict[str, Any]] = json.loads(done.stdout)["events"]
    return events


def proven_early(home: Home, other: Home, ours: str) -> bool:
    """Whether it was told that the other one holds a proof of this address of its own."""
    return any(
        event["why"] == "it holds a proof of us" and event["fields"].get("ours") == ours
        for event in explained(home, other)
    )


def until(holds: Any, what: str, *ends: Home) -> None:
    try:
        wait_until(lambda: holds() or None, PATIENCE, what)
    except LabError as error:
        first, second = ends
        said = [home.host.log()[-1500:] for home in ends]
        events = [str(one) for one in explained(first, second)[-25:]]
        raise LabError("\n".join((str(error), *said, *events))) from error


def seen_at(home: Home, other: Home) -> str:
    """Where data for the other one goes."""
    peer = home.host.peer(other.label)
    return "" if peer is None else str(peer["endpoint"])


HEAR = """
import select, socket
far = [socket.socket(family, socket.SOCK_DGRAM) for family in (socket.AF_INET, socket.AF_INET6)]
for one, host in zip(far, ("203.0.113.1", "2001:db8:f::1")):
    one.bind((host, 9))
print("ready", flush=True)
while True:
    for one in select.select(far, [], [])[0]:
        print("from", one.recvfrom(2000)[1][0], flush=True)
"""


def test_a_message_leaves_by_the_interface_of_its_source() -> None:
    """Both engines, IPv4 and IPv6: the routes prefer the first uplink, and both lead everywhere."""
    with Lab() as lab:
        laptop = lab.namespace("laptop")
        heard = []
        for number in (1, 2):
            router = lab.namespace(f"router{number}")
            nets = f"10.{number}.0.", f"2001:db8:{number}::"
            connect(laptop, f"up{number}", router, INSIDE)
            laptop.address(f"up{number}", f"{nets[0]}2/24", f"{nets[1]}2/64")
            router.address(INSIDE, f"{nets[0]}1/24", f"{nets[1]}1/64")
            router.address("lo", "203.0.113.1/32", "2001:db8:f::1/128")
            for net in nets:
                metric = str(100 * number)
                laptop.ip("route", "add", "default", "via", f"{net}1", "metric", metric)
            heard.append(router.start(sys.executable, "-u", "-c", HEAR, name="hear"))
            heard[-1].wait_for("ready", PATIENCE)
        laptop.ip("tuntap", "add", "vpn0", "mode", "tun")
        laptop.address("vpn0", "10.8.0.2/24")
        laptop.ip("route", "add", "default", "dev", "vpn0", "metric", "300")
        root = {"PYTHONPATH": str(Path(__file__).parents[2])}
        script = (sys.executable, "-m", "tests.namespaces.second_end")
        for times, engine in enumerate(("reference", "native"), 1):
            said = laptop.start(*script, engine, name=engine, env=root)
            assert said.wait(PATIENCE) == 0, said.output()
            found = json.loads(said.output().splitlines()[-1])
            assert found["ways"] == ["10.1.0.2", "10.2.0.2", "2001:db8:1::2", "2001:db8:2::2"]
            assert found["tunnels"] == ["10.8.0.2"], "which nobody held before"
            assert found["counters"]["tx_packets"] == 4
            for number, far in enumerate(heard, 1):
                for source in (f"10.{number}.0.2", f"2001:db8:{number}::2"):
                    line = f"from {source}\n"
                    wait_until(
                        lambda far=far, line=line, times=times: (
                            far.output().count(line) == times or None
                        ),
                        PATIENCE,
                        f"{line.strip()} comes to router {number}",
                    )
                assert far.output().count("from") == 2 * times, "and nothing else"


def test_one_transfer_moves_to_the_second_network_and_back(homes: Homes) -> None:
    laptop, desk = homes.homes[:2]
    machine = laptop.host.machine
    folder = desk.host.machine.folder / "served"
    folder.mkdir()
    content = bytes(range(256)) * (OCTETS // 256)
    (folder / "file.bin").write_bytes(content)
    host_id = desk.host.status()["host"]["id"]
    server = desk.host.machine.start(
        *("python3", "-u", "-m", "http.server", "0", "--bind", host_id, "--directory", str(folder)),
        name="http",
    )
    server.wait_for("Serving HTTP", PATIENCE)
    port = re.search(r"port (\d+)", server.output())
    assert port is not None
    file = machine.folder / "fetched"
    config = str(laptop.host.config)
    assert laptop.host.cli("ping", desk.label, "-n", "1", "-c", config).returncode == 0
    curl = machine.start(
        *("curl", "-sS", "--fail", "--noproxy", "*", "--limit-rate", RATE, "-o", str(file)),
        f"http://[{host_id}]:{port[1]}/file.bin",
        name="curl",
    )
    ends = laptop, desk
    until(lambda: proven_early(*ends, f"{BEHIND}.10"), "the second network is proven", *ends)
    assert seen_at(desk, laptop).startswith(f"{laptop.outer}:"), "proven, not used"
    spi = laptop.host.peer(desk.label)["spi_in"]

    machine.ip("route", "del", "default", "via", f"{FIRST}.1")
    machine.ip("route", "add", "default", "via", f"{FIRST}.1", "metric", "300")
    until(lambda: seen_at(desk, laptop).startswith(f"{SEEN}:"), "it has moved", *ends)
    until(lambda: proven_early(*ends, f"{FIRST}.10"), "the first one is proven, too", *ends)

    machine.ip("link", "set", SECOND, "down")
    back = f"{laptop.outer}:"
    until(lambda: seen_at(desk, laptop).startswith(back), "it has moved back", *ends)
    assert curl.wait(240) == 0, curl.tail()
    assert hashlib.sha256(file.read_bytes()).digest() == hashlib.sha256(content).digest()
    assert laptop.host.peer(desk.label)["spi_in"] == spi, "no SA was made anew"
    moves = [event["why"] for event in explained(*ends) if event["what"] == "moved"]
    assert moves.count("our own addresses changed: every peer is told") == 2
