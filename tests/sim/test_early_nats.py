"""A second network behind a NAT, opposite a peer that lets in only whom it has sent to: STUN from
there tells what to name in the invitation (I20, decision 0067)."""

from __future__ import annotations

import pytest

from discovery.nat import stun
from fastpath.types import Endpoint
from tests.sim.nat import MARKER, STUN, Kind, Nat
from tests.sim.networks import join, leave, switch
from tests.sim.scenes import delivers
from tests.sim.test_early import INSIDE, OUTSIDE, SECOND, listen, pair, peer, proven
from tests.sim.test_home_agent import gateway, host, settled
from tests.sim.test_recording import recorded
from tests.sim.watch import watched
from tests.sim.world import Config, SimHost, Way, Weather, World
from tunnel.elsewhere import PATIENCE, SILENT, SYMMETRIC
from tunnel.mobility.proofs import NAT_LIFE
from tunnel.recording import play

SEEN: Endpoint = (OUTSIDE, 50_000)
VICTIM = "198.51.100.200"


def two_nats(
    seed: int, ours: Kind = "restricted", theirs: Kind = "restricted", timeout: float = 1e9
) -> tuple[World, SimHost, SimHost]:
    """A laptop whose second network will have a NAT, and a desk behind its own."""
    world = watched(seed)
    laptop, desk = pair(world, None, theirs)
    world.behind(INSIDE[0], Nat(OUTSIDE, ours, timeout=timeout))
    return world, laptop, desk


def questions(world: World, source: Endpoint = INSIDE) -> list[bytes]:
    """What goes from there to STUN from now on."""
    found: list[bytes] = []
    send = world.send

    def heard(data: bytes, leaving: Endpoint, target: Endpoint, **more: bool) -> None:
        if leaving == source and target in STUN:
            found.append(data)
        send(data, leaving, target, **more)

    world.send = heard
    return found


def last(one: SimHost, label: str) -> tuple[str, dict[str, str]]:
    """What it learnt of a peer last."""
    entry = one.node._core.journal.of(peer(one, label).name).entries[-1]
    return entry.why, dict(entry.fields)


def test_what_stun_sees_from_there_is_named_and_the_peer_lets_us_in() -> None:
    world, laptop, desk = two_nats(930)
    said, asked, octets = listen(laptop), questions(world), desk.keepalives
    second = join(laptop, INSIDE)
    assert world.run(4, lambda: proven(desk, "laptop", SEEN))
    aoto, update = ("Aoto", second), ("BindingUpdate", None)
    assert said == [aoto, aoto, update, aoto, update, ("Aotr", second)]
    assert len(asked) == 2, "both ports, once"
    assert 1 <= desk.keepalives - octets <= 2
    world.run(1)
    why, fields = last(laptop, "desk")
    assert why == "it holds a proof of us"
    assert fields["ours"] == INSIDE[0]
    assert fields["seen"] == f"{OUTSIDE}:50000"
    assert peer(desk, "laptop").endpoint == laptop.config.endpoint, "proven, not used"
    switch(laptop, second, lost=True)
    began = world.now
    assert world.run(5, lambda: peer(desk, "laptop").endpoint == SEEN)
    assert world.now - began < 1.5 * world.weather.latency, "as long as one message takes"


def test_it_is_kept_while_data_flows_and_asked_no_second_time() -> None:
    """The AOTO itself keeps both NATs open, which forget after two minutes."""
    world, laptop, desk = two_nats(931, timeout=120)
    world.nats[desk.config.endpoint[0]].timeout = 120
    asked = questions(world)
    join(laptop, INSIDE)
    assert world.run(5, lambda: proven(desk, "laptop", SEEN))
    held = 0
    for number in range(330):
        laptop.send(desk.host_id, 1000 + number)
        world.run(1)
        held += proven(desk, "laptop", SEEN)
    assert held >= 326
    assert len(asked) == 2
    world.run(2 * NAT_LIFE)
    assert len(asked) == 2, "nobody is woken for it"
    assert not proven(desk, "laptop", SEEN)


