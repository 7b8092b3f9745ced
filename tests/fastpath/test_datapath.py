"""The pure data path: every decision of the pump, one packet at a time."""

from __future__ import annotations

import pytest

from fastpath.reference.datapath import Datapath, Output, SendDatagram, WritePacket
from fastpath.reference.esp import InboundSa, OutboundSa
from fastpath.types import (
    SOFT_LIMIT_PACKETS,
    UNKNOWN_SPI_EVENTS_PER_SECOND,
    AcquireEvent,
    ControlEvent,
    Endpoint,
    LifetimeEvent,
    Mode,
    NewSourceEvent,
    Opened,
    UnknownSpiEvent,
)
from tests.fastpath.support import (
    OUR_ID,
    PEER_ID,
    SPI,
    STRANGER_ID,
    ipv6,
    params,
    tunnelled_in,
    tunnelled_out,
)

HOME: Endpoint = ("198.51.100.7", 4500)
CAFE: Endpoint = ("203.0.113.9", 31337)
PEER_PARAMS = params(local_id=PEER_ID, peer_id=OUR_ID)
IKE_HEADER = bytes(16) + bytes([33, 0x20, 34, 8]) + bytes(4) + (28).to_bytes(4, "big")
BARE_IKE = b"\x11" * 16 + IKE_HEADER[16:]


def datapath(mode: Mode = Mode.TUNNEL) -> Datapath:
    """With one SA each way (the same key: each direction is looked at alone)."""
    machine = Datapath(OUR_ID)
    machine.install_inbound(params(mode=mode))
    machine.install_outbound(params(mode=mode))
    machine.set_flow(PEER_ID, SPI, HOME)
    return machine


def sealed(payload: bytes, sequence: int = 1, next_header: int = 41) -> bytes:
    return OutboundSa(PEER_PARAMS, sequence - 1).seal(payload, next_header)


def written(outputs: list[Output]) -> list[bytes]:
    return [output.packet for output in outputs if isinstance(output, WritePacket)]


def test_a_packet_to_a_peer_leaves_sealed_for_its_endpoint() -> None:
    machine = datapath()
    [sent] = machine.outbound(tunnelled_out(), 5.0)
    assert isinstance(sent, SendDatagram)
    assert sent.endpoint == HOME
    assert InboundSa(PEER_PARAMS).open(sent.data) == Opened(tunnelled_out(), 41, 1)
    counters = machine.outbound_counters(SPI)
    assert counters is not None
    assert (counters.packets, counters.octets, counters.last_used) == (1, 45, 5.0)
    assert machine.counters()["tx_octets"] == 45


def test_a_packet_without_a_flow_is_handed_over_whole() -> None:
    machine = datapath()
    packet = ipv6(OUR_ID, STRANGER_ID)
    assert machine.outbound(packet) == [AcquireEvent(packet)]
    machine.clear_flow(PEER_ID)
    assert machine.outbound(tunnelled_out()) == [AcquireEvent(tunnelled_out())]
    assert machine.counters()["drop_no_flow"] == 2


def test_a_flow_whose_sa_is_gone_asks_again() -> None:
    machine = datapath()
    machine.remove_outbound(SPI)
    assert machine.outbound(tunnelled_out()) == [AcquireEvent(tunnelled_out())]


@pytest.mark.parametrize(
    ("packet", "drop"),
    [
        (ipv6(STRANGER_ID, PEER_ID), "drop_foreign_source"),
        (ipv6(OUR_ID, bytes.fromhex("ff02" + "00" * 13 + "02")), "drop_no_flow"),
        (
            ipv6(bytes.fromhex("fe80" + "11" * 14), bytes.fromhex("ff02" + "00" * 14)),
            "drop_no_flow",
        ),
        (ipv6(OUR_ID, bytes.fromhex("fe80" + "11" * 14)), "drop_no_flow"),
        (b"", "drop_malformed"),
        (tunnelled_out()[:39], "drop_malformed"),
        (b"\x45" + tunnelled_out()[1:], "drop_malformed"),
        (tunnelled_out() + b"more", "drop_malformed"),
    ],
)
def test_what_must_not_leave_is_counted(packet: bytes, drop: str) -> None:
    machine = datapath()
    assert machine.outbound(packet) == []
    assert machine.counters()[drop] == 1


