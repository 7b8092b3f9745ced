"""Relaying in both pumps, and the native one held to the law, octet by octet."""

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
from fastpath.types import (
    RELAYS_REMEMBERED,
    ControlEvent,
    DummyEvent,
    Endpoint,
    Event,
    MobilityEvent,
    Mode,
    Pump,
    UnknownSpiEvent,
)
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
    HOSTILE,
    IKE,
    MOBILITY,
    esp_packet,
    nested,
    nested_ike,
    relay_endpoint,
    relay_sa,
    sa,
    with_hop_limit,
    with_ports,
)
from tests.fastpath.support import ipv6, native_module
from tests.fastpath.test_pump_conformance import PATIENCE, WAYS, Rig, endpoint_of, readable, udp
from tests.fuzz.mutate import SEED
from tunnel.io.portable_pump import PortablePump

MESSAGE = bytes([59, 0, 5, 0, 0, 0, 0, 0])


def maker(engine: str) -> Callable[..., Pump]:
    make: Callable[..., Pump] = PortablePump
    return make if engine == "reference" else native_module("_pump").NativePump


@pytest.fixture(params=WAYS, ids=[f"{engine}-{queues}" for engine, queues in WAYS])
def rigs(request: pytest.FixtureRequest) -> Iterator[Callable[[bytes], Rig]]:
    """Makes rigs of one engine and number of queues, for a host id each."""
    engine, queues = request.param
    with contextlib.ExitStack() as stack:

        def make(host_id: bytes) -> Rig:
            rig = Rig(maker(engine), queues, host_id=host_id)
            stack.callback(rig.close)
            rig.pump.start()
            return rig

        yield make


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


def as_agent(table: Any, at_a: Endpoint, at_b: Endpoint) -> None:
    """H, which forwards between A and B."""
    table.install_inbound(relay_sa(A_TO_H, HOST_A, AGENT, inbound=True))
    table.install_inbound(relay_sa(B_TO_H, HOST_B, AGENT, inbound=True))
    table.install_outbound(relay_sa(H_TO_A, AGENT, HOST_A, inbound=False))
    table.install_outbound(relay_sa(H_TO_B, AGENT, HOST_B, inbound=False))
    table.set_relay(HOST_A, H_TO_A, at_a, True)
    table.set_relay(HOST_B, H_TO_B, at_b, True)


def as_host(
    table: Any,
    ours: bytes,
    theirs: bytes,
    spis: tuple[int, int, int, int],
    agent: Endpoint,
    mode: Mode = Mode.TUNNEL,
) -> None:
    """A or B, which reaches the other through H; SPIs: to and from H, to and from the other."""
    to_h, from_h, to_other, from_other = spis
    table.install_outbound(relay_sa(to_h, ours, AGENT, inbound=False))
    table.install_inbound(relay_sa(from_h, AGENT, ours, inbound=True))
    table.install_outbound(sa(to_other, ours, theirs, inbound=False, mode=mode))
    table.install_inbound(sa(from_other, theirs, ours, inbound=True, mode=mode))
    table.set_relay(theirs, to_h, agent)
    table.set_flow(theirs, to_other, relay_endpoint(theirs))


class Three:
    """A, H and B, each a pump of its own, over loopback."""

    def __init__(self, make: Callable[[bytes], Rig], mode: Mode = Mode.TUNNEL) -> None:
        self.a, self.h, self.b = make(HOST_A), make(AGENT), make(HOST_B)
        at_a, at_h, at_b = (endpoint_of(rig.near_udp) for rig in (self.a, self.h, self.b))
        as_agent(self.h.pump, at_a, at_b)
        to_b, to_a = (A_TO_H, H_TO_A, A_TO_B, B_TO_A), (B_TO_H, H_TO_B, B_TO_A, A_TO_B)
        as_host(self.a.pump, HOST_A, HOST_B, to_b, at_h, mode)
        as_host(self.b.pump, HOST_B, HOST_A, to_a, at_h, mode)


def event_of(rig: Rig, kind: type[Event]) -> Event:
    """The next event of a kind; others are passed over."""
    while True:
        found = [event for event in rig.events() if isinstance(event, kind)]
        if found:
            return found[0]


