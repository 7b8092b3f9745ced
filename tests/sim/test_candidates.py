"""Where a peer is tried, and in which order: families, local networks, wrong machines."""

from __future__ import annotations

import pytest

from tests.sim.conftest import Make
from tests.sim.nat import STUN, Nat
from tests.sim.scenes import delivers
from tests.sim.world import Config, SimHost, Weather, World
from tunnel.commands import Reached

HOME = "203.0.113.1"


def at_home(world: World, label: str, number: int, nat: Nat) -> SimHost:
    """A host behind ``nat``, settled."""
    inside = (f"192.168.1.{number}", 4500)
    world.behind(inside[0], nat)
    host = SimHost(world, Config(label, inside)).start()
    host.tell(host.node.look_outside, STUN)
    assert world.run(60, lambda: bool(host.seen))
    return host


def reached(world: World, source: SimHost, name: str, within: float = 10.0) -> bool:
    ticket = source.reach(name)
    world.run(within, lambda: ticket in source.answers)
    return isinstance(source.answers.get(ticket), Reached)


@pytest.mark.parametrize("seed", range(500, 505))
def test_two_hosts_behind_one_nat_talk_on_the_local_network(seed: int, world_of: Make) -> None:
    """No hairpin: a router that does not send back inside what comes from there is no obstacle."""
    world = world_of(seed, Weather(jitter=0.02, loss=0.05))
    nat = Nat(HOME, "restricted")
    desk, laptop = at_home(world, "desk", 5, nat), at_home(world, "laptop", 6, nat)
    world.run(5)
    assert reached(world, laptop, "desk")
    assert laptop.peer("desk")["endpoint"] == "192.168.1.5:4500"
    assert delivers(world, desk, laptop, 1, 5)
    assert desk.peer("laptop")["endpoint"] == "192.168.1.6:4500"


def test_the_local_network_needs_no_keepalives(world_of: Make) -> None:
    world = world_of(510)
    nat = Nat(HOME, "restricted")
    desk, laptop = at_home(world, "desk", 5, nat), at_home(world, "laptop", 6, nat)
    world.run(5)
    assert reached(world, laptop, "desk")
    world.run(20)
    before = desk.keepalives, laptop.keepalives
    world.run(300)
    assert (desk.keepalives, laptop.keepalives) == before


def test_the_same_address_in_another_network_is_somebody_else(world_of: Make) -> None:
    """Both homes are 192.168.1.0/24. At the laptop's, the desk's local address is a third host's,
    which answers IKE as what it is; the tunnel is made at the outside all the same."""
    world = world_of(511)
    mine, theirs = Nat(HOME, "restricted"), Nat("203.0.113.2", "full-cone")
    inside = ("192.168.2.5", 4500)
    world.behind(inside[0], theirs)
    desk = SimHost(world, Config("desk", inside)).start()
    desk.tell(desk.node.look_outside, STUN)
    laptop = at_home(world, "laptop", 6, mine)
    other = at_home(world, "printer", 5, mine)
    desk.tell(desk.node.set_local, (("192.168.1.5", 4500),))  # as it has it in its own network
    world.run(10)
    assert reached(world, laptop, "desk")
    assert str(laptop.peer("desk")["endpoint"]).startswith("203.0.113.2:")
    assert not other.peer("laptop").get("spi_in")
    assert delivers(world, desk, laptop, 1, 5)


def test_a_dead_first_endpoint_costs_a_quarter_of_a_second(world_of: Make) -> None:
    """IPv6 is named and does not work: half the internet's trouble (RFC 8305)."""
    world = world_of(512)
    desk = SimHost(world, Config("desk", ("198.51.100.1", 4500))).start()
    laptop = SimHost(world, Config("laptop", ("203.0.113.7", 4500))).start()
    for host, dead in ((desk, "2001:db8::dead"), (laptop, "2001:db8::beef")):
        host.tell(host.node.set_endpoints, (host.endpoint, (dead, 4500)))
    world.run(5)
    began = world.now
    assert reached(world, laptop, "desk")
    assert world.now - began < 0.6
    assert laptop.peer("desk")["endpoint"] == "198.51.100.1:4500"
    assert len(laptop.node.spis()[0]) == len(desk.node.spis()[0]) == 1


def test_ipv6_is_first_where_both_have_it(world_of: Make) -> None:
    world = world_of(513)
    desk = SimHost(world, Config("desk", ("198.51.100.1", 4500))).start()
    laptop = SimHost(world, Config("laptop", ("203.0.113.7", 4500))).start()
    six = ("2001:db8::1", 4500)
    world.hosts[six] = desk
    desk.tell(desk.node.set_endpoints, (desk.endpoint, six))
    laptop.tell(laptop.node.set_endpoints, (laptop.endpoint, ("2001:db8::7", 4500)))
    world.run(5)
    assert reached(world, laptop, "desk")
    tried = laptop.node._core.journal.of("desk.alice.members.example").entries
    first = next(one for one in tried if one.why == "IKE begins there")
    assert dict(first.fields)["at"] == "[2001:db8::1]:4500"
