"""A host with two uplinks, each behind a router: moves to the other one, with an early proof (I20),
and without any proof (I13–I19)."""

from __future__ import annotations

import hashlib
import json
import re
import sys
import time
from collections.abc import Iterator
from itertools import dropwhile
from pathlib import Path
from typing import Any

import pytest

from tests.namespaces.homes import Home, Homes
from tests.namespaces.overheard import MobilitySas, Said
from tunnel.io.lab import Capture, Lab, LabError, Namespace, connect, missing, wait_until
from tunnel.io.lab.nat import INSIDE, OUTSIDE, make_nat
from tunnel.io.lab.pcap import Packet, read_packets
from tunnel.mobility.header import Aotc, Aotr, BindingAck, BindingUpdate

pytestmark = pytest.mark.root

PATIENCE = 90.0
OCTETS = 3_000_000
RATE = "200k"
SECOND, BEHIND, SEEN = "eth1", "192.168.120", "192.0.1.120"
FIRST = "192.168.20"  # of the first home (tests.namespaces.homes)
ROUTER = "r-second"
IKE = bytes(4)  # before it, where no SPI can be (RFC 3948 §2.2)
MOVED = "our own addresses changed: every peer is told"
KNOWN = "it knows where we are"
PING = 1000  # octets, more than any message of ours


@pytest.fixture(scope="module")
def homes() -> Iterator[Homes]:
    """A laptop behind one router, a public desk, another one behind a router, and a home agent."""
    if (reason := missing()) is not None:
        pytest.skip(reason)
    with Lab() as lab:
        made = Homes(lab, "restricted", "public", "restricted", agents=1)
        give_second(made)
        made.up()
        for home in made.homes[:3]:
            wait_until(lambda home=home: registered(home) or None, PATIENCE, "it is registered")
        yield made


def give_second(homes: Homes) -> None:
    """One more network for the laptop, that the routes do not prefer."""
    laptop = homes.homes[0].host.machine
    router = homes.lab.namespace(ROUTER)
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


def times(home: Home, other: Home, why: str) -> int:
    """How often this happened there."""
    return sum(event["times"] for event in explained(home, other) if event["why"] == why)


def prefer(laptop: Namespace, first: bool) -> None:
    """The routes prefer the first network, or the second."""
    metric = "100" if first else "300"
    laptop.ip("route", "del", "default", "via", f"{FIRST}.1")
    laptop.ip("route", "add", "default", "via", f"{FIRST}.1", "metric", metric)


def proven_early(home: Home, other: Home, ours: str) -> bool:
    """Whether it was told that the other one holds a proof of this address of its own."""
    return any(
        event["why"] == "it holds a proof of us" and event["fields"].get("ours") == ours
        for event in explained(home, other)
    )


def until(holds: Any, what: str, *ends: Home) -> Any:
    try:
        return wait_until(lambda: holds() or None, PATIENCE, what)
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
                            far.output().count(line) == 2 * times or None
                        ),
                        PATIENCE,
                        f"{line.strip()} comes to router {number}",
                    )
                assert far.output().count("from") == 4 * times, "and nothing else"


MARK = (
    "import socket, sys; "
    "socket.socket(type=socket.SOCK_DGRAM).sendto(sys.argv[1].encode(), (sys.argv[2], 9))"
)


class Wire:
    """What passes at the desk, and what it says of mobility."""

    def __init__(self, homes: Homes) -> None:
        self.laptop, self.desk = homes.homes[:2]
        (self._router,) = [one for one in homes.lab.machines if one.role == ROUTER]
        self._capture: Capture = homes.lab.capture(self.desk.host.machine, "eth0", "desk", "udp")
        self._sas: MobilitySas | None = None

    def packets(self) -> list[Packet]:
        """All until now."""
        return list(read_packets(self._capture.file))

    def said(self, place: str) -> list[Said]:
        """What the laptop said to the desk from this address, or heard there as a mobile."""
        if self._sas is None:
            self._sas = MobilitySas(self.laptop, self.desk)
        ours, theirs = (BindingUpdate, Aotr), (Aotc, BindingAck)
        return [
            one
            for one in self._sas.said(self._capture.file)
            if isinstance(one.message, ours if one.source[0] == place else theirs)
            and place in (one.source[0], one.target[0])
        ]

    def all_said(self, place: str) -> list[Said]:
        """The same, once the capture holds all that has passed until now."""
        mark = f"until {time.monotonic_ns()}"
        script = (sys.executable, "-c", MARK, mark, self.laptop.outer)
        self.desk.host.machine.run(*script)
        wait_until(
            lambda: any(one.payload == mark.encode() for one in self.packets()) or None,
            PATIENCE,
            "all that has passed is written down",
        )
        return self.said(place)

    def drop(self, *rules: str) -> None:
        """What the second router lets nobody send in from the desk; all of it, or packets of which
        one of these is true."""
        hook = "type filter hook forward priority -10"
        lines = "".join(f"ip saddr {self.desk.outer} {rule} drop\n" for rule in rules)
        table = f"table ip lossy {{\nchain it {{\n{hook}\n{lines}}}\n}}\n"
        script = f"table ip lossy\ndelete table ip lossy\n{table}"
        self._router.run("nft", "-f", "-", stdin=script)

    def stop(self) -> None:
        """End it; everything passes."""
        self.drop()
        self._capture.stop()