@pytest.mark.parametrize("mode", list(Mode))
def test_three_hosts_end_to_end(rigs: Callable[[bytes], Rig], mode: Mode) -> None:
    three = Three(rigs, mode)
    for length in (0, 1, 2, 3, 1300):
        there = ipv6(HOST_A, HOST_B, bytes(length), 6)
        three.a.tun.send(there)
        assert three.b.from_tun() == there
        back = ipv6(HOST_B, HOST_A, bytes(length), 17)
        three.b.tun.send(back)
        assert three.a.from_tun() == back
    three.h.until("relayed_packets", 10)
    counters = three.h.pump.counters()
    assert counters["rx_packets"] == counters["tx_packets"] == 0
    assert not [name for name in counters if name.startswith("drop_")]


def test_a_burst_passes_in_order(rigs: Callable[[bytes], Rig]) -> None:
    three = Three(rigs)
    packets = [ipv6(HOST_A, HOST_B, number.to_bytes(4) + bytes(1100), 6) for number in range(60)]
    for packet in packets:
        three.a.tun.send(packet)
    assert [three.b.from_tun() for _ in packets] == packets
    three.h.until("relayed_packets", 60)


def test_ike_passes_with_and_without_its_marker(rigs: Callable[[bytes], Rig]) -> None:
    three = Three(rigs)
    for message in (IKE, bytes(4) + IKE, FIRST_WORD):
        three.a.pump.send(message, relay_endpoint(HOST_B))
        event = event_of(three.b, ControlEvent)
        assert event == ControlEvent(message[-40:], relay_endpoint(HOST_A), False, H_TO_B)
    three.a.pump.send(b"\xff", relay_endpoint(HOST_B))
    three.a.until("drop_keepalive", 1)


def test_dummies_probes_and_mobility_messages_pass(rigs: Callable[[bytes], Rig]) -> None:
    three = Three(rigs)
    three.a.pump.send_dummy(A_TO_B, relay_endpoint(HOST_B), b"probe" * 9, True)
    assert event_of(three.b, DummyEvent) == DummyEvent(A_TO_B, 45, (b"probe" * 9)[:32])
    packet = ipv6(HOST_A, HOST_B, MESSAGE, 135)
    three.a.pump.send_inner(A_TO_B, relay_endpoint(HOST_B), packet)
    expected = MobilityEvent(A_TO_B, relay_endpoint(HOST_A), MESSAGE)
    assert event_of(three.b, MobilityEvent) == expected
    three.a.pump.send_inner(A_TO_B, endpoint_of(three.b.near_udp), packet)
    direct = MobilityEvent(A_TO_B, endpoint_of(three.a.near_udp), MESSAGE)
    assert event_of(three.b, MobilityEvent) == direct
    assert not readable(three.b.tun.fileno(), 0)


def test_applications_send_no_mobility_messages(rigs: Callable[[bytes], Rig]) -> None:
    three = Three(rigs)
    three.a.tun.send(ipv6(HOST_A, HOST_B, MESSAGE, 135))
    three.a.until("drop_no_flow", 1)
    assert three.a.pump.drain() == []


def test_a_host_id_that_was_relayed_is_never_an_outer_address(
    rigs: Callable[[bytes], Rig],
) -> None:
    rig = rigs(HOST_A)
    as_host(rig.pump, HOST_A, HOST_B, (A_TO_H, H_TO_A, A_TO_B, B_TO_A), endpoint_of(rig.far))
    rig.pump.clear_relay(HOST_B)
    rig.pump.clear_relay(HOST_C)
    rig.tun.send(ipv6(HOST_A, HOST_B))
    rig.until("drop_not_relayed", 1)
    rig.pump.send(IKE, relay_endpoint(HOST_B))
    rig.pump.send_dummy(A_TO_B, relay_endpoint(HOST_B))
    rig.pump.send_inner(A_TO_B, relay_endpoint(HOST_B), ipv6(HOST_A, HOST_B))
    rig.pump.clear_flow(HOST_B)
    rig.pump.send(IKE, relay_endpoint(HOST_B))
    rig.pump.send(IKE, relay_endpoint(HOST_A))
    rig.until("drop_not_relayed", 6)
    assert not readable(rig.far.fileno(), 0)


