"""Keepalives: as seldom as the NAT allows, learnt while nobody uses the tunnel."""

from __future__ import annotations

import pytest

from tests.sim.conftest import Make
from tests.sim.nat import STUN, Kind, Nat
from tests.sim.scenes import LAPTOP
from tests.sim.test_candidates import reached
from tests.sim.test_silence import mended
from tests.sim.world import Config, SimHost, Weather, World


def behind(world: World, label: str, number: int, timeout: float, kind: Kind) -> SimHost:
    inside = (f"192.168.{number}.10", 4500)
    world.behind(inside[0], Nat(f"203.0.113.{number}", kind, timeout=timeout))
    host = SimHost(world, Config(label, inside)).start()
    host.tell(host.node.look_outside, STUN)
    assert world.run(60, lambda: bool(host.seen))
    return host


def idle_pair(
    world: World, timeout: float, kind: Kind = "restricted", theirs: float | None = None
) -> tuple[SimHost, SimHost]:
    """The laptop is behind a NAT; the desk is public, or behind one that remembers ``theirs``."""
    laptop = behind(world, "laptop", 1, timeout, kind)
    if theirs is None:
        desk = SimHost(world, Config("desk", ("198.51.100.1", 4500))).start()
    else:
        desk = behind(world, "desk", 2, theirs, "restricted")
    world.run(3)
    assert reached(world, laptop, "desk")
    return laptop, desk


def interval(host: SimHost, peer: str) -> float:
    seconds = host.peer(peer)["keepalive_s"]
    assert isinstance(seconds, int)
    return seconds


@pytest.mark.parametrize(
    ("kind", "timeout"),
    [
        *(("restricted", seconds) for seconds in (25.0, 30.0, 60.0, 120.0, 300.0)),
        *(("symmetric", seconds) for seconds in (30.0, 120.0)),
    ],
)
def test_what_the_nat_remembers_is_learnt(kind: Kind, timeout: float, world_of: Make) -> None:
    world = world_of(700)
    laptop, desk = idle_pair(world, timeout, kind)
    world.run(200 + 20 * min(timeout, 290))
    learnt = interval(laptop, "desk")
    assert min(timeout, 290) * 0.75 - 2 <= learnt < timeout
    assert desk.peer("laptop")["keepalive_s"] is None  # no NAT there
    for _ in range(5):
        world.run(world.random.uniform(1.0, 400.0))
        assert mended(world, desk, laptop) < 0.2


@pytest.mark.parametrize("seed", range(710, 713))
def test_it_is_learnt_in_bad_weather_too(seed: int, world_of: Make) -> None:
    world = world_of(seed, Weather(latency=0.1, jitter=0.3, loss=0.1, duplication=0.05))
    laptop, _ = idle_pair(world, 120.0)
    world.run(3000)
    assert 19 <= interval(laptop, "desk") < 120


def test_both_learn_where_both_are_behind_nats(world_of: Make) -> None:
    world = world_of(720)
    laptop, desk = idle_pair(world, 60.0, theirs=150.0)
    world.run(3000)
    assert 43 <= interval(laptop, "desk") < 60
    assert 43 <= interval(desk, "laptop") < 150
    for one, two in ((laptop, desk), (desk, laptop)):
        assert mended(world, one, two) < 0.2


@pytest.mark.parametrize("timeout", [25.0, 40.0, 120.0])
def test_a_nat_that_forgets_whole_endpoints_is_noticed_by_stun(
    timeout: float, world_of: Make
) -> None:
    """It lets everybody in, so that no single flow says how long it remembers."""
    world = world_of(725)
    laptop, desk = idle_pair(world, timeout, "full-cone")
    world.run(1800)
    port = laptop.seen[-1]
    assert interval(laptop, "desk") <= 20 or timeout > 60
    for _ in range(5):
        world.run(world.random.uniform(1.0, 300.0))
        assert mended(world, desk, laptop) < 0.2
    assert laptop.seen[-1] == port


