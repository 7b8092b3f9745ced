"""A home agent carries what cannot meet: registration, nested paths, failover (I29, I45–I48)."""

from __future__ import annotations

from tests.sim.nat import STUN, Kind, Nat
from tests.sim.world import Config, SimHost, World
from tunnel.commands import Reached
from tunnel.settings import HomeAgentSettings, NodeSettings

GATEWAY = ("198.51.100.7", 4500)
SECOND = ("198.51.100.8", 4500)


def gateway(world: World, label: str = "gateway", at: tuple[str, int] = GATEWAY) -> SimHost:
    settings = NodeSettings(home_agent=HomeAgentSettings())
    return SimHost(world, Config(label, at, settings=settings)).start()


def host(world: World, label: str, number: int, kind: Kind | None) -> SimHost:
    """A host with a public address, or behind a NAT, that knows where the outside sees it."""
    if kind is None:
        return SimHost(world, Config(label, (f"203.0.113.{number}", 4500))).start()
    inner = (f"192.168.{number}.10", 4500)
    world.behind(inner[0], Nat(f"203.0.113.{number}", kind))
    made = SimHost(world, Config(label, inner)).start()
    made.tell(made.node.look_outside, STUN)
    return made


def agents(one: SimHost) -> dict[str, bool]:
    """Its home agents, and whether it is registered with them."""
    status = one.node.status(one.world.now)
    return {entry["name"].split(".")[0]: entry["registered"] for entry in status["home_agents"]}


def bound(one: SimHost) -> list[str]:
    """The labels of those who are registered with a home agent."""
    status = one.node.status(one.world.now)["home_agent"]
    return [entry["name"].split(".")[0] for entry in status["bindings"]]


def settled(world: World, *hosts: SimHost, at: int = 1) -> bool:
    """Whether all are registered, and the zone says so."""
    world.run(60, lambda: all(sum(agents(one).values()) == at for one in hosts))
    world.run(3)
    return all(sum(agents(one).values()) == at for one in hosts)


def hard_pair(world: World, at: int = 1) -> tuple[SimHost, SimHost]:
    """Two hosts behind symmetric NATs, registered."""
    laptop, desk = host(world, "laptop", 1, "symmetric"), host(world, "desk", 2, "symmetric")
    assert settled(world, laptop, desk, at=at)
    return laptop, desk


def test_hosts_register_and_the_zone_names_their_home_agent() -> None:
    """I29, I53: BU and BA over their own SA, and no test of addresses."""
    world = World(501)
    home = gateway(world)
    laptop, desk = hard_pair(world)
    assert bound(home) == ["desk", "laptop"]
    assert world.zone_says(str(home.host_id))
    ticket = laptop.lookup("desk")
    assert world.run(5, lambda: ticket in laptop.answers)
    for one in (laptop, desk):
        peer = one.node._core.peers.labelled("laptop" if one is desk else "desk")
        assert peer is not None
        assert peer.home_agents == (home.host_id,)


def test_two_that_cannot_meet_reach_each_other_through_it() -> None:
    world = World(502)
    home = gateway(world)
    laptop, desk = hard_pair(world)
    ticket = laptop.reach("desk")
    assert world.run(10, lambda: ticket in laptop.answers)
    assert isinstance(laptop.answers[ticket], Reached), laptop.answers[ticket]
    laptop.send(desk.host_id, 1)
    desk.send(laptop.host_id, 2)
    assert world.run(5, lambda: bool(desk.received and laptop.received))
    peer = laptop.peer("desk")
    assert (peer["path"], peer["home_agent"]) == ("relay", "gateway.alice.members.example")
    assert "symmetric" in str(peer["relay_reason"])
    assert desk.peer("laptop")["path"] == "relay"
    assert home.datapath.counters()["relayed_packets"] > 0
    assert home.received == [], "it can read none of it"
