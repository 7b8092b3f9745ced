"""Mobility Headers in the pure data path: to the control plane and from it, never TUN's."""

from __future__ import annotations

import pytest

from fastpath.reference.datapath import Datapath
from fastpath.reference.esp import OutboundSa
from fastpath.types import MOBILITY_EVENTS_PER_SECOND, MobilityEvent, Mode, NewSourceEvent
from tests.fastpath.relays import (
    A_TO_B,
    AT_A,
    AT_B,
    AT_H,
    HOST_A,
    HOST_B,
    HOST_C,
    MESSAGE,
    MOBILITY,
    relay_endpoint,
    sa,
)
from tests.fastpath.support import ipv6
from tests.fastpath.test_relay import home_agent, host_a, host_b, sent


def mobile(traffic_mode: Mode = Mode.TRANSPORT) -> tuple[Datapath, Datapath]:
    """A and B with a mobility SA from A to B, and the relay between them."""
    a, b = host_a(), host_b()
    a.install_outbound(
        sa(0xAB35, HOST_A, HOST_B, inbound=False, mode=traffic_mode, traffic=MOBILITY)
    )
    b.install_inbound(sa(0xAB35, HOST_A, HOST_B, inbound=True, mode=traffic_mode, traffic=MOBILITY))
    return a, b


@pytest.mark.parametrize("mode", list(Mode))
def test_a_mobility_message_goes_to_its_endpoint_and_tells_where_it_came_from(mode: Mode) -> None:
    """I30, I34: addresses are handed to and from the control plane beside the message."""
    a, b = mobile(mode)
    [datagram] = sent(a.send_inner(0xAB35, AT_B, ipv6(HOST_A, HOST_B, MESSAGE, 135)))
    assert datagram.endpoint == AT_B
    outputs = b.inbound(datagram.data, AT_A)
    assert outputs == [NewSourceEvent(0xAB35, AT_A), MobilityEvent(0xAB35, AT_A, MESSAGE)]
    assert a.counters()["tx_packets"] == b.counters()["rx_packets"] == 1


def test_a_mobility_message_comes_nested_too() -> None:
    a, b = mobile()
    packet = ipv6(HOST_A, HOST_B, MESSAGE, 135)
    [first] = sent(a.send_inner(0xAB35, relay_endpoint(HOST_B), packet))
    assert first.endpoint == AT_H
    [second] = sent(home_agent().inbound(first.data, AT_A))
    outputs = b.inbound(second.data, AT_H)
    assert outputs[-1] == MobilityEvent(0xAB35, relay_endpoint(HOST_A), MESSAGE)


def test_a_mobility_message_in_a_data_sa_never_reaches_tun() -> None:
    sender = OutboundSa(sa(A_TO_B, HOST_A, HOST_B, inbound=False))
    outputs = host_b().inbound(sender.seal(ipv6(HOST_A, HOST_B, MESSAGE, 135)), AT_A)
    assert outputs[-1] == MobilityEvent(A_TO_B, AT_A, MESSAGE)


@pytest.mark.parametrize(
    ("payload", "next_header"),
    [
        (MESSAGE[:7], 135),
        (bytes(1281), 135),
        (bytes([135, 0, 1, 4, 0, 0, 0, 0]) + MESSAGE, 60),
        (bytes([135, 0, 0, 1, 0, 0, 0, 9]) + MESSAGE, 44),
        (bytes([135, 0, 0, 8, 0, 0, 0, 9]) + MESSAGE, 44),
    ],
    ids=["short", "long", "options", "fragment", "later-fragment"],
)
def test_a_mobility_message_in_another_form_is_malformed(payload: bytes, next_header: int) -> None:
    sender = OutboundSa(sa(A_TO_B, HOST_A, HOST_B, inbound=False))
    machine = host_b()
    outputs = machine.inbound(sender.seal(ipv6(HOST_A, HOST_B, payload, next_header)), AT_A)
    assert outputs == [NewSourceEvent(A_TO_B, AT_A)]
    assert machine.counters()["drop_malformed"] == 1


def test_the_longest_mobility_message_passes() -> None:
    a, b = mobile()
    [datagram] = sent(a.send_inner(0xAB35, AT_B, ipv6(HOST_A, HOST_B, bytes(1280), 135)))
    assert MobilityEvent(0xAB35, AT_A, bytes(1280)) in b.inbound(datagram.data, AT_A)


def test_mobility_messages_of_one_sa_are_told_at_a_limited_rate() -> None:
    a, b = mobile()
    told = 0
    for _ in range(100):
        [datagram] = sent(a.send_inner(0xAB35, AT_B, ipv6(HOST_A, HOST_B, MESSAGE, 135)))
        outputs = b.inbound(datagram.data, AT_A, 5.0)
        told += any(isinstance(output, MobilityEvent) for output in outputs)
    assert told == MOBILITY_EVENTS_PER_SECOND
    assert b.counters()["drop_queue_full"] == 100 - told


def test_applications_send_no_mobility_messages() -> None:
    machine = host_a()
    assert machine.outbound(ipv6(HOST_A, HOST_B, MESSAGE, 135)) == []
    behind = bytes([135, 0, 1, 4, 0, 0, 0, 0]) + MESSAGE
    assert machine.outbound(ipv6(HOST_A, HOST_B, behind, 60)) == []
    assert machine.counters()["drop_no_flow"] == 2


@pytest.mark.parametrize(
    ("spi", "packet", "reason"),
    [
        (0x9999, ipv6(HOST_A, HOST_B), "no_flow"),
        (A_TO_B, ipv6(HOST_B, HOST_A), "foreign_source"),
        (A_TO_B, ipv6(HOST_A, HOST_C), "selector"),
        (A_TO_B, ipv6(HOST_A, HOST_B)[:-1], "malformed"),
    ],
)
def test_send_inner_sends_only_what_is_of_the_sa(spi: int, packet: bytes, reason: str) -> None:
    machine = host_a()
    assert machine.send_inner(spi, AT_B, packet) == []
    assert machine.counters()[f"drop_{reason}"] == 1


def test_send_inner_to_a_host_id_without_a_way_is_dropped() -> None:
    machine = host_a()
    machine.clear_relay(HOST_B)
    assert machine.send_inner(A_TO_B, relay_endpoint(HOST_B), ipv6(HOST_A, HOST_B)) == []
    assert machine.counters()["drop_not_relayed"] == 1