def bound(home: Home, peers: int) -> bool:
    """Whether so many know where it is."""
    return bool(home.host.status()["mobility"]["registrations"] == peers)


def test_a_move_to_a_network_that_was_never_proven_and_back(homes: Homes) -> None:
    """The sheet's tests 3 and 4: one proof after the other, by its messages on the wire."""
    ends = laptop, desk = homes.homes[0], homes.homes[1]
    machine, config = laptop.host.machine, ("-c", str(laptop.host.config))
    host_id = desk.host.status()["host"]["id"]
    wire = Wire(homes)
    wire.drop("")
    laptop.host.cli("ping", desk.label, "-n", "1", *config, timeout=PATIENCE)
    until(lambda: bound(laptop, 2), "the desk and the home agent know where it is", *ends)
    is_a_proof(wire.all_said(laptop.outer))

    prefer(machine, first=False)
    ping = machine.start("ping", "-6", "-s", str(PING), "-i", "0.1", host_id, name="ping")
    until(lambda: not_redirected(wire, laptop.outer), "data come from the second network", *ends)
    assert seen_at(desk, laptop).startswith(f"{laptop.outer}:"), "and do not go there"
    until(lambda: kinds(wire.said(SEEN)) == {BindingUpdate, Aotc}, "it is asked", *ends)
    to_second = [one for one in wire.packets() if one.target[0] == SEEN]
    assert max(len(one.payload) for one in to_second if one.payload[:4] != IKE) < PING / 5

    wire.drop("@th,64,32 0")  # IKE: its answers prove nothing here
    until(lambda: bound(laptop, 2), "the desk has acknowledged it", *ends)
    wire.drop()
    said = wire.all_said(SEEN)
    is_a_proof(said)
    assert seen_at(desk, laptop).startswith(f"{SEEN}:")

    before, known = len(wire.all_said(laptop.outer)), times(laptop, desk, KNOWN)
    prefer(machine, first=True)
    back = f"{laptop.outer}:"
    until(lambda: seen_at(desk, laptop).startswith(back), "it has moved back", *ends)
    until(lambda: times(laptop, desk, KNOWN) > known, "it knows that the desk knows", *ends)
    said = wire.all_said(laptop.outer)[before:]
    assert kinds(said) == {BindingUpdate, BindingAck}, "and no test"
    wire.stop()
    ping.stop()
    assert times(desk, laptop, "it proved that it is there")


def kinds(said: list[Said]) -> set[type]:
    return {type(one.message) for one in said}


def is_a_proof(said: list[Said]) -> None:
    """BU, AOTC, AOTR with that nonce, and BA of that BU; some of them perhaps more than once. What
    was before was about an early proof."""
    messages = [one.message for one in said]
    since = dropwhile(lambda one: not isinstance(one, BindingUpdate), messages)
    assert list(dict.fromkeys(map(type, since))) == [BindingUpdate, Aotc, Aotr, BindingAck]
    nonces = {one.nonce for one in messages if isinstance(one, Aotc)}
    assert {one.nonce for one in messages if isinstance(one, Aotr)} <= nonces
    numbers = {one.sequence for one in messages if isinstance(one, BindingUpdate)}
    assert {one.sequence for one in messages if isinstance(one, BindingAck)} <= numbers


def not_redirected(wire: Wire, first: str) -> bool:
    """Whether data have come from the second network for a while, and are answered at the first."""
    data = [one for one in wire.packets() if len(one.payload) > PING and one.payload[:4] != IKE]
    moved = list(dropwhile(lambda one: one.source[0] != SEEN, data))
    return len(moved) > 20 and sum(one.target[0] == first for one in moved) > 8


def test_a_peer_behind_a_router_lets_us_in_where_stun_saw_us_from_there(homes: Homes) -> None:
    """Routers of the kernel on both sides, which let in only whom the inside has sent to."""
    laptop, _, desk = homes.homes[:3]
    ends = laptop, desk
    config = str(laptop.host.config)
    assert laptop.host.cli("ping", desk.label, "-n", "1", "-c", config).returncode == 0
    until(lambda: proven_early(*ends, f"{BEHIND}.10"), "the second network is proven", *ends)
    proofs = [one["fields"] for one in explained(*ends) if one["why"] == "it holds a proof of us"]
    named = [one.get("seen") or "" for one in proofs if one.get("ours") == f"{BEHIND}.10"]
    assert all(one.startswith(f"{SEEN}:") for one in named), "STUN was asked from there"
    assert seen_at(desk, laptop).startswith(f"{laptop.outer}:"), "proven, not used"


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

    told = times(*ends, MOVED)
    prefer(machine, first=False)
    until(lambda: seen_at(desk, laptop).startswith(f"{SEEN}:"), "it has moved", *ends)
    until(lambda: proven_early(*ends, f"{FIRST}.10"), "the first one is proven, too", *ends)

    machine.ip("link", "set", SECOND, "down")
    back = f"{laptop.outer}:"
    until(lambda: seen_at(desk, laptop).startswith(back), "it has moved back", *ends)
    assert curl.wait(240) == 0, curl.tail()
    assert hashlib.sha256(file.read_bytes()).digest() == hashlib.sha256(content).digest()
    assert laptop.host.peer(desk.label)["spi_in"] == spi, "no SA was made anew"
    assert times(*ends, MOVED) == told + 2
