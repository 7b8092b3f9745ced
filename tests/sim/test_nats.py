"""Hosts behind NATs meet, or say why they cannot: what tests/namespaces/test_nat_table.py shows
with real routers, here with loss, reboots and many seeds."""

from __future__ import annotations

import itertools

import pytest

from discovery import types
from discovery.texts import Change
from tests.sim.nat import STUN, Kind, Nat
from tests.sim.watch import Proofs
from tests.sim.world import Config, SimHost, Weather, World
from tunnel.commands import Command, NotReached, Reached, SendZone

KINDS: tuple[Kind | None, ...] = (None, "full-cone", "restricted", "symmetric")
HARD = {("symmetric", "symmetric"), ("symmetric", "restricted"), ("restricted", "symmetric")}


def host(world: World, label: str, number: int, kind: Kind | None) -> SimHost:
    """A host with a public address, or behind a NAT, that knows where the outside sees it."""
    if kind is None:
        made = SimHost(world, Config(label, (f"203.0.113.{number}", 4500))).start()
    else:
        inner = (f"192.168.{number}.10", 4500)
        world.behind(inner[0], Nat(f"203.0.113.{number}", kind))
        made = SimHost(world, Config(label, inner)).start()
        made.tell(made.node.look_outside, STUN)
    return made


def pair(world: World, ours: Kind | None, theirs: Kind | None) -> tuple[SimHost, SimHost]:
    Proofs(world)
    laptop, desk = host(world, "laptop", 1, ours), host(world, "desk", 2, theirs)
    wanted = [one for one, kind in ((laptop, ours), (desk, theirs)) if kind is not None]
    assert world.run(60, lambda: all(one.seen for one in wanted))
    assert world.run(60, lambda: {"desk", "laptop"} <= world.labels_in_zone())
    world.run(3)
    return laptop, desk


@pytest.mark.parametrize(("ours", "theirs"), list(itertools.product(KINDS, KINDS)))
def test_every_pair_meets_or_says_why_not(ours: Kind | None, theirs: Kind | None) -> None:
    world = World(1)
    laptop, desk = pair(world, ours, theirs)
    ticket = laptop.reach("desk")
    assert world.run(10, lambda: ticket in laptop.answers), "it is told within ten seconds"
    answer = laptop.answers[ticket]
    if (ours, theirs) in HARD:
        assert isinstance(answer, NotReached)
        assert "symmetric" in answer.reason
        return
    assert isinstance(answer, Reached), answer
    laptop.send(desk.host_id, 1)
    desk.send(laptop.host_id, 2)
    world.run(2)
    assert desk.received
    assert laptop.received
    assert not world.zone_says("_call"), "calls do not stay in the zone"


@pytest.mark.parametrize("seed", range(20))
def test_they_meet_in_bad_weather_too(seed: int) -> None:
    world = World(seed, Weather(latency=0.05, jitter=0.1, loss=0.15, duplication=0.1))
    laptop, desk = pair(world, "restricted", "restricted")
    for _ in range(3):  # an application that tries again
        ticket = laptop.reach("desk")
        world.run(40, lambda ticket=ticket: ticket in laptop.answers)
        if isinstance(laptop.answers.get(ticket), Reached):
            break
        world.run(5)
    assert isinstance(laptop.answers[ticket], Reached), laptop.answers[ticket]
    assert desk.peer("laptop")["state"] == "up"


@pytest.mark.parametrize("seed", range(5))
def test_a_nat_that_forgets_is_followed(seed: int) -> None:
    """A reboot: the same host comes from another port, the SAs stay, and the data follow."""
    world = World(seed)
    laptop, desk = pair(world, "restricted", None)
    laptop.reach("desk")
    assert world.run(10, lambda: laptop.peer("desk").get("state") == "up")
    before = laptop.peer("desk")["spi_in"]
    world.nats["192.168.1.10"].reboot()
    laptop.send(desk.host_id, 1)
    world.run(3)
    count = len(laptop.received)
    desk.send(laptop.host_id, 2)
    assert world.run(10, lambda: len(laptop.received) > count)
    assert laptop.peer("desk")["spi_in"] == before


