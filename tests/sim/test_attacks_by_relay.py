"""Hosts of the account, and home agents, that were taken over: what they try by relay, in whole.

They have valid keys and may write whatever they like into their own SAs (docs/security.md).
"""

from __future__ import annotations

from fastpath.reference import relay
from fastpath.reference.datapath import SendDatagram
from fastpath.reference.esp import NEXT_HEADER_IPV6
from tests.sim.scenes import delivers
from tests.sim.test_home_agent import SECOND, bound, gateway, hard_pair, host, settled
from tests.sim.watch import watched
from tests.sim.world import SimHost
from tunnel.mobility import header
from tunnel.mobility.claims import Claim
from tunnel.mobility.header import BindingUpdate
from tunnel.peers import OWN, RELAYED, SIGNALS, Peer

NAME = "laptop.alice.members.example"
FIRST_WORD = b"\x11" * 8 + bytes(8) + bytes([33, 0x20, 34, 8]) + bytes(4) + (28).to_bytes(4)


def table(one: SimHost, label: str) -> Peer:
    peer = one.node._core.peers.labelled(label)
    assert peer is not None
    return peer


def writes(one: SimHost, to: str, packet: bytes) -> None:
    """It seals a nested packet of its own invention for the host at the other end of a relay SA."""
    peer = table(one, to)
    entry = one.datapath._outbound[peer.narrow[RELAYED].spi_out]
    assert peer.endpoint is not None
    data = entry.sa.seal(packet, NEXT_HEADER_IPV6)
    one._outputs([SendDatagram(data, peer.endpoint)])


def test_nobody_takes_the_way_to_another_host_at_the_home_agent() -> None:
    world = watched(701)
    home = gateway(world)
    laptop, desk = hard_pair(world)
    mallory = host(world, "mallory", 3, None)
    assert settled(world, mallory)
    assert delivers(world, laptop, desk, 1, within=15)
    forged = relay.around_ike(desk.host_id.packed, home.host_id.packed, FIRST_WORD)
    for _ in range(20):
        writes(mallory, "gateway", forged)
        world.run(0.1)
    assert bound(home) == ["desk", "laptop", "mallory"]
    assert home.node._parts.relaying.relays.carrier(desk.host_id) is table(home, "desk")
    laptop.send(desk.host_id, 2)
    assert world.run(1, lambda: len(desk.received) >= 2)


def test_a_home_agent_that_only_answers_is_left_for_the_other() -> None:
    """It is registered with and answers all questions, and drops all that it should forward."""
    world = watched(702)
    first = gateway(world)
    gateway(world, "reserve", SECOND)
    laptop, desk = hard_pair(world, at=2)
    assert delivers(world, laptop, desk, 1, within=15)
    assert str(laptop.peer("desk")["home_agent"]).startswith("gateway")
    first.datapath.set_relay_limit(1)
    first.datapath._limit._tokens = 0
    assert delivers(world, laptop, desk, 2, within=20)
    assert delivers(world, desk, laptop, 3, within=20)


def test_a_home_agent_that_forwards_nothing_does_not_hold_up_a_new_tunnel() -> None:
    world = watched(703)
    first = gateway(world)
    gateway(world, "reserve", SECOND)
    laptop, desk = hard_pair(world, at=2)
    first.datapath.set_relay_limit(1)
    first.datapath._limit._most = first.datapath._limit._tokens = 0
    assert delivers(world, laptop, desk, 2, within=30)
    assert delivers(world, desk, laptop, 3, within=20)


def test_no_other_host_than_a_home_agent_gets_a_relay_sa() -> None:
    """Else it could bring packets of third ones, which it has seen, as if they came by relay."""
    world = watched(704)
    gateway(world)
    laptop, desk = hard_pair(world)
    mallory = host(world, "mallory", 3, None)
    assert settled(world, mallory)
    assert delivers(world, laptop, desk, 1, within=15)
    assert delivers(world, mallory, laptop, 2, within=15)
    core = mallory.node._core
    core.ike_said(core.ike.add(NAME, OWN[0], world.now))
    mallory.tell(mallory.node.advance)
    world.run(5)
    assert RELAYED in table(laptop, "mallory").narrow
    relays = [one for one in laptop.datapath._inbound.values() if relay.is_relay(one.sa.params)]
    gateway_id = table(laptop, "gateway").host_id
    assert gateway_id is not None
    assert {one.sa.params.peer_id for one in relays} == {gateway_id.packed}


