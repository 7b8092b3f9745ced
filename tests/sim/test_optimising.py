"""From the relay to the direct path and back, by BU, AOTC, AOTR and BA (I12–I21, iro.md §11)."""

from __future__ import annotations

import pytest

from fastpath.reference.datapath import SendDatagram
from keys.ike.settings import IkeSettings
from tests.sim.nat import STUN, Kind, Nat
from tests.sim.scenes import delivers
from tests.sim.test_home_agent import gateway, host, settled
from tests.sim.watch import watched
from tests.sim.world import SimHost, Way, Weather, World, numbers
from tunnel.cli.rules import peers_of
from tunnel.mobility import header
from tunnel.mobility.claims import Claim
from tunnel.mobility.header import Aoto, BindingUpdate, Message
from tunnel.mobility.proofs import Proofs
from tunnel.peers import SIGNALS, Peer
from tunnel.settings import NodeSettings
from tunnel.status import endpoint_text

VICTIM = ("192.0.2.66", 4500)
OUTSIDES = "203.0.113.1", "203.0.113.2"


def pair(world: World, ours: Kind | None, theirs: Kind | None) -> tuple[SimHost, SimHost]:
    """Two hosts that share a home agent."""
    laptop, desk = host(world, "laptop", 1, ours), host(world, "desk", 2, theirs)
    assert settled(world, laptop, desk)
    return laptop, desk


def relayed(
    world: World, ours: Kind | None = "restricted", theirs: Kind | None = "restricted"
) -> tuple[SimHost, SimHost]:
    """The same, connected while there is no direct path between them."""
    gateway(world)
    laptop, desk = pair(world, ours, theirs)
    world.cut(*OUTSIDES)
    assert delivers(world, laptop, desk, 1, within=60)
    assert delivers(world, desk, laptop, 2, within=60)
    assert paths(laptop, desk) == ("relay", "relay")
    return laptop, desk


def paths(laptop: SimHost, desk: SimHost) -> tuple[object, object]:
    return laptop.peer("desk")["path"], desk.peer("laptop")["path"]


def direct(world: World, laptop: SimHost, desk: SimHost, within: float) -> bool:
    return world.run(within, lambda: paths(laptop, desk) == ("direct", "direct"))


def table(one: SimHost, label: str) -> Peer:
    peer = one.node._core.peers.labelled(label)
    assert peer is not None
    return peer


def refused(one: SimHost) -> dict[str, int]:
    return dict(one.node._relaying.signals.machine.refused)


@pytest.mark.parametrize(
    "kinds", [("restricted", "restricted"), (None, "restricted"), (None, None)]
)
def test_a_relayed_path_becomes_direct_by_itself(kinds: tuple[Kind | None, Kind | None]) -> None:
    """Each proves the other's endpoint with a nonce; no packet is lost meanwhile."""
    world = watched(601)
    laptop, desk = relayed(world, *kinds)
    spi = laptop.peer("desk")["spi_in"]
    world.cut(*OUTSIDES, whole=True)
    for number in range(100, 460):
        laptop.send(desk.host_id, number)
        desk.send(laptop.host_id, number)
        world.run(0.1)
    assert paths(laptop, desk) == ("direct", "direct")
    assert set(range(100, 460)) <= set(numbers(desk.received))
    assert set(range(100, 460)) <= set(numbers(laptop.received))
    assert laptop.peer("desk")["spi_in"] == spi


def test_a_direct_path_that_comes_back_is_taken_again() -> None:
    world = watched(602)
    gateway(world)
    laptop, desk = pair(world, None, "restricted")
    assert delivers(world, laptop, desk, 1, within=15)
    assert direct(world, laptop, desk, 5)
    world.cut(*OUTSIDES)
    assert delivers(world, laptop, desk, 2, within=10)
    assert delivers(world, desk, laptop, 3, within=10)
    assert paths(laptop, desk) == ("relay", "relay")
    world.run(30)
    assert paths(laptop, desk) == ("relay", "relay"), "what is cut is not taken for whole"
    world.cut(*OUTSIDES, whole=True)
    assert direct(world, laptop, desk, 60)
    assert delivers(world, laptop, desk, 4, within=5)


def test_where_nats_do_not_meet_the_relay_stays_and_says_why() -> None:
    world = watched(603)
    gateway(world)
    laptop, desk = pair(world, "symmetric", "symmetric")
    assert delivers(world, laptop, desk, 1, within=15)
    world.run(150)
    began = len(world.wire)
    world.run(100)
    assert paths(laptop, desk) == ("relay", "relay")
    assert "symmetric" in str(laptop.peer("desk")["relay_reason"])
    assert len(world.wire) - began < 200, "it is tried again seldom"


