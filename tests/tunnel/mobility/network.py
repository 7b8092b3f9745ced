"""Hosts with mobility and nothing else, in a network of one list: tests read as ladders."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv6Address

from fastpath.types import RELAY_PORT, Endpoint
from tunnel.mobility import header
from tunnel.mobility.claims import Claim
from tunnel.mobility.commands import Command, SendMobility
from tunnel.mobility.header import Message, Unrecognised
from tunnel.mobility.home import HomeAgent
from tunnel.mobility.limits import MobilitySettings
from tunnel.mobility.machine import Mobility
from tunnel.mobility.proofs import Proofs

A_ID = IPv6Address("fd01:203:405:607:22:69ff:fe8e:342a")
B_ID = IPv6Address("fd11:1213:1415:1617:22:69ff:fe00:1")
H_ID = IPv6Address("fd21::22:69ff:fe00:2")
IDS = {"a": A_ID, "b": B_ID, "h": H_ID}
A0, A1, A2 = (("198.51.100.6", 4500), ("198.51.100.7", 4500), ("198.51.100.8", 4500))
B1 = ("203.0.113.9", 4500)
H1 = ("192.0.2.1", 4500)
VICTIM = ("192.0.2.66", 4500)
UNIX = 1_800_000_000

NAMES = {
    header.BindingUpdate: "BU",
    header.BindingAck: "BA",
    header.BindingError: "BE",
    header.RefreshRequest: "BRR",
}


def counting() -> Callable[[int], bytes]:
    """Octets that differ each time, and are the same in each run."""
    numbers = itertools.count(1)
    return lambda count: next(numbers).to_bytes(count)


@dataclass
class Letter:
    """A message on its way."""

    sender: str
    receiver: str
    source: Endpoint
    destination: Endpoint
    octets: bytes

    @property
    def message(self) -> Message | Unrecognised:
        """What it says."""
        return header.read(self.octets, IDS[self.sender], IDS[self.receiver])

    def __str__(self) -> str:
        name = NAMES.get(type(self.message), type(self.message).__name__.upper())
        return f"{self.sender} {name} {self.destination[0]}"


def relay(name: str) -> Endpoint:
    """Where a host is by way of the home agent."""
    return str(IDS[name]), RELAY_PORT


@dataclass
class Network:
    """Hosts by name, where each is, and what each was told by its machines."""

    settings: MobilitySettings = field(default_factory=MobilitySettings)
    hosts: dict[str, Mobility] = field(default_factory=dict)
    where: dict[str, Endpoint] = field(default_factory=dict)
    said: dict[str, list[Command]] = field(default_factory=dict)
    letters: list[Letter] = field(default_factory=list)
    ladder: list[str] = field(default_factory=list)
    now: float = 1000.0

    def host(self, name: str, endpoint: Endpoint, agent: HomeAgent | None = None) -> Mobility:
        """A new host that knows all others, and is known to them."""
        proofs = Proofs()
        one = Mobility(IDS[name], counting(), proofs, self.settings, agent)
        for other, machine in self.hosts.items():
            machine.know(name, IDS[name])
            one.know(other, IDS[other])
        self.hosts[name], self.where[name], self.said[name] = one, endpoint, []
        return one

    def take(self, name: str, commands: list[Command]) -> list[Command]:
        """Puts messages on their way and keeps the rest, which is returned, too."""
        rest: list[Command] = []
        for command in commands:
            if isinstance(command, SendMobility):
                nested = command.endpoint == relay(command.peer)
                source = relay(name) if nested else self.where[name]
                way = source, command.endpoint
                self.letters.append(Letter(name, command.peer, *way, command.message))
            else:
                rest.append(command)
        self.said[name] += rest
        return rest

    def register(self, name: str, peer: str, claim: Claim | None = None, **more: bool) -> None:
        """``name`` tells ``peer`` where it is."""
        claim = Claim.at(self.where[name]) if claim is None else claim
        way = peer, self.where[peer], claim, self.now
        self.take(name, self.hosts[name].register(*way, **more))

    def prove_home(self, name: str, peer: str) -> None:
        """``peer`` has asked ``name`` at its home address; nothing else is left of the binding that
        it was for."""
        here, self.where[name] = self.where[name], A0
        self.register(name, peer)
        self.run()
        self.take(name, self.hosts[name].deregister(peer, self.now))
        self.run()
        self.where[name] = here
        self.hosts[name].mobile.forget(peer)
        self.hosts[peer].proofs.forget(name)
        self.hosts[peer].correspondent.bindings[name].sequence = 0
        self.now += 10
        for said in self.said.values():
            said.clear()

    def deliver(self, letter: Letter, source: Endpoint | None = None) -> list[Command]:
        """Brings a letter to whoever is where it goes; from elsewhere, if somebody wants it so."""
        at = letter.destination
        if at not in (self.where[letter.receiver], relay(letter.receiver)):
            return []
        machine = self.hosts[letter.receiver]
        way = letter.sender, source or letter.source, letter.octets
        return self.take(letter.receiver, machine.received(*way, self.now, UNIX))

    def run(self, rounds: int = 50) -> list[str]:
        """Delivers until nothing is on its way; the messages in order."""
        ladder: list[str] = []
        while self.letters and rounds:
            rounds -= 1
            letter = self.letters.pop(0)
            ladder.append(str(letter))
            self.deliver(letter)
        self.ladder += ladder
        return ladder

    def lose(self) -> list[str]:
        """All that is on its way is lost."""
        lost, self.letters = [str(one) for one in self.letters], []
        return lost

    def wait(self, seconds: float) -> None:
        """Time goes by; timers act."""
        end = self.now + seconds
        while True:
            timers = [(at, name) for name, one in self.hosts.items() if (at := one.next_timer())]
            at, name = min(timers, default=(end + 1, ""))
            if at > end:
                break
            self.now = max(self.now, at)
            self.take(name, self.hosts[name].advance(self.now))
        self.now = end
