"""A home agent carries what cannot meet: registration, nested paths, failover (I29, I45–I48)."""

from __future__ import annotations

import itertools
from dataclasses import replace
from ipaddress import IPv6Address

import pytest

from fastpath.types import RELAY_BURST_OCTETS
from keys.ike.settings import IkeSettings
from tests.sim.ladder import Ladder
from tests.sim.nat import STUN, Kind, Nat
from tests.sim.scenes import delivers
from tests.sim.test_nats import HARD, KINDS
from tests.sim.watch import watched
from tests.sim.world import Config, SimHost, Weather, World, numbers
from tunnel.commands import Command, Log, NotReached, Reached, SendIke, SendKeepalive
from tunnel.mobility.header import BindingUpdate
from tunnel.peers import RELAYED
from tunnel.settings import HomeAgentSettings, NodeSettings

GATEWAY = ("198.51.100.7", 4500)
SECOND = ("198.51.100.8", 4500)


def gateway(
    world: World,
    label: str = "gateway",
    at: tuple[str, int] = GATEWAY,
    settings: NodeSettings | None = None,
) -> SimHost:
    settings = replace(settings or NodeSettings(), home_agent=HomeAgentSettings())
    return SimHost(world, Config(label, at, settings=settings)).start()


def host(
    world: World, label: str, number: int, kind: Kind | None, settings: NodeSettings | None = None
) -> SimHost:
    """A host with a public address, or behind a NAT, that knows where the outside sees it."""
    settings = settings or NodeSettings()
    outer = (f"203.0.113.{number}", 4500)
    if kind is None:
        return SimHost(world, Config(label, outer, settings=settings)).start()
    inner = (f"192.168.{number}.10", 4500)
    world.behind(inner[0], Nat(outer[0], kind))
    made = SimHost(world, Config(label, inner, settings=settings)).start()
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
    world = watched(501)
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
    world = watched(502)
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


@pytest.mark.parametrize(("ours", "theirs"), list(itertools.product(KINDS, KINDS)))
def test_with_a_home_agent_no_pair_is_left_out(ours: Kind | None, theirs: Kind | None) -> None:
    world = watched(503)
    gateway(world)
    laptop, desk = host(world, "laptop", 1, ours), host(world, "desk", 2, theirs)
    assert settled(world, laptop, desk)
    ticket = laptop.reach("desk")
    assert world.run(10, lambda: ticket in laptop.answers)
    assert isinstance(laptop.answers[ticket], Reached), laptop.answers[ticket]
    path = "relay" if (ours, theirs) in HARD else "direct"
    assert delivers(world, laptop, desk, 1, within=5)
    assert delivers(world, desk, laptop, 2, within=5)
    assert (laptop.peer("desk")["path"], desk.peer("laptop")["path"]) == (path, path)


@pytest.mark.parametrize("seed", range(510, 515))
def test_a_relayed_path_outlives_the_moves_of_both(seed: int) -> None:
    world = watched(seed)
    home = gateway(world)
    laptop, desk = hard_pair(world)
    assert delivers(world, laptop, desk, 1, within=15)
    spi = laptop.peer("desk")["spi_in"]
    for number, (one, other) in enumerate([(laptop, desk), (desk, laptop)], 2):
        inner = f"10.{number}.0.10"
        world.behind(inner, Nat(f"203.0.113.{100 + number}", "symmetric"))
        one.move((inner, 4500))
        one.tell(one.node.look_outside, STUN)
        assert delivers(world, one, other, number, within=5)
        assert delivers(world, other, one, number, within=5)
    assert laptop.peer("desk")["spi_in"] == spi
    assert laptop.peer("desk")["path"] == "relay"
    assert bound(home) == ["desk", "laptop"]


def test_a_move_is_told_to_the_home_agent_at_once_i46() -> None:
    """By a binding update from there, beside what MOBIKE does: whichever comes first is enough."""
    world = watched(516)
    gateway(world)
    laptop = host(world, "laptop", 1, None)
    assert settled(world, laptop)
    ladder = Ladder(laptop)
    laptop.move(("203.0.113.77", 4500))
    world.run(2 * world.weather.latency)
    (update,) = ladder.of(BindingUpdate)
    assert isinstance(update.message, BindingUpdate)
    assert (update.endpoint, update.message.home) == (GATEWAY, True)


