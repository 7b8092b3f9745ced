"""Paths that are narrower than the device, in a world without any ICMP (RFC 8899)."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv6Address

import pytest
from scapy.layers.inet6 import IPv6, defragment6

from tests.sim.conftest import Make
from tests.sim.scenes import DESK, LAPTOP, connected, delivers
from tests.sim.world import Config, SimHost, Weather, World, numbers, udp_packet
from tunnel.peers import StaticPeer
from tunnel.settings import NodeSettings

OVERHEAD = 34  # ESP around a payload of whole four octets less two: header, IV, trailer, ICV


def big(source: SimHost, to: IPv6Address, octets: int, number: int) -> bytes:
    """An inner UDP packet of ``octets``."""
    packet = udp_packet(source.host_id, to, number)
    padding = bytes(octets - len(packet))
    lengths = (octets - 40).to_bytes(2)
    return packet[:4] + lengths + packet[6:44] + lengths + packet[46:] + padding


def errors(host: SimHost) -> list[tuple[bytes, int]]:
    """(source, MTU) of each ICMPv6 Packet Too Big that its applications got."""
    found = [packet for packet in host.received if packet[6] == 58 and packet[40] == 2]
    return [(packet[8:24], int.from_bytes(packet[44:48])) for packet in found]


def knows(world: World, host: SimHost, label: str, mtu: int, within: float = 60) -> bool:
    return world.run(
        within,
        lambda: (
            (host.peer(label)["mtu"], host.peer(label)["mtu_state"])
            in ((mtu, "complete"), (mtu, "error"))
        ),
    )


@pytest.mark.parametrize("inner", [1282, 1318, 1338, 1398])
def test_both_hosts_find_the_mtu_of_a_black_hole_and_tell_applications(
    inner: int, world_of: Make
) -> None:
    world = world_of(inner, Weather(mtu=inner + OVERHEAD, fragments=False))
    desk, laptop = connected(world)
    assert knows(world, desk, "laptop", inner)
    assert knows(world, laptop, "desk", inner)
    desk.from_application(big(desk, laptop.host_id, inner + 1, 1))
    assert errors(desk) == [(laptop.host_id.packed, inner)], "from the peer's own host id"
    desk.from_application(big(desk, laptop.host_id, inner, 2))
    assert world.run(1.0, lambda: numbers(laptop.received) == [2])


def test_the_smallest_mtu_of_ipv6_goes_in_fragments(world_of: Make) -> None:
    """Where only 1,000 octets fit and fragments of UDP are lost, 1,280 arrive (RFC 8200 §5)."""
    world = world_of(300, Weather(mtu=1000, fragments=False))
    desk, laptop = connected(world)
    assert knows(world, desk, "laptop", 966)
    assert desk.peer("laptop")["mtu_state"] == "error"
    packet = big(desk, laptop.host_id, 1280, 1)
    desk.from_application(packet)
    assert world.run(1.0, lambda: len(laptop.received) == 2)
    assert bytes(defragment6([IPv6(piece) for piece in laptop.received])) == packet
    desk.from_application(big(desk, laptop.host_id, 1281, 2))
    assert errors(desk) == [(laptop.host_id.packed, 1280)]


def test_packets_pass_while_the_mtu_is_still_sought(world_of: Make) -> None:
    """As they do from the first one on, in pieces that every IPv6 link takes."""
    world = world_of(305, Weather(mtu=1280 - 48, fragments=False))
    desk, laptop = connected(world)
    assert desk.peer("laptop")["mtu_state"] == "base"
    packet = big(desk, laptop.host_id, 1400, 1)
    desk.from_application(packet)
    assert world.run(1.0, lambda: len(laptop.received) == 2)
    assert bytes(defragment6([IPv6(piece) for piece in laptop.received])) == packet
    assert errors(desk) == []


def test_a_path_that_becomes_narrow_under_traffic_is_survived(world_of: Make) -> None:
    world = world_of(301)
    desk, laptop = connected(world)
    assert knows(world, desk, "laptop", 1400)
    world.weather = replace(world.weather, mtu=1330, fragments=False)
    started = world.now
    while not errors(desk):
        assert world.now - started < 40, desk.peer("laptop")
        desk.from_application(big(desk, laptop.host_id, 1400, 1))
        world.run(0.5)
    assert knows(world, desk, "laptop", 1294)
    assert delivers(world, desk, laptop, 9, within=3)


def test_a_move_starts_the_search_anew(world_of: Make) -> None:
    world = world_of(302, Weather(mtu=1330))
    desk, laptop = connected(world)
    assert knows(world, desk, "laptop", 1294)
    world.weather = replace(world.weather, mtu=1500)
    laptop.move(("203.0.113.99", 4500))
    assert knows(world, desk, "laptop", 1400)
    assert knows(world, laptop, "desk", 1400)


def test_transport_mode_gains_the_forty_octets_that_it_leaves_out(world_of: Make) -> None:
    world = world_of(303, Weather(mtu=1294 + OVERHEAD, fragments=False))
    ids = {"a.example": IPv6Address("fd11::1"), "b.example": IPv6Address("fd22::2")}
    at = {"a.example": DESK, "b.example": LAPTOP}
    made = {}
    for name, other in (("a.example", "b.example"), ("b.example", "a.example")):
        static = StaticPeer(other, ids[other], at[other], b"k" * 32, mode="transport")
        config = Config(name, at[name], static=(static,), account=False, host_id=ids[name])
        made[name] = SimHost(world, config).start()
    one, two = made.values()
    ticket = one.reach("b.example")
    assert world.run(60, lambda: ticket in one.answers)
    assert one.peer("b.example")["mode"] == "transport"
    assert knows(world, one, "b.example", 1334)
    one.from_application(big(one, two.host_id, 1334, 1))
    assert world.run(1.0, lambda: numbers(two.received) == [1])


def test_an_idle_tunnel_costs_no_probes(world_of: Make) -> None:
    world = world_of(304, Weather(mtu=1330))
    quiet = NodeSettings(refresh=3600.0)
    desk = SimHost(world, Config("desk", DESK, settings=quiet)).start()
    laptop = SimHost(world, Config("laptop", LAPTOP, settings=quiet)).start()
    assert world.run(10, lambda: laptop.node.published and desk.node.published)
    ticket = desk.reach("laptop")
    assert world.run(60, lambda: ticket in desk.answers)
    assert knows(world, desk, "laptop", 1294)
    assert knows(world, laptop, "desk", 1294)
    before = len(world.wire)
    world.run(900)
    assert all(len(data) < 200 for _, data in world.wire[before:])
