"""A host of the account that was taken over: right keys, its own SAs, and it says what it likes.

Each test asserts that nothing changed, paths, bindings, proofs and ways, that memory stayed within
its bounds, and that a counter which ``status --json`` shows tells of it. Every world is watched
(:mod:`tests.sim.watch`), so that no data went to who did not prove to be there. What such a host
tries with IKE by relay is in ``test_attacks_by_relay``, what the machines alone do with a million
bad messages in ``tests/tunnel/mobility/test_hostile.py`` and ``tests/model``, what both engines do
with bad nested packets in ``tests/fastpath/test_relay_pumps.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from fastpath.reference import relay
from fastpath.reference.esp import InboundSa
from fastpath.types import RELAY_BURST_OCTETS, Endpoint, Opened
from tests.sim.ladder import (
    Ladder,
    after,
    arrives,
    drops,
    says,
    says_by_relay,
    sealed,
    table,
    unheeded,
    writes,
)
from tests.sim.scenes import delivers
from tests.sim.test_home_agent import (
    GATEWAY,
    SECOND,
    bound,
    gateway,
    hard_pair,
    host,
    settled,
)
from tests.sim.test_suggested import AWAY, VICTIM, meet
from tests.sim.watch import watched
from tests.sim.world import SimHost, World, numbers
from tunnel.mobility import header
from tunnel.mobility.claims import Claim
from tunnel.mobility.header import (
    Aotc,
    Aoto,
    Aotr,
    Aots,
    BindingAck,
    BindingError,
    BindingUpdate,
    Message,
    RefreshRequest,
)
from tunnel.mobility.home import HomeBinding
from tunnel.mobility.limits import MobilitySettings
from tunnel.peers import RELAYED, SIGNALS
from tunnel.settings import HomeAgentSettings, NodeSettings

MOST = MobilitySettings()


@dataclass(frozen=True)
class State:
    """What a lie could change at the host that hears it: where it sends what is for each peer, what
    was proven, which ways lead through home agents, who is registered, and with whom it is."""

    endpoints: tuple[tuple[str, Endpoint | None], ...]
    proofs: frozenset[tuple[str, Endpoint]]
    ways: tuple[tuple[str, str], ...]
    registered: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, one: SimHost) -> State:
        """As it is now."""
        core, relaying = one.node._core, one.node._parts.relaying
        machine, ways = relaying.signals.machine, relaying.relays._ways
        here = machine.home_agent
        return cls(
            tuple((peer.name, peer.endpoint) for peer in core.peers),
            frozenset((name, at) for name, ends in machine.proofs._peers.items() for at in ends),
            tuple(sorted((str(host_id), way.carrier.name) for host_id, way in ways.items())),
            tuple((name, str(b.endpoint)) for name, b in here.bindings.items()) if here else (),
        )


def talks(world: World, one: SimHost, other: SimHost, first: int = 50_000) -> bool:
    """Whether each hears all that the other says now."""
    for number in range(first, first + 10):
        one.send(other.host_id, number)
        other.send(one.host_id, number)
        world.run(0.1)
    world.run(1)
    wanted = set(range(first, first + 10))
    return wanted <= set(numbers(one.received)) and wanted <= set(numbers(other.received))


def update(other: SimHost, at: Endpoint, step: int = 1) -> BindingUpdate:
    """The next binding update of the laptop, or one ``step`` numbers later."""
    return BindingUpdate((after(other, "laptop") + step - 1) % 65536, 600, Claim.at(at).options)


# --- Binding updates ---------------------------------------------------------------------------


def test_an_update_that_was_sent_on_from_elsewhere_changes_nothing() -> None:
    """AltCoA and wire differ (I12): a real message, with the address of who sends it on."""
    world, laptop, desk = meet(901)
    before = State.of(desk)
    for step in range(3):
        says(laptop, desk, update(desk, laptop.endpoint, step + 1), VICTIM)
    world.run(3)
    assert State.of(desk) == before
    assert unheeded(desk) == {"care_of": 3}
    assert talks(world, laptop, desk)


def test_a_recorded_update_changes_nothing_when_it_comes_again() -> None:
    """Octet by octet it is ESP's to drop, from wherever it comes."""
    world, laptop, desk = meet(902)
    here = laptop.endpoint
    datagram = says(laptop, desk, update(desk, here), here)
    world.run(2)
    before, dropped = State.of(desk), drops(desk).get("replay", 0)
    for source in (here, VICTIM, AWAY):
        arrives(world, datagram, source, desk, laptop)
    world.run(2)
    assert State.of(desk) == before
    assert drops(desk)["replay"] == dropped + 3
    assert talks(world, laptop, desk)


