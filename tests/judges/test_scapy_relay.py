"""Scapy, which knows nothing of ours, reads what goes through a home agent, and writes it."""

from __future__ import annotations

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6, in6_chksum
from scapy.layers.ipsec import ESP, SecurityAssociation
from scapy.layers.isakmp import ISAKMP
from scapy.packet import Raw

from fastpath.reference.datapath import SendDatagram, WritePacket
from fastpath.types import ControlEvent, Mode, SaParams
from tests.fastpath.relays import (
    A_TO_B,
    A_TO_H,
    AGENT,
    AT_A,
    AT_H,
    H_TO_B,
    HOST_A,
    HOST_B,
    IKE,
    NESTED,
    relay_endpoint,
    sa,
)
from tests.fastpath.support import ipv6
from tests.fastpath.test_relay import home_agent, host_a, host_b
from tests.judges.test_scapy_esp import OUTER, on_the_wire

A, B = relay_endpoint(HOST_A)[0], relay_endpoint(HOST_B)[0]


def scapy_sa(params: SaParams) -> SecurityAssociation:
    """The same SA; transport mode, as far as Scapy is concerned."""
    return SecurityAssociation(
        ESP,
        spi=params.spi,
        seq_num=1,
        crypt_algo="AES-GCM",
        crypt_key=params.key,
        nat_t_header=UDP(sport=4500, dport=4500),
        esn_en=True,
        esn=0,
    )


def relay_sa(spi: int, sender: bytes, receiver: bytes) -> SecurityAssociation:
    return scapy_sa(sa(spi, sender, receiver, inbound=False, mode=Mode.TRANSPORT, traffic=NESTED))


@pytest.mark.parametrize("size", [0, 1, 2, 3, 1200])
def test_scapy_opens_both_layers(size: int) -> None:
    """RFC 3884: ESP in transport mode around IPv6 in IP; inside, ESP by itself (I47)."""
    inner = ipv6(HOST_A, HOST_B, bytes(size), 17)
    [sent] = host_a().outbound(inner)
    assert isinstance(sent, SendDatagram)
    outside = relay_sa(A_TO_H, HOST_A, AGENT).decrypt(on_the_wire(sent.data))
    assert outside[IP].proto == 41
    nested = outside[IPv6]
    assert (nested.src, nested.dst, nested.hlim, nested.nh) == (A, B, 64, 50)
    assert nested.plen == len(bytes(nested)) - 40
    esp = bytes(nested.payload)
    end_to_end = scapy_sa(sa(A_TO_B, HOST_A, HOST_B, inbound=False))
    opened = end_to_end.decrypt(on_the_wire(esp))
    assert opened[IP].proto == 41
    assert bytes(opened[IPv6]) == inner


def test_scapy_reads_nested_ike_and_finds_its_checksum_right() -> None:
    [sent] = host_a().send(bytes(4) + IKE, relay_endpoint(HOST_B))
    assert isinstance(sent, SendDatagram)
    nested = relay_sa(A_TO_H, HOST_A, AGENT).decrypt(on_the_wire(sent.data))[IPv6]
    udp = nested[UDP]
    assert (udp.sport, udp.dport, udp.len) == (500, 500, 8 + len(IKE))
    assert udp.haslayer(ISAKMP), "UDP 500: no marker before it (RFC 3948 is for 4500)"
    assert bytes(udp.payload) == IKE
    assert in6_chksum(17, nested, bytes(udp)) == 0


def test_what_scapy_sends_is_forwarded_and_taken() -> None:
    """A host that is none of ours: Scapy's IPv6, Scapy's ESP, twice."""
    end_to_end = scapy_sa(sa(A_TO_B, HOST_A, HOST_B, inbound=False))
    inner = IPv6(src=A, dst=B) / UDP(sport=7, dport=9) / Raw(b"from scapy")
    esp = bytes(end_to_end.encrypt(IP(src=OUTER[0], dst=OUTER[1], proto=41) / inner)[UDP].payload)
    nested = IPv6(src=A, dst=B, nh=50) / Raw(esp)
    message = IPv6(src=A, dst=B) / UDP(sport=500, dport=500) / Raw(IKE)
    to_agent, agent, b = relay_sa(A_TO_H, HOST_A, AGENT), home_agent(), host_b()
    outputs = []
    for packet in (nested, message):
        sealed = to_agent.encrypt(IP(src=OUTER[0], dst=OUTER[1], proto=41) / packet)
        for output in agent.inbound(bytes(sealed[UDP].payload), AT_A):
            if isinstance(output, SendDatagram):
                outputs += b.inbound(output.data, AT_H)
    assert WritePacket(bytes(inner)) in outputs
    assert ControlEvent(IKE, relay_endpoint(HOST_A), False, H_TO_B) in outputs