def test_rekeys_of_everything_lose_nothing() -> None:
    world = watched(520)
    short = NodeSettings(ike=IkeSettings(child_lifetime=6.0, ike_lifetime=40.0))
    home = gateway(world, settings=short)
    laptop = host(world, "laptop", 1, "symmetric", short)
    desk = host(world, "desk", 2, "symmetric", short)
    assert settled(world, laptop, desk)
    assert delivers(world, laptop, desk, 1000, within=15)
    for number in range(60):
        laptop.send(desk.host_id, number)
        desk.send(laptop.host_id, number)
        world.run(0.5)
    world.run(2)
    assert set(range(60)) <= set(numbers(desk.received))
    assert set(range(60)) <= set(numbers(laptop.received))
    assert bound(home) == ["desk", "laptop"]


def test_a_direct_path_that_dies_is_left_for_the_relay() -> None:
    world = watched(530)
    gateway(world)
    laptop, desk = host(world, "laptop", 1, None), host(world, "desk", 2, "restricted")
    assert settled(world, laptop, desk)
    assert delivers(world, laptop, desk, 1, within=15)
    assert laptop.peer("desk")["path"] == "direct"
    spi = laptop.peer("desk")["spi_in"]
    world.cut("203.0.113.1", "203.0.113.2")
    began = world.now
    assert delivers(world, laptop, desk, 2, within=10)
    assert world.now - began < 5
    assert delivers(world, desk, laptop, 3, within=5)
    assert (laptop.peer("desk")["path"], desk.peer("laptop")["path"]) == ("relay", "relay")
    assert laptop.peer("desk")["spi_in"] == spi


def test_another_home_agent_takes_over() -> None:
    world = watched(540)
    first, second = gateway(world), gateway(world, "reserve", SECOND)
    laptop, desk = hard_pair(world, at=2)
    assert delivers(world, laptop, desk, 1, within=15)
    used = {"gateway.alice.members.example": first, "reserve.alice.members.example": second}
    name = str(laptop.peer("desk")["home_agent"])
    spi = laptop.peer("desk")["spi_in"]
    used.pop(name).kill()
    began = world.now
    assert delivers(world, laptop, desk, 2, within=15)
    assert delivers(world, desk, laptop, 3, within=15)
    assert world.now - began < 12
    assert laptop.peer("desk")["home_agent"] in used
    assert desk.peer("laptop")["home_agent"] in used
    assert laptop.peer("desk")["spi_in"] == spi
    world.run(40)
    (left,) = used.values()
    peer = laptop.node._core.peers.labelled("desk")
    assert peer is not None
    assert peer.home_agents == (left.host_id,), "the zone names those that are there"


def test_a_home_agent_that_restarts_is_registered_with_again() -> None:
    world = watched(550)
    home = gateway(world)
    laptop, desk = hard_pair(world)
    assert delivers(world, laptop, desk, 1, within=15)
    again = home.restart()
    assert delivers(world, laptop, desk, 2, within=60)
    assert delivers(world, desk, laptop, 3, within=10)
    assert bound(again) == ["desk", "laptop"]


def test_a_host_may_be_told_whom_to_use() -> None:
    world = watched(560)
    gateway(world)
    gateway(world, "reserve", SECOND)
    settings = NodeSettings(home_agents=("reserve",))
    laptop = host(world, "laptop", 1, "symmetric", settings)
    nobody = host(world, "desk", 2, "symmetric", NodeSettings(home_agents=()))
    assert settled(world, laptop)
    assert agents(laptop) == {"reserve": True}
    assert agents(nobody) == {}
    ticket = laptop.reach("desk")
    assert world.run(15, lambda: ticket in laptop.answers)
    answer = laptop.answers[ticket]
    assert isinstance(answer, NotReached)
    assert "home agent" in answer.reason


