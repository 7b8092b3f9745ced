"""Two hosts find each other by name and exchange packets, whatever the network does (B8, B48)."""

from __future__ import annotations

import pytest

from tests.sim.conftest import Make
from tests.sim.scenes import LAPTOP, connected, delivers, delivers_after_reach, two
from tests.sim.world import DOMAIN, PLAINTEXT, Weather, numbers, unreachables
from tunnel.commands import Found, NotReached, Pong, Reached


def test_b8_b48_find_by_name_then_exchange_packets_both_ways(world_of: Make) -> None:
    world = world_of(1)
    desk, laptop = two(world)
    ticket = desk.reach("laptop")
    assert world.run(5, lambda: ticket in desk.answers)
    assert desk.answers[ticket] == Reached(ticket, laptop.host_id)
    for number in range(20):
        desk.send(laptop.host_id, number)
        laptop.send(desk.host_id, number)
    world.run(1)
    assert numbers(laptop.received) == numbers(desk.received) == list(range(20))
    assert any(PLAINTEXT in packet for packet in laptop.received)


def test_a_packet_alone_makes_the_tunnel_and_none_that_waited_is_lost(world_of: Make) -> None:
    world = world_of(2)
    desk, laptop = two(world)
    world.run(70)  # the next list of hosts tells desk of laptop's host id
    assert laptop.host_id in desk.routes
    for number in range(30):
        desk.send(laptop.host_id, number)
    assert world.run(5, lambda: len(numbers(laptop.received)) == 30)
    assert numbers(laptop.received) == list(range(30))  # in order
    assert not unreachables(desk.received)


def test_routes_are_the_hosts_of_the_account_and_nothing_else(world_of: Make) -> None:
    world = world_of(3)
    desk, laptop = two(world)
    world.run(70)
    assert desk.routes == {laptop.host_id}
    assert laptop.routes == {desk.host_id}


def test_b48_our_own_name_needs_no_tunnel(world_of: Make) -> None:
    world = world_of(4)
    desk, _ = two(world)
    ticket = desk.reach(f"DESK.{DOMAIN}.")
    assert desk.answers[ticket] == Reached(ticket, desk.host_id)


def test_a_name_that_the_zone_does_not_know_is_said_to_be_unknown(world_of: Make) -> None:
    world = world_of(5)
    desk, _ = two(world)
    ticket, foreign = desk.reach("nobody"), desk.reach("www.example.com")
    assert world.run(5, lambda: ticket in desk.answers)
    for answer in (desk.answers[ticket], desk.answers[foreign]):
        assert isinstance(answer, NotReached) and answer.no_such_host
    assert not desk.peer("nobody")  # and it is not kept


def test_ping_makes_the_tunnel_and_measures_the_round_trip(world_of: Make) -> None:
    world = world_of(6, Weather(latency=0.05))
    desk, _ = two(world)
    ticket = desk.ping("laptop")
    assert world.run(10, lambda: ticket in desk.answers)
    answer = desk.answers[ticket]
    assert isinstance(answer, Pong) and answer.rtt == pytest.approx(0.1, abs=0.01)
    assert desk.peer("laptop")["rtt_ms"] == pytest.approx(100, abs=10)


def test_lookup_gives_the_word_of_the_zone(world_of: Make) -> None:
    world = world_of(7)
    desk, laptop = two(world)
    ticket = desk.lookup("laptop")
    assert world.run(5, lambda: ticket in desk.answers)
    found = desk.answers[ticket]
    assert isinstance(found, Found)
    assert (found.host_id, found.endpoints) == (laptop.host_id, (LAPTOP,))
    assert found.target.startswith("AutoTunnel-")


def test_status_has_every_field_of_the_contract(world_of: Make) -> None:
    world = world_of(8)
    desk, laptop = connected(world)
    desk.send(laptop.host_id, 1)
    world.run(3)
    peer = desk.peer("laptop")
    want = "name id state path endpoint suite mode spi_in spi_out rx_bytes tx_bytes rx_packets"
    want += " tx_packets rtt_ms last_handshake_s drops"
    assert set(want.split()) <= set(peer)
    assert (peer["state"], peer["path"], peer["endpoint"]) == ("up", "direct", "203.0.113.7:4500")
    assert peer["tx_packets"] == 1 and peer["rx_packets"] == 0
    zone = desk.node.status(world.now)["zone"]
    assert {"server", "transport", "lease_s", "llq"} <= set(zone)


def test_a_long_list_of_hosts_is_learnt_whole_without_a_storm(world_of: Make) -> None:
    """More hosts than the zone client looks up at once."""
    world = world_of(9)
    desk, _ = two(world)
    for number in range(90):
        world.publish(f"host{number}", (f"192.0.2.{number + 1}", 4500))
    world.run(130)
    assert len(desk.routes) == 91


@pytest.mark.parametrize("seed", range(60))
def test_any_weather_finds_connects_and_delivers(seed: int, world_of: Make) -> None:
    """Loss up to 30 %, overtaking, doubles, slow links: 60 seeds, each another mix."""
    world = world_of(seed)
    pick = world.random
    world.weather = Weather(
        latency=pick.uniform(0.001, 0.3),
        jitter=pick.choice((0.0, 0.05, 0.5)),
        loss=pick.uniform(0.0, 0.3),
        duplication=pick.choice((0.0, 0.2)),
    )
    desk, laptop = two(world)
    assert delivers_after_reach(world, desk, laptop, 1)
    assert delivers(world, laptop, desk, 2, within=60)
    assert delivers(world, desk, laptop, 3, within=60)


@pytest.mark.parametrize("seed", range(100, 125))
def test_both_begin_at_once_and_one_tunnel_remains(seed: int, world_of: Make) -> None:
    world = world_of(seed, Weather(latency=0.03, jitter=0.02, loss=0.1, duplication=0.1))
    desk, laptop = two(world)
    first, second = desk.reach("laptop"), laptop.reach("desk")
    assert world.run(60, lambda: first in desk.answers and second in laptop.answers)
    assert isinstance(desk.answers[first], Reached)
    assert isinstance(laptop.answers[second], Reached)
    world.run(30)
    assert delivers(world, desk, laptop, 1, within=30)
    assert delivers(world, laptop, desk, 2, within=30)
    ours, theirs = desk.peer("laptop"), laptop.peer("desk")
    assert (ours["spi_in"], ours["spi_out"]) == (theirs["spi_out"], theirs["spi_in"])
    assert len(desk.node.spis()[0]) == len(laptop.node.spis()[0]) == 1
