"""Scapy's ESP, which knows nothing of ours, opens what we seal and seals what we open."""

from __future__ import annotations

from typing import Any

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6
from scapy.layers.ipsec import ESP, IPSecIntegrityError, SecurityAssociation
from scapy.packet import Raw

from fastpath.types import Drop, Opened, Suite
from tests.fastpath.support import (
    ENGINES,
    OUR_ID,
    PEER_ID,
    SUITES,
    esp_engine,
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


@pytest.mark.parametrize("suite", SUITES)
def test_transport_mode_is_what_scapy_calls_transport_mode(engine: Any, suite: Suite) -> None:
    """The upper layer alone, its own protocol in the next header field (RFC 4303 §3.1.1)."""
    segment = bytes(TCP(sport=1, dport=2) / Raw(b"data"))
    esp = engine.OutboundSa(params(suite, esn=False)).seal(segment, 6)
    sa = scapy_sa(suite, None)
    sa.tunnel_header = None
    opened = sa.decrypt(on_the_wire(esp))
    assert opened[IP].proto == 6
    assert bytes(opened[IP].payload) == segment


def text(host_id: bytes) -> str:
    from ipaddress import IPv6Address

    return str(IPv6Address(host_id))
