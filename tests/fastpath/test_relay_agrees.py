"""The native pump relays as the law does, octet by octet and counter by counter."""

from __future__ import annotations

import contextlib
import random
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fastpath.reference.datapath import Datapath, Output, SendDatagram, WritePacket
from fastpath.reference.esp import OutboundSa
from fastpath.types import Endpoint, Mode, UnknownSpiEvent
from tests.fastpath.relays import (
    A_TO_B,
    A_TO_H,
    AGENT,
    B_TO_A,
    B_TO_H,
    FIRST_WORD,
    H_TO_A,
    H_TO_B,
    HOST_A,
    HOST_B,
    HOST_C,
    IKE,
    MESSAGE,
    MOBILITY,
    as_probe,
    nested,
    nested_ike,
    relay_endpoint,
    relay_sa,
    sa,
    with_hop_limit,
    with_ports,
)
from tests.fastpath.support import ipv6
from tests.fastpath.test_pump_conformance import PATIENCE, Rig, endpoint_of, readable
from tests.fastpath.test_relay_pumps import as_agent, as_host, maker
from tests.fuzz.mutate import SEED

LOOPBACK = socket.if_nametoindex("lo")

ROUNDS, BATCH = 80, 30
RELAY_SAS = ((A_TO_H, HOST_A), (B_TO_H, HOST_B), (0xC001, HOST_C))


@pytest.fixture
def native() -> Iterator[Callable[[bytes], Rig]]:
    """Makes rigs of the native engine."""
    with contextlib.ExitStack() as stack:

        def make(host_id: bytes) -> Rig:
            rig = Rig(maker("native"), host_id=host_id)
            stack.callback(rig.close)
            rig.pump.start()
            return rig

        yield make


class Writer:
    """Makes nested packets, most of them right, and seals them as some host does."""

    def __init__(self, dice: random.Random, receiver: bytes, sas: list[tuple[int, bytes]]) -> None:
        self._dice = dice
        self._ids = [HOST_A, HOST_B, HOST_C, AGENT]
        self._sealing = [
            OutboundSa(relay_sa(spi, sender, receiver, inbound=False)) for spi, sender in sas
        ]
        self._senders = [sender for _, sender in sas]
        self._inner = {
            spi: OutboundSa(sa(spi, sender, target, inbound=False))
            for spi, sender, target in ((A_TO_B, HOST_A, HOST_B), (B_TO_A, HOST_B, HOST_A))
        }
        self._before: list[bytes] = []

    def datagram(self, usual: tuple[bytes, bytes]) -> bytes:
        """One datagram, mostly between the two ``usual`` host ids."""
        dice, number = self._dice, self._dice.randrange(len(self._sealing))
        if self._before and dice.random() < 0.05:
            return dice.choice(self._before)
        packet = self._packet(*usual)
        if dice.random() < 0.15:
            packet = self._broken(packet)
        if dice.random() < 0.1:
            packet += bytes(dice.randrange(9))
        if dice.random() < 0.75 and usual[0] in self._senders:
            number = self._senders.index(usual[0])
        sealed = self._sealing[number].seal(packet, 41 if dice.random() < 0.97 else 4)
        self._before = [*self._before[-50:], sealed]
        return sealed if dice.random() < 0.97 else self._broken(sealed)

    def _packet(self, source: bytes, target: bytes) -> bytes:
        dice = self._dice
        if dice.random() < 0.1:
            source = dice.choice(self._ids)
        if dice.random() < 0.1:
            target = dice.choice([*self._ids, dice.randbytes(16)])
        kind = dice.random()
        if kind < 0.6:
            inner = dice.choice(list(self._inner.values()))
            params = inner.params
            body = dice.randbytes(dice.choice((0, 1, 7, 1200, 1200, 1200)))
            data = inner.seal(ipv6(params.local_id, params.peer_id, body, 6))
            return self._hops(nested(data, 50, source, target))
        if kind < 0.75:
            return self._hops(nested_ike(source, target, dice.choice((IKE, FIRST_WORD))))
        if kind < 0.8:
            return nested(dice.randbytes(dice.randrange(80)), 50, source, target)
        if kind < 0.85:
            return nested(dice.randbytes(dice.randrange(80)), 17, source, target)
        if kind < 0.9:
            ports = dice.choice((500, 4500)), dice.choice((500, 53))
            return with_ports(nested_ike(source, target), *ports)
        if kind < 0.95:
            relay = dice.choice(self._sealing)
            return nested(relay.seal(nested(bytes(40))), 50, source, target)
        return nested(dice.randbytes(40), dice.randrange(256), source, target)

    def _hops(self, packet: bytes) -> bytes:
        if self._dice.random() < 0.1:
            packet = as_probe(packet)
        if self._dice.random() < 0.9:
            return packet
        return with_hop_limit(packet, self._dice.choice((0, 1, 2, 255)))

    def _broken(self, packet: bytes) -> bytes:
        dice = self._dice
        if not packet or dice.random() < 0.4:
            return packet[: dice.randrange(len(packet) + 1)]
        place = dice.randrange(min(len(packet), 64))
        return (
            packet[:place] + bytes([packet[place] ^ 1 << dice.randrange(8)]) + packet[place + 1 :]
        )