@pytest.mark.parametrize("seed", range(610, 614))
def test_it_gets_there_through_loss_and_overtaking(seed: int) -> None:
    world = watched(seed, Weather(loss=0.2, duplication=0.1, jitter=0.05))
    laptop, desk = relayed(world)
    world.cut(*OUTSIDES, whole=True)
    for number in range(100, 400):
        laptop.send(desk.host_id, number)
        desk.send(laptop.host_id, number)
        if world.run(1.0, lambda: paths(laptop, desk) == ("direct", "direct")):
            break
    assert direct(world, laptop, desk, 60)
    assert delivers(world, laptop, desk, 1000, within=20)


def test_a_move_back_to_a_known_network_needs_no_test_i19() -> None:
    """The sheet's test 4: the correspondent points there with the first message."""
    world = watched(620)
    gateway(world)
    laptop, desk = pair(world, None, None)
    assert delivers(world, laptop, desk, 1, within=15)
    home, away = laptop.config.endpoint, ("203.0.113.77", 4500)
    world.run(10)
    for number, place in enumerate([away, home], 2):
        laptop.move(place)
        assert delivers(world, desk, laptop, number, within=10)
        world.run(10)
    tested = challenges(desk)
    laptop.move(away)
    began = world.now
    assert world.run(5, lambda: table(desk, "laptop").endpoint == away)
    assert world.now - began < 1.5 * world.weather.latency, "one message"
    assert challenges(desk) == tested


def challenges(one: SimHost) -> int:
    """How many tests a host has begun."""
    binding = one.node._relaying.signals.machine.correspondent.bindings
    return sum(len(one.tests) for one in binding.values())


def test_proofs_are_kept_and_taken_up_again() -> None:
    world = watched(621)
    gateway(world)
    laptop, desk = pair(world, None, None)
    assert delivers(world, laptop, desk, 1, within=15)
    world.run(30)
    proofs = Proofs()
    proofs.load(desk.kept["proofs"], world.unix)
    assert proofs.holds("laptop.alice.members.example", laptop.config.endpoint, world.unix)


def test_a_peer_is_asked_at_its_home_address_once_i21() -> None:
    world = watched(622)
    gateway(world)
    laptop, desk = pair(world, None, None)
    assert delivers(world, laptop, desk, 1, within=15)
    world.run(30)
    for one, label in ((laptop, "desk"), (desk, "laptop")):
        entries = one.node._core.journal.of(table(one, label).name).entries
        said = [entry.why for entry in entries]
        assert said.count("it answers at its home address") == 1


def test_rekeys_of_an_optimised_path_lose_nothing_and_leave_no_rules() -> None:
    """The sheet's test 6: both sets of rules while an SA is replaced, one after that (I42)."""
    world = watched(623)
    short = NodeSettings(ike=IkeSettings(child_lifetime=12.0))
    gateway(world)
    laptop, desk = host(world, "laptop", 1, None, short), host(world, "desk", 2, None, short)
    assert settled(world, laptop, desk)
    assert delivers(world, laptop, desk, 1, within=15)
    together, seen = 0, set[str]()
    for number in range(100, 350):
        laptop.send(desk.host_id, number)
        world.run(0.1)
        ours = rules(laptop)
        together, seen = max(together, len(ours)), seen | ours
    world.run(1)
    assert set(range(100, 350)) <= set(numbers(desk.received))
    assert len(seen) > together > 4, "of two pairs of SAs: replaced, for a moment beside the old"
    peer = table(laptop, "desk")
    live = {f"{spi:08x}" for one in peer.children.values() for spi in (one.spi_in, one.spi_out)}
    assert rules(laptop) == live


def rules(one: SimHost) -> set[str]:
    """The SPIs that ``autotunnel rules`` names for the desk."""
    host_facts = {"id": str(one.host_id), "endpoint": endpoint_text(one.config.endpoint)}
    facts = {"host": host_facts, **one.node.status(one.world.now)}
    peers = [peer for peer in peers_of(facts) if peer["name"].startswith("desk")]
    return {rule["spi"] for peer in peers for sa in peer["sas"] for rule in sa["rules"]}


def test_where_the_peer_may_be_is_asked_anew_each_time() -> None:
    """Both published what they knew at first, an address inside; what they say later counts."""
    world = watched(704, Weather(jitter=0.03, duplication=0.02))
    laptop, desk = relayed(world, "full-cone", "restricted")
    world.run(45)
    world.cut(*OUTSIDES, whole=True)
    assert direct(world, laptop, desk, 40)


