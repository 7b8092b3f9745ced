"""A home agent with 10,000 hosts: both engines forward among them, as they come, rekey and go."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from ipaddress import IPv4Address

import pytest

from fastpath.reference.esp import InboundSa, OutboundSa
from fastpath.types import Endpoint
from tests.fastpath.relays import AGENT, nested, relay_sa, with_hop_limit
from tests.fastpath.test_pump_conformance import Rig, readable
from tests.fastpath.test_relay_pumps import maker

HOSTS = 10_000
SAMPLE = 150  # of the pairs that exchange packets after each change
AT_ONCE = 10  # packets under way: what any socket has room for
IP_PKTINFO = 8  # Linux
ESP_PACKET = bytes(34)  # nobody here opens it


def host(number: int) -> bytes:
    return AGENT[:8] + (0xC000_0000 + number).to_bytes(8)


class Crowd:
    """All hosts at one socket, each at an address of its own."""

    def __init__(self, engine: str) -> None:
        self.rig = Rig(maker(engine), host_id=AGENT)
        self.rig.pump.start()
        self.everywhere = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.everywhere.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        self.everywhere.bind(("0.0.0.0", 0))
        self.spis = [0] * HOSTS
        self._next = 0x10_0000
        self.sealing: dict[int, OutboundSa] = {}
        self.opening: dict[int, InboundSa] = {}

    def close(self) -> None:
        self.rig.close()
        self.everywhere.close()

    def at(self, number: int) -> Endpoint:
        address = IPv4Address("127.1.0.0") + number
        return str(address), self.everywhere.getsockname()[1]

    def register(self, number: int) -> int:
        """A new relay SA, the same SPI both ways; the one before, which is still there."""
        self._next += 1
        before, self.spis[number] = self.spis[number], self._next
        pump, theirs = self.rig.pump, host(number)
        pump.install_inbound(relay_sa(self._next, theirs, AGENT, inbound=True))
        pump.install_outbound(relay_sa(self._next, AGENT, theirs, inbound=False))
        pump.set_relay(theirs, self._next, self.at(number), True)
        return before

    def forget(self, spi: int) -> None:
        self.rig.pump.remove_inbound(spi)
        self.rig.pump.remove_outbound(spi)

    def send(self, source: int, target: int) -> None:
        """A nested packet to the agent."""
        spi = self.spis[source]
        if spi not in self.sealing:
            self.sealing[spi] = OutboundSa(relay_sa(spi, host(source), AGENT, inbound=False))
        packet = nested(ESP_PACKET, source=host(source), destination=host(target))
        self.rig.to_pump(self.sealing[spi].seal(packet))

    def receive(self, source: int, target: int) -> None:
        """What was forwarded, where the target is, in its SA."""
        assert readable(self.everywhere.fileno()), self.rig.pump.counters()
        data, [(_, _, told)], _, _ = self.everywhere.recvmsg(70_000, 64)
        assert str(IPv4Address(told[8:12])) == self.at(target)[0]
        spi = int.from_bytes(data[:4])
        assert spi == self.spis[target]
        if spi not in self.opening:
            self.opening[spi] = InboundSa(relay_sa(spi, AGENT, host(target), inbound=True))
        opened = self.opening[spi].open(data)
        expected = nested(ESP_PACKET, source=host(source), destination=host(target))
        assert opened.payload == with_hop_limit(expected, 63)

    def exchange(self, pairs: list[tuple[int, int]]) -> None:
        """Each pair's packet arrives, and nothing else."""
        for start in range(0, len(pairs), AT_ONCE):
            batch = pairs[start : start + AT_ONCE]
            for pair in batch:
                self.send(*pair)
            for pair in batch:
                self.receive(*pair)
        assert not readable(self.everywhere.fileno(), 0)


@pytest.fixture(params=["native", "reference"])
def crowd(request: pytest.FixtureRequest) -> Iterator[Crowd]:
    made = Crowd(request.param)
    yield made
    made.close()


def pairs_of(dice: random.Random, there: range) -> list[tuple[int, int]]:
    return [(a, b) for a, b in (dice.sample(there, 2) for _ in range(SAMPLE))]


def test_ten_thousand_hosts_are_relayed_as_two_are(crowd: Crowd) -> None:
    """Installed, rekeyed all together, half of them gone and back again."""
    dice, pump, everybody = random.Random(11), crowd.rig.pump, range(HOSTS)
    for number in everybody:
        crowd.register(number)
    crowd.exchange(pairs_of(dice, everybody))

    before = [crowd.register(number) for number in everybody]
    crowd.exchange(pairs_of(dice, everybody))
    for spi in before:
        crowd.forget(spi)
    crowd.exchange(pairs_of(dice, everybody))

    gone, stay = range(0, HOSTS, 2), range(1, HOSTS, 2)
    for number in gone:
        pump.clear_relay(host(number))
        crowd.forget(crowd.spis[number])
    for number in range(0, SAMPLE, 2):
        crowd.send(number + 1, number)
        crowd.send(number, number + 1)
    crowd.rig.until("drop_not_relayed", SAMPLE // 2)
    crowd.rig.until("drop_unknown_spi", SAMPLE // 2)
    crowd.exchange(pairs_of(dice, stay))

    for number in gone:
        crowd.register(number)
    crowd.exchange(pairs_of(dice, everybody))
    crowd.rig.until("relayed_packets", 5 * SAMPLE)
    drops = {name for name in pump.counters() if name.startswith("drop_")}
    assert drops == {"drop_unknown_spi", "drop_not_relayed"}
