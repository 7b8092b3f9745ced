"""A second network is proven early, and a planned move to it costs no round trip (I19, I20)."""

from __future__ import annotations

from ipaddress import IPv6Address
from typing import Any

import pytest

from fastpath.types import Endpoint, Source
from tests.sim.nat import Kind, Nat
from tests.sim.networks import join, leave, switch
from tests.sim.scenes import delivers
from tests.sim.test_home_agent import gateway, host, settled
from tests.sim.test_recording import recorded
from tests.sim.watch import watched
from tests.sim.world import Config, SimHost, Weather, World, numbers
from tunnel.early import MOST, RENEW
from tunnel.mobility import header
from tunnel.mobility.commands import Invited
from tunnel.mobility.proofs import NAT_LIFE
from tunnel.peers import Peer
from tunnel.recording import play

SECOND: Endpoint = ("203.0.113.77", 4500)
INSIDE: Endpoint = ("192.168.9.10", 4500)
OUTSIDE = "203.0.113.9"
STEP = 0.01  # seconds between two packets each way


def pair(world: World, ours: Kind | None = None, theirs: Kind | None = None) -> list[SimHost]:
    """A laptop and a desk that know where the other is, and a home agent."""
    gateway(world)
    both = [host(world, "laptop", 1, ours), host(world, "desk", 2, theirs)]
    assert settled(world, *both)
    laptop, desk = both
    assert delivers(world, laptop, desk, 1, within=60)
    assert delivers(world, desk, laptop, 2, within=60)
    world.run(10)
    return both


def peer(one: SimHost, label: str) -> Peer:
    found = one.node._core.peers.labelled(label)
    assert found is not None
    return found


def told(one: SimHost, label: str) -> list[str]:
    """What it learnt of a peer, in order."""
    journal = one.node._core.journal
    return [entry.why for entry in journal.of(peer(one, label).name).entries]


def proven(one: SimHost, label: str, endpoint: Endpoint) -> bool:
    """Whether it holds a proof of a peer's endpoint."""
    proofs = one.node._parts.relaying.signals.machine.proofs
    return proofs.holds(peer(one, label).name, endpoint, one.world.unix)


def listen(one: SimHost) -> list[tuple[str, Source | None]]:
    """The mobility messages that it sends from now on, and from where."""
    said: list[tuple[str, Source | None]] = []
    send = one.datapath.send_inner

    def heard(*call: Any) -> Any:
        packet = call[2]
        ends = IPv6Address(packet[8:24]), IPv6Address(packet[24:40])
        message = header.read(packet[40:], *ends)
        said.append((type(message).__name__, call[4] if len(call) > 4 else None))
        return send(*call)

    one.datapath.send_inner = heard
    return said


def talk(world: World, laptop: SimHost, desk: SimHost, first: int, count: int) -> set[int]:
    """Both send ``count`` packets, one each :data:`STEP`; their numbers."""
    sent = set(range(first, first + count))
    for number in sorted(sent):
        laptop.send(desk.host_id, number)
        desk.send(laptop.host_id, number)
        world.run(STEP)
    return sent


@pytest.mark.parametrize("behind", [None, "restricted"])
def test_a_planned_move_costs_one_message_and_no_packet(behind: Kind | None) -> None:
    """The first network stays for a while: nothing is lost, and nothing waits."""
    world = watched(901)
    laptop, desk = pair(world)
    if behind is not None:
        world.behind(INSIDE[0], Nat(OUTSIDE, behind))
    here, there = (SECOND, SECOND) if behind is None else (INSIDE, (OUTSIDE, 50_000))
    said = listen(laptop)
    second = join(laptop, here)
    assert world.run(5, lambda: proven(desk, "laptop", there))
    assert said == [("Aoto", second), ("Aotr", second)]
    assert peer(desk, "laptop").endpoint == laptop.config.endpoint, "proven, not used"
    world.run(1)
    assert told(laptop, "desk")[-1] == "it holds a proof of us"
    before = talk(world, laptop, desk, 100, 50)
    asked = listen(desk)
    switch(laptop, second, lost=False)
    began = world.now
    assert world.run(5, lambda: peer(desk, "laptop").endpoint == there)
    assert world.now - began < 1.5 * world.weather.latency, "as long as one message takes"
    after = talk(world, laptop, desk, 200, 100)
    world.run(1)
    assert before | after <= set(numbers(desk.received))
    assert before | after <= set(numbers(laptop.received))
    assert "Aotc" not in [kind for kind, _ in asked[:2]], "the address was known"
    assert asked[0] == ("BindingAck", None)


