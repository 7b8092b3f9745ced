"""No binding without a live proof of the home address, and what goes on without (I21, I22)."""

from __future__ import annotations

from collections import Counter

from keys.ike.settings import IkeSettings
from tests.sim.ladder import Ladder, table, unheeded
from tests.sim.scenes import delivers
from tests.sim.test_home_agent import gateway, host, settled
from tests.sim.test_optimising import paths
from tests.sim.watch import watched
from tests.sim.world import SimHost, World, numbers
from tunnel.mobility.correspondent import Binding
from tunnel.mobility.header import Aotc, Aotr, BindingAck, BindingUpdate
from tunnel.peers import SIGNALS
from tunnel.settings import NodeSettings

AWAY = (("203.0.113.77", 4500), ("203.0.113.78", 4500))


def public_pair(
    world: World, settings: NodeSettings | None = None
) -> tuple[SimHost, SimHost, SimHost]:
    """A home agent, and two hosts with public addresses that are registered with it."""
    home = gateway(world, settings=settings)
    laptop = host(world, "laptop", 1, None, settings)
    desk = host(world, "desk", 2, None, settings)
    assert settled(world, laptop, desk)
    return home, laptop, desk


def binding(one: SimHost, label: str) -> Binding | None:
    """What a host holds of another one."""
    bindings = one.node._parts.relaying.signals.machine.correspondent.bindings
    return bindings.get(table(one, label).name)


def bound(one: SimHost, other: SimHost) -> bool:
    """Whether data goes where ``other`` is, by a binding."""
    held = binding(one, other.config.label)
    return held is not None and held.used == other.endpoint


def told(one: SimHost, label: str) -> Counter[str]:
    """What ``explain`` says about another host, and how often."""
    entries = one.node._core.journal.of(table(one, label).name).entries
    return Counter({entry.why: entry.times for entry in entries})


def deaf_at_home(one: SimHost, other: SimHost) -> None:
    """What comes to the home address of ``one`` by relay does not reach it: another host is there,
    or none."""
    signals, received = one.node._parts.relaying.signals, one.node._parts.relaying.signals.received

    def heard(spi: int, source: tuple[str, int], message: bytes) -> None:
        if source[0] != str(other.host_id):
            received(spi, source, message)

    signals.received = heard


def test_without_the_home_agent_a_direct_path_goes_on_and_nobody_talks_for_ever() -> None:
    """It died before anything was proven: no bindings, and MOBIKE tells of the moves."""
    world = watched(650)
    home, laptop, desk = public_pair(world)
    home.kill()
    assert delivers(world, laptop, desk, 1, within=15)
    for number, place in enumerate(AWAY, 2):
        world.run(100)
        laptop.move(place)
        assert delivers(world, desk, laptop, number, within=10)
        assert delivers(world, laptop, desk, 10 + number, within=10)
    assert paths(laptop, desk) == ("direct", "direct")
    assert not bound(desk, laptop) and not bound(laptop, desk)
    world.run(300)
    ladder = Ladder(laptop, desk)
    world.run(300)
    assert len(ladder.said) < 60
    assert delivers(world, desk, laptop, 20, within=10)


def test_when_the_home_agent_is_there_again_so_are_the_bindings() -> None:
    world = watched(651)
    home, laptop, desk = public_pair(world)
    home.kill()
    assert delivers(world, laptop, desk, 1, within=15)
    world.run(200)
    assert not bound(desk, laptop)
    home.restart()
    assert world.run(180, lambda: bound(desk, laptop) and bound(laptop, desk))


def test_moves_after_the_proof_need_no_home_agent() -> None:
    world = watched(652)
    home, laptop, desk = public_pair(world)
    assert delivers(world, laptop, desk, 1, within=15)
    assert world.run(10, lambda: bound(desk, laptop))
    home.kill()
    world.run(5)
    for number, place in enumerate(AWAY, 2):
        laptop.move(place)
        assert delivers(world, desk, laptop, number, within=10)
        assert world.run(10, lambda: bound(desk, laptop)), "BU, AOTC, AOTR, BA, all directly"


def test_a_thief_of_credentials_is_bound_nowhere_i22() -> None:
    """It made an IKE SA as the laptop from elsewhere, receives where it says that it is, and is not
    at the laptop's home address: it answers each test but that one."""
    world = watched(653)
    _, thief, desk = public_pair(world)
    deaf_at_home(thief, desk)
    assert delivers(world, thief, desk, 1, within=15)
    ladder = Ladder(thief, desk)
    for number in range(100, 160):
        desk.send(thief.host_id, number)
        world.run(0.5)
    thief.move(AWAY[0])
    world.run(60)
    assert len(ladder.of(BindingUpdate, thief)) > 3
    assert len(ladder.of(Aotr, thief)) > 3, "for the care-of address"
    assert not ladder.of(BindingAck, desk)
    held = binding(desk, "laptop")
    assert held is not None and held.used is None and not held.at_home
    assert unheeded(desk)["home"] >= 1
    assert "it does not answer at its home address" in told(desk, "laptop")


def test_each_rekey_asks_at_home_again_and_another_tunnel_begins_anew_i21() -> None:
    world = watched(654)
    short = NodeSettings(ike=IkeSettings(child_lifetime=20.0, ike_lifetime=50.0))
    _, laptop, desk = public_pair(world, short)
    assert delivers(world, laptop, desk, 1, within=15)
    assert world.run(10, lambda: bound(desk, laptop) and bound(laptop, desk))
    child = table(desk, "laptop").narrow[SIGNALS]
    ladder = Ladder(laptop, desk)
    for number in range(100, 200):
        desk.send(laptop.host_id, number)
        world.run(1)
    asked = [one for one in ladder.of(Aotc, desk) if one.endpoint[0] == str(laptop.host_id)]
    assert 2 <= len(asked) <= 12, "at each rekey"
    later = table(desk, "laptop").narrow[SIGNALS]
    assert child.spi_in != later.spi_in and child.session == later.session
    assert bound(desk, laptop) and set(range(100, 200)) <= set(numbers(laptop.received))
    ladder.said.clear()
    laptop = laptop.restart()
    assert delivers(world, laptop, desk, 300, within=60)
    assert world.run(60, lambda: bound(desk, laptop))
    assert table(desk, "laptop").narrow[SIGNALS].session != child.session
    assert str(laptop.host_id) in {one.endpoint[0] for one in ladder.of(Aotc, desk)}
    assert told(desk, "laptop")["it answers at its home address"]
