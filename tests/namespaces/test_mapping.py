"""The way in through a real router: miniupnpd, and what it really does (B21–B33)."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import pytest

from tunnel.io.lab import Lab, Namespace, Process, connect, make_router, wait_until
from tunnel.io.lab.nat import INSIDE, OUTSIDE, NatKind, PortMapper, make_nat

pytestmark = pytest.mark.root

PATIENCE = 60.0
WAN, INNER, HOST = "192.0.1.7", "192.168.7.1", "192.168.7.10"
INNER6, HOST6 = "2600:7::1", "2600:7::10"


class Home:
    """A host behind a router on an internet that looks public."""

    def __init__(self, lab: Lab, **options: Any) -> None:
        self.router = lab.namespace("router")
        self.host = lab.namespace("host")
        self.internet = lab.switch("internet")
        self.internet.plug(self.router, OUTSIDE, f"{WAN}/24")
        self.outer = lab.namespace("outer")
        self.internet.plug(self.outer, "eth0", "192.0.1.200/24")
        connect(self.host, "eth0", self.router, INSIDE)
        self.host.address("eth0", f"{HOST}/24")
        self.router.address(INSIDE, f"{INNER}/24")
        self.host.gateway(INNER)
        self.mapper = PortMapper(self.router, "192.168.7.0/24", self.router.folder, **options)
        self._clients = 0

    def ask(self, methods: str, port: int = 4500, *, shortest: int | None = None) -> Client:
        self._clients += 1
        more = () if shortest is None else (str(shortest),)
        return Client(self.host, self._clients, HOST, port, INNER, methods, *more)

    def speak_ipv6(self) -> None:
        """Global addresses at home and outside; the router lets nobody in whom it does not know."""
        self.router.address(INSIDE, f"{INNER6}/64")
        self.host.address("eth0", f"{HOST6}/64")
        self.host.gateway(INNER6)
        self.router.address(OUTSIDE, "2600:1::7/64")
        self.outer.address("eth0", "2600:1::200/64")
        self.outer.gateway("2600:1::7")


class Client:
    """:mod:`tests.namespaces.mapping`, running."""

    def __init__(
        self,
        host: Namespace,
        number: int,
        address: str,
        port: int,
        gateways: str,
        methods: str,
        *more: str,
    ) -> None:
        self.process: Process = host.start(
            *(sys.executable, "-m", "tests.namespaces.mapping"),
            *(address, str(port), gateways, methods, *more),
            name=f"client{number}",
        )
        self.until(lambda: any("ready" in line for line in self._lines()), "it asks")

    def _lines(self) -> list[dict[str, Any]]:
        found = []
        for line in self.process.output().splitlines():
            if line.startswith("{") and line.endswith("}"):
                found.append(json.loads(line))
        return found

    def ways(self) -> list[dict[str, Any]]:
        return [line for line in self._lines() if "method" in line]

    def answers(self) -> dict[str, str]:
        return next((one["answers"] for one in reversed(self._lines()) if "answers" in one), {})

    def until(self, condition: Callable[[], object], what: str) -> None:
        assert self.process.running, self.process.output()
        wait_until(lambda: condition() or None, PATIENCE, what)

    def mapped(self) -> dict[str, Any]:
        self.until(lambda: self.ways() and self.ways()[-1]["method"], "there is a mapping")
        return self.ways()[-1]

    def end(self) -> None:
        assert self.process.stop(timeout=PATIENCE) == 0, self.process.output()


@pytest.mark.parametrize("method", ["pcp", "nat-pmp", "upnp"])
def test_each_protocol_alone_opens_the_port_and_closes_it_at_the_end(lab: Lab, method: str) -> None:
    home = Home(lab)
    home.mapper.start()
    client = home.ask(method)
    way = client.mapped()
    assert (way["method"], way["external"]) == (method, [WAN, 4500])
    assert not way["double_nat"]
    assert f"{HOST}:4500" in home.mapper.mappings()
    client.end()
    assert f"{HOST}:4500" not in home.mapper.mappings()


def test_a_datagram_from_outside_comes_in(lab: Lab) -> None:
    home = Home(lab)
    home.mapper.start()
    home.ask("pcp").mapped()
    hear = (
        "import socket; s = socket.socket(type=socket.SOCK_DGRAM); s.bind(('', 4500)); "
        "print('bound', flush=True); print(s.recvfrom(99)[0].decode(), flush=True)"
    )
    hearing = home.host.start(sys.executable, "-c", hear, name="hearing")
    hearing.wait_for("bound", PATIENCE)
    send = f"import socket; socket.socket(type=2).sendto(b'good morning', ('{WAN}', 4500))"
    home.outer.run(sys.executable, "-c", send)
    hearing.wait_for("good morning", PATIENCE)


def test_of_all_methods_the_first_wins_and_one_mapping_stays(lab: Lab) -> None:
    home = Home(lab)
    home.mapper.start()
    client = home.ask("pcp,nat-pmp,upnp")
    assert client.mapped()["method"] == "pcp"
    assert home.mapper.mappings().count(f"{HOST}:4500") == 1


def test_a_router_of_upnp_alone_is_found(lab: Lab) -> None:
    home = Home(lab, natpmp=False)
    home.mapper.start()
    assert home.ask("pcp,nat-pmp,upnp").mapped()["method"] == "upnp"


def test_a_taken_port_yields_the_next_free_one(lab: Lab) -> None:
    """B27: what is returned is what is published."""
    home = Home(lab)
    home.mapper.start()
    home.host.address("eth0", "192.168.7.11/24")
    home.ask("nat-pmp").mapped()
    second = Client(home.host, 9, "192.168.7.11", 4500, INNER, "nat-pmp")
    assert second.mapped()["external"] == [WAN, 4501]


def test_a_restarted_router_gets_the_mapping_again(lab: Lab) -> None:
    """B28: it announces itself by PCP, and its clock began anew."""
    home = Home(lab)
    home.mapper.start()
    client = home.ask("pcp")
    client.mapped()
    home.mapper.kill()
    home.mapper.flush()
    assert f"{HOST}:4500" not in home.mapper.mappings()
    home.mapper.start()
    client.until(lambda: f"{HOST}:4500" in home.mapper.mappings(), "the port is open again")


def test_a_restarted_router_is_asked_for_the_port_that_it_gave_before(lab: Lab) -> None:
    """B28: not for the one that was wished for first, which is free by now."""
    home = Home(lab)
    home.mapper.start()
    home.host.address("eth0", "192.168.7.11/24")
    first = Client(home.host, 9, "192.168.7.11", 4500, INNER, "pcp")
    first.mapped()
    second = home.ask("pcp")
    assert second.mapped()["external"] == [WAN, 4501]
    first.process.kill()  # it says no good-bye, and asks no more
    home.mapper.kill()
    home.mapper.flush()
    home.mapper.start()
    second.until(lambda: f"{HOST}:4500" in home.mapper.mappings(), "the port is open again")
    assert "dport 4501" in home.mapper.mappings()
    assert "dport 4500" not in home.mapper.mappings()
    assert [way["external"] for way in second.ways() if way["method"]][-1] == [WAN, 4501]


@pytest.mark.parametrize("method", ["pcp", "nat-pmp"])
def test_a_mapping_is_renewed_at_half_its_life_and_made_anew_without_an_announcement(
    lab: Lab, method: str
) -> None:
    """B28, B29: eight seconds are granted, and after more than that it still stands. A router that
    forgets in silence (NAT-PMP hears of no restart) is found out by the next renewal."""
    home = Home(lab, lifetimes=(6, 8))
    home.mapper.start()
    client = home.ask(method, shortest=4)
    assert client.mapped()["lifetime"] == 8
    renewals = {"pcp": "PCP request received", "nat-pmp": "NAT-PMP request received"}[method]
    before = home.mapper.said.count(renewals)
    client.until(lambda: home.mapper.said.count(renewals) >= before + 2, "it was renewed")
    assert f"{HOST}:4500" in home.mapper.mappings()
    home.mapper.flush()
    client.until(lambda: f"{HOST}:4500" in home.mapper.mappings(), "the port is open again")


def test_an_ipv6_firewall_is_opened_by_pcp_and_closed_at_the_end(lab: Lab) -> None:
    """RFC 6887 §11: the pinhole's outer endpoint is the inner one."""
    home = Home(lab)
    home.speak_ipv6()
    home.mapper.start()
    hearing = home.host.start(sys.executable, "-c", HEAR6, name="hearing")
    hearing.wait_for("bound", PATIENCE)
    home.outer.run(sys.executable, "-c", SEND6, "before", HOST6)
    client = Client(home.host, 1, HOST6, 4500, INNER6, "pcp,nat-pmp,upnp")
    way = client.mapped()
    assert (way["method"], way["external"]) == ("pcp", [HOST6, 4500])
    assert "dport 4500" in home.mapper.pinholes()
    home.outer.run(sys.executable, "-c", SEND6, "good morning", HOST6)
    hearing.wait_for("good morning", PATIENCE)
    assert "before" not in hearing.output()
    client.end()
    assert "dport 4500" not in home.mapper.pinholes()


