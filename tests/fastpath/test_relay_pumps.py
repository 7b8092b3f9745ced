"""Relaying in both pumps, and the native one held to the law, octet by octet."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

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
)
from tests.fastpath.relays import (
    A_TO_B,
    A_TO_H,
    AGENT,
    B_TO_A,
    B_TO_H,
    FIRST_WORD,
    FORGED,
    H_TO_A,
    H_TO_B,
    HOST_A,
    HOST_B,
    HOST_C,
    HOSTILE,
    IKE,
    MESSAGE,
    as_probe,
    esp_packet,
    nested,
    relay_endpoint,
    relay_sa,
    sa,
)
from tests.fastpath.support import ipv6, native_module
from tests.fastpath.test_pump_conformance import WAYS, Rig, endpoint_of, readable, udp
from tunnel.io.portable_pump import PortablePump


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
    ("packet", "reason"),
    [h[1:] for h in HOSTILE + FORGED],
    ids=[h[0] for h in HOSTILE + FORGED],
)
def test_hostile_nested_packets_go_nowhere(
    rigs: Callable[[bytes], Rig], packet: bytes, reason: str
) -> None:
    agent = rigs(AGENT)
    as_agent(agent.pump, endpoint_of(agent.far), endpoint_of(agent.far))
    agent.to_pump(OutboundSa(relay_sa(A_TO_H, HOST_A, AGENT, inbound=False)).seal(packet))
    agent.until(f"drop_{reason}", 1)
    assert not readable(agent.far.fileno(), 0)


def test_two_home_agents_that_point_at_each_other_do_not_loop(
    rigs: Callable[[bytes], Rig],
) -> None:
    """What one forwards to the other has a source that is not the other's peer."""
    first, second = rigs(AGENT), rigs(HOST_C)
    at_first, at_second = (endpoint_of(rig.near_udp) for rig in (first, second))
    as_agent(first.pump, endpoint_of(first.far), endpoint_of(first.far))
    for rig, spi, other, at in (
        (first, 0xCC01, HOST_C, at_second),
        (second, 0xCC02, AGENT, at_first),
    ):
        ours = AGENT if rig is first else HOST_C
        rig.pump.install_outbound(relay_sa(spi, ours, other, inbound=False))
        rig.pump.install_inbound(relay_sa(0xCC01 ^ 0xCC02 ^ spi, other, ours, inbound=True))
        rig.pump.set_relay(HOST_B, spi, at, True)
    sender = OutboundSa(relay_sa(A_TO_H, HOST_A, AGENT, inbound=False))
    for _ in range(5):
        first.to_pump(sender.seal(nested(esp_packet())))
    second.until("drop_foreign_source", 5)
    assert first.pump.counters()["relayed_packets"] == 5
    assert second.pump.counters()["relayed_packets"] == 0
    assert "drop_foreign_source" not in first.pump.counters(), "nothing came back"


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
    agent.to_pump(sender.seal(as_probe(packet)))
    agent.until("drop_too_big", 1)
    agent.to_pump(sender.seal(as_probe(nested(esp_packet()))))
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