@pytest.mark.parametrize(
    ("start", "asks"), [("fe7f", True), ("fe80", False), ("febf", False), ("fec0", True)]
)
def test_link_local_is_fe80_to_febf(start: str, asks: bool) -> None:
    """RFC 4291 §2.4: fe80::/10."""
    packet = ipv6(OUR_ID, bytes.fromhex(start + "11" * 14))
    assert datapath().outbound(packet) == ([AcquireEvent(packet)] if asks else [])


def test_a_packet_of_the_peer_is_written_whole() -> None:
    machine = datapath()
    outputs = machine.inbound(sealed(tunnelled_in()), HOME, 7.0)
    assert outputs == [NewSourceEvent(SPI, HOME), WritePacket(tunnelled_in())]
    counters = machine.inbound_counters(SPI)
    assert counters is not None
    assert (counters.packets, counters.octets, counters.last_used) == (1, 45, 7.0)


@pytest.mark.parametrize(
    ("inner", "next_header", "drop"),
    [
        (ipv6(STRANGER_ID, OUR_ID), 41, "drop_selector"),
        (ipv6(PEER_ID, STRANGER_ID), 41, "drop_selector"),
        (tunnelled_in(), 4, "drop_selector"),
        (tunnelled_in()[:-1], 41, "drop_malformed"),
        (tunnelled_in()[:39], 41, "drop_malformed"),
        (b"", 41, "drop_malformed"),
        (b"noise", 59, "drop_dummy"),
    ],
)
def test_authentic_but_not_of_this_sa(inner: bytes, next_header: int, drop: str) -> None:
    machine = datapath()
    assert written(machine.inbound(sealed(inner, 1, next_header), HOME)) == []
    assert machine.counters()[drop] == 1
    counters = machine.inbound_counters(SPI)
    assert counters is not None
    assert counters.drops == {drop.removeprefix("drop_"): 1}


def test_traffic_flow_padding_is_cut() -> None:
    """RFC 4303 §2.7: octets behind the inner packet's own length."""
    assert written(datapath().inbound(sealed(tunnelled_in() + bytes(99)), HOME)) == [tunnelled_in()]


def test_transport_mode_leaves_the_inner_header_away_and_restores_it() -> None:
    sender = Datapath(PEER_ID)
    sender.install_outbound(params(local_id=PEER_ID, peer_id=OUR_ID, mode=Mode.TRANSPORT))
    sender.set_flow(OUR_ID, SPI, CAFE)
    packet = ipv6(PEER_ID, OUR_ID, b"segment!", next_header=6)
    [sent] = sender.outbound(packet)
    assert isinstance(sent, SendDatagram)
    tunnel_octets = len(sealed(packet))
    assert len(sent.data) == tunnel_octets - 40
    assert written(datapath(Mode.TRANSPORT).inbound(sent.data, HOME)) == [packet]


def test_ike_comes_with_and_without_its_marker() -> None:
    machine = datapath()
    assert machine.inbound(bytes(4) + IKE_HEADER, CAFE) == [ControlEvent(IKE_HEADER, CAFE, True)]
    assert machine.inbound(BARE_IKE, CAFE) == [ControlEvent(BARE_IKE, CAFE, False)]


@pytest.mark.parametrize(("index", "value"), [(17, 0x10), (17, 0x30), (18, 33), (18, 45), (27, 29)])
def test_what_is_almost_ike_is_an_unknown_spi(index: int, value: int) -> None:
    almost = BARE_IKE[:index] + bytes([value]) + BARE_IKE[index + 1 :]
    assert datapath().inbound(almost, CAFE) == [UnknownSpiEvent(0x11111111, CAFE)]


def test_a_known_spi_goes_before_what_looks_like_ike() -> None:
    machine = datapath()
    machine.install_inbound(params(spi=0x11111111))
    assert machine.inbound(BARE_IKE, CAFE) == []
    assert machine.counters() == machine.counters() | {"drop_malformed": 1}


def test_keepalives_and_scraps_are_counted_only() -> None:
    machine = datapath()
    for scrap in (b"\xff", b"", b"\x00", b"\xff\xff", b"abc"):
        assert machine.inbound(scrap, CAFE) == []
    assert machine.counters()["drop_keepalive"] == 1
    assert machine.counters()["drop_malformed"] == 4