def test_an_old_update_in_a_new_packet_changes_nothing() -> None:
    """It was held back, and the mobile has said something newer since."""
    world, laptop, desk = meet(903)
    old = update(desk, AWAY)
    says(laptop, desk, update(desk, laptop.endpoint, 5), laptop.endpoint)
    world.run(2)
    before = State.of(desk)
    for back in (old, replace(old, sequence=(old.sequence + 4) % 65536)):
        says(laptop, desk, back, AWAY)
    says(laptop, desk, replace(old, lifetime=0), laptop.endpoint)
    world.run(2)
    assert State.of(desk) == before
    assert unheeded(desk) == {"sequence": 3}
    assert talks(world, laptop, desk)


def test_a_flood_of_updates_is_three_a_second_and_bounded() -> None:
    """From ever new places, as fast as the wire is: the engine tells 32 of them, three are looked
    at, and as many challenges leave."""
    world, laptop, desk = meet(904)
    before, ladder, dropped = State.of(desk), Ladder(desk), drops(desk).get("queue_full", 0)
    machine = desk.node._parts.relaying.signals.machine
    began = world.now
    for number in range(1000):
        source = f"192.0.2.{number % 200 + 10}", 4500 + number
        says(laptop, desk, update(desk, source), source)
        world.run(0.002)
    seconds = world.now - began + 1
    world.run(3)
    assert State.of(desk) == before
    assert len(ladder.of(Aotc)) <= 3 * seconds * 2, "to the address, and at home"
    binding = machine.correspondent.bindings[table(desk, "laptop").name]
    assert len(binding.tests) <= MOST.tests
    assert len(machine.correspondent.bindings) == 1
    counted = unheeded(desk).get("flood", 0) + drops(desk)["queue_full"] - dropped
    assert counted >= 1000 - 3 * seconds
    assert talks(world, laptop, desk)


# --- Answers -----------------------------------------------------------------------------------


def test_guessed_nonces_prove_nothing() -> None:
    """A binding update for a victim, and answers from there as fast as they are looked at."""
    world, laptop, desk = meet(910)
    before, ladder = State.of(desk), Ladder(desk)
    says(laptop, desk, update(desk, VICTIM), VICTIM)
    for _ in range(200):
        says(laptop, desk, Aotr(world.random.randbytes(8)), VICTIM)
        world.run(0.05)
    assert State.of(desk) == before
    counted = unheeded(desk)
    assert counted["nonce"] + counted.get("flood", 0) == 200
    assert sum(one.endpoint == VICTIM for one in ladder.of(Aotc)) == 1
    assert talks(world, laptop, desk)


def test_the_right_nonce_from_elsewhere_proves_nothing() -> None:
    """Somebody at the victim's tells the liar what it got; the answer does not come from there."""
    world, laptop, desk = meet(911)
    before, ladder = State.of(desk), Ladder(desk)
    says(laptop, desk, update(desk, VICTIM), VICTIM)
    (challenge,) = [one.message for one in ladder.of(Aotc) if one.endpoint == VICTIM]
    assert isinstance(challenge, Aotc)
    for source in (laptop.endpoint, AWAY, (VICTIM[0], 4501)):
        says(laptop, desk, Aotr(challenge.nonce), source)
    says_by_relay(laptop, desk, Aotr(challenge.nonce))
    world.run(3)
    assert State.of(desk) == before
    assert unheeded(desk) == {"nonce": 4}
    assert talks(world, laptop, desk)


