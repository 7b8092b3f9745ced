"""Restarts, reboots, moves, a zone that is away, peers that are gone: what recovers by itself."""

from __future__ import annotations

from functools import partial
from ipaddress import IPv6Address

import pytest

from keys.ike.endpoint import IkeSettings
from tests.sim.conftest import Make
from tests.sim.scenes import DESK, LAPTOP, connected, delivers, delivers_after_reach, two
from tests.sim.world import Config, SimHost, Weather, numbers, udp_packet, unreachables
from tunnel.commands import NotReached, Pong, Reached
from tunnel.peers import StaticPeer
from tunnel.settings import NodeSettings

ELSEWHERE = ("192.0.2.99", 4500)


# --- Restart and reboot -----------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(200, 210))
def test_a_killed_host_that_starts_again_is_reached_by_who_talked_to_it(
    seed: int, world_of: Make
) -> None:
    """kill -9: the peer's SA is stale. Its packets (unknown SPI) make the new process connect, and
    INITIAL_CONTACT replaces the old SA, long before the 30 s of the liveness check."""
    world = world_of(seed, Weather(jitter=0.01, loss=0.05))
    desk, laptop = connected(world)
    laptop = laptop.restart()
    assert world.run(10, lambda: laptop.node.published)
    began = world.now
    assert delivers(world, desk, laptop, 1, within=30)
    assert delivers(world, laptop, desk, 2, within=10)
    assert world.now - began < 30


def test_an_unknown_spi_from_a_known_endpoint_makes_us_connect_but_seldom(world_of: Make) -> None:
    world = world_of(212)
    desk, _ = two(world)
    world.run(10)
    desk.lookup("laptop")  # where it is, is known now
    world.run(1)
    sent = len(world.wire)

    def hint(source: tuple[str, int]) -> int:
        """How many IKE_SA_INIT it makes us send (exchange type 34, after marker and SPIs)."""
        before = len(world.wire)
        desk.tell(desk.node.unknown_spi, 0xC0FFEE01, source)
        return sum(data[4 + 18] == 34 for _, data in world.wire[before:])

    assert hint(("192.0.2.200", 4500)) == 0  # nobody that we know
    assert hint(LAPTOP) == 1
    assert hint(LAPTOP) == 0
    assert len(world.wire) - sent <= 4  # and the INVALID_SPI hints


def test_a_killed_host_that_starts_again_reaches_who_talked_to_it(world_of: Make) -> None:
    world = world_of(211)
    desk, laptop = connected(world)
    laptop = laptop.restart()
    world.run(5)
    ticket = laptop.reach("desk")
    assert world.run(5, lambda: isinstance(laptop.answers.get(ticket), Reached))
    assert delivers(world, desk, laptop, 1, within=3)
    assert len(desk.node.spis()[0]) == 1  # nothing of before is left


@pytest.mark.parametrize("seed", range(220, 230))
def test_b54_a_reboot_brings_a_new_host_id_and_the_peer_learns_it(
    seed: int, world_of: Make
) -> None:
    world = world_of(seed, Weather(jitter=0.01, loss=0.1))
    desk, laptop = connected(world)
    old = laptop.host_id
    laptop = laptop.restart(reboot=True)
    assert laptop.host_id != old
    assert laptop.host_id.packed[8:] == old.packed[8:]  # B48: the same EUI-64, the same peer
    assert world.run(10, lambda: laptop.node.published)
    assert delivers_after_reach(world, laptop, desk, 1)
    assert delivers(world, desk, laptop, 2, within=30)
    assert desk.routes == {laptop.host_id}
    assert len(desk.node.spis()[0]) == 1


def test_a_lookup_after_the_reboot_finds_the_new_host_id(world_of: Make) -> None:
    world = world_of(231)
    desk, laptop = two(world)
    world.run(70)
    laptop = laptop.restart(reboot=True)
    assert world.run(10, lambda: laptop.node.published)
    world.run(6)
    ticket = desk.reach("laptop")
    assert world.run(10, lambda: ticket in desk.answers)
    assert desk.answers[ticket] == Reached(ticket, laptop.host_id)
    assert desk.routes == {laptop.host_id}


