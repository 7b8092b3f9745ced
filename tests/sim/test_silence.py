"""Peers that fall silent are found again in seconds; those that only listen are left in peace."""

from __future__ import annotations

from functools import partial

import pytest

from tests.sim.conftest import Make
from tests.sim.nat import STUN, Nat
from tests.sim.scenes import LAPTOP, connected, two
from tests.sim.test_candidates import HOME, at_home, reached
from tests.sim.world import Config, SimHost, Weather, World, numbers
from tunnel.settings import NodeSettings

ELSEWHERE = ("192.0.2.99", 4500)
NO_KEEPALIVES = NodeSettings(keepalive=1e6)


def mended(world: World, source: SimHost, target: SimHost, *, every: float = 0.05) -> float:
    """Seconds until a packet gets through, of one every so often."""
    began, count = world.now, len(target.received)
    while world.now < began + 60:
        source.send(target.host_id, 1)
        if world.run(every, lambda: len(target.received) > count):
            return world.now - began
    raise AssertionError(f"seed {world.seed}: nothing arrived within a minute")


@pytest.mark.parametrize("kind", ["restricted", "symmetric"])
def test_a_nat_that_forgot_the_peer_is_opened_by_a_call(kind: str, world_of: Make) -> None:
    """Nobody kept the way open: what the desk sends is dropped before the laptop."""
    world = world_of(600, Weather(latency=0.02, jitter=0.01))
    inside = ("192.168.1.6", 4500)
    world.behind(inside[0], Nat(HOME, kind, timeout=60.0))
    desk = SimHost(world, Config("desk", ("198.51.100.1", 4500))).start()
    laptop = SimHost(world, Config("laptop", inside, settings=NO_KEEPALIVES)).start()
    laptop.tell(laptop.node.look_outside, STUN)
    assert world.run(60, lambda: bool(laptop.seen))
    world.run(3)
    assert reached(world, laptop, "desk")
    spis = desk.node.spis()
    world.run(300)
    patience = desk.node._core.settings
    assert mended(world, desk, laptop) < patience.silence + patience.no_answer + 2.0
    assert mended(world, laptop, desk) < 1.0
    assert desk.node.spis() == spis


def test_traffic_of_one_way_is_left_in_peace(world_of: Make) -> None:
    """A camera sends for ten minutes and gets nothing back: few questions, no move, no call."""
    world = world_of(601, Weather(jitter=0.01, loss=0.05))
    desk, laptop = connected(world)
    world.run(5)
    sent = len(world.wire)
    for number in range(6000):
        world.at(world.now + number * 0.1, partial(desk.send, laptop.host_id, number))
    world.run(600)
    questions = [data for _, data in world.wire[sent:] if data[:4] == bytes(4)]
    assert len(questions) < 2 * (600 / 16 + 8) * 1.5  # with their answers, and those that were lost
    assert desk.peer("laptop")["endpoint"] == f"{LAPTOP[0]}:{LAPTOP[1]}"
    why = [one.why for one in desk.node._core.journal.of("laptop.alice.members.example").entries]
    assert "it answered from there" not in why
    assert len(set(numbers(laptop.received))) > 5000


def test_an_idle_pair_asks_nothing(world_of: Make) -> None:
    world = world_of(602)
    connected(world)
    world.run(60)
    sent = len(world.wire)
    world.run(600)
    assert len(world.wire) == sent


@pytest.mark.parametrize("seed", range(610, 615))
def test_a_peer_that_left_is_followed_by_the_zones_word(seed: int, world_of: Make) -> None:
    """The push comes first: everything that the peer sends itself is lost for a while."""
    world = world_of(seed)
    desk, laptop = connected(world)
    world.run(20)
    fine, world.weather = world.weather, Weather(loss=1.0)
    laptop.move(ELSEWHERE)
    world.run(0.5)
    world.weather = fine
    assert mended(world, desk, laptop) < 2.0
    assert desk.peer("laptop")["endpoint"] == "192.0.2.99:4500"


@pytest.mark.parametrize("seed", range(620, 625))
def test_a_peer_that_left_is_followed_by_its_packets(seed: int, world_of: Make) -> None:
    """The packet comes first: the rendezvous is away."""
    world = world_of(seed)
    desk, laptop = connected(world)
    world.run(20)
    world.set_zone(False)
    laptop.move(ELSEWHERE)
    assert mended(world, laptop, desk) < 0.5
    assert mended(world, desk, laptop) < 0.5
    assert desk.peer("laptop")["endpoint"] == "192.0.2.99:4500"


@pytest.mark.parametrize("seed", range(630, 635))
def test_a_peer_that_left_without_a_word_is_found_by_what_the_zone_says_later(
    seed: int, world_of: Make
) -> None:
    """Nobody is told at first; the desk notices by itself, looks, and finds it as soon as the zone
    knows, long before IKE's own check."""
    world = world_of(seed)
    desk, laptop = two(world)
    assert reached(world, desk, "laptop")
    world.run(20)
    del world.hosts[LAPTOP]
    laptop.endpoint = ELSEWHERE
    world.hosts[ELSEWHERE] = laptop  # its driver has not noticed yet
    for number in range(100):
        world.at(world.now + number * 0.1, partial(desk.send, laptop.host_id, number))
    world.run(4)
    laptop.tell(laptop.node.set_endpoints, (ELSEWHERE,))
    assert mended(world, desk, laptop) < 1.0
    assert desk.peer("laptop")["state"] == "up"


def test_two_that_come_to_the_same_network_talk_inside(world_of: Make) -> None:
    world = world_of(640)
    nat = Nat(HOME, "restricted")
    desk = at_home(world, "desk", 5, nat)
    laptop = SimHost(world, Config("laptop", LAPTOP)).start()
    world.run(5)
    assert reached(world, laptop, "desk")
    spis = desk.node.spis()
    inside = ("192.168.1.6", 4500)
    world.behind(inside[0], nat)
    laptop.move(inside)
    laptop.tell(laptop.node.look_outside, STUN)
    assert world.run(5, lambda: laptop.peer("desk")["endpoint"] == "192.168.1.5:4500")
    assert world.run(5, lambda: desk.peer("laptop")["endpoint"] == "192.168.1.6:4500")
    assert mended(world, desk, laptop) < 0.5
    assert desk.node.spis() == spis
    world.run(60)
    assert laptop.peer("desk")["endpoint"] == "192.168.1.5:4500"


def test_one_that_leaves_the_common_network_is_followed(world_of: Make) -> None:
    world = world_of(641)
    nat = Nat(HOME, "restricted")
    desk, laptop = at_home(world, "desk", 5, nat), at_home(world, "laptop", 6, nat)
    world.run(5)
    assert reached(world, laptop, "desk")
    assert laptop.peer("desk")["endpoint"] == "192.168.1.5:4500"
    world.run(20)
    laptop.move(LAPTOP)
    assert mended(world, laptop, desk) < 3.0
    assert mended(world, desk, laptop) < 3.0