def test_opposite_a_symmetric_nat_of_ours_the_peer_cannot_know_the_port() -> None:
    """It is another one towards the peer; explain says so, and the move costs a whole proof."""
    world, laptop, desk = two_nats(932, "symmetric")
    said = listen(laptop)
    second = join(laptop, INSIDE)
    world.run(30)
    assert said.count(("Aoto", second)) == 4
    assert ("Aotr", second) not in said
    why, fields = last(laptop, "desk")
    assert (why, fields["because"]) == ("it gave no early proof", SYMMETRIC)
    switch(laptop, second, lost=True)
    assert delivers(world, laptop, desk, 10, within=30)
    assert delivers(world, desk, laptop, 11, within=30)


class ByAddress(Nat):
    """Lets in from any port of an address that was sent to (RFC 4787 §5)."""

    def into(self, source: Endpoint, target: Endpoint, now: float = 0.0) -> Endpoint | None:
        flow = self._flows.get(target[1])
        if flow is not None and any(one[0] == source[0] for one in flow.let_in):
            flow.let_in[source] = now
        return super().into(source, target, now)


def test_a_peer_whose_nat_looks_at_addresses_alone_lets_a_symmetric_one_in() -> None:
    world = watched(933)
    gateway(world)
    inside = ("192.168.2.10", 4500)
    world.behind(inside[0], ByAddress("203.0.113.2", "restricted"))
    laptop = host(world, "laptop", 1, None)
    desk = SimHost(world, Config("desk", inside)).start()
    desk.tell(desk.node.look_outside, STUN)
    assert settled(world, laptop, desk)
    assert delivers(world, laptop, desk, 1, within=60)
    world.run(10)
    world.behind(INSIDE[0], Nat(OUTSIDE, "symmetric"))
    join(laptop, INSIDE)
    assert world.run(5, lambda: proven(desk, "laptop", SEEN))


def test_where_stun_is_silent_it_is_asked_for_seconds_and_given_up() -> None:
    world, laptop, desk = two_nats(934)
    said, asked = listen(laptop), questions(world)
    world.zone_up = False
    second = join(laptop, INSIDE)
    began = world.now
    assert world.run(20, lambda: last(laptop, "desk")[0] == "it gave no early proof")
    assert world.now - began < 1 + PATIENCE + 2
    assert said == [("Aoto", second)] * 3
    assert last(laptop, "desk")[1]["because"] == SILENT
    assert len(asked) == 2 * 4
    world.run(800)  # one more, with the next refresh of the binding
    assert len(asked) * 3 == len([one for one in said if one[0] == "Aoto"]) * 2 * 4, "no more"
    world.zone_up = True
    assert delivers(world, laptop, desk, 10, within=5)
    assert world.run(10, lambda: proven(desk, "laptop", SEEN)), "with the first packet"


def test_an_answer_that_comes_late_is_still_in_time() -> None:
    """The third AOTO is gone by then: two more follow what was named."""
    world, laptop, desk = two_nats(935)
    world.zone_up = False
    join(laptop, INSIDE)
    world.run(3.5)
    world.zone_up = True
    assert world.run(5, lambda: proven(desk, "laptop", SEEN))


@pytest.mark.parametrize("after", [1.01, 1.03, 1.05, 1.9])
def test_a_second_network_that_dies_while_stun_is_asked_is_given_up(after: float) -> None:
    world, laptop, desk = two_nats(936)
    asked = questions(world)
    second = join(laptop, INSIDE)
    world.run(after)
    leave(laptop, second)
    before = len(asked)
    world.run(20)
    assert before == 2
    assert len(asked) == before
    assert not proven(desk, "laptop", SEEN)
    assert delivers(world, desk, laptop, 10, within=2)
    assert peer(desk, "laptop").endpoint == laptop.config.endpoint
    join(laptop, INSIDE, 3)
    assert world.run(500, lambda: proven(desk, "laptop", SEEN))


def success(transaction: bytes, seen: Endpoint) -> bytes:
    """What a STUN server would say."""
    reply = stun.answer(stun.ask(transaction), seen)
    assert reply is not None
    return MARKER + reply