# --- Rekey ------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(240, 250))
def test_rekey_under_traffic_loses_no_packet(seed: int, world_of: Make) -> None:
    """The network overtakes and doubles but loses nothing, so every packet must arrive, once."""
    world = world_of(seed, Weather(latency=0.03, jitter=0.02, duplication=0.1))
    ike = IkeSettings(child_lifetime=20.0)
    desk = SimHost(world, Config("desk", DESK, settings=NodeSettings(ike=ike))).start()
    laptop = SimHost(world, Config("laptop", LAPTOP, settings=NodeSettings(ike=ike))).start()
    assert world.run(10, lambda: laptop.node.published and desk.node.published)
    ticket = desk.reach("laptop")
    assert world.run(10, lambda: ticket in desk.answers)
    spis = set(desk.node.spis()[0])
    for number in range(3000):
        world.at(world.now + number * 0.02, partial(desk.send, laptop.host_id, number))
        world.at(world.now + number * 0.02, partial(laptop.send, desk.host_id, number))
    world.run(62)
    assert not spis & set(desk.node.spis()[0])  # several times by now
    assert sorted(numbers(laptop.received)) == list(range(3000))
    assert sorted(numbers(desk.received)) == list(range(3000))
    tx = desk.peer("laptop")["tx_packets"]
    assert tx == 3000  # counters go on over rekeys


def test_the_end_of_a_sequence_space_is_answered_by_a_rekey(world_of: Make) -> None:
    world = world_of(251)
    desk, laptop = connected(world)
    before = desk.node.spis()
    desk.tell(desk.node.lifetime, before[1][0])
    world.run(5)
    assert not set(before[0]) & set(desk.node.spis()[0])
    assert delivers(world, desk, laptop, 1, within=3)


# --- Failure, told well -----------------------------------------------------------------------


def test_a_peer_that_is_gone_is_unreachable_for_the_application_and_status_says_why(
    world_of: Make,
) -> None:
    world = world_of(260)
    desk, laptop = two(world)
    world.run(70)
    laptop.kill()
    packet = desk.send(laptop.host_id, 1)
    assert world.run(60, lambda: bool(unreachables(desk.received)))
    error = unreachables(desk.received)[0]
    assert error[8:24] == laptop.host_id.packed  # Linux ignores errors from ourselves
    assert error[24:40] == desk.host_id.packed
    assert error[40:42] == bytes((1, 3))  # address unreachable
    assert error[48:] == packet
    peer = desk.peer("laptop")
    assert peer["state"] == "failed"
    desk.send(laptop.host_id, 2)
    assert len(unreachables(desk.received)) == 2  # at once, while the back-off lasts
    assert "203.0.113.7" in str(peer["reason"]) or "laptop" in str(peer["reason"])


def test_a_flood_of_packets_to_a_dead_peer_hammers_nobody(world_of: Make) -> None:
    world = world_of(261)
    desk, laptop = two(world)
    world.run(70)
    laptop.kill()
    asked = world.zone.counters["query"]
    sent = len(world.wire)
    for number in range(6000):  # 100 a second for a minute
        world.at(world.now + number * 0.01, partial(desk.send, laptop.host_id, number))
    world.run(61)
    assert len(world.wire) - sent < 60  # IKE retransmissions only
    assert world.zone.counters["query"] - asked < 40
    assert len(unreachables(desk.received)) <= 61 * 20 + 20  # RFC 4443 §2.4(f)
    assert len(desk.node._core.queues) <= desk.node._core.settings.queue_packets


def test_a_peer_that_dies_under_traffic_is_noticed_and_found_again(world_of: Make) -> None:
    world = world_of(262)
    desk, laptop = connected(world)
    laptop.kill()
    world.run(1)
    for number in range(200):
        world.at(world.now + number * 0.5, partial(desk.send, laptop.host_id, number))
    assert world.run(100, lambda: desk.peer("laptop")["state"] != "up")
    laptop = laptop.restart()
    assert delivers(world, desk, laptop, 999, within=60)


def test_another_secret_makes_no_tunnel_and_no_zone(world_of: Make) -> None:
    world = world_of(263)
    desk, _ = two(world)
    stranger = SimHost(world, Config("laptop", ELSEWHERE, secret=bytes(32))).start()
    assert world.run(15, lambda: stranger.node.zone_refusal is not None)
    assert "secret" in str(stranger.node.zone_refusal)
    static = StaticPeer("desk.alice.members.example", desk.host_id, DESK, psk=bytes(32))
    config = Config("laptop", ELSEWHERE, secret=bytes(32), static=(static,))
    stranger.kill()
    stranger = SimHost(world, config).start()
    ticket = stranger.reach("desk.alice.members.example")
    assert world.run(60, lambda: ticket in stranger.answers)
    answer = stranger.answers[ticket]
    assert isinstance(answer, NotReached)
    assert desk.node.spis() == ((), ())


