"""What both pumps do about sizes: flows that know their MTU, probes, and what applications hear."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet6 import IPv6, defragment6

from fastpath.reference import inner
from fastpath.reference.segment import cut
from fastpath.types import (
    DUMMY_EVENTS_PER_SECOND,
    DUMMY_HEAD_OCTETS,
    MINIMUM_MTU,
    QUOTE_OCTETS,
    TOO_BIG_EVENTS_PER_SECOND,
    Drop,
    DummyEvent,
    Mode,
    NewSourceEvent,
    Opened,
    TooBigEvent,
)
from tests.fastpath.inner_flows import large, tcp, udp
from tests.fastpath.support import OUR_ID, PEER_ID, SPI, UNHURRIED, ipv6
from tests.fastpath.test_native_merge import VnetRig
from tests.fastpath.test_pump_conformance import Rig, endpoint_of, make_pump, readable, rig, way

__all__ = ["make_pump", "rig", "way"]  # fixtures

IP_MTU_DISCOVER, IP_RECVERR = 10, 11


def packet_of(octets: int, seed: int = 0) -> bytes:
    return ipv6(OUR_ID, PEER_ID, random.Random(seed).randbytes(octets - 40), 17)


# --- Splitting (RFC 8200 §4.5) ------------------------------------------------------------------


@UNHURRIED
@given(octets=st.integers(41, 9000), mtu=st.integers(256, 1500), identification=st.integers(0, 99))
def test_pieces_fit_and_join_to_the_packet(octets: int, mtu: int, identification: int) -> None:
    packet = packet_of(octets)
    pieces = inner.split(packet, mtu, identification)
    assert all(len(piece) <= mtu and inner.is_ipv6(piece) for piece in pieces)
    if len(pieces) == 1:
        assert pieces == [packet]
    else:
        assert bytes(defragment6([IPv6(piece) for piece in pieces])) == packet


def test_a_fragment_becomes_smaller_fragments_of_the_same_packet() -> None:
    packet = packet_of(4000)
    pieces = [
        small for piece in inner.split(packet, 1280, 7) for small in inner.split(piece, 600, 8)
    ]
    assert len(pieces) > 6
    assert {piece[44:48] for piece in pieces} == {(7).to_bytes(4)}
    assert bytes(defragment6([IPv6(piece) for piece in pieces])) == packet


@pytest.mark.parametrize("kind", [0, 43, 60])
def test_other_extension_headers_are_left_whole(kind: int) -> None:
    packet = ipv6(OUR_ID, PEER_ID, bytes(1300), kind)
    assert inner.split(packet, 600, 1) == [packet]


@pytest.mark.parametrize("mode", list(Mode))
def test_both_pumps_split_as_the_law_has_it(rig: Rig, mode: Mode) -> None:
    rig.with_sas(mode=mode)
    rig.pump.set_flow(PEER_ID, SPI + 1, endpoint_of(rig.far), 700, 9000)
    packets = [packet_of(octets, octets) for octets in (700, 701, 1280, 8999)]
    packets.append(inner.split(packets[3], 1280, 99)[1])
    packets.append(ipv6(OUR_ID, PEER_ID, bytes(1300), 60))
    splits = 0
    for packet in packets:
        rig.tun.send(packet)
        splits += len(packet) > 700
        for piece in inner.split(packet, 700, splits):
            payload, kind = inner.wrap(rig.outbound, piece)
            opened = rig.peer_in.open(rig.from_udp())
            assert isinstance(opened, Opened)
            assert (opened.payload, opened.next_header) == (payload, kind)
    counters = rig.pump.counters()
    assert counters["tx_packets"] == len(packets)
    assert counters["tx_octets"] == sum(map(len, packets))


# --- Too big (RFC 4443 §3.2) --------------------------------------------------------------------


def test_what_is_larger_than_the_largest_is_told_and_not_sent(rig: Rig) -> None:
    rig.with_sas()
    rig.pump.set_flow(PEER_ID, SPI + 1, endpoint_of(rig.far), 1338, 1338)
    packet = packet_of(1339)
    rig.tun.send(packet)
    assert rig.events() == [TooBigEvent(packet[:QUOTE_OCTETS], 1338)]
    rig.until("drop_too_big", 1)
    rig.tun.send(packet_of(1338))
    assert isinstance(rig.peer_in.open(rig.from_udp()), Opened)
    counters = rig.pump.outbound_counters(SPI + 1)
    assert counters is not None
    assert (counters.packets, counters.drops) == (1, {"too_big": 1})


def test_it_is_told_at_a_limited_rate_and_always_counted(rig: Rig) -> None:
    rig.with_sas()
    rig.pump.set_flow(PEER_ID, SPI + 1, endpoint_of(rig.far), 1280, 1280)
    for _ in range(100):
        rig.pump.inject(packet_of(1400))
    assert rig.pump.counters()["drop_too_big"] == 100
    assert 1 <= len(rig.events()) <= 3 * TOO_BIG_EVENTS_PER_SECOND


@pytest.mark.parametrize(("mtu", "largest"), [(255, 1280), (1280, 1279), (0, 0)])
def test_no_flow_refuses_what_ipv6_promises(rig: Rig, mtu: int, largest: int) -> None:
    with pytest.raises(ValueError, match=str(MINIMUM_MTU)):
        rig.pump.set_flow(PEER_ID, SPI + 1, endpoint_of(rig.far), mtu, largest)


# --- Probes (RFC 8899, RFC 4303 §2.6) -----------------------------------------------------------


@pytest.mark.parametrize("whole", [False, True])
def test_a_dummy_packet_carries_a_body(rig: Rig, whole: bool) -> None:
    rig.with_sas()
    for octets in (1, 16, 514, 1282, 1402, 9002):
        body = bytes(range(256)) * 36
        rig.pump.send_dummy(SPI + 1, endpoint_of(rig.far), body[:octets], whole)
        datagram = rig.from_udp()
        assert len(datagram) == 34 + octets + -(octets + 2) % 4
        assert rig.peer_in.open(datagram) is Drop.DUMMY
    assert rig.pump.counters()["tx_packets"] == 0, "no traffic"


@pytest.mark.parametrize("mode", list(Mode))
def test_a_body_that_comes_is_told_by_its_head_and_size(rig: Rig, mode: Mode) -> None:
    rig.with_sas(mode=mode)
    rig.to_pump(rig.peer_out.seal(b"", 59))
    assert rig.events() == [NewSourceEvent(SPI, endpoint_of(rig.far))]
    for octets in (1, DUMMY_HEAD_OCTETS, 1402):
        body = random.Random(octets).randbytes(octets)
        rig.to_pump(rig.peer_out.seal(body, 59))
        assert rig.events() == [DummyEvent(SPI, octets, body[:DUMMY_HEAD_OCTETS])]
    rig.until("drop_dummy", 4)
    assert rig.pump.counters()["rx_packets"] == 0


def test_bodies_are_told_at_a_limited_rate(rig: Rig) -> None:
    rig.with_sas()
    for number in range(5 * DUMMY_EVENTS_PER_SECOND):
        rig.to_pump(rig.peer_out.seal(b"x" * 16, 59))
        rig.until("drop_dummy", number + 1)
    told = [event for event in rig.pump.drain() if isinstance(event, DummyEvent)]
    assert DUMMY_EVENTS_PER_SECOND <= len(told) <= 4 * DUMMY_EVENTS_PER_SECOND


def test_only_probes_set_the_socket_otherwise(rig: Rig) -> None:
    """Each probe sets it back to what the owner of the socket wanted."""
    rig.with_sas()
    usual = 5  # IP_PMTUDISC_OMIT
    rig.near_udp.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, usual)
    rig.pump.send_dummy(SPI + 1, endpoint_of(rig.far), bytes(100), True)
    rig.from_udp()
    assert rig.near_udp.getsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER) == usual


def test_a_probe_larger_than_our_own_link_is_lost_and_data_is_not(rig: Rig) -> None:
    """The MTU of loopback is 65,536: a datagram of 65,507 is the largest, and 65,535 is none."""
    rig.with_sas()
    rig.pump.send_dummy(SPI + 1, endpoint_of(rig.far), bytes(65_500), True)
    assert rig.pump.counters()["drop_too_big"] == 1
    rig.pump.send_dummy(SPI + 1, endpoint_of(rig.far), bytes(65_000), True)
    assert len(rig.from_udp()) == 65_036


# --- Large frames (TSO, USO) --------------------------------------------------------------------


@pytest.fixture
def vnet_rig() -> Iterator[VnetRig]:
    rig = VnetRig()
    rig.pump.start()
    yield rig
    rig.close()


def opened(rig: VnetRig, count: int) -> list[bytes]:
    """The next inner packets that leave."""
    packets = []
    for _ in range(count):
        assert readable(rig.far.fileno()), rig.pump.counters()
        one = rig.peer_in.open(rig.far.recv(70_000))
        assert isinstance(one, Opened)
        packets.append(one.payload)
    return packets


@pytest.mark.parametrize("mtu", [600, 1238, 1338, 1400])
def test_tcp_is_cut_to_the_mtu_of_its_own_flow(vnet_rig: VnetRig, mtu: int) -> None:
    """Below 1280, too: a segment may be of any size, so bulk data needs no fragments."""
    vnet_rig.pump.set_flow(PEER_ID, SPI + 1, vnet_rig.far.getsockname(), mtu, max(mtu, 1280))
    whole = tcp(random.Random(mtu).randbytes(20_000), source=OUR_ID, destination=PEER_ID)
    frame = large(whole, 1328)
    expected = cut(frame, mtu)
    assert max(map(len, expected)) == mtu
    vnet_rig.tun.send(frame)
    assert opened(vnet_rig, len(expected)) == expected


def test_datagrams_of_a_run_that_are_too_large_are_told_of(vnet_rig: VnetRig) -> None:
    vnet_rig.pump.set_flow(PEER_ID, SPI + 1, vnet_rig.far.getsockname(), 1300, 1300)
    run = udp(bytes(5 * 1300), source=OUR_ID, destination=PEER_ID)
    vnet_rig.tun.send(large(run, 1300))
    assert readable(vnet_rig.pump.event_fd())
    (event, *_) = vnet_rig.pump.drain()
    assert event == TooBigEvent(cut(large(run, 1300), 1400)[0][:QUOTE_OCTETS], 1300)
    vnet_rig.tun.send(large(run, 1252))
    assert opened(vnet_rig, 6) == cut(large(run, 1252), 1300)
