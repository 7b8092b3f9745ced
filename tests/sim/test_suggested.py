"""The eleven suggested tests (docs/behaviours.md), by number, with whole hosts.

Every world is watched (:mod:`tests.sim.watch`): data to an endpoint that was not proven end a test
wherever they happen. The same with real routers, as far as that makes sense, is in
``tests/namespaces``; with the machines alone, in ``tests/tunnel/mobility``.
"""

from __future__ import annotations

from dataclasses import replace

from fastpath.types import Endpoint
from keys.ike.settings import IkeSettings
from tests.sim.ladder import Ladder, after, says, table, unheeded
from tests.sim.nat import MARKER, STUN, Nat
from tests.sim.scenes import DESK, LAPTOP, delivers
from tests.sim.test_home_agent import gateway, host, settled
from tests.sim.test_optimising import OUTSIDES, direct, relayed
from tests.sim.watch import watched
from tests.sim.world import Config, SimHost, World, numbers, unreachables
from tunnel.cli.rules import peers_of
from tunnel.mobility.claims import Claim
from tunnel.mobility.header import (
    Aotc,
    Aoto,
    Aotr,
    Aots,
    BindingAck,
    BindingUpdate,
    Status,
    Verdict,
)
from tunnel.mobility.limits import is_old
from tunnel.settings import NodeSettings
from tunnel.status import endpoint_text

VICTIM = ("192.0.2.66", 4500)
AWAY = ("203.0.113.77", 4500)


def meet(seed: int, settings: NodeSettings | None = None) -> tuple[World, SimHost, SimHost]:
    """Two public hosts with a direct path, each registered with the other."""
    world = watched(seed)
    gateway(world)
    laptop, desk = (
        host(world, "laptop", 1, None, settings),
        host(world, "desk", 2, None, settings),
    )
    assert settled(world, laptop, desk)
    assert delivers(world, laptop, desk, 1, within=15)
    world.run(10)
    return world, laptop, desk


def proven(one: SimHost, label: str) -> Endpoint | None:
    """Where the address test has found a peer."""
    bindings = one.node._parts.relaying.signals.machine.correspondent.bindings
    binding = bindings.get(table(one, label).name)
    return None if binding is None else binding.used


def no_ike_from(world: World, source: Endpoint) -> None:
    """Nothing of IKE gets away from there any more, so that it proves nothing."""
    send = world.send

    def without(data: bytes, here: Endpoint, target: Endpoint, *, whole: bool = False) -> None:
        if here != source or data[:4] != MARKER:
            send(data, here, target, whole=whole)

    world.send = without


# --- 1 to 3: what is not proven ----------------------------------------------------------------


def test_01_an_update_that_names_another_address_than_it_came_from_binds_nothing() -> None:
    world, laptop, desk = meet(801)
    before, ladder = table(desk, "laptop").endpoint, Ladder(desk)
    here = Claim.at(laptop.endpoint).options
    says(laptop, desk, BindingUpdate(after(desk, "laptop"), 600, here), VICTIM)
    world.run(3)
    assert unheeded(desk) == {"care_of": 1}
    assert (table(desk, "laptop").endpoint, proven(desk, "laptop")) == (before, before)
    (answer,) = ladder.said
    assert isinstance(answer.message, BindingAck)
    assert answer.message.status == Status.INVALID_CARE_OF


def test_02_a_spoofed_care_of_address_gets_one_challenge_and_no_data() -> None:
    world, laptop, desk = meet(802)
    to_victim: list[int] = []
    send = world.send

    def seen(data: bytes, source: Endpoint, target: Endpoint, *, whole: bool = False) -> None:
        if target == VICTIM:
            to_victim.append(len(data))
        send(data, source, target, whole=whole)

    world.send = seen
    ladder = Ladder(desk)
    there = Claim.at(VICTIM).options
    says(laptop, desk, BindingUpdate(after(desk, "laptop"), 600, there), VICTIM)
    for number in range(100, 200):
        desk.send(laptop.host_id, number)
        world.run(0.1)
    assert [one.endpoint for one in ladder.of(Aotc) if one.endpoint == VICTIM] == [VICTIM]
    assert len(to_victim) == 1, "the challenge"
    assert to_victim[0] < 120
    assert set(range(100, 200)) <= set(numbers(laptop.received)), "data goes where it was proven"


def test_03_data_come_from_an_unproven_address_at_once_and_do_not_go_there() -> None:
    """I16: no proof gets through here, neither by AOTR nor by IKE."""
    world, laptop, desk = meet(803)
    ladder = Ladder(laptop, desk, lose=lambda message: isinstance(message, Aotr))
    no_ike_from(world, AWAY)
    laptop.move(AWAY)
    world.run(2 * world.weather.latency)
    for number in range(100, 130):
        laptop.send(desk.host_id, number)
        desk.send(laptop.host_id, number)
        world.run(0.1)
    world.run(1)
    assert set(range(100, 130)) <= set(numbers(desk.received)), "taken from there at once"
    assert any(one.endpoint == AWAY for one in ladder.of(Aotc, desk)), "it was asked there"
    assert table(desk, "laptop").endpoint != AWAY
    ladder.lose = lambda _: False
    assert world.run(60, lambda: table(desk, "laptop").endpoint == AWAY), "with the proof it goes"
    assert delivers(world, desk, laptop, 2, within=5)