@pytest.mark.parametrize("engine", ["reference", "native"])
def test_of_host_ids_that_were_relayed_the_last_are_known(engine: str) -> None:
    """A home agent that makes up hosts fills no memory. What is no host id has no socket here."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with near, far, udp() as only4:
        near.setblocking(False)
        pump = maker(engine)(near.fileno(), only4.fileno(), None, HOST_A)
        hosts = [HOST_B[:8] + number.to_bytes(8) for number in range(RELAYS_REMEMBERED + 10)]
        for _ in range(2):
            for host in hosts:
                pump.set_relay(host, A_TO_H, ("192.0.2.1", 4500))
                pump.clear_relay(host)
                pump.clear_relay(host)
        for host in hosts:
            pump.send(IKE, relay_endpoint(host))
        counters = pump.counters()
        assert counters["drop_not_relayed"] == RELAYS_REMEMBERED
        assert counters["drop_udp_send"] == 10
        with pytest.raises(ValueError, match="SPI 0"):
            pump.set_relay(HOST_B, 0, ("192.0.2.1", 4500))
        pump.stop()


@pytest.mark.parametrize(
    ("packet", "reason"), [h[1:] for h in HOSTILE], ids=[h[0] for h in HOSTILE]
)
def test_hostile_nested_packets_go_nowhere(
    rigs: Callable[[bytes], Rig], packet: bytes, reason: str
) -> None:
    agent = rigs(AGENT)
    as_agent(agent.pump, endpoint_of(agent.far), endpoint_of(agent.far))
    agent.to_pump(OutboundSa(relay_sa(A_TO_H, HOST_A, AGENT, inbound=False)).seal(packet))
    agent.until(f"drop_{reason}", 1)
    assert not readable(agent.far.fileno(), 0)


def test_the_limit_drops_what_is_above_it(rigs: Callable[[bytes], Rig]) -> None:
    agent = rigs(AGENT)
    as_agent(agent.pump, endpoint_of(agent.far), endpoint_of(agent.far))
    agent.pump.set_relay_limit(1000)
    sender = OutboundSa(relay_sa(A_TO_H, HOST_A, AGENT, inbound=False))
    packet = nested(esp_packet(body=bytes(60_000)))
    for _ in range(3):
        agent.to_pump(sender.seal(packet))
    agent.until("drop_relay_limit", 2)
    assert agent.pump.counters()["relayed_packets"] == 1
    agent.pump.set_relay_limit(0)
    agent.to_pump(sender.seal(packet))
    agent.until("relayed_packets", 2)
    with pytest.raises(ValueError, match="0 or more"):
        agent.pump.set_relay_limit(-1)


def test_a_probe_is_fragmented_on_no_leg(rigs: Callable[[bytes], Rig]) -> None:
    """Loopback takes 65,488 octets over IPv6 in one piece, and more in fragments."""
    agent = rigs(AGENT)
    as_agent(agent.pump, endpoint_of(agent.far), endpoint_of(agent.far6))
    sender = OutboundSa(relay_sa(A_TO_H, HOST_A, AGENT, inbound=False))
    packet = nested(bytes(65_464 - 40))
    agent.to_pump(sender.seal(packet))
    assert len(agent.from_udp(agent.far6)) == 65_500
    agent.to_pump(sender.seal(packet[:3] + b"\x01" + packet[4:]))
    agent.until("drop_too_big", 1)
    agent.to_pump(sender.seal(nested(esp_packet())[:3] + b"\x01" + nested(esp_packet())[4:]))
    assert len(agent.from_udp(agent.far6)) < 200


def test_bad_relays_are_refused(rigs: Callable[[bytes], Rig]) -> None:
    pump = rigs(AGENT).pump
    with pytest.raises(ValueError, match="16 octets"):
        pump.set_relay(b"short", H_TO_A, ("192.0.2.1", 4500))
    for bad in (("host.example", 4500), ("192.0.2.1", 0)):
        with pytest.raises(ValueError, match=r"port|address"):
            pump.set_relay(HOST_A, H_TO_A, bad)
        with pytest.raises(ValueError, match=r"port|address"):
            pump.send_inner(H_TO_A, bad, ipv6(AGENT, HOST_A))


# --- The native pump does as the law does -------------------------------------------------------

ROUNDS, BATCH = 80, 30
RELAY_SAS = ((A_TO_H, HOST_A), (B_TO_H, HOST_B), (0xC001, HOST_C))


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
            packet = packet[:3] + b"\x01" + packet[4:]  # a probe
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
            pump.send_inner(spi, endpoint, packet)
            both.outputs += law.send_inner(spi, endpoint, packet, 1.0)
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