def test_a_host_with_the_secret_may_not_claim_another_hosts_id(world_of: Make) -> None:
    """The zone says which host id a name has; a proven name alone does not give one."""
    world = world_of(264)
    desk, laptop = two(world)
    static = StaticPeer("desk.alice.members.example", desk.host_id, DESK, psk=world.account.psk)
    config = Config("laptop.alice.members.example", ELSEWHERE, static=(static,), account=False)
    thief = SimHost(world, config).start()  # says that it is laptop, with a host id of its own
    ticket = thief.reach(static.name)
    assert world.run(60, lambda: ticket in thief.answers)
    assert isinstance(thief.answers[ticket], NotReached)
    assert thief.host_id not in desk.routes
    assert delivers_after_reach(world, desk, laptop, 1)


# --- The zone ---------------------------------------------------------------------------------


def test_while_the_zone_is_away_tunnels_and_known_peers_go_on(world_of: Make) -> None:
    world = world_of(270)
    desk, laptop = connected(world)
    world.set_zone(False)
    world.run(300)
    assert delivers(world, desk, laptop, 1, within=3)
    weather, world.weather = world.weather, Weather(loss=1.0)
    for number in range(120):
        world.at(world.now + number, partial(desk.send, laptop.host_id, 100 + number))
    assert world.run(120, lambda: desk.peer("laptop")["state"] != "up")
    world.weather = weather
    assert delivers(world, desk, laptop, 2, within=60)  # by what the zone had said before


def test_a_zone_that_comes_back_is_used_at_once(world_of: Make) -> None:
    world = world_of(271)
    world.zone_up = False
    desk = SimHost(world, Config("desk", DESK)).start()
    laptop = SimHost(world, Config("laptop", LAPTOP)).start()
    ticket = desk.reach("laptop")
    assert world.run(30, lambda: ticket in desk.answers)
    answer = desk.answers[ticket]
    assert isinstance(answer, NotReached) and not answer.no_such_host
    assert "rendezvous" in answer.reason
    assert desk.node.status(world.now)["zone"]["problem"]
    world.set_zone(True)
    assert world.run(5, lambda: desk.node.published and laptop.node.published)
    assert delivers_after_reach(world, desk, laptop, 1)
    assert desk.node.status(world.now)["zone"]["problem"] is None


# --- Moves ------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(280, 290))
def test_a_host_that_moves_keeps_its_tunnel(seed: int, world_of: Make) -> None:
    """B62: the SA is bound to the host ids; only the outer endpoint changes."""
    world = world_of(seed, Weather(jitter=0.01, loss=0.1))
    desk, laptop = connected(world)
    spis = desk.node.spis()
    world.run(3)
    laptop.move(ELSEWHERE)
    assert delivers(world, laptop, desk, 1, within=30)
    assert delivers(world, desk, laptop, 2, within=30)
    assert desk.peer("laptop")["endpoint"] == "192.0.2.99:4500"
    assert desk.node.spis() == spis


def test_rfc7296_2_23_a_source_that_cannot_prove_itself_gets_no_data(world_of: Make) -> None:
    """Somebody on the path sends a genuine packet on from elsewhere: data must not follow."""
    world = world_of(291)
    desk, laptop = connected(world)
    world.run(5)
    kept = len(world.wire)
    laptop.send(desk.host_id, 7)
    genuine = world.wire[kept][1]
    world.run(0.001)
    desk.from_network(genuine, ("192.0.2.66", 4500))
    world.run(1)
    before = len(world.wire)
    desk.send(laptop.host_id, 8)
    assert world.run(1, lambda: 8 in numbers(laptop.received))
    assert desk.peer("laptop")["endpoint"] == "203.0.113.7:4500"
    world.run(30)
    assert desk.peer("laptop")["state"] == "up"
    assert len(world.wire) > before
    ticket = desk.ping("laptop")
    assert world.run(5, lambda: ticket in desk.answers)
    answer = desk.answers[ticket]
    assert isinstance(answer, Pong) and answer.rtt is not None