# --- Hostile -----------------------------------------------------------------------------------


def after(one: SimHost, label: str) -> int:
    """A sequence number that is greater than the last one of this peer."""
    bindings = one.node._relaying.signals.machine.correspondent.bindings
    return (bindings[table(one, label).name].sequence + 1) % 65536


def spoofed(
    world: World, liar: SimHost, other: SimHost, message: Message, source: tuple[str, int]
) -> None:
    """A compromised host sends a real message in its own SA, from a source of its choice."""
    child = table(liar, other.config.label).narrow[SIGNALS]
    octets = header.pack(message, child.local_id, child.peer_id)
    packet = header.packet(octets, child.local_id, child.peer_id)
    (sent,) = liar.datapath.send_inner(child.spi_out, VICTIM, packet)
    assert isinstance(sent, SendDatagram)
    world.arrive(sent.data, Way(source, other.config.endpoint, forged=True), liar)


def test_a_victim_gets_one_challenge_and_no_data_i18() -> None:
    """The sheet's tests 2 and 3."""
    world = watched(630)
    gateway(world)
    laptop, desk = pair(world, None, None)
    assert delivers(world, laptop, desk, 1, within=15)
    world.run(10)
    to_victim: list[int] = []
    send = world.send

    def seen(data: bytes, source: tuple[str, int], target: tuple[str, int], **more: bool) -> None:
        if target == VICTIM:
            to_victim.append(len(data))
        send(data, source, target, **more)

    world.send = seen  # type: ignore[method-assign]
    update = BindingUpdate(after(desk, "laptop"), 600, Claim.at(VICTIM).options)
    spoofed(world, laptop, desk, update, VICTIM)
    for number in range(100, 200):
        desk.send(laptop.host_id, number)
        world.run(0.1)
    assert len(to_victim) == 1, "the challenge"
    assert to_victim[0] < 120
    assert set(range(100, 200)) <= set(numbers(laptop.received)), "data goes where it was proven"


def test_what_was_changed_on_the_way_binds_nothing_i12() -> None:
    """The sheet's test 1; and an AOTO of a host that is where it says is welcome."""
    world = watched(631)
    gateway(world)
    laptop, desk = pair(world, None, None)
    assert delivers(world, laptop, desk, 1, within=15)
    world.run(10)
    before = table(desk, "laptop").endpoint
    here = Claim.at(laptop.config.endpoint)
    spoofed(world, laptop, desk, BindingUpdate(after(desk, "laptop"), 600, here.options), VICTIM)
    world.run(3)
    assert refused(desk) == {"care_of": 1}
    assert table(desk, "laptop").endpoint == before
    spoofed(world, laptop, desk, Aoto(), laptop.config.endpoint)
    world.run(1)
    assert refused(desk) == {"care_of": 1}
    assert refused(laptop).get("unasked") == 1, "AOTS 1, which it never asked for"


def test_messages_in_another_sa_are_not_heeded() -> None:
    world = watched(632)
    gateway(world)
    laptop, desk = pair(world, None, None)
    assert delivers(world, laptop, desk, 1, within=15)
    world.run(10)
    child = table(laptop, "desk").current
    assert child is not None
    octets = header.pack(BindingUpdate(5000, 600), child.local_id, child.peer_id)
    packet = header.packet(octets, child.local_id, child.peer_id)
    (sent,) = laptop.datapath.send_inner(child.spi_out, desk.config.endpoint, packet)
    assert isinstance(sent, SendDatagram)
    world.arrive(sent.data, Way(VICTIM, desk.config.endpoint), laptop)
    world.run(1)
    assert desk.node._relaying.signals.astray == 1


def test_no_host_id_is_seen_on_a_foreign_link_i50() -> None:
    """The sheet's test 8: :meth:`World.send` looks for them in every datagram; and test 7: what is
    not IPsec is never sent (every datagram is ESP, IKE, STUN or one octet)."""
    world = watched(640)
    laptop, desk = relayed(world)
    world.secrets |= {laptop.host_id.packed, desk.host_id.packed}
    world.cut(*OUTSIDES, whole=True)
    assert direct(world, laptop, desk, 60)
    world.behind("192.168.9.10", Nat("203.0.113.9", "restricted"))
    laptop.move(("192.168.9.10", 4500))
    laptop.tell(laptop.node.look_outside, STUN)
    assert delivers(world, laptop, desk, 3, within=10)
