"""From the relay to the direct path and back, by BU, AOTC, AOTR and BA (I12–I21)."""

from __future__ import annotations

import pytest

from tests.sim.ladder import table
from tests.sim.nat import Kind
from tests.sim.scenes import delivers
from tests.sim.test_home_agent import gateway, host, settled
from tests.sim.watch import watched
from tests.sim.world import SimHost, Weather, World, numbers
from tunnel.mobility.proofs import Proofs

VICTIM = ("192.0.2.66", 4500)
OUTSIDES = "203.0.113.1", "203.0.113.2"


def pair(world: World, ours: Kind | None, theirs: Kind | None) -> tuple[SimHost, SimHost]:
    """Two hosts that share a home agent."""
    laptop, desk = host(world, "laptop", 1, ours), host(world, "desk", 2, theirs)
    assert settled(world, laptop, desk)
    return laptop, desk


def relayed(
    world: World, ours: Kind | None = "restricted", theirs: Kind | None = "restricted"
) -> tuple[SimHost, SimHost]:
    """The same, connected while there is no direct path between them."""
    gateway(world)
    laptop, desk = pair(world, ours, theirs)
    world.cut(*OUTSIDES)
    assert delivers(world, laptop, desk, 1, within=120)
    assert delivers(world, desk, laptop, 2, within=120)
    assert paths(laptop, desk) == ("relay", "relay")
    return laptop, desk


def paths(laptop: SimHost, desk: SimHost) -> tuple[object, object]:
    return laptop.peer("desk")["path"], desk.peer("laptop")["path"]


def direct(world: World, laptop: SimHost, desk: SimHost, within: float) -> bool:
    return world.run(within, lambda: paths(laptop, desk) == ("direct", "direct"))


@pytest.mark.parametrize(
    "kinds", [("restricted", "restricted"), (None, "restricted"), (None, None)]
)
def test_a_relayed_path_becomes_direct_by_itself(kinds: tuple[Kind | None, Kind | None]) -> None:
    """Each proves the other's endpoint with a nonce; no packet is lost meanwhile."""
    world = watched(601)
    laptop, desk = relayed(world, *kinds)
    spi = laptop.peer("desk")["spi_in"]
    world.cut(*OUTSIDES, whole=True)
    for number in range(100, 460):
        laptop.send(desk.host_id, number)
        desk.send(laptop.host_id, number)
        world.run(0.1)
    assert paths(laptop, desk) == ("direct", "direct")
    assert set(range(100, 460)) <= set(numbers(desk.received))
    assert set(range(100, 460)) <= set(numbers(laptop.received))
    assert laptop.peer("desk")["spi_in"] == spi


def test_a_direct_path_that_comes_back_is_taken_again() -> None:
    world = watched(602)
    gateway(world)
    laptop, desk = pair(world, None, "restricted")
    assert delivers(world, laptop, desk, 1, within=15)
    assert direct(world, laptop, desk, 5)
    world.cut(*OUTSIDES)
    assert delivers(world, laptop, desk, 2, within=10)
    assert delivers(world, desk, laptop, 3, within=10)
    assert paths(laptop, desk) == ("relay", "relay")
    world.run(30)
    assert paths(laptop, desk) == ("relay", "relay"), "what is cut is not taken for whole"
    world.cut(*OUTSIDES, whole=True)
    assert direct(world, laptop, desk, 60)
    assert delivers(world, laptop, desk, 4, within=5)


def test_where_nats_do_not_meet_the_relay_stays_and_says_why() -> None:
    world = watched(603)
    gateway(world)
    laptop, desk = pair(world, "symmetric", "symmetric")
    assert delivers(world, laptop, desk, 1, within=15)
    world.run(150)
    began = len(world.wire)
    world.run(100)
    assert paths(laptop, desk) == ("relay", "relay")
    assert "symmetric" in str(laptop.peer("desk")["relay_reason"])
    assert len(world.wire) - began < 200, "it is tried again seldom"


@pytest.mark.parametrize("seed", range(610, 614))
def test_it_gets_there_through_loss_and_overtaking(seed: int) -> None:
    world = watched(seed, Weather(loss=0.2, duplication=0.1, jitter=0.05))
    laptop, desk = relayed(world)
    world.cut(*OUTSIDES, whole=True)
    for number in range(100, 400):
        laptop.send(desk.host_id, number)
        desk.send(laptop.host_id, number)
        if world.run(1.0, lambda: paths(laptop, desk) == ("direct", "direct")):
            break
    assert direct(world, laptop, desk, 60)
    assert delivers(world, laptop, desk, 1000, within=20)


def test_proofs_are_kept_and_taken_up_again() -> None:
    world = watched(621)
    gateway(world)
    laptop, desk = pair(world, None, None)
    assert delivers(world, laptop, desk, 1, within=15)
    world.run(30)
    proofs = Proofs()
    proofs.load(desk.kept["proofs"], world.unix)
    assert proofs.holds("laptop.alice.members.example", laptop.config.endpoint, world.unix)


def test_a_peer_is_asked_at_its_home_address_once_i21() -> None:
    world = watched(622)
    gateway(world)
    laptop, desk = pair(world, None, None)
    assert delivers(world, laptop, desk, 1, within=15)
    world.run(30)
    for one, label in ((laptop, "desk"), (desk, "laptop")):
        entries = one.node._core.journal.of(table(one, label).name).entries
        said = [entry.why for entry in entries]
        assert said.count("it answers at its home address") == 1


def test_where_the_peer_may_be_is_asked_anew_each_time() -> None:
    """Both published what they knew at first, an address inside; what they say later counts."""
    world = watched(704, Weather(jitter=0.03, duplication=0.02))
    laptop, desk = relayed(world, "full-cone", "restricted")
    world.run(45)
    world.cut(*OUTSIDES, whole=True)
    assert direct(world, laptop, desk, 40)
