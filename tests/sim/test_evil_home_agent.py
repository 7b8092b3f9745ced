"""A home agent that was taken over: it has the outer layer of all that it carries, and may keep,
repeat, delay, cut, re-address or make up nested packets as it likes. It can deny its service, and
nothing else: no packet comes twice or from somebody else, no data goes where a peer has not proven
to be (the watch over these worlds), and hosts are none the worse when it is gone."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from functools import partial
from ipaddress import IPv6Address

import pytest

from fastpath.reference import relay
from fastpath.reference.datapath import Output, SendDatagram
from fastpath.reference.esp import NEXT_HEADER_IPV6
from fastpath.reference.tables import Inbound
from fastpath.types import Endpoint
from tests.sim.nat import STUN
from tests.sim.scenes import delivers
from tests.sim.test_attacks_by_relay import FIRST_WORD
from tests.sim.test_home_agent import GATEWAY, SECOND, gateway, hard_pair
from tests.sim.watch import watched
from tests.sim.world import SimHost, World, numbers
from tunnel.peers import RELAYED

MOST_KEPT = 200


class Evil:
    """Stands where a home agent forwards. ``does`` says what becomes of a nested packet: those that
    go on, now or after so many seconds."""

    def __init__(
        self, home: SimHost, does: Callable[[Evil, relay.Nested], list[tuple[float, bytes]]]
    ) -> None:
        self.home, self.does = home, does
        self.dice = random.Random(home.world.seed)
        self.kept: list[bytes] = []
        self.did: Counter[str] = Counter()
        vars(home.datapath)["_forward"] = self._forward

    def _forward(self, entry: Inbound, nested: relay.Nested) -> list[Output]:
        self.kept = [*self.kept[-MOST_KEPT:], nested.packet]
        for wait, packet in self.does(self, nested):
            self.home.world.at(self.home.world.now + wait, partial(self.send, packet))
        return []

    def send(self, packet: bytes) -> None:
        """To whoever it is for, sealed as always."""
        peer = self.home.node._core.peers.owner(IPv6Address(packet[24:40]))
        if peer is None or RELAYED not in peer.narrow or peer.endpoint is None:
            return
        entry = self.home.datapath._outbound[peer.narrow[RELAYED].spi_out]
        data = entry.sa.seal(packet, NEXT_HEADER_IPV6)
        self.home._outputs([SendDatagram(data, peer.endpoint)])


def everything(evil: Evil, nested: relay.Nested) -> list[tuple[float, bytes]]:
    """Most go on, late and out of order; some twice, some long after, some of somebody else."""
    dice, packet = evil.dice, nested.packet
    kind = dice.choice(["pass", "pass", "pass", "lose", "repeat", "old", "swap", "turn", "flip"])
    evil.did[kind] += 1
    wait = dice.random() * 0.3
    match kind:
        case "lose":
            return []
        case "repeat":
            return [(wait, packet), (wait * 2, packet), (5.0, packet)]
        case "old":
            return [(0.0, dice.choice(evil.kept)), (wait, packet)]
        case "swap":
            other = dice.choice([evil.home.host_id.packed, b"\xfd" + dice.randbytes(15)])
            return [(wait, packet[:8] + other + packet[24:])]
        case "turn":
            return [(wait, packet[:8] + packet[24:40] + packet[8:24] + packet[40:]), (wait, packet)]
        case "flip":
            place = dice.randrange(len(packet))
            broken = packet[:place] + bytes([packet[place] ^ 1]) + packet[place + 1 :]
            return [(0.0, broken), (wait, packet)]
    return [(wait, packet)]


def only(what: str) -> Callable[[Evil, relay.Nested], list[tuple[float, bytes]]]:
    """Carries IKE alone, or all but IKE, or what is small."""

    def does(_: Evil, nested: relay.Nested) -> list[tuple[float, bytes]]:
        goes = {
            "ike": nested.is_ike,
            "esp": not nested.is_ike,
            "small": len(nested.packet) < 160,
            "nothing": False,
        }[what]
        return [(0.0, nested.packet)] if goes else []

    return does


def talk(world: World, laptop: SimHost, desk: SimHost, seconds: int) -> None:
    for number in range(1000, 1000 + 10 * seconds):
        laptop.send(desk.host_id, number)
        desk.send(laptop.host_id, number)
        world.run(0.1)


@pytest.mark.parametrize("seed", range(721, 725))
def test_whatever_it_does_to_packets_none_comes_twice_or_from_others(seed: int) -> None:
    world = watched(seed)
    home = gateway(world)
    laptop, desk = hard_pair(world)
    assert delivers(world, laptop, desk, 1, within=15)
    world.run(10)
    evil = Evil(home, everything)
    talk(world, laptop, desk, 30)
    assert min(evil.did.values()) > 20
    for one in (laptop, desk):
        got = [number for number in numbers(one.received) if number >= 1000]
        assert len(got) == len(set(got)) > 150, "no packet comes twice"
        counters = one.datapath.counters()
        assert counters["drop_replay"] > 20
        assert counters["drop_foreign_source"] > 5
        assert counters["drop_authentication"] > 5
        assert len(one.node._parts.relaying.relays._ways) <= 64 + 3
    evil.does = lambda _, nested: [(0.0, nested.packet)]
    world.run(10)
    assert delivers(world, laptop, desk, 2, within=10)
    assert delivers(world, desk, laptop, 3, within=10)


@pytest.mark.parametrize("what", ["ike", "esp", "small", "nothing"])
def test_one_that_carries_some_things_only_holds_nobody_for_ever(what: str) -> None:
    """Neither before there is a tunnel nor after; and nobody shouts meanwhile."""
    world = watched(731)
    first = gateway(world)
    gateway(world, "reserve", SECOND)
    laptop, desk = hard_pair(world, at=2)
    Evil(first, only(what))
    assert delivers(world, laptop, desk, 1, within=60), "another home agent carries it"
    began = len(world.wire)
    for number in range(2, 62):
        laptop.send(desk.host_id, number)
        desk.send(laptop.host_id, number)
        world.run(1.0)
    assert len(world.wire) - began < 60 * 30
    late = set(range(42, 62))
    assert late <= set(numbers(desk.received)) or what == "small"
    assert late <= set(numbers(laptop.received)) or what == "small"


def test_what_it_makes_up_is_answered_to_nobody_outside() -> None:
    """ESP of no SA, from a host id that it invents or knows: to tell that one so would show its
    host id on our link (I50), as would any other word to it."""
    world = watched(741)
    home = gateway(world)
    laptop, desk = hard_pair(world)
    world.run(10)
    said: list[Endpoint] = []
    plain = laptop._outputs

    def outputs(outputs: list[Output]) -> None:
        said.extend(one.endpoint for one in outputs if isinstance(one, SendDatagram))
        plain(outputs)

    vars(laptop)["_outputs"] = outputs
    evil = Evil(home, everything)
    for source in (b"\xfd" + bytes(14) + b"\x07", desk.host_id.packed, home.host_id.packed):
        for message in (b"\x77" * 60, FIRST_WORD):
            kind = relay.around_ike if message is FIRST_WORD else relay.around_esp
            evil.send(kind(source, laptop.host_id.packed, message))
            world.run(3)
    assert said
    assert {host for host, _ in said} <= {GATEWAY[0], "203.0.113.2", "192.168.2.10", *STUN[0][:1]}