class Both:
    """The law beside a native pump: the same datagrams, calls and packets to both."""

    def __init__(self, rig: Rig, host_id: bytes) -> None:
        self.rig, self.law = rig, Datapath(host_id)
        self.outputs: list[Output] = []
        self.events: Counter[object] = Counter()
        self._seen = 0

    @property
    def tables(self) -> tuple[Any, Any]:
        return self.law, self.rig.pump

    def came(self, datagram: bytes) -> None:
        self.rig.to_pump(datagram)
        self.outputs += self.law.inbound(datagram, endpoint_of(self.rig.far), 1.0)

    def settle(self) -> None:
        """Waits until the pump has done as much as the law, and holds what left against it."""
        fresh, self._seen = self.outputs[self._seen :], len(self.outputs)
        for sock in (self.rig.far, self.rig.far6):
            for output in fresh:
                if isinstance(output, SendDatagram) and output.endpoint == endpoint_of(sock):
                    assert self.rig.from_udp(sock) == output.data
        for output in fresh:
            if isinstance(output, WritePacket):
                assert self.rig.from_tun() == output.packet
        deadline = time.monotonic() + PATIENCE
        while self.rig.pump.counters() != self.law.counters():
            assert time.monotonic() < deadline, (self.rig.pump.counters(), self.law.counters())
            readable(self.rig.pump.event_fd(), 0.002)

    def same_events(self) -> None:
        """How many unknown SPIs are told depends on the clock."""
        silent = (SendDatagram, WritePacket, UnknownSpiEvent)
        expected = Counter(o for o in self.outputs if not isinstance(o, silent))
        deadline = time.monotonic() + PATIENCE
        while True:
            told = [e for e in self.rig.pump.drain() if not isinstance(e, UnknownSpiEvent)]
            self.events.update(told)
            if self.events == expected:
                return
            assert time.monotonic() < deadline, (self.events - expected, expected - self.events)
            readable(self.rig.pump.event_fd(), 0.002)

    def same_counters(self, inbound: list[int], outbound: list[int]) -> None:
        for spi in inbound:
            ours, native = (table.inbound_counters(spi) for table in self.tables)
            assert same(ours, native), (hex(spi), ours, native)
        for spi in outbound:
            ours, native = (table.outbound_counters(spi) for table in self.tables)
            assert same(ours, native), (hex(spi), ours, native)


def same(ours: Any, native: Any) -> bool:
    """Counters apart from when an SA was last used."""
    if ours is None or native is None:
        return ours is native
    return (ours.packets, ours.octets, ours.drops) == (native.packets, native.octets, native.drops)


