"""Who has keys, or stands on the way, lies about where packets come from: both engines see it.

Beside ``test_relay_pumps.py`` (what nested packets are) and ``test_fuzz_relay.py`` (any octets).
"""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Callable
from ipaddress import IPv6Address

import pytest

from fastpath.reference.esp import OutboundSa
from fastpath.reference.relay import Limit
from fastpath.types import (
    NEW_SOURCE_EVENTS_PER_SECOND,
    RELAYED_PROBES_PER_SECOND,
    RELAYS_REMEMBERED,
    ControlEvent,
    MobilityEvent,
    NewSourceEvent,
)
from tests.fastpath.relays import (
    A_TO_B,
    A_TO_H,
    AGENT,
    B_TO_A,
    B_TO_H,
    H_TO_B,
    HOST_A,
    HOST_B,
    HOST_C,
    IKE,
    MESSAGE,
    as_probe,
    esp_packet,
    nested,
    relay_endpoint,
    relay_sa,
    sa,
)
from tests.fastpath.support import ipv6
from tests.fastpath.test_pump_conformance import PATIENCE, Rig, endpoint_of, readable, udp
from tests.fastpath.test_relay_pumps import as_agent, as_host, event_of, maker, rigs

__all__ = ["rigs"]

IPV6_FREEBIND = 78  # Linux: send from an address that is not ours


def host_b(rigs: Callable[[bytes], Rig]) -> Rig:
    """B, which reaches A through the home agent."""
    rig = rigs(HOST_B)
    as_host(rig.pump, HOST_B, HOST_A, (B_TO_H, H_TO_B, B_TO_A, A_TO_B), endpoint_of(rig.far))
    return rig


def test_a_home_agent_cannot_pass_a_packet_off_as_another_hosts(
    rigs: Callable[[bytes], Rig],
) -> None:
    """What is sealed by A comes from A's relay endpoint or not at all; so nobody is followed to
    the relay endpoint of a third one, and no binding is made there. No key is touched before."""
    rig = host_b(rigs)
    agent = OutboundSa(relay_sa(H_TO_B, AGENT, HOST_B, inbound=False))
    inner = OutboundSa(sa(A_TO_B, HOST_A, HOST_B, inbound=False))
    data = inner.seal(ipv6(HOST_A, HOST_B, b"data"))
    said = inner.seal(ipv6(HOST_A, HOST_B, MESSAGE, 135))
    for packet in (data, said):
        rig.to_pump(agent.seal(nested(packet, source=HOST_C)))
    rig.until("drop_foreign_source", 2)
    told = [event.spi for event in rig.pump.drain() if isinstance(event, NewSourceEvent)]
    assert told == [H_TO_B], "of the relay SA alone"
    for packet in (data, said):
        rig.to_pump(agent.seal(nested(packet)))
    assert rig.from_tun() == ipv6(HOST_A, HOST_B, b"data")
    assert event_of(rig, MobilityEvent) == MobilityEvent(A_TO_B, relay_endpoint(HOST_A), MESSAGE)


@pytest.mark.parametrize("source", [HOST_A, HOST_B, AGENT], ids=["relayed", "ours", "unknown"])
def test_a_host_id_is_no_outer_source(rigs: Callable[[bytes], Rig], source: bytes) -> None:
    """Somebody on the way sends a packet on from the address that is a host id: it would seem to
    have come by relay. A ULA that is nobody's host id is an address as any other."""
    rig = host_b(rigs)
    inner = OutboundSa(sa(A_TO_B, HOST_A, HOST_B, inbound=False))
    data = inner.seal(ipv6(HOST_A, HOST_B, b"data"))
    forged = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    forged.setsockopt(socket.IPPROTO_IPV6, IPV6_FREEBIND, 1)
    with forged:
        forged.bind((str(IPv6Address(source)), 0))
        for octets in (data, bytes(4) + IKE, IKE, b"\xff"):
            forged.sendto(octets, rig.near_udp6.getsockname())
        if source == AGENT:
            assert rig.from_tun() == ipv6(HOST_A, HOST_B, b"data")
            told = event_of(rig, ControlEvent)
            assert isinstance(told, ControlEvent)
            assert told.source[0] == str(IPv6Address(source))
            return
        rig.until("drop_foreign_source", 4)
    assert rig.pump.drain() == []
    rig.far6.sendto(data, rig.near_udp6.getsockname())
    assert rig.from_tun() == ipv6(HOST_A, HOST_B, b"data")