# --- 4 to 6: moves, losses, rekeys -------------------------------------------------------------


def test_04_a_move_back_to_a_proven_address_takes_two_messages() -> None:
    """And the first of them moves the data: no round trip."""
    world, laptop, desk = meet(804)
    home = laptop.config.endpoint
    for number, place in enumerate([AWAY, home], 2):
        laptop.move(place)
        assert delivers(world, desk, laptop, number, within=10)
        world.run(10)
    ladder, began = Ladder(laptop, desk), world.now
    laptop.move(AWAY)
    assert world.run(5, lambda: table(desk, "laptop").endpoint == AWAY)
    assert world.now - began < 1.5 * world.weather.latency, "one message"
    world.run(5)
    assert not ladder.of(Aotc)
    about = [str(one) for one in ladder.said if one.endpoint in (AWAY, desk.endpoint)]
    assert about == [f"laptop BindingUpdate to {desk.endpoint[0]}", f"desk BindingAck to {AWAY[0]}"]


def test_05_a_lost_acknowledgement_is_asked_for_with_the_same_answer() -> None:
    """I17: the correspondent keeps the nonce over its BA, and answers the repeated AOTR again."""
    world, laptop, desk = meet(805)
    lost: list[BindingAck] = []

    def first_ack(message: object) -> bool:
        if isinstance(message, BindingAck) and message.accepted and not lost:
            lost.append(message)
            return True
        return False

    ladder = Ladder(laptop, desk, lose=first_ack)
    laptop.move(AWAY)
    registration = laptop.node._parts.relaying.signals.machine.mobile.registrations
    name = table(laptop, "desk").name
    assert world.run(10, lambda: registration[name].phase == "bound" and bool(lost))
    world.run(1)
    answers = [one for one in ladder.of(Aotr, laptop) if one.endpoint == desk.endpoint]
    assert len(answers) == 2
    assert answers[0].message == answers[1].message, "the same nonce"
    assert len([one for one in ladder.of(Aotc, desk) if one.endpoint == AWAY]) == 1, "of one test"
    acks = [one.lost for one in ladder.of(BindingAck, desk) if one.endpoint == AWAY]
    assert acks == [True, False]
    assert proven(desk, "laptop") == AWAY


def test_06_a_rekey_under_load_loses_no_packet_and_leaves_no_rules() -> None:
    """Both sets of rules while an SA is replaced, one after that (I42)."""
    world, laptop, desk = meet(806, NodeSettings(ike=IkeSettings(child_lifetime=12.0)))
    together, seen = 0, set[str]()
    for number in range(100, 350):
        laptop.send(desk.host_id, number)
        desk.send(laptop.host_id, number)
        world.run(0.1)
        ours = rules(laptop)
        together, seen = max(together, len(ours)), seen | ours
    world.run(1)
    assert set(range(100, 350)) <= set(numbers(desk.received))
    assert set(range(100, 350)) <= set(numbers(laptop.received))
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


# --- 7 and 8: what is seen on the wire ---------------------------------------------------------


def test_07_a_packet_without_a_tunnel_is_never_sent() -> None:
    """Neither before there is one, nor after it was taken down: all that leaves is IKE, STUN and
    keepalives. (:meth:`World.send` looks into each datagram for plaintext, host ids and names.)"""
    world = watched(807)
    desk = SimHost(world, Config("desk", DESK)).start()
    laptop = SimHost(world, Config("laptop", LAPTOP)).start()
    assert world.run(10, lambda: {"desk", "laptop"} <= world.labels_in_zone())
    world.cut(DESK[0], LAPTOP[0])
    for number in range(20):
        laptop.send(desk.host_id, number)
        world.run(1)
    assert esp(world, 0.0) == 0
    assert unreachables(laptop.received), "and the application is told"
    world.cut(DESK[0], LAPTOP[0], whole=True)
    assert delivers(world, laptop, desk, 100, within=60)
    assert esp(world, 0.0) > 0
    desk.shutdown()
    assert world.run(10, lambda: laptop.peer("desk").get("state") != "up")
    desk.kill()
    began = world.now
    for number in range(200, 220):
        laptop.send(desk.host_id, number)
        world.run(1)
    assert esp(world, began) == 0


def esp(world: World, since: float) -> int:
    """How many datagrams left that are neither IKE and STUN, behind their marker, nor one octet."""
    return sum(at > since and len(data) > 1 and data[:4] != MARKER for at, data in world.wire)


