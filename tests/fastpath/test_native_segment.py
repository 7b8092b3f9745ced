"""Cutting large frames: native == reference octet for octet, and scapy agrees (issue 3, TSO)."""

from __future__ import annotations

import random
from typing import Any

import pytest
from scapy.layers.inet import TCP, UDP
from scapy.layers.inet6 import IPv6

from fastpath.reference import segment as reference
from fastpath.reference.segment import GSO_TCPV6, NEEDS_CSUM, Vnet
from tests.fastpath.inner_flows import ACK, CWR, FIN, PSH, TIMESTAMPS, icmp, large, tcp, udp
from tests.fastpath.support import native_module

MTU = 1400


@pytest.fixture(params=["reference", "native"])
def cut(request: pytest.FixtureRequest) -> Any:
    return reference.cut if request.param == "reference" else native_module("_segment").cut


def judged(packet: bytes) -> IPv6:
    """The packet as scapy reads it, whose checksum must be the one that scapy computes."""
    seen = IPv6(packet)
    again = IPv6(packet)
    layer = TCP if TCP in again else UDP
    del again[layer].chksum
    assert IPv6(bytes(again))[layer].chksum == seen[layer].chksum
    assert seen.plen == len(packet) - 40
    return seen


def test_a_large_tcp_frame_becomes_packets_of_the_mtu(cut: Any) -> None:
    payload = random.Random(1).randbytes(60_001)
    frame = large(tcp(payload, 0xFFFF_F000, flags=ACK | PSH | FIN | CWR), 1328)
    packets = [judged(packet) for packet in cut(frame, MTU)]
    assert b"".join(bytes(packet[TCP].payload) for packet in packets) == payload
    assert [len(packet) for packet in packets[:-1]] == [1400] * 45
    assert [packet[TCP].seq for packet in packets] == [
        (0xFFFF_F000 + 1328 * number) % 2**32 for number in range(46)
    ]
    flags = [int(packet[TCP].flags) for packet in packets]
    assert flags == [ACK | CWR, *[ACK] * 44, ACK | PSH | FIN]


def test_a_smaller_mtu_cuts_tcp_smaller_than_the_kernel_asked(cut: Any) -> None:
    payload = bytes(range(256)) * 40
    packets = [judged(packet) for packet in cut(large(tcp(payload), 8000), 1280)]
    assert max(len(packet) for packet in packets) == 1280
    assert b"".join(bytes(packet[TCP].payload) for packet in packets) == payload


def test_datagrams_keep_their_borders(cut: Any) -> None:
    packets = [judged(packet) for packet in cut(large(udp(b"abcdefgh" * 11), 30), MTU)]
    assert [bytes(packet[UDP].payload) for packet in packets] == [
        (b"abcdefgh" * 11)[at : at + 30] for at in (0, 30, 60)
    ]
    assert [packet[UDP].len for packet in packets] == [38, 38, 36]


@pytest.mark.parametrize("packet", [tcp(b"odd"), tcp(b""), udp(b"x"), udp(b"")])
def test_a_partial_checksum_is_completed(cut: Any, packet: bytes) -> None:
    frame = large(packet, 0)
    assert cut(frame, MTU) == [packet]


def test_a_udp_checksum_is_never_zero(cut: Any) -> None:
    """RFC 8200 §8.1: 0 would say that there is none."""
    found = next(
        packet
        for packet in (udp(number.to_bytes(2, "big")) for number in range(65536))
        if packet[46:48] == b"\xff\xff"
    )
    assert cut(large(found, 0), MTU) == [found]
    assert cut(large(found, 2), MTU) == [found]


def test_a_plain_packet_is_passed_as_it_is(cut: Any) -> None:
    for packet in (tcp(b"hello"), icmp(b"ping"), b"rubbish", b""):
        assert cut(bytes(10) + packet, MTU) == [packet]


GOOD = tcp(b"x" * 4000)
BAD_FRAMES = {
    "no virtio header": bytes(9),
    "unknown GSO type": Vnet(NEEDS_CSUM, 1, 0, 100, 40, 16).pack() + GOOD,
    "no segment size": Vnet(NEEDS_CSUM, GSO_TCPV6, 0, 0, 40, 16).pack() + GOOD,
    "upper layer inside IPv6": Vnet(NEEDS_CSUM, GSO_TCPV6, 0, 100, 39, 16).pack() + GOOD,
    "upper layer behind the end": Vnet(NEEDS_CSUM, GSO_TCPV6, 0, 100, 4070, 16).pack() + GOOD,
    "another length": large(GOOD, 100) + b"x",
    "not IPv6": Vnet(NEEDS_CSUM, GSO_TCPV6, 0, 100, 40, 16).pack() + b"\x45" + GOOD[1:],
    "data offset too small": large(GOOD[:52] + b"\x40" + GOOD[53:], 100),
    "data offset behind the end": large(tcp(b"", options=b"")[:52] + b"\xf0" + bytes(7), 100),
    "headers of the MTU": large(tcp(b"x" * 3000, options=b"\x01" * 40), 100),
    "checksum behind the end": Vnet(NEEDS_CSUM, 0, 0, 0, len(GOOD) - 1, 0).pack() + GOOD,
    "checksum start behind the end": Vnet(NEEDS_CSUM, 0, 0, 0, len(GOOD), 0).pack() + GOOD,
}


@pytest.mark.parametrize("frame", BAD_FRAMES.values(), ids=BAD_FRAMES.keys())
def test_rubbish_is_refused(cut: Any, frame: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        cut(frame, 100)


@pytest.mark.parametrize("options", [b"", TIMESTAMPS, b"\x01" * 40])
def test_both_engines_cut_alike(options: bytes) -> None:
    native = native_module("_segment").cut
    dice = random.Random(3)
    for _ in range(150):
        payload = dice.randbytes(dice.choice([0, 1, 63, 1340, 1341, dice.randrange(65_000)]))
        size = dice.choice([1, 2, 13, 500, 1328, 1340, 9000])
        if len(payload) // size > 2000:
            continue
        flags = dice.randrange(256)
        packet = (
            tcp(payload, dice.randrange(2**32), flags=flags, options=options)
            if dice.random() < 0.7
            else udp(payload)
        )
        frame = large(packet, size)
        mtu = dice.choice([1280, 1400, 9000])
        assert native(frame, mtu) == reference.cut(frame, mtu)
