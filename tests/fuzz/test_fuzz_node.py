"""The node takes anything from anybody: 100,000 inputs of every kind, from strangers and peers.

Nothing may raise, grow without bound, or take down the tunnel that stands meanwhile.
"""

from __future__ import annotations

import random
from ipaddress import IPv6Address

from tests.sim.scenes import connected, delivers
from tests.sim.world import SimHost, World, udp_packet

INPUTS = 100_000
SEED = 20_261_121


def mutate(chance: random.Random, data: bytes) -> bytes:
    """A valid message with a few octets changed, cut, or made longer."""
    octets = bytearray(data)
    for _ in range(chance.randrange(1, 6)):
        octets[chance.randrange(len(octets))] = chance.randrange(256)
    if chance.random() < 0.2:
        del octets[chance.randrange(len(octets)) :]
    if chance.random() < 0.1:
        octets += chance.randbytes(chance.randrange(64))
    return bytes(octets)


def one_input(chance: random.Random, host: SimHost, seen: list[bytes]) -> None:
    """One hostile event of a random kind."""
    node, source = host.node, ("203.0.113.7", 4500)
    if chance.random() < 0.5:
        source = (f"192.0.2.{chance.randrange(256)}", chance.randrange(1, 65536))
    match chance.randrange(10):
        case 0 | 1 | 2 if seen:
            host.from_network(mutate(chance, chance.choice(seen)), source)
        case 3:
            host.from_network(chance.randbytes(chance.randrange(200)), source)
        case 4:
            host.tell(node.zone_message, chance.randbytes(chance.randrange(80)))
        case 5:
            to = IPv6Address(b"\xfd" + chance.randbytes(15))
            packet = mutate(chance, udp_packet(host.host_id, to, 1))
            host.tell(node.acquire, packet)
        case 8 if seen:
            relay = chance.choice((*node.spis()[0], chance.randrange(2**32)))
            source = (str(IPv6Address(b"\xfd" + chance.randbytes(15))), 500)
            host.tell(node.nested, relay, mutate(chance, chance.choice(seen)), source)
        case 9:
            spi = chance.choice((*node.spis()[0], chance.randrange(2**32)))
            host.tell(node.mobility, spi, source, chance.randbytes(chance.randrange(8, 64)))
        case 6:
            host.tell(node.unknown_spi, chance.randrange(2**32), source)
        case _:
            spi = chance.choice((*node.spis()[0], chance.randrange(2**32)))
            host.tell(node.lifetime, chance.randrange(2**32))
            if spi not in node.spis()[0]:
                host.tell(node.new_source, spi, source)


def test_nothing_that_a_stranger_sends_hurts_the_node() -> None:
    print(f"seed {SEED}")
    chance = random.Random(SEED)
    world = World(SEED)
    desk, laptop = connected(world)
    seen = [data for _, data in world.wire]
    for number in range(INPUTS):
        one_input(chance, desk, seen)
        if number % 100 == 0:
            world.run(0.05)
            world.wire.clear()
            desk.logs.clear()
            desk.received.clear()
            world._count = len(world._events)
    world.run(60)
    assert len(list(desk.node._core.peers)) == 1
    assert len(desk.node._core.queues) <= desk.node._core.settings.queues_packets
    assert desk.peer("laptop")["state"] == "up"
    assert delivers(world, desk, laptop, 1, within=30)
    assert delivers(world, laptop, desk, 2, within=30)