def test_unknown_spis_are_told_at_a_limited_rate() -> None:
    machine = datapath()
    flood = b"\x12\x34\x56\x78" + bytes(60)
    told = [machine.inbound(flood, CAFE, 10.0 + n / 1000) for n in range(100)]
    assert told.count([UnknownSpiEvent(0x12345678, CAFE)]) == UNKNOWN_SPI_EVENTS_PER_SECOND
    assert machine.counters()["drop_unknown_spi"] == 100
    assert machine.inbound(flood, CAFE, 11.1) == [UnknownSpiEvent(0x12345678, CAFE)]


def test_only_the_newest_authentic_packet_moves_the_source() -> None:
    """ikev2_esp §14: an old packet from elsewhere does not move the endpoint."""
    machine = datapath()
    first, late, newest = (sealed(tunnelled_in(), number) for number in (1, 2, 3))
    assert machine.inbound(first, HOME)[0] == NewSourceEvent(SPI, HOME)
    assert machine.inbound(newest, CAFE)[0] == NewSourceEvent(SPI, CAFE)
    assert machine.inbound(late, HOME) == [WritePacket(tunnelled_in())]
    assert machine.inbound(first, ("192.0.2.66", 4500)) == [], "a replay says nothing"
    forged = bytes([*sealed(tunnelled_in(), 4)[:-1], 0])
    assert machine.inbound(forged, ("192.0.2.66", 4500)) == []
    assert machine.inbound(sealed(tunnelled_in(), 5), CAFE) == [WritePacket(tunnelled_in())]


def test_a_dummy_moves_the_source_too() -> None:
    """That is what a host sends from its new place when it has nothing else to say."""
    assert datapath().inbound(sealed(b"", 1, 59), CAFE) == [NewSourceEvent(SPI, CAFE)]


def test_a_dummy_is_sent_on_request() -> None:
    machine = datapath()
    [sent] = machine.dummy(SPI, CAFE)
    assert isinstance(sent, SendDatagram)
    assert sent.endpoint == CAFE
    assert datapath().inbound(sent.data, CAFE) == [NewSourceEvent(SPI, CAFE)]
    assert machine.counters()["tx_packets"] == 0
    assert machine.dummy(0x9999, CAFE) == []


def test_a_new_sa_is_asked_for_once_before_the_numbers_end() -> None:
    machine = datapath()
    machine._outbound[SPI].sa.sequence = SOFT_LIMIT_PACKETS - 2
    assert LifetimeEvent(SPI) not in machine.outbound(tunnelled_out())
    assert LifetimeEvent(SPI) in machine.outbound(tunnelled_out())
    assert LifetimeEvent(SPI) not in machine.outbound(tunnelled_out())


def test_an_exhausted_sa_drops_and_counts() -> None:
    machine = datapath()
    machine._outbound[SPI].sa.sequence = 2**64 - 1
    assert machine.outbound(tunnelled_out()) == [LifetimeEvent(SPI)]
    assert machine.outbound(tunnelled_out()) == []
    assert machine.counters()["drop_sequence_exhausted"] == 2


def test_replacing_an_sa_starts_its_window_and_counters_anew() -> None:
    machine = datapath()
    machine.inbound(sealed(tunnelled_in()), HOME)
    machine.install_inbound(params())
    assert written(machine.inbound(sealed(tunnelled_in()), HOME)) == [tunnelled_in()]
    counters = machine.inbound_counters(SPI)
    assert counters is not None
    assert counters.packets == 1


def test_a_removed_sa_is_gone() -> None:
    machine = datapath()
    machine.remove_inbound(SPI)
    machine.remove_inbound(SPI)
    assert machine.inbound(sealed(tunnelled_in()), HOME) == [UnknownSpiEvent(SPI, HOME)]
    assert machine.inbound_counters(SPI) is None


def test_a_packet_that_no_datagram_can_carry_is_too_big() -> None:
    machine = datapath()
    assert machine.outbound(tunnelled_out(bytes(65_495))) == []
    assert machine.counters()["drop_too_big"] == 1
