"""What mobility costs: messages and round trips, bindings at a home agent, and moves of a host.

Six figures in one run. *Exchanges*: two machines of :mod:`tunnel.mobility` with a line between
them on a virtual clock: messages, octets, and round trips until the other side's data goes to the
right endpoint. *Bindings*: a home agent's table of so many hosts: memory, and how long a refresh
takes. *Forwarding*: its engine with as many hosts (:mod:`bench.relay_crowd`). *Moves*: real hosts
on lines that take their time, and a home agent: without an answer to pings for how long, when a
host gets an address where it never was, when it comes back to one, and when it has two networks and
the first goes down.
*Octets* of a packet in each form, and TCP *through the home agent*: :mod:`bench.relay`.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from typing import Any

from bench import machine, relay, relay_crowd, report
from bench.crowd import resident_octets
from bench.roam import PATIENCE, PAUSE, PING_SECONDS, QUIET_SECONDS, join_slowly
from fastpath.types import RELAY_PORT, Endpoint
from tunnel.cli.demo.scenes import DOMAIN, find_token
from tunnel.io.lab import (
    Arrivals,
    HostMachine,
    Lab,
    Namespace,
    RendezvousMachine,
    connect,
    wait_until,
)
from tunnel.io.lab.nat import INSIDE, OUTSIDE, make_nat
from tunnel.mobility import header
from tunnel.mobility.claims import Claim
from tunnel.mobility.commands import Command, HomeBound, SendMobility, UseEndpoint
from tunnel.mobility.home import HomeAgent
from tunnel.mobility.limits import MobilitySettings
from tunnel.mobility.machine import Mobility

BINDINGS = 10_000
LINE_MS = 40.0  # a round trip between two hosts on lines of bench.roam, without anything else
UNIX = 1_800_000_000
RENDEZVOUS = "192.0.1.10"
ROUND = {
    "new": "to an address where it never was",
    "known": "back to where it was proven",
    "planned": "to a second network that was proven early",
}
SECOND, SECOND_OUTSIDE = "eth1", "192.0.1.14"
OUR_ID, THEIR_ID = IPv6Address("fd00::a"), IPv6Address("fd00::b")
OUR_HOME, THEIR_HOME = (str(OUR_ID), RELAY_PORT), (str(THEIR_ID), RELAY_PORT)
PLACES: tuple[Endpoint, ...] = (("198.51.100.1", 4500), ("198.51.100.2", 4500))
THEIRS: Endpoint = ("203.0.113.1", 4500)


def run(*, rounds: int, seconds: int, as_json: bool, save: bool) -> int:
    """Measures, prints, keeps."""
    body: dict[str, Any] = {
        "exchanges": [one.summary() for one in exchanges()],
        "bindings": bindings(BINDINGS),
        "forwarding": relay_crowd.compare(rounds),
    }
    report.say("exchanges, bindings and forwarding are measured; now the moves")
    with Lab() as lab:
        body["moves"] = Moves(lab).measure(rounds)
    report.say("moves are measured; now TCP through the home agent")
    body["octets_per_packet"] = relay.octets_per_packet()
    body["relayed"] = relay.compare("offloading", rounds, seconds)
    report.finish("mobility", body, _tables(body), as_json=as_json, save=save)
    return 0


# --- Exchanges ----------------------------------------------------------------------------------


@dataclass
class Exchange:
    """One exchange between two machines; a trip is half a round trip."""

    name: str
    messages: int = 0
    octets: int = 0  # of Mobility Headers
    trips: int = 0  # until it is over
    data_after: int | None = None  # until the other side's data goes to the right endpoint

    def summary(self) -> dict[str, Any]:
        """As it is saved."""
        return {
            "exchange": self.name,
            "messages": self.messages,
            "octets": self.octets,
            "round_trips": self.trips / 2,
            "data_after_round_trips": None if self.data_after is None else self.data_after / 2,
        }


@dataclass
class Line:
    """A mobile and the one that it tells, with a line between. What goes by the home agent takes
    as long."""

    ours: Mobility
    theirs: Mobility
    place: Endpoint = PLACES[0]
    now: float = 1000.0
    results: list[Exchange] = field(default_factory=list)

    def play(self, name: str, begin: list[Command], place: Endpoint | None = None) -> None:
        """What follows from these commands of ours, trip by trip."""
        self.place = place or self.place
        exchange = Exchange(name)
        ours, theirs = self._sent(begin), list[SendMobility]()
        while ours or theirs:
            exchange.trips += 1
            came = [self._to_them(one, exchange) for one in ours]
            gone = [self._to_us(one) for one in theirs]
            exchange.messages += len(ours) + len(theirs)
            exchange.octets += sum(len(one.message) for one in (*ours, *theirs))
            theirs, ours = list(itertools.chain(*came)), list(itertools.chain(*gone))
        self.now += 10.0
        self.results.append(exchange)

    def _sent(self, commands: list[Command]) -> list[SendMobility]:
        return [one for one in commands if isinstance(one, SendMobility)]

    def _to_them(self, letter: SendMobility, exchange: Exchange) -> list[SendMobility]:
        source = OUR_HOME if letter.endpoint == THEIR_HOME else self.place
        said = self.theirs.received("ours", source, letter.message, self.now, UNIX)
        if any(isinstance(one, UseEndpoint | HomeBound) for one in said):
            exchange.data_after = exchange.data_after or exchange.trips
        return self._sent(said)

    def _to_us(self, letter: SendMobility) -> list[SendMobility]:
        source = THEIR_HOME if letter.endpoint == OUR_HOME else THEIRS
        said = self.ours.received("theirs", source, letter.message, self.now, UNIX)
        return self._sent(said)


def _line(agent: HomeAgent | None = None) -> Line:
    numbers = itertools.count(1)

    def random(count: int) -> bytes:
        return next(numbers).to_bytes(count)

    ours, theirs = Mobility(OUR_ID, random), Mobility(THEIR_ID, random, home_agent=agent)
    ours.know("theirs", THEIR_ID)
    theirs.know("ours", OUR_ID)
    return Line(ours, theirs)


def exchanges() -> list[Exchange]:
    """Every exchange once."""
    first, second = PLACES
    home, line = _line(HomeAgent()), _line()
    registered = home.ours.register("theirs", THEIRS, Claim.at(first), home.now, home=True)
    home.play("registration with the home agent", registered)
    again = home.ours.register("theirs", THEIRS, Claim.at(second), home.now, home=True)
    home.play("a move, told to the home agent", again, second)
    proof = line.ours.register("theirs", THEIRS, Claim.at(first), line.now)
    line.play("a proof of both addresses", proof)
    early = line.ours.open("theirs", THEIRS, line.now)
    line.play("an early proof of another address", early, second)
    planned = line.ours.register("theirs", THEIRS, Claim.at(second), line.now)
    line.play("a move to where it was proven, or early", planned, second)
    third = ("198.51.100.3", 4500)
    unplanned = line.ours.register("theirs", THEIRS, Claim.at(third), line.now)
    line.play("a move to where it was not", unplanned, third)
    return [*home.results, *line.results]


# --- Bindings -----------------------------------------------------------------------------------


def bindings(count: int) -> dict[str, Any]:
    """A home agent with so many hosts: memory of each, and the time a refresh takes."""
    settings = MobilitySettings()
    agent = HomeAgent(count, settings)
    ours = Mobility(THEIR_ID, lambda octets: bytes(octets), home_agent=agent)
    ids = [IPv6Address(int(OUR_ID) + number) for number in range(count)]
    names = [f"host{number}.alice.members.example" for number in range(count)]

    def update(number: int, sequence: int) -> bytes:
        claim = Claim.at(PLACES[0])
        message = header.BindingUpdate(sequence, 3600, claim.options, home=True)
        return header.pack(message, ids[number], THEIR_ID)

    first, second = ([update(number, one) for number in range(count)] for one in (1, 2))
    before = resident_octets()
    for name, host_id in zip(names, ids, strict=True):
        ours.know(name, host_id)
    _all(ours, names, first, 1000.0)
    octets = (resident_octets() - before) / count
    began = time.perf_counter()
    _all(ours, names, second, 2000.0)
    seconds = (time.perf_counter() - began) / count
    assert len(agent.bindings) == count
    a_second = count / (settings.home_lifetime * settings.refresh_at)
    return {
        "hosts": count,
        "octets_per_binding": round(octets),
        "refresh_us": round(seconds * 1e6, 1),
        "refreshes_per_s": round(a_second, 2),
        "processor_percent": round(a_second * seconds * 100, 3),
    }


def _all(ours: Mobility, names: list[str], updates: list[bytes], now: float) -> None:
    for name, octets in zip(names, updates, strict=True):
        ours.received(name, PLACES[0], octets, now, UNIX)


# --- Moves --------------------------------------------------------------------------------------


class Moves:
    """Two public hosts and a home agent, each at the end of a line; one of them moves."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        internet, join = lab.switch("internet"), join_slowly(lab)
        machines: dict[str, Namespace] = {}
        places = {"rendezvous": RENDEZVOUS, "agent": "192.0.1.11"}
        for role, address in {**places, "desk": "192.0.1.12", "laptop": "192.0.1.13"}.items():
            machines[role] = lab.namespace(role)
            join(internet, machines[role], "eth0", f"{address}/24")
        self._router = lab.namespace("second")
        join(internet, self._router, OUTSIDE, f"{SECOND_OUTSIDE}/24")
        connect(machines["laptop"], SECOND, self._router, INSIDE)
        self._router.address(INSIDE, "192.168.9.1/24")
        make_nat(self._router, "restricted")
        # Else Linux takes the new address away with the old one, which was there before it.
        machines["laptop"].write_sysctl("net/ipv4/conf/eth0/promote_secondaries", "1")
        self._home, self._at = "192.0.1.13", "192.0.1.13"
        self._fresh = (f"192.0.1.{number}" for number in range(20, 250))
        self._fresh_inside = (f"192.168.9.{number}" for number in range(20, 250))
        self._hosts = {role: HostMachine(machines[role]) for role in ("agent", "desk", "laptop")}
        self._account(RendezvousMachine(machines["rendezvous"]))

    def _account(self, rendezvous: RendezvousMachine) -> None:
        agent, *others = self._hosts.values()
        where = ("--rendezvous", RENDEZVOUS, "--name", "agent", "-c", str(agent.config))
        agent.cli("init", DOMAIN, "--auth", "psk", *where)
        rendezvous.adopt(agent)
        rendezvous.serve()
        for role, host in list(self._hosts.items())[1:]:
            token = find_token(agent.cli("invite", "--json", "-c", str(agent.config)).stdout)
            host.cli("join", token, "--name", role, "-c", str(host.config))
        for host in (agent, *others):
            host.settle()
            host.change("resolver", {"enabled": False})
        agent.change("home_agent", {})
        for host in (agent, *others):
            host.up()

    def measure(self, rounds: int) -> dict[str, Any]:
        """All kinds of move, ``rounds`` times, in turns."""
        laptop, desk = self._hosts["laptop"], self._hosts["desk"]
        host_id = str(desk.status()["host"]["id"])
        both = (laptop, desk)
        wait_until(lambda: all(map(_is_registered, both)), PATIENCE, "hosts are registered")
        device = str(laptop.status()["host"]["device"])
        answers = "icmp6 and ip6[40] == 129"
        pings = Arrivals(self._lab.capture(laptop.machine, device, "pings", answers, octets=64))
        laptop.machine.run("ping", "-c", "1", "-W", "20", host_id, check=False)
        begun = time.time()
        laptop.machine.start("ping", "-q", "-i", str(PING_SECONDS), host_id, name="pings")
        wait_until(
            lambda: pings.flow_since(begun, QUIET_SECONDS, PAUSE), PATIENCE, "pings are answered"
        )
        wait_until(lambda: _knows(laptop), PATIENCE, "the desk has a binding")
        outages: dict[str, list[float]] = {kind: [] for kind in ROUND}
        for number in range(rounds):
            kinds: dict[str, Callable[[], float]] = {
                "new": lambda: self._move(next(self._fresh), pings),
                "known": lambda: self._move(self._home, pings),
                "planned": lambda: self._leave_by_the_second(pings),
            }
            for kind, move in kinds.items():
                outages[kind].append(move())
                report.say(f"round {number + 1}: {ROUND[kind]}: {outages[kind][-1]:.0f} ms")
        return {
            kind: {"median_ms": round(report.median(all_), 1), "all_ms": [round(n) for n in all_]}
            for kind, all_ in outages.items()
        }

    def _move(self, place: str, pings: Arrivals) -> float:
        """Another address on the same line; without an answer for how many milliseconds."""
        machine_ = self._hosts["laptop"].machine
        begun = time.time()
        machine_.ip("addr", "add", f"{place}/24", "dev", "eth0")
        machine_.ip("addr", "del", f"{self._at}/24", "dev", "eth0")
        self._at = place
        return self._outage(begun, place, pings)

    def _leave_by_the_second(self, pings: Arrivals) -> float:
        """The first line goes down when the desk holds a proof of the second network's."""
        machine_, ours = self._hosts["laptop"].machine, next(self._fresh_inside)
        first = ("default", "via", RENDEZVOUS, "dev", "eth0")  # that nothing needs but the choice
        machine_.ip("route", "add", *first)
        machine_.address(SECOND, f"{ours}/24")
        machine_.ip("link", "set", SECOND, "up")
        machine_.ip("route", "add", "default", "via", "192.168.9.1", "metric", "200")
        wait_until(lambda: self._is_proven(ours), PATIENCE, "the second network is proven")
        begun = time.time()
        machine_.ip("link", "set", "eth0", "down")
        outage = self._outage(begun, SECOND_OUTSIDE, pings)
        begun = time.time()
        machine_.ip("link", "set", "eth0", "up")
        machine_.ip("link", "set", SECOND, "down")
        machine_.ip("addr", "flush", "dev", SECOND)
        self._outage(begun, self._at, pings)
        return outage

    def _is_proven(self, ours: str) -> bool:
        """Whether the desk has told the laptop that it holds a proof of this address."""
        laptop = self._hosts["laptop"]
        done = laptop.cli("explain", "desk", "--json", "-c", str(laptop.config))
        return any(
            event["fields"].get("ours") == ours and event["why"] == "it holds a proof of us"
            for event in json.loads(done.stdout)["events"]
        )

    def _outage(self, begun: float, place: str, pings: Arrivals) -> float:
        wait_until(
            lambda: pings.flow_since(begun, QUIET_SECONDS, PAUSE), PATIENCE, "pings are answered"
        )
        wait_until(
            lambda: str(self._hosts["laptop"].status()["host"]["endpoint"]).startswith(place),
            PATIENCE,
            "the laptop knows where it is",
        )
        wait_until(
            lambda: pings.flow_since(begun, 2 * QUIET_SECONDS, PAUSE), PATIENCE, "it is quiet again"
        )
        return pings.longest_gap(begun) * 1000


