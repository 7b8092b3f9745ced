"""Scapy's ESP, which knows nothing of ours, opens what we seal and seals what we open."""

from __future__ import annotations

from typing import Any

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6
from scapy.layers.ipsec import ESP, IPSecIntegrityError, SecurityAssociation
from scapy.packet import Raw

from fastpath.reference.inner import unwrap, wrap
from fastpath.types import Drop, Mode, Opened, Suite
from tests.fastpath.support import (
    ENGINES,
    OUR_ID,
    PEER_ID,
    SUITES,
    esp_engine,
    ipv6,
    params,
    tunnelled_out,
)

OUTER = ("198.51.100.7", "203.0.113.9")
ALGORITHM = {
    Suite.AES128GCM16: "AES-GCM",
    Suite.AES256GCM16: "AES-GCM",
    Suite.CHACHA20POLY1305: "CHACHA20-POLY1305",
}


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Any:
    return esp_engine(request.param)


def scapy_sa(suite: Suite, high: int | None) -> SecurityAssociation:
    """``high`` are the upper 32 bits of the sequence number, or ``None`` without ESN."""
    sa_params = params(suite)
    return SecurityAssociation(
        ESP,
        spi=sa_params.spi,
        seq_num=1,
        crypt_algo=ALGORITHM[suite],
        crypt_key=sa_params.key,
        tunnel_header=IP(src=OUTER[0], dst=OUTER[1]),
        nat_t_header=UDP(sport=4500, dport=4500),
        esn_en=high is not None,
        esn=high or 0,
    )


def on_the_wire(esp: bytes) -> IP:
    datagram = IP(src=OUTER[0], dst=OUTER[1]) / UDP(sport=4500, dport=4500) / Raw(esp)
    return IP(bytes(datagram))


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("length", [0, 1, 2, 3, 1400])
def test_scapy_opens_what_we_seal(engine: Any, suite: Suite, length: int) -> None:
    inner = tunnelled_out(bytes(length))
    packet = on_the_wire(engine.OutboundSa(params(suite, esn=False)).seal(inner, 41))
    assert packet.haslayer(ESP), "RFC 3948: ESP behind UDP 4500"
    assert bytes(scapy_sa(suite, None).decrypt(packet)) == inner


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("sequence", [0, 2**32 - 1, 2**32, (7 << 32) + 5])
def test_scapy_opens_what_we_seal_with_esn(engine: Any, suite: Suite, sequence: int) -> None:
    inner = tunnelled_out()
    packet = on_the_wire(engine.OutboundSa(params(suite), sequence).seal(inner, 41))
    assert bytes(scapy_sa(suite, (sequence + 1) >> 32).decrypt(packet)) == inner


@pytest.mark.parametrize("suite", SUITES)
def test_scapy_rejects_our_packet_when_it_was_touched(engine: Any, suite: Suite) -> None:
    esp = engine.OutboundSa(params(suite, esn=False)).seal(tunnelled_out(), 41)
    for index in (4, 7, 8, 15, 16, 40, len(esp) - 1):
        touched = bytearray(esp)
        touched[index] ^= 1
        with pytest.raises(IPSecIntegrityError):
            scapy_sa(suite, None).decrypt(on_the_wire(bytes(touched)))


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("esn", [False, True])
def test_we_open_what_scapy_seals_and_reject_what_was_touched(
    engine: Any, suite: Suite, esn: bool
) -> None:
    inner = (
        IPv6(src=text(PEER_ID), dst=text(OUR_ID)) / ICMPv6EchoRequest(id=7, seq=1) / Raw(b"ping")
    )
    sealed = scapy_sa(suite, 0 if esn else None).encrypt(inner)
    assert sealed[UDP].dport == 4500
    esp = bytes(sealed[UDP].payload)
    receiver = engine.InboundSa(params(suite, esn=esn))
    for index in range(8, len(esp)):
        touched = esp[:index] + bytes([esp[index] ^ 1]) + esp[index + 1 :]
        assert receiver.open(touched) is Drop.AUTHENTICATION
    assert receiver.open(esp) == Opened(bytes(inner), 41, 1)
    assert receiver.open(esp) is Drop.REPLAY


def transport_sa(suite: Suite, high: int | None) -> SecurityAssociation:
    """Its own addresses are the outer ones: what stands behind them is the upper layer."""
    sa = scapy_sa(suite, high)
    sa.tunnel_header = None
    return sa


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("sequence", [None, 0, 2**32 - 1, 2**32, (7 << 32) + 5])
@pytest.mark.parametrize("next_header", [6, 17, 58, 135])
def test_scapy_opens_what_we_seal_in_transport_mode(
    engine: Any, suite: Suite, sequence: int | None, next_header: int
) -> None:
    """The upper layer alone, its own protocol in the next header field (RFC 4303 §3.1.1).

    ``sequence`` None is without ESN.
    """
    sa_params = params(suite, esn=sequence is not None, mode=Mode.TRANSPORT)
    sender = engine.OutboundSa(sa_params, sequence or 0)
    whole = ipv6(OUR_ID, PEER_ID, bytes(TCP(sport=1, dport=2) / Raw(b"data")), next_header)
    payload, following = wrap(sa_params, whole)
    esp = sender.seal(payload, following)
    high = None if sequence is None else (sequence + 1) >> 32
    opened = transport_sa(suite, high).decrypt(on_the_wire(esp))
    assert opened[IP].proto == next_header
    assert bytes(opened[IP].payload) == whole[40:]
    touched = esp[:-1] + bytes([esp[-1] ^ 1])
    with pytest.raises(IPSecIntegrityError):
        transport_sa(suite, high).decrypt(on_the_wire(touched))


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("high", [None, 0, 1])
def test_we_open_what_scapy_seals_in_transport_mode(
    engine: Any, suite: Suite, high: int | None
) -> None:
    """The header that was left out is put before it again, with the host ids of the SA."""
    packet = IP(src=OUTER[0], dst=OUTER[1]) / UDP(sport=7, dport=9) / Raw(b"data")
    sa = transport_sa(suite, high)
    sealed = sa.encrypt(IP(bytes(packet)))
    esp = bytes(sealed[UDP].payload)
    sa_params = params(suite, esn=high is not None, mode=Mode.TRANSPORT)
    receiver = engine.InboundSa(sa_params)
    for before in (2**31, 2**32 - 1) if high else ():
        receiver.open(engine.OutboundSa(sa_params, before - 1).seal(b"", 59))
    assert receiver.sequence == (2**32 - 1 if high else 0)
    opened = receiver.open(esp)
    assert isinstance(opened, Opened)
    assert (opened.payload, opened.next_header) == (bytes(packet[UDP]), 17)
    assert unwrap(sa_params, opened) == rebuilt(bytes(packet[UDP]))
    assert receiver.open(esp) is Drop.REPLAY
    assert receiver.open(esp[:-1] + bytes([esp[-1] ^ 1])) is Drop.REPLAY


def rebuilt(segment: bytes) -> bytes:
    """By scapy, which knows nothing of our rules but the hop limit."""
    return bytes(IPv6(src=text(PEER_ID), dst=text(OUR_ID), nh=17, hlim=64) / Raw(segment))


def text(host_id: bytes) -> str:
    from ipaddress import IPv6Address

    return str(IPv6Address(host_id))