def test_an_answer_from_the_old_endpoint_is_no_proof_of_the_new_one(world_of: Make) -> None:
    """A ping is under way to the true peer while somebody replays its newest packet."""
    world = world_of(293)
    desk, laptop = connected(world)
    world.run(5)
    kept = len(world.wire)
    laptop.send(desk.host_id, 7)
    genuine = world.wire[kept][1]
    ticket = desk.ping("laptop")
    desk.from_network(genuine, ("192.0.2.66", 4500))
    world.run(1)
    assert ticket in desk.answers
    assert desk.peer("laptop")["endpoint"] == "203.0.113.7:4500"


def test_the_next_endpoint_is_tried_when_the_first_is_silent(world_of: Make) -> None:
    world = world_of(292)
    desk, laptop = two(world)
    dead, living = ("203.0.113.200", 4500), ("2001:db8::7", 4500)
    world.hosts[living] = laptop
    laptop.tell(laptop.node.set_endpoints, (dead, living))
    world.run(3)
    ticket = desk.reach("laptop")
    assert world.run(12, lambda: ticket in desk.answers)
    assert isinstance(desk.answers[ticket], Reached)


# --- The end, and static peers ----------------------------------------------------------------


def test_shutdown_withdraws_the_records_tells_the_peers_and_finishes(world_of: Make) -> None:
    world = world_of(300)
    desk, laptop = connected(world)
    desk.shutdown()
    assert world.run(3, lambda: desk.finished)
    world.run(1)
    assert "desk" not in world.labels_in_zone()
    assert laptop.peer("desk").get("state") != "up"
    assert desk.node.spis() == laptop.node.spis() == ((), ())
    assert desk.node.next_timer() is None
    world.run(70)
    assert laptop.routes == set()  # and the next list forgets it


def test_shutdown_is_bounded_when_nobody_answers(world_of: Make) -> None:
    world = world_of(301)
    desk, laptop = connected(world)
    laptop.kill()
    world.set_zone(False)
    began = world.now
    desk.shutdown()
    assert world.run(30, lambda: desk.finished)
    assert world.now - began <= desk.node._core.settings.farewell + 0.1


def test_static_peers_need_no_zone(world_of: Make) -> None:
    world = world_of(302)
    psk = b"a key of theirs alone"
    left = StaticPeer("left.example", IPv6Address("fd00::1"), DESK, psk)
    right = StaticPeer("right.example", IPv6Address("fd00::2"), LAPTOP, psk)
    here = Config("left.example", DESK, static=(right,), account=False, host_id=left.host_id)
    there = Config("right.example", LAPTOP, static=(left,), account=False, host_id=right.host_id)
    a, b = SimHost(world, here).start(), SimHost(world, there).start()
    assert a.routes == {right.host_id}
    a.from_application(udp_packet(a.host_id, b.host_id, 5))
    assert world.run(5, lambda: numbers(b.received) == [5])
    assert delivers(world, b, a, 6, within=2)


def test_keepalives_are_sent_where_a_nat_was_seen_and_nothing_else_goes(world_of: Make) -> None:
    """RFC 3948 §4: 20 s. The peer sees another source than the endpoint that we think we have. One
    that is no host of ours is never asked how long the NAT remembers."""
    world = world_of(303)
    psk = b"a key of theirs alone"
    left = StaticPeer("left.example", IPv6Address("fd00::1"), DESK, psk)
    right = StaticPeer("right.example", IPv6Address("fd00::2"), LAPTOP, psk)
    here = Config("left.example", DESK, static=(right,), account=False, host_id=left.host_id)
    there = Config("right.example", LAPTOP, static=(left,), account=False, host_id=right.host_id)
    a, b = SimHost(world, here).start(), SimHost(world, there).start()
    for told in (a.node.set_local, a.node.set_endpoints):
        a.tell(told, (("10.0.0.5", 4500),))
    ticket = a.reach("right.example")
    assert world.run(5, lambda: isinstance(a.answers.get(ticket), Reached))
    world.run(100)
    assert 4 <= a.keepalives <= 6
    assert b.keepalives == 0
    assert a.peer("right.example")["keepalive_s"] == 20