def test_when_the_first_network_is_lost_only_what_was_on_its_way_is() -> None:
    world = watched(902)
    laptop, desk = pair(world)
    second = join(laptop, SECOND)
    assert world.run(5, lambda: proven(desk, "laptop", SECOND))
    before = talk(world, laptop, desk, 100, 50)
    switch(laptop, second, lost=True)
    cut = len(laptop.arrived)
    gone = world.now
    after = talk(world, laptop, desk, 200, 100)
    world.run(1)
    trip = world.weather.latency
    assert before | after <= set(numbers(desk.received)), "of ours nothing is lost"
    assert laptop.arrived[cut] - gone <= 2 * trip + STEP, "what it sent when it had heard of us"
    lost = (before | after) - set(numbers(laptop.received))
    assert len(lost) <= 2 * trip / STEP + 1


def test_behind_a_nat_the_proof_is_renewed_while_data_flows() -> None:
    """At the peer it lasts five minutes, and the NAT must not forget us either (decision 0067)."""
    world = watched(903)
    laptop, desk = pair(world)
    world.behind(INSIDE[0], Nat(OUTSIDE, "restricted", timeout=120))
    said = listen(laptop)
    second = join(laptop, INSIDE)
    there = (OUTSIDE, 50_000)
    assert world.run(5, lambda: proven(desk, "laptop", there))
    held, number = 0, 1000
    for _ in range(800):
        number += 1
        laptop.send(desk.host_id, number)
        world.run(1)
        held += proven(desk, "laptop", there)
    assert held >= 795
    opened = [kind for kind, source in said if source == second and kind == "Aoto"]
    assert 800 / RENEW <= len(opened) <= 800 / RENEW + 2
    world.run(2 * NAT_LIFE)
    quiet = len([kind for kind, _ in said if kind == "Aoto"])
    world.run(4 * NAT_LIFE)
    assert len([kind for kind, _ in said if kind == "Aoto"]) == quiet, "nobody would miss it"
    assert not proven(desk, "laptop", there)
    assert delivers(world, laptop, desk, 2000, within=5)
    assert world.run(5, lambda: proven(desk, "laptop", (OUTSIDE, 50_001))), "with the first packet"


def test_a_peer_whose_nat_lets_nobody_in_is_told_where_we_shall_come_from() -> None:
    """By the home agent; one octet of it opens its NAT, and the next AOTO gets through."""
    world = watched(904)
    laptop, desk = pair(world, None, "restricted")
    said, octets = listen(laptop), desk.keepalives
    second = join(laptop, SECOND)
    assert world.run(4, lambda: proven(desk, "laptop", SECOND))
    aoto, update = ("Aoto", second), ("BindingUpdate", None)
    assert said == [aoto, aoto, update, aoto, update, ("Aotr", second)]
    assert 1 <= desk.keepalives - octets <= 2
    assert peer(desk, "laptop").endpoint == laptop.config.endpoint
    switch(laptop, second, lost=True)
    began = world.now
    assert world.run(5, lambda: peer(desk, "laptop").endpoint == SECOND)
    assert world.now - began < 1.5 * world.weather.latency


def test_a_peer_that_wants_in_from_everywhere_gets_an_octet_a_second() -> None:
    world = watched(916)
    laptop, desk = pair(world)
    octets, name = desk.keepalives, peer(desk, "laptop").name
    for number in range(100):
        invited = Invited(name, (f"192.0.2.{1 + number}", 4500))
        desk.node._parts.relaying.optimising.told(invited)
        world.run(0.1)
    assert desk.keepalives - octets <= 11
    assert peer(desk, "laptop").endpoint == laptop.config.endpoint


@pytest.mark.parametrize("after", [0.01, 0.03, 0.05, 0.07])
def test_a_second_network_that_dies_meanwhile_is_given_up(after: float) -> None:
    """After the AOTO, the AOTC, the AOTR; and it may come back."""
    world = watched(905)
    laptop, desk = pair(world)
    said = listen(laptop)
    second = join(laptop, SECOND)
    world.run(after)
    leave(laptop, second)
    world.run(20)
    assert ("Aoto", second) in said
    assert delivers(world, desk, laptop, 10, within=2)
    assert peer(desk, "laptop").endpoint == laptop.config.endpoint
    join(laptop, SECOND, 3)
    assert world.run(500, lambda: proven(desk, "laptop", SECOND))