def test_by_relay_ike_tells_of_no_addresses_and_of_no_moves() -> None:
    """MOBIKE knows endpoints; that of a relayed path is the host id, which never changes."""
    world = watched(570)
    gateway(world)
    laptop, desk = hard_pair(world)
    assert delivers(world, laptop, desk, 1, within=15)
    for one in (laptop, desk):
        known = [sa for sa in one.node._core.ike._ctx if sa.is_relayed]
        assert known
        assert [sa.peer_addresses for sa in known] == [()] * len(known)
    before = [sa.moves for sa in laptop.node._core.ike._ctx if sa.is_relayed]
    world.behind("10.9.0.10", Nat("203.0.113.109", "symmetric"))
    laptop.move(("10.9.0.10", 4500))
    assert delivers(world, laptop, desk, 2, within=5)
    assert [sa.moves for sa in laptop.node._core.ike._ctx if sa.is_relayed] == before


def test_nothing_goes_to_a_relay_endpoint_without_a_way() -> None:
    """I50: it would be a host id on the wire. Here the home agent has never been one."""
    world = watched(580)
    laptop, desk = host(world, "laptop", 1, None), host(world, "desk", 2, None)
    assert world.run(20, lambda: laptop.node._core.peers.labelled("desk") is not None)
    assert delivers(world, laptop, desk, 1, within=15)
    core = laptop.node._core
    peer = core.peers.labelled("desk")
    assert peer is not None
    assert peer.relay_endpoint is not None
    core.emit(SendIke(b"x", peer.relay_endpoint), SendKeepalive(peer.relay_endpoint))
    core.point(peer, peer.relay_endpoint)
    assert not [one for one in core.take() if not isinstance(one, Log)]


def test_who_comes_through_a_home_agent_speaks_for_itself_alone() -> None:
    """I10, I22: another host of the account, with the same key, cannot be desk by relay."""
    world = watched(590)
    gateway(world)
    laptop, desk = hard_pair(world)
    other = host(world, "other", 3, "symmetric")
    assert settled(world, other)
    assert delivers(world, laptop, other, 1, within=15)
    node = laptop.node
    node._parts.asks.ask(7, "desk.alice.members.example", desk.host_id, (str(other.host_id), 500))
    told = [one.text for one in node._core.take() if isinstance(one, Log)]
    assert any(str(other.host_id) in text and "refused" in text for text in told)


def test_a_home_agent_takes_as_many_as_it_is_told() -> None:
    world = watched(600)
    settings = NodeSettings(home_agent=HomeAgentSettings(hosts=1))
    home = SimHost(world, Config("gateway", GATEWAY, settings=settings)).start()
    laptop, desk = host(world, "laptop", 1, None), host(world, "desk", 2, None)
    world.run(20)
    assert len(bound(home)) == 1
    (full,) = [one for one in (laptop, desk) if not sum(agents(one).values())]
    status = full.node.status(world.now)["home_agents"]
    assert status[0]["reason"]


@pytest.mark.parametrize("seed", range(610, 616))
def test_through_a_home_agent_in_bad_weather(seed: int) -> None:
    world = watched(seed, Weather(latency=0.04, jitter=0.06, loss=0.1, duplication=0.1))
    gateway(world)
    laptop, desk = host(world, "laptop", 1, "symmetric"), host(world, "desk", 2, "restricted")
    assert settled(world, laptop, desk)
    assert delivers(world, laptop, desk, 1, within=60)
    assert delivers(world, desk, laptop, 2, within=60)
    assert laptop.peer("desk")["path"] == "relay"


def test_what_a_home_agent_makes_us_remember_is_bounded() -> None:
    world = watched(620)
    home = gateway(world)
    laptop = host(world, "laptop", 1, None)
    assert settled(world, laptop)
    peer = laptop.node._core.peers.labelled("gateway")
    assert peer is not None
    relay = peer.narrow[RELAYED].spi_in
    for _ in range(500):
        source = (str(IPv6Address(b"\xfd" + world.random.randbytes(15))), 500)
        laptop.tell(laptop.node.nested, relay, b"\x01" * 28, source)
    assert len(laptop.node._parts.relaying.relays._ways) <= 64
    assert len(laptop.datapath._relays) <= 64
    assert bound(home) == ["laptop"]