def test_08_no_host_id_is_seen_on_a_foreign_link() -> None:
    """By relay, directly, and after a move, rekeys included (I50)."""
    world = watched(808)
    laptop, desk = relayed(world)
    assert {laptop.host_id.packed, desk.host_id.packed} <= world.secrets
    world.cut(*OUTSIDES, whole=True)
    assert direct(world, laptop, desk, 60)
    world.behind("192.168.9.10", Nat("203.0.113.9", "restricted"))
    laptop.move(("192.168.9.10", 4500))
    laptop.tell(laptop.node.look_outside, STUN)
    assert delivers(world, laptop, desk, 3, within=10)
    for child in list(table(laptop, "desk").children):
        core = laptop.node._core
        core.ike_said(core.ike.rekey(table(laptop, "desk").name, world.now, child))
    assert delivers(world, desk, laptop, 4, within=10)
    seen = b"".join(data for _, data in world.wire)
    assert not any(secret in seen for secret in world.secrets)


# --- 9 to 11: early proof, nonces, numbers -----------------------------------------------------


def test_09_an_aoto_is_met_with_silence_a_refusal_or_a_proof() -> None:
    """I25, I28: silence for who is not registered; AOTS 0 where early proof is switched off; AOTS 1
    for what is proven, at once, and for what is not after the test."""
    world, laptop, desk = meet(809)
    ladder = Ladder(laptop, desk)
    here = laptop.endpoint
    says(laptop, desk, Aoto(), here)
    world.run(2)
    assert [one.message for one in ladder.of(Aots, desk)] == [Aots(Verdict.VALID)]
    assert not ladder.of(Aotc)

    correspondent = desk.node._parts.relaying.signals.machine.correspondent
    correspondent._settings = replace(correspondent._settings, early=False)
    says(laptop, desk, Aoto(), here)
    world.run(2)
    assert [one.message for one in ladder.of(Aots, desk)][1:] == [Aots(Verdict.NOT_ALLOWED)]
    correspondent._settings = replace(correspondent._settings, early=True)

    ladder.lose = lambda message: isinstance(message, BindingUpdate)
    says(laptop, desk, BindingUpdate(after(desk, "laptop"), 0), here)
    world.run(2)
    ladder.said.clear()
    before = unheeded(desk).get("unregistered", 0)
    says(laptop, desk, Aoto(), here)
    world.run(5)
    assert not ladder.of(Aots, desk)
    assert not ladder.of(Aotc, desk)
    assert unheeded(desk)["unregistered"] == before + 1


def test_10_a_wrong_nonce_and_an_answer_from_elsewhere_are_ignored() -> None:
    """I27. The test world knows the nonce that went to the victim; the liar may guess it."""
    world, laptop, desk = meet(810)
    before, ladder = table(desk, "laptop").endpoint, Ladder(desk)
    there = Claim.at(VICTIM).options
    says(laptop, desk, BindingUpdate(after(desk, "laptop"), 600, there), VICTIM)
    (test,) = [one.message for one in ladder.of(Aotc) if one.endpoint == VICTIM]
    assert isinstance(test, Aotc)
    wrong = bytes(octet ^ 1 for octet in test.nonce)
    says(laptop, desk, Aotr(wrong), VICTIM)
    for source in (laptop.endpoint, AWAY, (VICTIM[0], VICTIM[1] + 1)):
        says(laptop, desk, Aotr(test.nonce), source)
    world.run(5)
    assert unheeded(desk)["nonce"] == 4
    assert table(desk, "laptop").endpoint == before
    machine = desk.node._parts.relaying.signals.machine
    assert not machine.proofs.holds(table(desk, "laptop").name, VICTIM, world.unix)
    assert not machine.proofs.holds(table(desk, "laptop").name, AWAY, world.unix)


def test_11_the_window_of_sequence_numbers() -> None:
    """With 15 as the last one; a refusal says so (BA 135)."""
    world, laptop, desk = meet(811)
    bindings = desk.node._parts.relaying.signals.machine.correspondent.bindings
    binding = bindings[table(desk, "laptop").name]
    ladder, here = Ladder(desk), Claim.at(laptop.endpoint).options
    cases = (15, True), (0, True), (32783, True), (32782, False), (16, False)
    for sequence, old in cases:
        assert is_old(sequence, 15) is old
        ladder.said.clear()
        binding.sequence = 15
        says(laptop, desk, BindingUpdate(sequence, 600, here), laptop.endpoint)
        world.run(3)
        (answer,) = [one.message for one in ladder.of(BindingAck)]
        assert isinstance(answer, BindingAck)
        assert (answer.status, answer.sequence) == ((135, 15) if old else (0, sequence))
        assert binding.sequence == (15 if old else sequence)
    assert unheeded(desk) == {"sequence": 3}
    assert table(desk, "laptop").endpoint == laptop.endpoint