@pytest.mark.parametrize("method", ["pcp", "nat-pmp"])
def test_a_changed_address_outside_is_announced_and_told(lab: Lab, method: str) -> None:
    """B32."""
    home = Home(lab)
    home.mapper.start()
    client = home.ask(method)
    client.mapped()
    home.router.ip("address", "del", f"{WAN}/24", "dev", OUTSIDE)
    home.router.ip("address", "add", "192.0.1.99/24", "dev", OUTSIDE)
    home.mapper.announce_address()
    client.until(lambda: client.ways()[-1].get("external") == ["192.0.1.99", 4500], "it is told")


@pytest.mark.parametrize(
    ("method", "outside"),
    [
        *(("pcp", "192.168.0.17"), ("nat-pmp", "192.168.0.17"), ("upnp", "192.168.0.17")),
        *(("pcp", "100.64.0.17"), ("nat-pmp", "10.0.0.17")),
    ],
)
def test_a_router_behind_another_nat_is_told_as_such(lab: Lab, method: str, outside: str) -> None:
    """B33: miniupnpd refuses to map where its own address is private, or shared (RFC 6598)."""
    home = Home(lab)
    home.router.ip("address", "del", f"{WAN}/24", "dev", OUTSIDE)
    home.router.ip("address", "add", f"{outside}/24", "dev", OUTSIDE)
    home.mapper.start()
    client = home.ask(method)
    client.until(client.answers, "the router says something")
    said = str(client.answers())
    assert "another NAT" in said or "501" in said or client.ways()[-1].get("double_nat"), said