def test_what_is_relayed_is_metered_and_limited() -> None:
    """The account gets its rate and the burst, and not more; what is above is counted."""
    world = watched(630)
    settings = NodeSettings(home_agent=HomeAgentSettings(octets_per_second=20_000))
    home = SimHost(world, Config("gateway", GATEWAY, settings=settings)).start()
    laptop, desk = hard_pair(world)
    assert delivers(world, laptop, desk, 9999, within=15)
    began, before = world.now, home.datapath.counters()["relayed_octets"]
    for number in range(2000):
        laptop.send(desk.host_id, number)
        world.run(0.002)
    counters = home.datapath.counters()
    allowed = 20_000 * (world.now - began) + RELAY_BURST_OCTETS
    assert 0.8 * allowed <= counters["relayed_octets"] - before <= allowed
    assert counters["drop_relay_limit"] > 0
    assert delivers(world, laptop, desk, 9998, within=15), "the path stays"


def test_neither_it_nor_others_carry_what_is_not_nested_for_them() -> None:
    """A host that is no home agent forwards nothing; a home agent nothing to who is not there."""
    world = watched(640)
    home = gateway(world)
    laptop, desk = hard_pair(world)
    assert delivers(world, laptop, desk, 1, within=15)
    desk.kill()
    world.run(1)
    home.tell(home.node.shutdown)
    world.run(5)
    assert home.datapath.counters().get("relayed_packets", 0) > 0
    count = home.datapath.counters()["relayed_packets"]
    laptop.send(desk.host_id, 2)
    world.run(5)
    assert home.datapath.counters()["relayed_packets"] == count
    for one in (laptop, desk):
        assert one.datapath.counters().get("relayed_packets", 0) == 0
        assert one.node.status(world.now)["home_agent"] is None


def test_a_direct_path_does_not_notice_that_home_agent_and_rendezvous_are_gone() -> None:
    world = watched(650)
    home = gateway(world)
    laptop, desk = host(world, "laptop", 1, None), host(world, "desk", 2, "restricted")
    assert settled(world, laptop, desk)
    assert delivers(world, laptop, desk, 9999, within=15)
    world.run(10)
    home.kill()
    world.set_zone(False)
    for number in range(180):
        laptop.send(desk.host_id, number)
        desk.send(laptop.host_id, number)
        world.run(0.5)
    world.run(1)
    assert set(range(180)) <= set(numbers(desk.received))
    assert set(range(180)) <= set(numbers(laptop.received))
    assert (laptop.peer("desk")["path"], desk.peer("laptop")["path"]) == ("direct", "direct")
    world.set_zone(True)
    home.restart()
    assert settled(world, laptop, desk), "and all is as before"


def test_a_way_that_one_end_alone_has_lost_is_left_by_both() -> None:
    world = watched(660)
    gateway(world)
    gateway(world, "reserve", SECOND)
    laptop, desk = hard_pair(world, at=2)
    assert delivers(world, laptop, desk, 1, within=15)
    assert str(laptop.peer("desk")["home_agent"]).startswith("gateway")
    world.cut("203.0.113.1", GATEWAY[0])
    began = world.now
    assert delivers(world, laptop, desk, 2, within=15)
    assert delivers(world, desk, laptop, 3, within=5)
    assert world.now - began < 10
    for one, other in ((laptop, "desk"), (desk, "laptop")):
        assert str(one.peer(other)["home_agent"]).startswith("reserve")


def test_who_ends_says_so_by_relay_before_it_leaves_its_home_agent() -> None:
    world = watched(670)
    home = gateway(world)
    laptop, desk = hard_pair(world)
    assert delivers(world, laptop, desk, 1, within=15)
    world.run(10)
    laptop.shutdown()
    assert world.run(1, lambda: laptop.finished)
    assert desk.peer("laptop").get("state") != "up"
    assert bound(home) == ["desk"]


def test_a_host_at_rest_is_woken_seldom_for_its_home_agents() -> None:
    world = watched(680)
    gateway(world)
    gateway(world, "reserve", SECOND)
    laptop = host(world, "laptop", 1, None)
    assert settled(world, laptop, at=2)
    world.run(30)
    woken = 0
    advance = laptop.node.advance

    def counted(now: float, unix: int) -> list[Command]:
        nonlocal woken
        woken += 1
        return advance(now, unix)

    vars(laptop.node)["advance"] = counted
    world.run(300)
    assert woken < 120, "a question to each in half a minute, and what else there is"