def test_another_home_agent_cannot_make_up_that_a_peer_comes_through_it() -> None:
    """It has no message that the peer has sealed; and its own way may be a dead end."""
    world = watched(705)
    gateway(world)
    reserve = gateway(world, "reserve", SECOND)
    laptop, desk = hard_pair(world, at=2)
    assert delivers(world, laptop, desk, 1, within=15)
    assert str(laptop.peer("desk")["home_agent"]).startswith("gateway")
    for message in (FIRST_WORD, FIRST_WORD[:18] + bytes([37, 8]) + FIRST_WORD[20:]):
        writes(
            reserve, "laptop", relay.around_ike(desk.host_id.packed, laptop.host_id.packed, message)
        )
        world.run(1)
        assert str(laptop.peer("desk")["home_agent"]).startswith("gateway")


def test_a_host_that_takes_new_host_ids_again_and_again_fills_no_table() -> None:
    """Each registration is gone with the host id that it was for."""
    world = watched(706)
    home = gateway(world)
    mallory = host(world, "mallory", 3, None)
    for _ in range(5):
        assert settled(world, mallory)
        mallory = mallory.restart(reboot=True)
    assert settled(world, mallory)
    ways = home.node._parts.relaying.relays
    assert list(ways._ways) == [mallory.host_id]
    assert len(home.datapath._relays) == 1


def test_hosts_that_come_and_vanish_by_relay_leave_no_ways() -> None:
    world = watched(707)
    gateway(world)
    laptop = host(world, "laptop", 1, "symmetric")
    assert settled(world, laptop)
    for number in range(4):
        other = host(world, f"other{number}", 10 + number, "symmetric")
        assert settled(world, other)
        assert delivers(world, other, laptop, number, within=20)
        world.run(10)
        assert laptop.peer(other.config.label)["path"] == "relay"
        other.shutdown()
        world.run(5)
        assert other.finished
        assert laptop.node._core.peers.labelled(other.config.label) is None
        other.kill()
    relays = laptop.node._parts.relaying.relays
    assert not relays._ways
    assert not relays._carried
    assert not laptop.datapath._relays


def test_registering_all_the_time_costs_the_home_agent_little() -> None:
    """On and off, or at one endpoint and another: three times a second, as RFC 6275 has it."""
    world = watched(708)
    home = gateway(world)
    mallory = host(world, "mallory", 3, None)
    assert settled(world, mallory)
    peer = table(mallory, "gateway")
    child = peer.narrow[SIGNALS]
    assert peer.endpoint is not None
    known = mallory.node._parts.relaying.signals.machine.mobile.registrations[peer.name]
    before = len(home.logs)
    for number in range(2000):
        update = BindingUpdate(
            (known.sequence + 1 + number) % 65536, 600 * (number % 2), (), home=True
        )
        octets = header.pack(update, child.local_id, child.peer_id)
        packet = header.packet(octets, child.local_id, child.peer_id)
        mallory._outputs(
            mallory.datapath.send_inner(child.spi_out, peer.endpoint, packet, world.now)
        )
        world.run(0.005)
    lines = [text for _, _, text in home.logs[before:]]
    assert len([one for one in lines if "registered" in one]) <= 33
    assert len(lines) < 100
    refused = home.node._parts.relaying.signals.machine.refused
    assert refused["flood"] > 250, "the engine tells 32 a second, and of these few are heard"


def test_a_host_that_says_it_is_at_anothers_host_id_is_looked_for_elsewhere() -> None:
    """By relay, in an invitation, or in the zone: what is for it would come to that one, nested or,
    where there is no way by relay, show its host id on the wire (I50)."""
    world = watched(709)
    gateway(world)
    laptop, desk = hard_pair(world)
    mallory = host(world, "mallory", 3, "symmetric")
    assert settled(world, mallory)
    assert delivers(world, laptop, desk, 1, within=15)
    assert delivers(world, laptop, mallory, 2, within=15)
    world.run(10)
    strangers = desk.datapath.counters().get("drop_unknown_spi", 0)
    peer, child = table(mallory, "laptop"), table(mallory, "laptop").narrow[SIGNALS]
    known = mallory.node._parts.relaying.signals.machine.mobile.registrations[peer.name]
    for number, host_id in enumerate((desk.host_id, laptop.host_id, mallory.host_id)):
        claim = Claim.at((str(host_id), 4500))
        update = BindingUpdate((known.sequence + 1 + number) % 65536, 600, claim.options)
        octets = header.pack(update, child.local_id, child.peer_id)
        packet = header.packet(octets, child.local_id, child.peer_id)
        assert peer.relay_endpoint is not None
        mallory._outputs(
            mallory.datapath.send_inner(child.spi_out, peer.relay_endpoint, packet, world.now)
        )
        world.run(3)
    core = mallory.node._core
    core.endpoints = ((str(desk.host_id), 4500),)
    mallory.node._parts.directory.publish()
    mallory.tell(mallory.node.advance)
    world.run(30)
    assert table(laptop, "mallory").endpoints == ((str(desk.host_id), 4500),)
    assert desk.datapath.counters().get("drop_unknown_spi", 0) == strangers
    assert table(laptop, "mallory").is_relayed