def test_answers_to_nothing_change_nothing() -> None:
    world, laptop, desk = meet(912)
    before, ladder, here = State.of(desk), Ladder(desk), laptop.endpoint
    machine = desk.node._parts.relaying.signals.machine
    ours = machine.mobile.registrations[table(desk, "laptop").name]
    stood = ours.phase, ours.until, ours.via
    lies: list[Message] = [Aots(1), Aots(0), BindingAck(0, ours.sequence, 600)]
    lies += [BindingAck(135, ours.sequence, 0), BindingAck(129, ours.sequence, 0)]
    lies += [BindingError(2, desk.host_id)]
    for lie in lies:
        says(laptop, desk, lie, here)
        world.run(0.5)
    assert State.of(desk) == before
    assert (ours.phase, ours.until, ours.via) == stood
    assert unheeded(desk) == {"unasked": len(lies)}
    assert not ladder.said
    assert talks(world, laptop, desk)


def test_what_makes_us_speak_makes_us_say_little() -> None:
    """AOTC, AOTO, BRR and H by the hundred: three answers of a kind in a second, to where the
    question came from, never more octets than came."""
    world, laptop, desk = meet(913)
    before, ladder, began = State.of(desk), Ladder(desk), world.now
    asks: list[Message] = [Aotc(bytes(8)), Aoto(), RefreshRequest()]
    asks += [BindingUpdate(1, 600, home=True)]
    for number in range(400):
        says(laptop, desk, asks[number % 4], VICTIM)
        world.run(0.01)
    world.run(5)
    to_victim = [one for one in ladder.said if one.endpoint == VICTIM]
    assert State.of(desk) == before
    for kind in (Aotr, Aotc, Aots, BindingAck):
        assert sum(isinstance(one.message, kind) for one in to_victim) <= 3 * (world.now - began)
    assert unheeded(desk)["flood"] > 0
    assert unheeded(desk)["home_registration"] > 0, "this host is no home agent"
    assert talks(world, laptop, desk)


def test_messages_in_another_sa_are_not_heeded() -> None:
    world, laptop, desk = meet(914)
    before = State.of(desk)
    says(laptop, desk, update(desk, VICTIM), VICTIM, data=True)
    world.run(1)
    assert State.of(desk) == before
    assert desk.node.status(world.now)["mobility"]["astray"] == 1


def test_messages_of_an_earlier_authentication_are_not_heeded_i22() -> None:
    """Whoever was asked at home in the SA of now is not who speaks in one of before: the SAs of two
    IKE_AUTHs under one name may be two hosts'."""
    world, laptop, desk = meet(924)
    before, peer = State.of(desk), table(desk, "laptop")
    ours = peer.narrow[SIGNALS]
    peer.narrow[SIGNALS] = replace(ours, session=ours.session + 1)
    says(laptop, desk, update(desk, laptop.endpoint), laptop.endpoint)
    says(laptop, desk, BindingUpdate(after(desk, "laptop"), 0), laptop.endpoint)
    assert State.of(desk) == before
    assert desk.node.status(world.now)["mobility"]["astray"] == 2
    peer.narrow[SIGNALS] = ours
    says(laptop, desk, BindingUpdate(after(desk, "laptop"), 0), laptop.endpoint)
    assert desk.node.status(world.now)["mobility"]["bindings"] == 0, "in this one it counts"