def test_answers_that_nobody_asked_for_name_no_place() -> None:
    """From elsewhere, of another transaction, or of a place where nobody is seen from outside: no
    octet of the peer goes there, and what the right server says counts afterwards."""
    world, laptop, desk = two_nats(937)
    targets: list[Endpoint] = []
    sent = world.send

    def heard(data: bytes, source: Endpoint, target: Endpoint, **more: bool) -> None:
        if source == desk.config.endpoint:
            targets.append(target)
        sent(data, source, target, **more)

    world.send = heard
    asked = questions(world)
    world.zone_up = False
    join(laptop, INSIDE)
    assert world.run(2, lambda: len(asked) == 2)
    first, _ = (data[len(MARKER) + 8 : len(MARKER) + 20] for data in asked)
    nothing: tuple[tuple[bytes, Endpoint], ...] = (
        (success(first, (VICTIM, 53)), (VICTIM, 3478)),
        (success(first, (VICTIM, 53)), STUN[1]),
        (success(bytes(12), (VICTIM, 53)), STUN[0]),
        (MARKER + stun.ask(first), STUN[0]),
        (success(first, (VICTIM, 53))[:-3], STUN[0]),
    )
    for data, source in nothing:
        world.arrive_inside(data, Way(source, INSIDE), None)
    world.run(0.3)
    world.zone_up = True
    assert world.run(5, lambda: proven(desk, "laptop", SEEN))
    assert VICTIM not in {host for host, _ in targets}


@pytest.mark.parametrize(
    "place", [("192.168.7.7", 4500), ("100.64.7.7", 4500), (VICTIM, 0), ("2001:db8::1", 4500)]
)
def test_a_place_where_no_peer_can_see_us_is_not_named(place: Endpoint) -> None:
    """Though the server itself says so."""
    world, laptop, _ = two_nats(938)
    said, asked = listen(laptop), questions(world)
    world.zone_up = False
    join(laptop, INSIDE)
    assert world.run(2, lambda: len(asked) == 2)
    for server, data in zip(STUN, asked, strict=True):
        reply = success(data[len(MARKER) + 8 : len(MARKER) + 20], place)
        world.arrive_inside(reply, Way(server, INSIDE), None)
    world.run(20)
    assert "BindingUpdate" not in [kind for kind, _ in said]
    assert last(laptop, "desk")[0] == "it gave no early proof"


def test_one_question_tells_all_peers() -> None:
    world = watched(939)
    gateway(world)
    hosts = [host(world, "laptop", 1, None)]
    hosts += [host(world, f"desk{number}", number, "restricted") for number in (2, 3)]
    assert settled(world, *hosts)
    laptop, *desks = hosts
    for number, desk in enumerate(desks):
        assert delivers(world, laptop, desk, number, within=60)
    world.run(10)
    world.behind(INSIDE[0], Nat(OUTSIDE, "restricted"))
    asked = questions(world)
    join(laptop, INSIDE)
    assert world.run(10, lambda: all(proven(desk, "laptop", SEEN) for desk in desks))
    assert len(asked) == 2


def test_where_the_first_aoto_is_heard_or_the_address_is_ours_nobody_is_asked() -> None:
    world, laptop, desk = two_nats(940, theirs="full-cone")
    asked, public = questions(world), questions(world, SECOND)
    join(laptop, INSIDE)
    join(laptop, SECOND, 3)
    assert world.run(8, lambda: all(proven(desk, "laptop", one) for one in (SEEN, SECOND)))
    world.run(10)
    assert asked == public == []


@pytest.mark.parametrize("seed", [941, 942])
def test_in_bad_weather_it_comes_too(seed: int) -> None:
    world = watched(seed, Weather(loss=0.2, duplication=0.2, jitter=0.1))
    laptop, desk = pair(world, None, "restricted")
    world.behind(INSIDE[0], Nat(OUTSIDE, "restricted"))
    second = join(laptop, INSIDE)
    for _ in range(1500):
        laptop.send(desk.host_id, 9)
        if world.run(1, lambda: proven(desk, "laptop", SEEN)):
            break
    assert proven(desk, "laptop", SEEN)
    switch(laptop, second, lost=True)
    assert delivers(world, laptop, desk, 10, within=30)
    assert delivers(world, desk, laptop, 11, within=30)


def test_it_is_recorded_and_played_again() -> None:
    world = watched(943)
    gateway(world)
    laptop, items, make = recorded(world, Config("laptop", ("203.0.113.1", 4500)))
    laptop.start()
    desk = host(world, "desk", 2, "restricted")
    assert settled(world, laptop, desk)
    assert delivers(world, laptop, desk, 1, within=60)
    world.run(10)
    world.behind(INSIDE[0], Nat(OUTSIDE, "restricted"))
    join(laptop, INSIDE)
    assert world.run(20, lambda: proven(desk, "laptop", SEEN))
    assert "set_other_ways" in [played.call.method for _, played in play(make, items)]
