"""Two or more IKE endpoints in memory, on a virtual clock, over a network that can misbehave.

``Net`` carries out the commands of each endpoint: datagrams travel ``DELAY`` seconds and pass a
``fate`` function that may lose, double or delay them; SAs are put into tables like an engine's, so
that tests can ask at any moment whether a packet from one host would be understood by the other.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv6Address

from keys.ike.certificates import Certification
from keys.ike.endpoint import IkeEndpoint
from keys.ike.header import decode_header
from keys.ike.settings import IkeSettings
from keys.ike.types import (
    EVERYTHING,
    AskPeer,
    ChildPolicy,
    ChildSa,
    Command,
    Endpoint,
    IkeFailed,
    IkeLog,
    InstallInbound,
    InstallOutbound,
    PeerDown,
    PeerPolicy,
    PeerUp,
    Ppk,
    ProbeAnswered,
    RemoveChild,
    SendIke,
    Traffic,
)

DELAY = 0.05
PSK = b"correct horse battery staple, and some more octets"

Fate = Callable[["Datagram"], list[float]]
"""Delays, in seconds, of each copy that arrives; an empty list loses the datagram."""


@dataclass(frozen=True)
class Datagram:
    number: int
    sender: str
    receiver: str
    data: bytes
    source: Endpoint
    target: Endpoint

    @property
    def kind(self) -> str:
        """``36q`` for a CREATE_CHILD_SA request, ``36r`` for its answer."""
        header = decode_header(self.data)
        return f"{header.exchange}{'r' if header.response else 'q'}"


def deliver(datagram: Datagram) -> list[float]:
    return [DELAY]


@dataclass
class Side:
    """One host: its endpoint, what its engine would hold, and what it was told."""

    name: str
    host_id: IPv6Address
    address: Endpoint
    ike: IkeEndpoint
    rng: random.Random
    inbound: dict[int, ChildSa] = field(default_factory=dict)
    outbound: ChildSa | None = None
    narrow: dict[Traffic, ChildSa] = field(default_factory=dict)  # beside the one for everything
    more: tuple[ChildPolicy, ...] = ()  # further children that it wants with everybody
    told: list[Command] = field(default_factory=list)
    also: tuple[Endpoint, ...] = ()  # where else it is
    answer_asks: bool = True
    refuse_with: str | None = None

    def all(self, kind: type) -> list:
        return [c for c in self.told if isinstance(c, kind)]


class Net:
    def __init__(self, seed: int = 1, fate: Fate = deliver, **settings: object) -> None:
        self.seed = seed
        self.now = 1000.0
        self.fate = fate
        self.tamper: Callable[[Datagram], bytes] = lambda datagram: datagram.data
        # The ladders of RFC 7296 are drawn without additional exchanges; tests of those ask.
        self.settings = IkeSettings(**{"additional": (), **settings})
        self.sides: dict[str, Side] = {}
        self.secrets: dict[tuple[str, str], bytes | None] = {}
        self.certifications: dict[str, Certification] = {}  # set before the side is added
        self.ppks: dict[tuple[str, str], Ppk] = {}
        self.sent: list[Datagram] = []
        self.gaps: list[str] = []
        self.watch_gaps = False
        self._queue: list[tuple[float, int, Datagram]] = []
        self._count = itertools.count()

    def add(self, name: str, number: int, **settings: object) -> Side:
        rng = random.Random(f"{self.seed}/{name}")
        side = Side(
            name,
            IPv6Address(f"fd00::{number}"),
            (f"192.0.2.{number}", 4500),
            self._endpoint(name, rng, **settings),
            rng,
        )
        self.sides[name] = side
        return side

    def _endpoint(self, name: str, rng: random.Random, **settings: object) -> IkeEndpoint:
        return IkeEndpoint(
            local_name=name,
            secret_for=lambda peer: self.secrets.get((name, peer), PSK),
            random=rng.randbytes,
            ppks={peer: ppk for (holder, peer), ppk in self.ppks.items() if holder == name},
            settings=IkeSettings(**settings) if settings else self.settings,
            certification=self.certifications.get(name),
        )

    def restart(self, side: Side) -> None:
        """As after kill -9: nothing is left of what it knew."""
        side.ike = self._endpoint(side.name, side.rng)
        side.inbound.clear()
        side.outbound = None
        side.narrow.clear()
        side.told.clear()

    def policy(self, side: Side, peer: Side, **changes: object) -> PeerPolicy:
        changes.setdefault("more", side.more)
        return PeerPolicy(peer.name, side.host_id, peer.host_id, **changes)

    def connect(self, side: Side, peer: Side, **changes: object) -> None:
        policy = self.policy(side, peer, **changes)
        self.run(side, side.ike.connect(peer.name, policy, peer.address, self.now))

    def run(self, side: Side, commands: list[Command]) -> None:
        """Carries out what an endpoint asks for."""
        for command in commands:
            match command:
                case SendIke(data, remote):
                    self.post(side, data, remote)
                case InstallInbound(child):
                    side.inbound[child.spi_in] = child
                case InstallOutbound(child, _):
                    if child.traffic == EVERYTHING:
                        side.outbound = child
                    else:
                        side.narrow[child.traffic] = child
                case RemoveChild(_, spi_in, spi_out):
                    side.inbound.pop(spi_in, None)
                    if side.outbound is not None and side.outbound.spi_out == spi_out:
                        side.outbound = None
                    side.narrow = {
                        traffic: child
                        for traffic, child in side.narrow.items()
                        if child.spi_out != spi_out
                    }
                case AskPeer():
                    self._answer(side, command)
                case _:
                    pass
            if not isinstance(command, SendIke):
                side.told.append(command)
        if self.watch_gaps:
            self._check_paths()

    def _answer(self, side: Side, ask: AskPeer) -> None:
        if not side.answer_asks:
            return
        if side.refuse_with is not None:
            self.run(side, side.ike.refuse(ask.ticket, side.refuse_with, self.now))
        else:
            policy = self.policy(side, self.sides[ask.name])
            self.run(side, side.ike.authorise(ask.ticket, policy, self.now))

    def post(self, side: Side, data: bytes, target: Endpoint) -> None:
        receiver = next(
            (s.name for s in self.sides.values() if target in (s.address, *s.also)), None
        )
        if receiver is None:
            return
        number = len(self.sent)
        family = ":" in target[0]
        source = next((e for e in side.also if (":" in e[0]) == family), side.address)
        datagram = Datagram(number, side.name, receiver, data, source, target)
        self.sent.append(datagram)
        for delay in self.fate(datagram):
            heapq.heappush(self._queue, (self.now + delay, next(self._count), datagram))

    def step(self, until: float) -> bool:
        """Does the next thing that happens before ``until``; False if there is none."""
        timers = [(t, s) for s in self.sides.values() if (t := s.ike.next_timer()) is not None]
        timer, owner = min(timers, key=lambda pair: pair[0], default=(float("inf"), None))
        arrival = self._queue[0][0] if self._queue else float("inf")
        if min(timer, arrival) > until:
            return False
        self.now = max(self.now, min(timer, arrival))
        if arrival <= timer:
            _, _, datagram = heapq.heappop(self._queue)
            side = self.sides[datagram.receiver]
            if datagram.target in (side.address, *side.also):
                data = self.tamper(datagram)
                self.run(side, side.ike.receive(data, datagram.source, self.now))
        else:
            assert owner is not None
            self.run(owner, owner.ike.advance(self.now))
        return True

    def play(self, seconds: float) -> None:
        """Lets time pass."""
        end = self.now + seconds
        for _ in range(100_000):
            if not self.step(end):
                break
        else:
            raise AssertionError(f"the network never comes to rest (seed {self.seed})")
        self.now = end

    # --- what packets would meet ---

    def understood(self, sender: Side, receiver: Side, traffic: Traffic = EVERYTHING) -> bool:
        """Whether a packet sent now would be opened at the other side, with the same keys."""
        out = sender.narrow.get(traffic, sender.outbound)
        if out is None:
            return False
        into = receiver.inbound.get(out.spi_out)
        return into is not None and into.key_in == out.key_out and into.suite == out.suite

    def _check_paths(self) -> None:
        one, two = list(self.sides.values())[:2]
        for a, b in ((one, two), (two, one)):
            if not self.understood(a, b):
                self.gaps.append(f"{self.now:.3f}: {a.name} to {b.name}")

    def pair_is_up(self) -> bool:
        one, two = list(self.sides.values())[:2]
        return self.understood(one, two) and self.understood(two, one)


def pair(**keywords: object) -> tuple[Net, Side, Side]:
    net = Net(**keywords)
    return net, net.add("desk.alice.example", 1), net.add("lap.alice.example", 2)


__all__ = [
    "DELAY",
    "PSK",
    "AskPeer",
    "Datagram",
    "IkeFailed",
    "IkeLog",
    "Net",
    "PeerDown",
    "PeerUp",
    "ProbeAnswered",
    "Side",
    "deliver",
    "pair",
]