def test_a_native_home_agent_does_as_the_law_does(native: Callable[[bytes], Rig]) -> None:
    """Random streams of two hosts, a stranger among them, while relay entries come and go."""
    print(f"seed {SEED}; FUZZ_SEED=… picks another")
    dice = random.Random(SEED)
    both = Both(native(AGENT), AGENT)
    at_a, at_b = endpoint_of(both.rig.far), endpoint_of(both.rig.far6)
    for table in both.tables:
        as_agent(table, at_a, at_b)
        table.install_inbound(relay_sa(0xC001, HOST_C, AGENT, inbound=True))
    writer = Writer(dice, AGENT, list(RELAY_SAS))
    for _ in range(ROUNDS):
        change = change_of(dice, at_a, at_b)
        for table in both.tables:
            change(table)
        usual = dice.choice(((HOST_A, HOST_B), (HOST_B, HOST_A), (HOST_A, HOST_B)))
        for _ in range(BATCH):
            both.came(writer.datagram(usual))
        both.settle()
        both.same_events()
    both.same_counters([A_TO_H, B_TO_H, 0xC001], [H_TO_A, H_TO_B])
    counters = both.law.counters()
    assert counters["relayed_packets"] > 300
    for reason in ("not_relayed", "foreign_source", "malformed", "selector", "replay"):
        assert counters[f"drop_{reason}"] > 5, reason


def change_of(dice: random.Random, at_a: Endpoint, at_b: Endpoint) -> Callable[[Any], None]:
    """A change of tables, mostly one that changes nothing."""
    kind = dice.randrange(8)
    if kind == 0:
        return lambda table: table.set_relay(HOST_A, H_TO_A, at_b, True)
    if kind == 1:
        return lambda table: table.clear_relay(HOST_B)
    if kind == 2:
        return lambda table: table.set_relay(HOST_B, H_TO_B, at_b, False)
    if kind == 3:
        return lambda table: table.set_relay(HOST_B, 0x7777, at_b, True)
    if kind == 4:
        return lambda table: table.set_relay(HOST_C, H_TO_A, at_a, True)

    def usual(table: Any) -> None:
        table.set_relay(HOST_A, H_TO_A, at_a, True)
        table.set_relay(HOST_B, H_TO_B, at_b, True)

    return usual


def test_a_native_host_opens_nested_packets_as_the_law_does(
    native: Callable[[bytes], Rig],
) -> None:
    dice = random.Random(SEED + 1)
    both = Both(native(HOST_B), HOST_B)
    spis = B_TO_H, H_TO_B, B_TO_A, A_TO_B
    for table in both.tables:
        as_host(table, HOST_B, HOST_A, spis, endpoint_of(both.rig.far))
        table.install_inbound(relay_sa(0xC001, HOST_C, HOST_B, inbound=True))
    writer = Writer(dice, HOST_B, [(H_TO_B, AGENT), (0xC001, HOST_C)])
    for _ in range(ROUNDS):
        for _ in range(BATCH):
            both.came(writer.datagram((HOST_A, HOST_B)))
        both.settle()
        both.same_events()
    both.same_counters([H_TO_B, A_TO_B, 0xC001], [])
    counters = both.law.counters()
    assert counters["rx_packets"] > 300
    for reason in ("not_relayed", "foreign_source", "malformed", "selector", "replay"):
        assert counters[f"drop_{reason}"] > 5, reason


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("outer", ["IPv4", "IPv6"])
def test_a_native_host_nests_as_the_law_does(
    native: Callable[[bytes], Rig], mode: Mode, outer: str
) -> None:
    """All that leaves: flow data of any size, IKE, dummies, mobility messages."""
    dice = random.Random(SEED + 2)
    rig = native(HOST_A)
    both, far = Both(rig, HOST_A), rig.far if outer == "IPv4" else rig.far6
    spis = A_TO_H, H_TO_A, A_TO_B, B_TO_A
    for table in both.tables:
        as_host(table, HOST_A, HOST_B, spis, endpoint_of(far), mode)
        table.install_outbound(
            sa(0xAB35, HOST_A, HOST_B, inbound=False, mode=Mode.TRANSPORT, traffic=MOBILITY)
        )
        table.set_flow(HOST_B, A_TO_B, relay_endpoint(HOST_B), 1300, 9000)
    law, pump = both.law, rig.pump
    for _ in range(600):
        body = dice.randbytes(dice.choice((0, 1, 2, 3, 60, 1260, 1261, 5000, 9001)))
        kind = dice.randrange(7)
        if kind < 3:
            packet = ipv6(HOST_A, HOST_B, body, dice.choice((6, 17, 58, 59, 135)))
            pump.inject(packet)
            both.outputs += law.outbound(packet, 1.0)
        elif kind == 3:
            message = dice.choice((IKE, bytes(4) + IKE, b"\xff", body))
            pump.send(message, relay_endpoint(HOST_B))
            both.outputs += law.send(message, relay_endpoint(HOST_B), 1.0)
        elif kind == 4:
            whole = dice.random() < 0.5
            pump.send_dummy(A_TO_B, relay_endpoint(HOST_B), body, whole)
            both.outputs += law.dummy(A_TO_B, relay_endpoint(HOST_B), body, whole, 1.0)
        else:
            packet = ipv6(HOST_A, dice.choice((HOST_B, HOST_B, HOST_C)), MESSAGE, 135)
            spi = dice.choice((0xAB35, A_TO_B, 0x7777))
            endpoint = dice.choice((relay_endpoint(HOST_B), endpoint_of(far)))
            source = dice.choice((None, None, (endpoint_of(far)[0], LOOPBACK)))
            if source is not None and ":" in endpoint[0] and ":" not in source[0]:
                source = None  # of the other family, which is refused
            pump.send_inner(spi, endpoint, packet, source)
            both.outputs += law.send_inner(spi, endpoint, packet, 1.0, source)
        both.settle()
    both.same_counters([], [A_TO_H, A_TO_B, 0xAB35])
    assert law.counters()["tx_packets"] > 100