def _is_registered(host: HostMachine) -> bool:
    return any(one["registered"] for one in host.status()["home_agents"])


def _knows(laptop: HostMachine) -> bool:
    peer = laptop.peer("desk")
    return peer is not None and any(
        child["traffic"] == "protocol 135" and child["rx_packets"] for child in peer["children"]
    )


# --- Tables -------------------------------------------------------------------------------------


def _tables(body: dict[str, Any]) -> str:
    head = ["exchange", "messages", "octets", "round trips", "data after"]
    rows = [[_text(cell) for cell in one.values()] for one in body["exchanges"]]
    first = report.table(
        "Mobility messages, without ESP; data after so many round trips", head, rows
    )
    found = body["bindings"]
    second = report.table(
        f"A home agent of {found['hosts']:,} hosts",
        ["octets a binding", "µs a refresh", "refreshes a second", "% of a processor"],
        [[_text(cell) for cell in list(found.values())[1:]]],
    )
    engine = relay_crowd.render(body["forwarding"])
    third = report.table(
        f"Moves of a host, ms without an answer; {LINE_MS:.0f} ms a round trip",
        ["move", "median", "least", "most"],
        [
            [ROUND[kind], *(f"{n:.0f}" for n in (one["median_ms"], *_ends(one["all_ms"])))]
            for kind, one in body["moves"].items()
        ],
    )
    last = relay.render([body["relayed"]], body["octets_per_packet"])
    return "\n\n".join((machine.summary(), first, second, engine, third, last))


def _ends(values: list[float]) -> tuple[float, float]:
    return min(values), max(values)


def _text(cell: object) -> str:
    return "–" if cell is None else f"{cell:g}" if isinstance(cell, float) else str(cell)


if __name__ == "__main__":
    sys.exit(run(rounds=3, seconds=2, as_json=False, save=False))
