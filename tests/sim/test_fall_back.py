"""A direct path that is cut is left for the relay within half a second; one that is bad is not."""

from __future__ import annotations

from functools import partial

import pytest

from tests.sim.scenes import delivers
from tests.sim.test_home_agent import gateway
from tests.sim.test_optimising import OUTSIDES, direct, pair, paths
from tests.sim.watch import watched
from tests.sim.world import SimHost, Weather, World, numbers
from tunnel.journal import What

GOOD = Weather(latency=0.02, jitter=0.002)


def met(world: World) -> tuple[SimHost, SimHost]:
    """Two hosts that go directly, and could go through a home agent."""
    gateway(world)
    laptop, desk = pair(world, None, "restricted")
    assert delivers(world, laptop, desk, 1, within=15)
    assert direct(world, laptop, desk, 15)
    world.run(5)
    return laptop, desk


def talk(
    world: World, laptop: SimHost, desk: SimHost, seconds: float, each: float = 0.02, *, both: bool
) -> None:
    """Packets at ``each`` second, to the desk, and back as well or as an answer to every second."""
    for number in range(int(seconds / each)):
        at = world.now + number * each
        world.at(at, partial(laptop.send, desk.host_id, 1000 + number))
        if both or number % 2:
            later = at if both else at + 0.05
            world.at(later, partial(desk.send, laptop.host_id, 1000 + number))


def switches(one: SimHost, label: str) -> int:
    """How often its data took the relay again."""
    entries = one.node._core.journal.of(f"{label}.alice.members.example").entries
    found = [one for one in entries if one.what == What.RELAY and "back to the home" in one.why]
    return len(found)


@pytest.mark.parametrize("seed", range(900, 903))
@pytest.mark.parametrize("both", [True, False])
def test_a_stream_goes_on_by_relay_within_half_a_second(seed: int, both: bool) -> None:
    world = watched(seed, GOOD)
    laptop, desk = met(world)
    began = world.now
    talk(world, laptop, desk, 10, both=both)
    world.run(5)
    world.cut(*OUTSIDES)
    cut_at = world.now
    world.run(0.65)
    assert paths(laptop, desk) == ("relay", "relay")
    world.run(began + 11 - world.now)
    sent = 1000 + (cut_at - began) / 0.02
    missing = [n for n in range(1000, 1500) if n not in set(numbers(desk.received))]
    assert all(sent - 5 < n < sent + 33 for n in missing), missing


@pytest.mark.parametrize(
    ("weather", "each"),
    [
        (Weather(latency=0.02, jitter=0.01, loss=0.2), 0.02),
        (Weather(latency=0.02, jitter=0.01, loss=0.2), 0.045),
        (Weather(latency=0.02, jitter=0.15), 0.02),
        (Weather(latency=0.3, jitter=0.05, loss=0.05), 0.02),
    ],
    ids=["loss", "loss of few", "jitter", "far away"],
)
@pytest.mark.parametrize("both", [True, False])
def test_a_bad_path_is_kept(weather: Weather, each: float, both: bool) -> None:
    """A fifth of all packets lost, delays that vary by 150 ms, 600 ms there and back: data stays on
    the direct path."""
    assert kept(920, weather, each, 30, both=both)


def kept(seed: int, weather: Weather, each: float, seconds: float, *, both: bool) -> bool:
    """Whether data stayed on the direct path for so long."""
    world = watched(seed)
    laptop, desk = met(world)
    world.weather = weather
    talk(world, laptop, desk, seconds, each, both=both)
    world.run(seconds + 5)
    left = switches(laptop, "desk") + switches(desk, "laptop")
    return left == 0 and paths(laptop, desk) == ("direct", "direct")


@pytest.mark.parametrize("loss", [0.0, 0.2])
def test_pauses_of_an_application_are_not_taken_for_a_cut(loss: float) -> None:
    """Bursts with a packet of ours at the end of each: small questions, and no switch."""
    world = watched(930)
    laptop, desk = met(world)
    world.weather = Weather(latency=0.02, jitter=0.01, loss=loss)
    for _ in range(30):
        talk(world, laptop, desk, 1.0, 0.01, both=True)
        world.at(world.now + 1.1, partial(laptop.send, desk.host_id, 1))
        world.run(3.0)
    assert (switches(laptop, "desk"), switches(desk, "laptop")) == (0, 0)
    assert paths(laptop, desk) == ("direct", "direct")


def test_a_host_that_was_busy_itself_does_not_doubt_its_peer() -> None:
    """Its counters are read two seconds late, and then say that packets came all the time."""
    world = watched(940, GOOD)
    laptop, desk = met(world)
    talk(world, laptop, desk, 8, both=True)
    world.run(3)
    look = laptop._activity
    laptop._activity = lambda: world.at(world.now + 2, look)
    world.run(7)
    entries = laptop.node._core.journal.of("desk.alice.members.example").entries
    assert not [one for one in entries if "is it there?" in one.why]
    assert paths(laptop, desk) == ("direct", "direct")


def test_a_path_that_was_left_for_nothing_gets_more_time() -> None:
    """Half a second without a packet, again and again: after the first two it is waited for."""
    world = watched(950, GOOD)
    laptop, desk = met(world)
    talk(world, laptop, desk, 60, both=True)
    for _ in range(6):
        world.run(5)
        world.cut(*OUTSIDES)
        world.run(0.6)
        world.cut(*OUTSIDES, whole=True)
        assert direct(world, laptop, desk, 4)
    assert 1 <= switches(laptop, "desk") + switches(desk, "laptop") <= 4