def test_a_refresh_of_the_binding_comes_first() -> None:
    """What is being opened ends with it, and is opened anew when the peer has answered."""
    world = watched(906)
    laptop, desk = pair(world)
    machine = laptop.node._parts.relaying.signals.machine
    second = join(laptop, SECOND)
    assert machine.mobile.registrations[peer(laptop, "desk").name].opening is not None
    laptop.tell(laptop.node.moved)  # in the same place
    assert machine.mobile.registrations[peer(laptop, "desk").name].opening is None
    assert world.run(5, lambda: proven(desk, "laptop", SECOND))
    assert second in laptop.others
    assert peer(desk, "laptop").endpoint == laptop.config.endpoint


@pytest.mark.parametrize("seed", range(910, 914))
def test_in_bad_weather_the_proof_comes_too(seed: int) -> None:
    """Late, lost and doubled messages: stragglers prove nothing and break nothing."""
    world = watched(seed, Weather(loss=0.2, duplication=0.2, jitter=0.1))
    laptop, desk = pair(world)
    world.behind(INSIDE[0], Nat(OUTSIDE, "restricted"))
    first, second = join(laptop, SECOND, 2), join(laptop, INSIDE, 3)
    both = (SECOND, (OUTSIDE, 50_000))
    for _ in range(1200):
        laptop.send(desk.host_id, 9)
        if world.run(1, lambda: all(proven(desk, "laptop", one) for one in both)):
            break
    assert all(proven(desk, "laptop", one) for one in both)
    back = switch(laptop, second, lost=False)
    assert delivers(world, desk, laptop, 10, within=15)
    assert back is not None
    switch(laptop, first, lost=False)
    assert delivers(world, desk, laptop, 11, within=15)
    assert delivers(world, laptop, desk, 12, within=15)


def test_no_more_than_four_other_networks_are_looked_at() -> None:
    world = watched(907)
    laptop, desk = pair(world)
    places = [(f"203.0.113.{80 + number}", 4500) for number in range(MOST + 2)]
    for index, place in enumerate(places, 2):
        join(laptop, place, index)
    world.run(60)
    assert [proven(desk, "laptop", place) for place in places] == [True] * MOST + [False] * 2


def test_other_networks_are_recorded_and_played_again() -> None:
    world = watched(908)
    gateway(world)
    laptop, items, make = recorded(world, Config("laptop", ("203.0.113.1", 4500)))
    laptop.start()
    desk = host(world, "desk", 2, None)
    assert settled(world, laptop, desk)
    assert delivers(world, laptop, desk, 1, within=15)
    second = join(laptop, SECOND)
    assert world.run(20, lambda: proven(desk, "laptop", SECOND))
    switch(laptop, second, lost=False)
    world.run(5)
    methods = [played.call.method for _, played in play(make, items)]
    assert "set_other_ways" in methods


def test_an_endpoint_of_the_other_family_is_opened_once_from_where_data_leaves() -> None:
    """And a second network only towards an endpoint of its own family."""
    world = watched(909)
    laptop, desk = pair(world)
    ours, theirs = ("2001:db8:1::1", 4500), ("2001:db8:2::1", 4500)
    six: dict[Endpoint, Endpoint] = {laptop.endpoint: ours, desk.endpoint: theirs}
    world.hosts |= {ours: laptop, theirs: desk}
    send = world.send

    def by_family(data: bytes, source: Endpoint, target: Endpoint, **more: bool) -> None:
        send(data, six.get(source, source) if ":" in target[0] else source, target, **more)

    world.send = by_family
    desk.tell(desk.node.set_endpoints, (desk.config.endpoint, theirs))
    assert world.run(5, lambda: theirs in peer(laptop, "desk").endpoints)
    said = listen(laptop)
    third = join(laptop, ("2001:db8:9::9", 4500), 4)
    assert world.run(5, lambda: proven(desk, "laptop", ("2001:db8:9::9", 4500)))
    leave(laptop, third)
    laptop.tell(laptop.node.set_endpoints, (laptop.config.endpoint, ours))
    assert world.run(5, lambda: proven(desk, "laptop", ours))
    talk(world, laptop, desk, 100, 50)
    world.run(400)
    assert [one for one in said if one[0] == "Aoto"] == [("Aoto", third), ("Aoto", None)]