def test_where_the_outside_sees_us_is_published_and_kept_true() -> None:
    world = World(3)
    laptop, _ = pair(world, "restricted", None)
    port = laptop.seen[-1][1]
    assert world.zone_says(f"0 0 {port} {laptop.node.identity.target}.{world.account.domain}.")
    world.nats["192.168.1.10"].reboot()
    assert world.run(60, lambda: laptop.seen[-1][1] != port)
    text = '"nat=independent" "lan=192.168.1.10:4500"'
    assert world.run(10, lambda: world.zone_says(text))


def test_a_call_of_a_stranger_makes_nobody_send_much() -> None:
    """All that a call can do is a few octets to one endpoint, and only the account can call."""
    world = World(4)
    laptop, desk = pair(world, "restricted", "restricted")
    sent = desk.keepalives
    words = [f"1 nobody 198.51.100.{n + 1} 4500 {n:08x}".encode() for n in range(50)]
    changes = tuple(Change("desk._call", one, add=True) for one in words)

    def leave(now: float, unix: int) -> list[Command]:
        assert laptop.zone is not None
        found = laptop.zone.change_texts("call", changes, now, unix)
        return [SendZone(one.wire) for one in found if isinstance(one, types.SendZone)]

    laptop.tell(leave)
    world.run(10)
    assert 6 <= desk.keepalives - sent <= 8 * 6 + 5


@pytest.mark.parametrize("kind", ["restricted", "full-cone"])
def test_a_peer_that_left_in_mid_conversation_is_followed_by_the_zones_word(kind: Kind) -> None:
    """Both NATs let in only whom was sent to, so that no packet of the mover's gets here."""
    world = World(5)
    laptop, desk = pair(world, kind, "restricted")
    laptop.reach("desk")
    assert world.run(10, lambda: laptop.peer("desk").get("state") == "up")
    desk.send(laptop.host_id, 1)
    world.run(0.5)
    del world.hosts[desk.endpoint]
    desk.endpoint = ("192.168.9.10", 4500)
    world.hosts[desk.endpoint] = desk
    world.behind(desk.endpoint[0], Nat("203.0.113.9", "restricted"))
    desk.tell(desk.node.moved)
    desk.reconnect()
    desk.tell(desk.node.look_outside, STUN)
    old = laptop.peer("desk")["endpoint"]

    def followed() -> bool:
        desk.send(laptop.host_id, 2)
        world.run(0.02)
        return laptop.peer("desk")["endpoint"] != old

    assert world.run(1.0, followed), "well before anything is given up"
    assert laptop.peer("desk")["endpoint"].startswith("203.0.113.9:")


@pytest.mark.parametrize("seed", range(10))
def test_a_router_that_says_nothing_of_its_new_address_is_found_out(seed: int) -> None:
    """Both NATs let in only whom was sent to: neither host hears the other any more. One of them
    asks the outside where it is seen, long before it would by itself, and the zone tells."""
    world = World(seed, Weather(latency=0.02, jitter=0.01))
    laptop, desk = pair(world, "restricted", "restricted")
    laptop.reach("desk")
    assert world.run(10, lambda: laptop.peer("desk").get("state") == "up")

    def talk() -> None:
        laptop.send(desk.host_id, 1)
        desk.send(laptop.host_id, 2)
        world.run(0.05)

    for _ in range(40):
        talk()
    world.reboot(world.nats["192.168.1.10"], "203.0.113.77")
    left = world.now
    while desk.peer("laptop")["endpoint"].rpartition(":")[0] != "203.0.113.77":
        talk()
        assert world.now - left < 4.0
    count = len(laptop.received), len(desk.received)
    talk()
    talk()
    assert len(laptop.received) > count[0]
    assert len(desk.received) > count[1]
