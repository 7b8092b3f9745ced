"""Hosts that restart while the rendezvous is dead find each other by what it last said."""

from __future__ import annotations

import pytest

from tests.sim.conftest import Make
from tests.sim.scenes import delivers, two
from tests.sim.world import Config, SimHost, World
from tunnel.commands import NotReached, Reached
from tunnel.remembered import from_json


def knows(host: SimHost, label: str) -> bool:
    """Whether its file names that host."""
    return f'"{label}"'.encode() in host.kept.get("records", b"")


def again(world: World, host: SimHost) -> SimHost:
    """The same machine, started again with the file that it wrote."""
    host.kill()
    config = host.config
    config.host_id = host.host_id
    config.remembered = from_json(host.kept["records"], "alice.members.example", 1024)
    return SimHost(world, config).start()


@pytest.mark.parametrize("both", [True, False])
def test_restarted_hosts_connect_by_name_without_the_rendezvous(world_of: Make, both: bool) -> None:
    world = world_of(501)
    desk, laptop = two(world)
    assert world.run(60, lambda: knows(desk, "laptop") and knows(laptop, "desk"))
    world.set_zone(False)
    world.run(5)
    laptop = again(world, laptop)
    desk = again(world, desk) if both else desk
    assert desk.host_id in laptop.routes
    ticket = laptop.reach("desk")
    assert world.run(30, lambda: ticket in laptop.answers)
    assert isinstance(laptop.answers[ticket], Reached)
    assert delivers(world, laptop, desk, 7, within=10)


def test_what_the_zone_says_later_replaces_it(world_of: Make) -> None:
    world = world_of(502)
    desk, laptop = two(world)
    assert world.run(60, lambda: knows(laptop, "desk"))
    world.set_zone(False)
    laptop = again(world, laptop)
    desk.shutdown()
    world.run(10)
    world.set_zone(True)
    world.run(5)
    config = Config("desk", ("198.51.100.77", 4500))
    moved = SimHost(world, config).start()
    assert world.run(120, lambda: moved.host_id in laptop.routes)
    ticket = laptop.reach("desk")
    assert world.run(60, lambda: ticket in laptop.answers)
    assert isinstance(laptop.answers[ticket], Reached)
    assert desk.host_id not in laptop.routes


def test_a_name_that_was_never_known_is_told_as_such(world_of: Make) -> None:
    world = world_of(503)
    _, laptop = two(world)
    assert world.run(60, lambda: knows(laptop, "desk"))
    world.set_zone(False)
    laptop = again(world, laptop)
    ticket = laptop.reach("attic")
    assert world.run(90, lambda: ticket in laptop.answers)
    answer = laptop.answers[ticket]
    assert isinstance(answer, NotReached) and "rendezvous cannot be reached" in answer.reason