def test_a_mapped_port_needs_none(world_of: Make) -> None:
    world = world_of(730)
    nat = Nat("203.0.113.1", "restricted", timeout=30.0)
    inside = ("192.168.1.10", 4500)
    world.behind(inside[0], nat)
    laptop = SimHost(world, Config("laptop", inside)).start()
    laptop.tell(laptop.node.set_endpoints, (nat.forward(4500, inside),))
    desk = SimHost(world, Config("desk", LAPTOP)).start()
    world.run(5)
    assert reached(world, laptop, "desk")
    world.run(30)
    sent = len(world.wire)
    world.run(600)
    assert len(world.wire) == sent
    assert laptop.peer("desk")["keepalive_s"] is None
    assert mended(world, desk, laptop) < 0.2


def test_none_are_sent_any_more_once_a_router_maps_the_port(world_of: Make) -> None:
    world = world_of(731)
    laptop, desk = idle_pair(world, 60.0)
    world.run(30)
    assert laptop.peer("desk")["keepalive_s"] is not None
    laptop.tell(laptop.node.look_outside, ())
    nat = world.nats[laptop.endpoint[0]]
    laptop.tell(laptop.node.set_endpoints, (nat.forward(4500, laptop.endpoint),))
    world.run(80)
    assert laptop.peer("desk")["keepalive_s"] is None
    sent = len(world.wire)
    world.run(400)
    assert len(world.wire) == sent
    assert mended(world, desk, laptop) < 0.2


def test_what_was_learnt_of_a_network_is_remembered(world_of: Make) -> None:
    world = world_of(740)
    laptop, desk = idle_pair(world, 120.0)
    world.run(1200)
    learnt, home = interval(laptop, "desk"), laptop.endpoint
    laptop.move(("203.0.113.77", 4500))
    laptop.tell(laptop.node.look_outside, ())
    world.run(60)
    assert laptop.peer("desk")["keepalive_s"] is None
    laptop.move(home)
    laptop.tell(laptop.node.look_outside, STUN)
    world.run(5)
    assert interval(laptop, "desk") == learnt
    assert mended(world, desk, laptop) < 1.0


def test_a_nat_that_remembers_less_than_before_is_noticed(world_of: Make) -> None:
    world = world_of(750)
    laptop, desk = idle_pair(world, 300.0)
    world.run(1800)
    assert interval(laptop, "desk") > 200
    world.nats[laptop.endpoint[0]].timeout = 40.0
    world.run(4500)
    assert interval(laptop, "desk") < 40
    assert mended(world, desk, laptop) < 0.2


def test_the_peer_stays_reachable_while_it_is_being_learnt(world_of: Make) -> None:
    """A packet at any moment: what is tried is tried on a flow that serves nothing else."""
    world = world_of(760)
    laptop, desk = idle_pair(world, 25.0)
    for _ in range(40):
        world.run(world.random.uniform(1.0, 60.0))
        assert mended(world, desk, laptop) < 0.2
    assert 15 <= interval(laptop, "desk") < 25


def test_a_server_that_answers_at_once_teaches_nothing(
    world_of: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.sim.world.delay_of", lambda _: 0)
    world = world_of(770)
    laptop, desk = idle_pair(world, 120.0)
    world.run(1800)
    assert interval(laptop, "desk") == 20
    assert mended(world, desk, laptop) < 0.2


def test_after_a_sleep_the_peer_is_shown_where_we_come_from(world_of: Make) -> None:
    """Nothing kept the NAT awake meanwhile: its next flow has another port."""
    world = world_of(780)
    laptop, desk = idle_pair(world, 60.0)
    world.run(30)
    port = laptop.seen[-1]
    world.nats[laptop.endpoint[0]].reboot()  # as good as forgotten
    laptop.tell(laptop.node.resumed)
    world.run(2)
    assert desk.peer("laptop")["endpoint"] != f"{port[0]}:{port[1]}"
    assert mended(world, desk, laptop) < 0.2