def test_without_any_responder_nothing_is_waited_for(lab: Lab) -> None:
    """B25: a plain router answers nothing; the kernel says at once that nobody listens."""
    router, host = lab.namespace("router"), lab.namespace("host")
    connect(host, "eth0", router, INSIDE)
    host.address("eth0", f"{HOST}/24")
    router.address(INSIDE, f"{INNER}/24")
    host.gateway(INNER)
    make_router(router)
    client = Client(host, 1, HOST, 4500, INNER, "pcp,nat-pmp,upnp")
    client.until(lambda: "nothing listens" in str(client.answers()), "it is told")
    assert client.ways() == []


@pytest.mark.parametrize("kind", ["restricted", "symmetric", "full-cone"])
def test_plain_nats_are_what_they_are_called(lab: Lab, kind: NatKind) -> None:
    """The lab's own kinds: one outer port for two destinations, or two; and a stranger's way in."""
    router, host, outer = (lab.namespace(one) for one in ("router", "host", "outer"))
    connect(host, "eth0", router, INSIDE)
    connect(router, OUTSIDE, outer, "eth0")
    host.address("eth0", f"{HOST}/24")
    router.address(INSIDE, f"{INNER}/24")
    router.address(OUTSIDE, f"{WAN}/24")
    outer.address("eth0", "192.0.1.200/24", "192.0.1.201/24")
    host.gateway(INNER)
    make_nat(router, kind, inner=HOST)
    hearing = outer.start(sys.executable, "-c", HEAR, "192.0.1.200", "192.0.1.201", name="hearing")
    hearing.wait_for("bound", PATIENCE)
    talking = host.start(sys.executable, "-c", TALK, "192.0.1.200", "192.0.1.201", name="talking")
    wait_until(lambda: hearing.output().count("from") == 2 or None, PATIENCE, "both came")
    ports = {line.split()[2] for line in hearing.output().splitlines() if "from" in line}
    assert len(ports) == (2 if kind == "symmetric" else 1)
    # Somebody to whom nothing was sent answers, too.
    stranger = "import socket; s = socket.socket(type=2); s.sendto(b'stranger', ('{}', {}))"
    outer.run(sys.executable, "-c", stranger.format(WAN, next(iter(ports))))
    before = talking.output().count("friend")  # what comes later than these came after it
    wait_until(lambda: talking.output().count("friend") > before + 4 or None, PATIENCE, "friends")
    assert ("stranger" in talking.output()) is (kind == "full-cone")


HEAR6 = (
    "import socket; s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); s.bind(('::', 4500)); "
    "print('bound', flush=True)\nwhile True: print(s.recvfrom(99)[0].decode(), flush=True)"
)
SEND6 = (
    "import socket, sys; s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); "
    "s.sendto(sys.argv[1].encode(), (sys.argv[2], 4500))"
)
HEAR = """
import socket, sys, time
all = []
for address in sys.argv[1:]:
    s = socket.socket(type=socket.SOCK_DGRAM)
    s.bind((address, 9999))
    all.append(s)
print("bound", flush=True)
known = []
for s in all:
    data, there = s.recvfrom(99)
    print("from", *there, flush=True)
    known.append((s, there))
while True:
    for s, there in known:
        s.sendto(b"friend", there)
    time.sleep(0.1)
"""
TALK = """
import socket, sys
s = socket.socket(type=socket.SOCK_DGRAM)
s.bind(("", 4500))
for address in sys.argv[1:]:
    s.sendto(b"x", (address, 9999))
while True:
    print(s.recvfrom(99)[0].decode(), flush=True)
"""
