"""Nested packets and relay SAs that the tests of relaying share: hosts A and B, home agent H."""

from __future__ import annotations

import struct
from ipaddress import IPv6Address

from fastpath.reference import relay
from fastpath.reference.esp import OutboundSa
from fastpath.reference.inner import IPV6_HEADER_OCTETS
from fastpath.types import Endpoint, Mode, SaParams, Suite, Traffic
from tests.fastpath.support import ipv6, key_of

HOST_A = bytes.fromhex("fd01020304050607002269fffe00000a")
HOST_B = bytes.fromhex("fd01020304050607002269fffe00000b")
HOST_C = bytes.fromhex("fd01020304050607002269fffe00000c")
AGENT = bytes.fromhex("fd01020304050607002269fffe0000aa")
NESTED = Traffic(protocol=41)
MOBILITY = Traffic(protocol=135)
AT_A: Endpoint = ("192.0.2.10", 4500)
AT_B: Endpoint = ("198.51.100.11", 4500)
AT_H: Endpoint = ("203.0.113.1", 4500)
IKE = b"\x11" * 16 + bytes([33, 0x20, 34, 8]) + bytes(4) + (40).to_bytes(4, "big") + bytes(12)
MESSAGE = bytes([59, 0, 5, 0, 0, 0, 0, 0])  # the smallest Mobility Header
FIRST_WORD = IKE[:8] + bytes(8) + IKE[16:]

A_TO_H, H_TO_A, H_TO_B, B_TO_H = 0xA001, 0xA002, 0xB001, 0xB002  # relay SAs
A_TO_B, B_TO_A = 0xAB01, 0xAB02


def sa(
    spi: int,
    sender: bytes,
    receiver: bytes,
    *,
    inbound: bool,
    mode: Mode = Mode.TUNNEL,
    traffic: Traffic | None = None,
    suite: Suite = Suite.AES128GCM16,
) -> SaParams:
    """One SA from ``sender`` to ``receiver``, as the one of them has it."""
    ours, theirs = (receiver, sender) if inbound else (sender, receiver)
    key = key_of(suite, spi % 251)
    return SaParams(spi, suite, key, ours, theirs, mode=mode, traffic=traffic)


def relay_sa(spi: int, sender: bytes, receiver: bytes, *, inbound: bool) -> SaParams:
    """The same for a relay SA."""
    return sa(spi, sender, receiver, inbound=inbound, mode=Mode.TRANSPORT, traffic=NESTED)


def relay_endpoint(host_id: bytes) -> Endpoint:
    """Where the control plane finds a host that is relayed."""
    return str(IPv6Address(host_id)), 500


def esp_packet(
    spi: int = A_TO_B, sender: bytes = HOST_A, receiver: bytes = HOST_B, body: bytes = b"hello"
) -> bytes:
    """The first packet of an end-to-end SA in tunnel mode."""
    params = sa(spi, sender, receiver, inbound=False)
    return OutboundSa(params).seal(ipv6(sender, receiver, body))


def nested_ike(source: bytes = HOST_A, destination: bytes = HOST_B, message: bytes = IKE) -> bytes:
    """A nested IKE message."""
    return relay.around_ike(source, destination, message)


def nested(
    body: bytes, next_header: int = 50, source: bytes = HOST_A, destination: bytes = HOST_B
) -> bytes:
    """A nested packet around anything, in its right form."""
    return ipv6(source, destination, body, next_header)


def with_hop_limit(packet: bytes, hops: int) -> bytes:
    """The same packet, further on its way."""
    return packet[:7] + bytes((hops,)) + packet[8:]


def as_probe(packet: bytes) -> bytes:
    """The same packet, which must not be fragmented."""
    return packet[:3] + b"\x01" + packet[4:]


def with_ports(packet: bytes, source: int, target: int) -> bytes:
    """A nested IKE message between other ports, its checksum right again."""
    at = IPV6_HEADER_OCTETS
    old = sum(struct.unpack_from(">HH", packet, at))
    (check,) = struct.unpack_from(">H", packet, at + 6)
    total = (~check & 0xFFFF) + (0xFFFF - old % 0xFFFF) + source + target
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    ports = struct.pack(">HH", source, target)
    return (
        packet[:at]
        + ports
        + packet[at + 4 : at + 6]
        + struct.pack(">H", ~total & 0xFFFF)
        + (packet[at + 8 :])
    )


HOSTILE: list[tuple[str, bytes, str]] = [
    ("empty", b"", "malformed"),
    ("cut in its header", nested(bytes(40))[:39], "malformed"),
    ("cut behind its header", nested(bytes(40))[:-1], "malformed"),
    ("IPv4", b"\x45" + nested(bytes(40))[1:], "malformed"),
    ("ESP that is too short", nested(bytes(33)), "malformed"),
    ("UDP that is too short", nested(bytes(7), 17), "malformed"),
    ("TCP", nested(bytes(40), 6), "not_relayed"),
    ("no next header", nested(b"", 59), "not_relayed"),
    ("nested in a nested packet", nested(nested(esp_packet()), 41), "not_relayed"),
    ("an extension header", nested(bytes(40), 60), "not_relayed"),
    ("IKE from another port", with_ports(nested_ike(), 4500, 500), "not_relayed"),
    ("IKE to another port", with_ports(nested_ike(), 500, 53), "not_relayed"),
    ("IKE with a wrong checksum", nested_ike()[:-1] + b"\x01", "malformed"),
    ("IKE without a checksum", nested_ike()[:46] + bytes(2) + nested_ike()[48:], "malformed"),
    ("UDP that is no IKE", nested_ike(message=bytes(40)), "malformed"),
    ("IKE with its marker", nested_ike(message=bytes(4) + IKE), "malformed"),
]
"""Nested packets from A to B that go nowhere: what they are, the packet, the reason."""

FORGED: list[tuple[str, bytes, str]] = [
    ("source", nested(esp_packet(), source=HOST_C), "foreign_source"),
    ("its-target", nested(esp_packet(), source=HOST_B), "foreign_source"),
    ("ike", nested_ike(source=HOST_C), "foreign_source"),
    ("stranger", nested(esp_packet(), destination=HOST_C), "not_relayed"),
    ("self", nested(esp_packet(), destination=HOST_A), "not_relayed"),
    ("back", nested(esp_packet(), source=HOST_B, destination=HOST_A), "not_relayed"),
    ("hops-0", with_hop_limit(nested(esp_packet()), 0), "not_relayed"),
    ("hops-1", with_hop_limit(nested(esp_packet()), 1), "not_relayed"),
    ("multicast", nested(esp_packet(), destination=b"\xff\x02" + bytes(14)), "not_relayed"),
]
"""What A cannot have forwarded in the name of others, or to who is not there: the same."""
