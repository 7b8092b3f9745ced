"""Rekeys every few seconds lose nothing, and no crossing of them leaves a tunnel that is deaf."""

from __future__ import annotations

import pytest

from keys.ike.settings import IkeSettings
from tests.sim.watch import Proofs
from tests.sim.world import Config, SimHost, Weather, World
from tunnel.settings import NodeSettings

SHORT = NodeSettings(ike=IkeSettings(child_lifetime=6.0, ike_lifetime=25.0))
PACKETS, PAUSE = 120, 0.5  # each way; seconds between two


def _state(host: SimHost, peer: str) -> object:
    return host.peer(peer).get("state")


def talk(seed: int, weather: Weather) -> tuple[SimHost, SimHost]:
    """A minute of packets both ways over SAs that live for seconds."""
    world = World(seed, weather)
    Proofs(world)
    desk = SimHost(world, Config("desk", ("198.51.100.1", 4500), settings=SHORT)).start()
    laptop = SimHost(world, Config("laptop", ("203.0.113.7", 4500), settings=SHORT)).start()
    assert world.run(10, lambda: {"desk", "laptop"} <= world.labels_in_zone())
    laptop.reach("desk")
    # Until both: what a responder sends at once may overtake the answer that makes it known.
    assert world.run(5, lambda: {_state(laptop, "desk"), _state(desk, "laptop")} == {"up"})
    for number in range(PACKETS):
        laptop.send(desk.host_id, number)
        desk.send(laptop.host_id, number)
        world.run(PAUSE)
    world.run(2)
    return desk, laptop


@pytest.mark.parametrize("jitter", [0.0, 0.02])
@pytest.mark.parametrize("seed", range(3))
def test_rekeys_every_few_seconds_lose_no_packet(seed: int, jitter: float) -> None:
    for host in talk(seed, Weather(latency=0.02, jitter=jitter)):
        assert len(host.received) == PACKETS
        assert "unknown_spi" not in host.datapath.counters()


@pytest.mark.parametrize("seed", range(34, 39))
def test_a_wild_network_leaves_no_tunnel_deaf(seed: int) -> None:
    """Seeds that did: messages overtake each other by a third of a second, SAs live for six."""
    for host in talk(seed, Weather(latency=0.001, jitter=0.3)):
        assert len(host.received) > PACKETS * 0.85