def test_many_packets_of_one_read_leave_as_the_law_says(native: Callable[[bytes], Rig]) -> None:
    """Datagrams that wait together are one batch, and what is forwarded is a run."""
    both = Both(native(AGENT), AGENT)
    rig = both.rig
    for table in both.tables:
        as_agent(table, endpoint_of(rig.far), endpoint_of(rig.far6))
    sender = OutboundSa(relay_sa(A_TO_H, HOST_A, AGENT, inbound=False))
    inner = OutboundSa(sa(A_TO_B, HOST_A, HOST_B, inbound=False))
    rig.far.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**20)
    for size in (1200, 200, 1200, 900):
        for number in range(40):
            data = inner.seal(ipv6(HOST_A, HOST_B, bytes(size - number % 7 // 6)))
            both.came(sender.seal(nested(data)))
        both.settle()
    assert both.law.counters()["relayed_packets"] == 160


def test_the_limit_is_shared_as_the_law_says(native: Callable[[bytes], Rig]) -> None:
    """At an octet a second, so that no clock matters: what one has flooded, others have a share
    of, again and again if it moves; who is not registered has none."""
    both = Both(native(AGENT), AGENT)
    at_a, at_b = endpoint_of(both.rig.far), endpoint_of(both.rig.far6)
    hosts = {HOST_A: A_TO_H, HOST_B: B_TO_H, HOST_C: 0xC001}
    for table in both.tables:
        as_agent(table, at_a, at_b)
        table.install_inbound(relay_sa(0xC001, HOST_C, AGENT, inbound=True))
        table.set_relay_limit(1)
    sealing = {
        one: OutboundSa(relay_sa(spi, one, AGENT, inbound=False)) for one, spi in hosts.items()
    }

    def burst(source: bytes, target: bytes) -> int:
        """Of twenty packets of 7,000 octets so many pass."""
        before = both.law.counters()["relayed_packets"]
        packet = nested(bytes(6960), source=source, destination=target)
        for _ in range(20):
            both.came(sealing[source].seal(packet))
            both.settle()
        return both.law.counters()["relayed_packets"] - before

    assert burst(HOST_A, HOST_B) == 9, "what may pass at once"
    assert burst(HOST_C, HOST_B) == 0
    assert burst(HOST_B, HOST_A) == 2, "its share"
    for table in both.tables:
        table.set_relay(HOST_A, H_TO_A, at_b, True)
        table.set_relay(HOST_C, H_TO_A, at_a, True)
    assert burst(HOST_A, HOST_B) == 0
    assert burst(HOST_C, HOST_B) == 2
    for table in both.tables:
        table.set_relay_limit(0)
    assert burst(HOST_A, HOST_B) == 20
    both.same_counters(list(hosts.values()), [H_TO_A, H_TO_B])
