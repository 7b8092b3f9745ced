"""What the zone says reaches every host: by push, by long-lived queries, or by asking.

(B6, B42-B48; RFC 8764, RFC 8765; the real server, the real client.)
"""

from __future__ import annotations

import pytest

from fastpath.types import Endpoint
from tests.sim.conftest import Make
from tests.sim.scenes import DESK, LAPTOP, connected, delivers, two
from tests.sim.world import Config, SimHost, Weather, World
from tunnel.settings import NodeSettings


def believes(host: SimHost, label: str) -> tuple[Endpoint, ...]:
    """Where ``host`` believes that one to be."""
    peer = host.node._core.peers.labelled(label)
    return () if peer is None else peer.endpoints


def step(host: SimHost) -> object:
    """How changes reach it."""
    return host.node.status(host.world.now)["zone"]["llq"]


def couple(world: World, transport: str) -> tuple[SimHost, SimHost]:
    """Two hosts, each of which knows the other."""
    desk = SimHost(world, Config("desk", DESK, zone_transport=transport)).start()
    laptop = SimHost(world, Config("laptop", LAPTOP, zone_transport=transport)).start()
    known = world.run(120, lambda: bool(believes(desk, "laptop") and believes(laptop, "desk")))
    assert known, f"seed {world.seed}: they never heard of each other"
    return desk, laptop


def test_b6_a_moved_endpoint_is_pushed_in_the_time_that_one_message_takes(world_of: Make) -> None:
    world = world_of(601)
    desk, laptop = two(world)
    assert world.run(5, lambda: believes(laptop, "desk") == (DESK,))
    assert step(laptop) == "push"
    asked = len(laptop.from_rendezvous)
    moved = ("198.51.100.200", 4500)
    desk.move(moved)
    written = world.now
    while not world.zone_says(moved[0]):
        assert world.run(0.001) is False and world.now < written + 5
    written = world.now
    assert world.run(5, lambda: believes(laptop, "desk") == (moved,))
    assert world.now - written <= world.weather.latency + 0.002
    assert len(laptop.from_rendezvous) - asked == 1  # one message, and no question


def test_a_new_host_and_one_that_leaves_are_told(world_of: Make) -> None:
    world = world_of(602)
    _, laptop = two(world)
    attic = SimHost(world, Config("attic", ("192.0.2.99", 4500))).start()
    assert world.run(3, lambda: attic.host_id in laptop.routes)
    attic.shutdown()
    assert world.run(3, lambda: attic.host_id not in laptop.routes)


def test_a_reboot_is_told_and_the_tunnel_is_made_anew(world_of: Make) -> None:
    world = world_of(603)
    desk, laptop = connected(world)
    again = desk.restart(reboot=True)
    assert world.run(10, lambda: again.host_id in laptop.routes)
    assert desk.host_id not in laptop.routes
    assert delivers(world, laptop, again, 5, within=30)


def test_told_records_make_the_tunnel_without_a_question(world_of: Make) -> None:
    world = world_of(604)
    desk, laptop = two(world)
    assert world.run(5, lambda: believes(laptop, "desk") == (DESK,))
    world.run(30)
    begun, ticket = world.now, laptop.reach("desk")
    assert world.run(10, lambda: ticket in laptop.answers)
    first = next(at for at, data in world.wire if at >= begun)
    assert first == begun and desk  # IKE begins at once


@pytest.mark.parametrize("tells", [True, False])
@pytest.mark.parametrize("transport", ["tls", "udp"])
def test_every_way_converges_over_a_bad_network(
    world_of: Make, transport: str, tells: bool
) -> None:
    weather = Weather(latency=0.03, jitter=0.05, loss=0.25, duplication=0.1)
    for seed in range(610, 614):
        world = world_of(seed, weather, tells=tells)
        desk, laptop = couple(world, transport)
        moves = [(f"198.51.100.{number}", 4500) for number in range(10, 15)]
        for moved in moves:
            desk.move(moved)
            world.run(world.random.random() * 20)
        if transport == "tls":
            assert step(laptop) == ("push" if tells else "poll")
        found = world.run(200, lambda d=laptop, m=moves[-1]: believes(d, "desk") == (m,))
        assert found, f"seed {seed}: {believes(laptop, 'desk')} is not {moves[-1]}"
        assert world.run(600, lambda d=desk: believes(d, "laptop") == (LAPTOP,))


def test_long_lived_queries_stand_on_udp_through_loss(world_of: Make) -> None:
    world = world_of(620, Weather(latency=0.02, jitter=0.02, loss=0.1))
    desk, laptop = couple(world, "udp")
    assert world.run(60, lambda: step(laptop) == "llq" and step(desk) == "llq")
    moved = ("198.51.100.66", 4500)
    desk.move(moved)
    assert world.run(20, lambda: believes(laptop, "desk") == (moved,))


def test_where_there_is_no_room_for_all_those_in_use_are_heard_of(world_of: Make) -> None:
    world = world_of(625)
    desk = SimHost(world, Config("desk", DESK)).start()
    SimHost(world, Config("attic", ("192.0.2.99", 4500))).start()
    few = NodeSettings(watched=1)
    laptop = SimHost(world, Config("laptop", LAPTOP, settings=few)).start()
    assert laptop.zone is not None
    watched = laptop.zone
    assert world.run(10, lambda: watched.watched == {"attic"} and desk.host_id in laptop.routes)
    ticket = laptop.reach("desk")
    assert world.run(10, lambda: ticket in laptop.answers)
    assert watched.watched == {"desk"}
    desk.move(("198.51.100.66", 4500))
    assert world.run(5, lambda: believes(laptop, "desk") == (("198.51.100.66", 4500),))


def test_a_rendezvous_that_comes_back_is_used_by_push_again(world_of: Make) -> None:
    world = world_of(630)
    desk, laptop = two(world)
    assert world.run(5, lambda: step(laptop) == "push")
    world.set_zone(False)
    assert step(laptop) is None
    world.run(20)
    desk.move(("198.51.100.200", 4500))
    world.run(5)
    world.set_zone(True)
    assert world.run(5, lambda: believes(laptop, "desk") == (("198.51.100.200", 4500),))
    assert step(laptop) == "push"
