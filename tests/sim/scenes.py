"""What the scenarios begin with, and what their applications do again and again."""

from __future__ import annotations

from tests.sim.world import Config, SimHost, World, numbers
from tunnel.commands import Reached

DESK = ("198.51.100.1", 4500)
LAPTOP = ("203.0.113.7", 4500)


def two(world: World) -> tuple[SimHost, SimHost]:
    """Two hosts of one account, both in the zone."""
    desk = SimHost(world, Config("desk", DESK)).start()
    laptop = SimHost(world, Config("laptop", LAPTOP)).start()
    assert world.run(10, lambda: {"desk", "laptop"} <= world.labels_in_zone())
    return desk, laptop


def connected(world: World) -> tuple[SimHost, SimHost]:
    """Two hosts with a tunnel between them."""
    desk, laptop = two(world)
    ticket = desk.reach("laptop")
    assert world.run(60, lambda: ticket in desk.answers)
    assert isinstance(desk.answers[ticket], Reached)
    assert world.run(60, lambda: laptop.peer("desk").get("state") == "up")
    return desk, laptop


def delivers(world: World, source: SimHost, target: SimHost, number: int, within: float) -> bool:
    """Whether a packet, sent again each second as an application would, arrives in time."""
    end = world.now + within
    while world.now < end:
        source.send(target.host_id, number)
        if world.run(1.0, lambda: number in numbers(target.received)):
            return True
    return False


def delivers_after_reach(world: World, source: SimHost, target: SimHost, number: int) -> bool:
    """As a person would: the name again, until it is there; then packets."""
    for _ in range(6):
        ticket = source.reach(target.config.label)
        assert world.run(90, lambda ticket=ticket: ticket in source.answers)
        if isinstance(source.answers[ticket], Reached):
            return delivers(world, source, target, number, within=60)
        world.run(10)
    return False