def test_what_is_no_message_is_counted() -> None:
    """Cut, changed, with another checksum, of an unknown type: 200 of them."""
    world, laptop, desk = meet(915)
    before, here = State.of(desk), laptop.endpoint
    whole = header.pack(update(desk, VICTIM), laptop.host_id, desk.host_id)
    for number in range(200):
        octets = bytearray(whole[: 8 * world.random.randint(1, len(whole) // 8)])
        octets[world.random.randrange(len(octets))] ^= 1 << number % 8
        arrives(world, sealed(laptop, desk, bytes(octets)), here, desk, laptop)
        world.run(0.05)
    assert State.of(desk) == before
    assert sum(unheeded(desk).values()) == 200
    assert talks(world, laptop, desk)


def test_a_host_that_cannot_receive_where_it_says_is_moved_nowhere() -> None:
    """Its own node was changed: it answers each challenge at once, wherever that went, with a nonce
    of its own; and it says every second that it is somewhere else."""
    world, laptop, desk = meet(916)
    before = State.of(desk)
    for number in range(60):
        source = f"192.0.2.{number + 10}", 4500
        says(laptop, desk, update(desk, source), source)
        says(laptop, desk, Aotr(world.random.randbytes(8)), source)
        desk.send(laptop.host_id, number)
        world.run(1)
    assert State.of(desk) == before
    assert unheeded(desk)["nonce"] == 60
    assert set(range(60)) <= set(numbers(laptop.received))
    machine = desk.node._parts.relaying.signals.machine
    assert len(machine.correspondent.bindings[table(desk, "laptop").name].tests) <= MOST.tests


# --- By way of the home agent ------------------------------------------------------------------


def test_an_invitation_to_a_victim_is_a_few_octets() -> None:
    """It says by relay that it is there: our own messages go there to open our NAT, some tries and
    then a rest; nothing is bound, and data stay on the relay."""
    world = watched(920)
    gateway(world)
    laptop, desk = hard_pair(world)
    assert delivers(world, laptop, desk, 1, within=15)
    world.run(150)  # both have found that their NATs do not meet, and rest
    before, ladder, began = State.of(desk), Ladder(desk), world.now
    for _ in range(120):
        says_by_relay(laptop, desk, BindingUpdate(1, 600, Claim.at(VICTIM).options))
        desk.send(laptop.host_id, 7)
        world.run(0.5)
    to_victim = [one for one in ladder.said if one.endpoint == VICTIM]
    assert len(to_victim) <= 3 + (world.now - began) / 3
    assert not any(isinstance(one.message, Aotc) for one in to_victim)
    assert State.of(desk) == before
    multicast = Claim.at(("224.0.0.1", 4500))
    says_by_relay(laptop, desk, BindingUpdate(2, 600, multicast.options))
    world.run(1)
    assert unheeded(desk)["not_unicast"] == 1
    assert talks(world, laptop, desk)


def relayed_three(seed: int) -> tuple[World, SimHost, SimHost, SimHost, SimHost]:
    """A home agent, two that talk through it, and a third host that was taken over."""
    world = watched(seed)
    home = gateway(world)
    laptop, desk = hard_pair(world)
    mallory = host(world, "mallory", 3, None)
    assert settled(world, mallory)
    assert delivers(world, laptop, desk, 1, within=15)
    assert delivers(world, desk, laptop, 2, within=15)
    world.run(10)
    return world, home, laptop, desk, mallory


def _about(packet: bytes, source: SimHost, target: SimHost) -> bytes:
    return relay.around_esp(source.host_id.packed, target.host_id.packed, packet)


NOBODY, EVERYBODY = b"\xfd" + bytes(14) + b"\x01", b"\xff\x02" + bytes(13) + b"\x01"
FORGED: list[tuple[str, str, str, str, Callable[[bytes], bytes]]] = [
    ("of another host", "laptop", "desk", "foreign_source", bytes),
    ("of its target", "desk", "desk", "foreign_source", bytes),
    ("of the home agent", "gateway", "desk", "foreign_source", bytes),
    ("to itself", "mallory", "mallory", "not_relayed", bytes),
    ("to a host of no registration", "mallory", "nobody", "not_relayed", bytes),
    ("to everybody", "mallory", "everybody", "not_relayed", bytes),
    ("nested once more", "mallory", "desk", "not_relayed", lambda one: relay_in_relay(one)),
    ("at its last hop", "mallory", "desk", "not_relayed", lambda one: one[:7] + b"\x01" + one[8:]),
    ("cut", "mallory", "desk", "malformed", lambda one: one[:-1]),
]


def relay_in_relay(nested: bytes) -> bytes:
    """A nested packet whose inside is one, too (next header 41)."""
    return nested[:4] + len(nested).to_bytes(2) + b"\x29" + nested[7:40] + nested


def test_forged_nested_packets_end_at_the_home_agent() -> None:
    world, home, laptop, desk, mallory = relayed_three(930)
    before = [State.of(one) for one in (home, laptop, desk)]
    relayed = home.datapath.counters()["relayed_packets"]
    ids = {one.config.label: one.host_id.packed for one in (home, laptop, desk, mallory)}
    ids |= {"nobody": NOBODY, "everybody": EVERYBODY}
    for what, source, target, reason, change in FORGED:
        dropped = drops(home).get(reason, 0)
        nested = change(relay.around_esp(ids[source], ids[target], bytes(60)))
        for _ in range(20):
            writes(mallory, "gateway", nested)
        world.run(0.1)
        assert drops(home)[reason] == dropped + 20, what
    assert home.datapath.counters()["relayed_packets"] == relayed
    assert [State.of(one) for one in (home, laptop, desk)] == before
    assert talks(world, laptop, desk)


def test_nested_packets_that_reach_a_host_are_dropped_there() -> None:
    """Mallory may write to desk, whom it has no SA with: junk ESP of right form, and IKE."""
    world, home, laptop, desk, mallory = relayed_three(940)
    before = State.of(laptop), State.of(home)
    dropped, ways = drops(desk).get("unknown_spi", 0), len(desk.node._parts.relaying.relays._ways)
    for _ in range(100):
        writes(mallory, "gateway", _about(world.random.randbytes(60), mallory, desk))
        world.run(0.01)
    assert world.run(2, lambda: drops(desk).get("unknown_spi", 0) == dropped + 100)
    assert desk.peer("laptop")["path"] == "relay"
    assert len(desk.node._parts.relaying.relays._ways) <= ways + 1
    assert (State.of(laptop), State.of(home)) == before
    assert talks(world, laptop, desk)


def test_a_host_that_sends_back_what_it_gets_makes_no_loop() -> None:
    """Each nested packet that mallory gets goes back to the home agent, as it came, with the two
    ends swapped, and on to another host."""
    world, home, laptop, desk, mallory = relayed_three(950)
    child = table(mallory, "gateway").narrow[RELAYED]
    inbound = mallory.datapath._inbound[child.spi_in].sa.params
    arrive = mallory.from_network
    bounced = 0

    def bounce(data: bytes, source: Endpoint) -> None:
        nonlocal bounced
        opened = InboundSa(inbound).open(data) if data[:4] == child.spi_in.to_bytes(4) else None
        if isinstance(opened, Opened) and bounced < 1000:
            bounced += 1
            packet = opened.payload
            swapped = packet[:8] + packet[24:40] + packet[8:24] + packet[40:]
            onward = packet[:24] + desk.host_id.packed + packet[40:]
            for nested in (packet, swapped, onward):
                writes(mallory, "gateway", nested)
        arrive(data, source)

    mallory.from_network = bounce
    before, relayed = State.of(home), home.datapath.counters()["relayed_packets"]
    for _ in range(20):
        writes(laptop, "gateway", _about(bytes(60), laptop, mallory))
    world.run(5)
    assert bounced == 20
    relayed = home.datapath.counters()["relayed_packets"] - relayed
    assert 40 <= relayed < 50, "there, swapped, and a few hints that an SPI is not known"
    assert drops(home)["foreign_source"] == 20
    assert drops(home)["not_relayed"] == 20
    assert State.of(home) == before
    assert talks(world, laptop, desk)


def test_two_home_agents_of_which_one_forwards_to_the_other_make_no_loop() -> None:
    """The second was taken over: it registers with the first as a host, and sends there whatever it
    should forward. The first takes none of it, since no host speaks for another."""
    world = watched(960)
    first, second = gateway(world), gateway(world, "reserve", SECOND)
    laptop, desk = hard_pair(world, at=2)
    assert delivers(world, laptop, desk, 1, within=15)
    agents = second.node._parts.relaying.agents
    other = table(second, "gateway")
    agents._wanted = lambda: [other]
    agents.stir()
    second.tell(second.node.advance)
    assert world.run(20, lambda: "reserve" in bound(first))
    spi = other.narrow[RELAYED].spi_out
    for one in (laptop, desk):
        second.datapath.set_relay(one.host_id.packed, spi, GATEWAY, True)
    for one, name in ((laptop, "desk"), (desk, "laptop")):
        through = table(one, "reserve")
        assert one.node._parts.relaying.relays.use(table(one, name).host_id, through)
        one.tell(one.node.advance)
    before, relayed = State.of(first), first.datapath.counters()["relayed_packets"]
    foreign = drops(first).get("foreign_source", 0)
    forwarded = second.datapath.counters()["relayed_packets"]
    for number in range(20):
        laptop.send(desk.host_id, number)
        world.run(0.01)
    world.run(0.3)
    came = second.datapath.counters()["relayed_packets"] - forwarded
    assert came >= 20
    assert drops(first)["foreign_source"] - foreign >= 20
    assert first.datapath.counters()["relayed_packets"] - relayed <= 5, "of both ends' questions"
    assert State.of(first) == before
    assert delivers(world, laptop, desk, 1000, within=30), "by the one that does its work"


def test_who_floods_the_home_agent_is_limited_with_all_others() -> None:
    """A limit is one for the account: what is above is counted, nothing is kept, and the paths of
    the others stand when it ends."""
    world = watched(970)
    settings = NodeSettings(home_agent=HomeAgentSettings(octets_per_second=20_000))
    home = gateway(world)
    home.kill()
    home.config.settings = settings
    home = home.restart()
    laptop, desk = hard_pair(world)
    mallory = host(world, "mallory", 3, None)
    assert settled(world, mallory)
    assert delivers(world, laptop, desk, 1, within=15)
    before, events = State.of(laptop), len(world._events)
    began, octets = world.now, home.datapath.counters()["relayed_octets"]
    junk = _about(bytes(1200), mallory, desk)
    for _ in range(1000):
        writes(mallory, "gateway", junk)
        world.run(0.002)
    counters = home.datapath.counters()
    allowed = 20_000 * (world.now - began) + RELAY_BURST_OCTETS
    assert counters["relayed_octets"] - octets <= allowed
    assert drops(home)["relay_limit"] > 0
    assert drops(desk)["unknown_spi"] > 0
    world.run(10)
    assert len(world._events) < events + 200
    assert State.of(laptop) == before
    assert delivers(world, laptop, desk, 2, within=15)


def test_a_registration_from_where_a_host_is_not_sends_nothing_there() -> None:
    """At the home agent: its binding says so at once (I53), but what is for it, and for all others,
    goes where IKE has found it (decision 0062)."""
    world, home, laptop, desk, mallory = relayed_three(980)
    others = {name: one.endpoint for name, one in _bindings(home).items() if "mallory" not in name}
    ways = State.of(home).ways
    for number in range(1, 40):
        binding = _bindings(home)[table(home, "mallory").name]
        sequence = (binding.sequence + 1) % 65536
        says(mallory, home, BindingUpdate(sequence, 600, home=True), VICTIM)
        says(mallory, home, BindingUpdate(sequence, 600, home=True), VICTIM)
        laptop.send(mallory.host_id, number)
        laptop.send(desk.host_id, number)
        world.run(1)
    assert {n: one.endpoint for n, one in _bindings(home).items() if "mallory" not in n} == others
    assert State.of(home).ways == ways
    assert unheeded(home)["sequence"] >= 39
    assert home.node.status(world.now)["home_agent"]["refused"] == unheeded(home)
    assert (laptop.peer("desk")["path"], desk.peer("laptop")["path"]) == ("relay", "relay")
    assert set(range(1, 40)) <= set(numbers(desk.received))
    assert set(range(1, 40)) <= set(numbers(mallory.received)), "and its own go where it is"


def _bindings(home: SimHost) -> dict[str, HomeBinding]:
    agent = home.node._parts.relaying.signals.machine.home_agent
    assert agent is not None
    return dict(agent.bindings)