@pytest.mark.parametrize("engine", ["reference", "native"])
def test_a_way_that_comes_and_goes_stays_known(engine: str) -> None:
    """A home agent that is there one moment and gone the next does not make us forget that a host
    id is no outer address, however often (I50)."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with near, far, udp() as only4:
        near.setblocking(False)
        pump = maker(engine)(near.fileno(), only4.fileno(), None, HOST_A)
        for _ in range(RELAYS_REMEMBERED + 10):
            pump.set_relay(HOST_B, B_TO_H, ("192.0.2.1", 4500))
            pump.clear_relay(HOST_B)
        pump.send(IKE, relay_endpoint(HOST_B))
        assert pump.counters().get("drop_not_relayed") == 1
        others = [HOST_B[:8] + number.to_bytes(8) for number in range(RELAYS_REMEMBERED)]
        for host in others:
            pump.set_relay(host, B_TO_H, ("192.0.2.1", 4500))
            pump.clear_relay(host)
        pump.send(IKE, relay_endpoint(HOST_B))
        counters = pump.counters()
        assert counters["drop_not_relayed"] == 1, "it was the oldest of too many"
        assert counters["drop_udp_send"] == 1
        pump.stop()


def test_times_out_of_order_are_worth_no_more() -> None:
    """Several threads ask for the limit, each with the time at which its batch began."""
    limit, passed = Limit(1_000_000), 0
    assert limit.allows(100_000, 0.0), "what may pass at once"
    for step in range(1000):
        for now in (step / 1000, (step - 5) / 1000):
            passed += sum(limit.allows(100, now) for _ in range(20))
    assert passed * 100 <= 1_000_000


def test_a_peer_in_two_places_at_once_fills_no_queue(rigs: Callable[[bytes], Rig]) -> None:
    """Packets that come from two places by turns, as somebody on the way can bring about without
    any key: each is the newest from another place. In the end it is told where the last came."""
    rig = host_b(rigs)
    inner = OutboundSa(sa(A_TO_B, HOST_A, HOST_B, inbound=False))
    other, began = udp(), time.monotonic()
    with other:
        for _ in range(200):
            for far in (rig.far, other):
                far.sendto(inner.seal(ipv6(HOST_A, HOST_B)), rig.near_udp.getsockname())
            assert rig.from_tun() == rig.from_tun()
        told = [event for event in rig.pump.drain() if isinstance(event, NewSourceEvent)]
        seconds = math.ceil(time.monotonic() - began) + 1  # however slow the machine is
        # Of two packets that come together only the newer is looked at: there may be few.
        assert 0 < len(told) <= NEW_SOURCE_EVENTS_PER_SECOND * seconds
        while True:
            rig.far6.sendto(inner.seal(ipv6(HOST_A, HOST_B)), rig.near_udp6.getsockname())
            rig.from_tun()
            found = [event for event in rig.pump.drain() if isinstance(event, NewSourceEvent)]
            if found:
                break
        assert found == [NewSourceEvent(A_TO_B, endpoint_of(rig.far6))]


def test_a_host_whose_packets_are_all_probes_is_slowed_down_alone(
    rigs: Callable[[bytes], Rig],
) -> None:
    """The home agent sends so many of them by themselves; what is above is lost, and neither other
    packets of that host nor other hosts are."""
    rig = rigs(AGENT)
    as_agent(rig.pump, endpoint_of(rig.far), endpoint_of(rig.far6))
    at_a = OutboundSa(relay_sa(A_TO_H, HOST_A, AGENT, inbound=False))
    at_b = OutboundSa(relay_sa(B_TO_H, HOST_B, AGENT, inbound=False))
    probes, began = 4 * RELAYED_PROBES_PER_SECOND, time.monotonic()
    for count in range(1, probes + 1):
        rig.to_pump(at_a.seal(as_probe(nested(esp_packet()))))
        if count % 32 == 0:  # what any socket has room for
            until_done(rig, count)
    seconds = int(time.monotonic() - began) + 1  # windows that may have begun
    passed = rig.pump.counters()["relayed_packets"]
    assert RELAYED_PROBES_PER_SECOND <= passed <= RELAYED_PROBES_PER_SECOND * seconds
    rig.to_pump(at_a.seal(nested(esp_packet())))
    rig.until("relayed_packets", passed + 1)
    rig.to_pump(at_b.seal(as_probe(nested(esp_packet(), source=HOST_B, destination=HOST_A))))
    rig.until("relayed_packets", passed + 2)


def until_done(rig: Rig, count: int) -> None:
    """Waits until the pump has forwarded or refused so many packets."""
    deadline = time.monotonic() + PATIENCE
    while True:
        counters = rig.pump.counters()
        if counters["relayed_packets"] + counters.get("drop_relay_limit", 0) == count:
            return
        assert time.monotonic() < deadline, counters
        readable(rig.pump.event_fd(), 0.002)
