"""Builds inner TCP, UDP and other packets for the tests of cutting and merging."""

from __future__ import annotations

import random
import struct

from fastpath.reference.segment import (
    GSO_TCPV6,
    GSO_UDP_L4,
    NEEDS_CSUM,
    TCP,
    UDP,
    Vnet,
    checksum,
    upper_checksum,
)
from tests.fastpath.support import OUR_ID, PEER_ID

ACK, PSH, FIN, URG, ECE, CWR = 0x10, 0x08, 0x01, 0x20, 0x40, 0x80
TIMESTAMPS = bytes.fromhex("0101080a") + bytes(range(8))


def ip(
    protocol: int,
    body: bytes,
    source: bytes = PEER_ID,
    destination: bytes = OUR_ID,
    *,
    traffic_class: int = 0,
    flow: int = 0,
    hop_limit: int = 64,
) -> bytes:
    first = 6 << 28 | traffic_class << 20 | flow
    return struct.pack(">IHBB", first, len(body), protocol, hop_limit) + source + destination + body


def tcp(
    payload: bytes,
    sequence: int = 1,
    *,
    port: int = 1000,
    flags: int = ACK,
    acknowledged: int = 77,
    window: int = 500,
    options: bytes = TIMESTAMPS,
    **header: int | bytes,
) -> bytes:
    """A whole packet with a right checksum."""
    offset = (20 + len(options)) // 4 << 4
    segment = struct.pack(
        ">HHIIBBHHH", port, 80, sequence & 0xFFFF_FFFF, acknowledged, offset, flags, window, 0, 0
    )
    bare = ip(TCP, segment + options + payload, **header)
    value = upper_checksum(bare, 40, TCP)
    return bare[:56] + struct.pack(">H", value) + bare[58:]


def udp(payload: bytes, *, port: int = 2000, **header: int | bytes) -> bytes:
    datagram = struct.pack(">HHHH", port, 53, 8 + len(payload), 0) + payload
    bare = ip(UDP, datagram, **header)
    return bare[:46] + struct.pack(">H", upper_checksum(bare, 40, UDP)) + bare[48:]


def icmp(payload: bytes, **header: int | bytes) -> bytes:
    return ip(58, b"\x80\x00\x00\x00" + payload, **header)


def large(packet: bytes, size: int) -> bytes:
    """A frame as the kernel hands it over: the checksum field holds the pseudo-header's sum."""
    is_tcp = packet[6] == TCP
    offset = 16 if is_tcp else 6
    upper = packet[40:]
    pseudo = ~checksum(packet[8:40] + struct.pack(">II", len(upper), packet[6])) & 0xFFFF
    start = 40 + offset
    filled = packet[:start] + struct.pack(">H", pseudo) + packet[start + 2 :]
    gso_type = (GSO_TCPV6 if is_tcp else GSO_UDP_L4) if size else 0
    return Vnet(NEEDS_CSUM, gso_type, 0, size, 40, offset).pack() + filled


def flow_of(packet: bytes) -> bytes:
    """What must stay in order: addresses, next header, and ports where there are any."""
    ports = packet[40:44] if packet[6] in (TCP, UDP) else b""
    return packet[6:7] + packet[8:40] + ports


class Flow:
    """Makes packets of one TCP or UDP flow, mostly in sequence and alike, now and then not."""

    def __init__(self, dice: random.Random, port: int) -> None:
        self._dice = dice
        self._port = port
        self._is_tcp = dice.random() < 0.7
        self._sequence = dice.choice([1, 0xFFFF_FF00, dice.randrange(2**32)])
        self._size = dice.choice([1, 7, 100, 999, 1000, 1328])
        self._options = dice.choice([b"", TIMESTAMPS, b"\x01" * 40])
        self._header = {"traffic_class": dice.choice([0, 2, 3]), "flow": dice.randrange(2**20)}

    def packet(self) -> bytes:
        dice = self._dice
        size = self._size if dice.random() < 0.9 else dice.randrange(0, 1329)
        header = self._header if dice.random() < 0.97 else {"hop_limit": 9}
        payload = dice.randbytes(size)
        if not self._is_tcp:
            packet = udp(payload, port=self._port, **header)
        else:
            flags = ACK if dice.random() < 0.9 else dice.randrange(256)
            if dice.random() < 0.03:
                self._sequence += dice.randrange(-2000, 2000)
            packet = tcp(
                payload,
                self._sequence,
                port=self._port,
                flags=flags,
                window=500 if dice.random() < 0.97 else 501,
                options=self._options,
                **header,
            )
            self._sequence += size
        return packet if dice.random() < 0.97 else self._broken(packet)

    def _broken(self, packet: bytes) -> bytes:
        """One bit wrong behind the IPv6 header: checksum, ports, length, payload …"""
        place = self._dice.randrange(40, len(packet))
        bit = 1 << self._dice.randrange(8)
        return packet[:place] + bytes([packet[place] ^ bit]) + packet[place + 1 :]


def traffic(dice: random.Random, packets: int) -> list[bytes]:
    """Packets of a few flows in bursts, with ICMP and fragments between."""
    flows = [Flow(dice, 3000 + number) for number in range(dice.randrange(1, 4))]
    made: list[bytes] = []
    while len(made) < packets:
        kind = dice.random()
        if kind < 0.05:
            made.append(icmp(dice.randbytes(dice.randrange(200))))
        elif kind < 0.08:  # a fragment: its ports are not where they seem
            made.append(ip(44, dice.randbytes(dice.randrange(8, 300))))
        else:
            flow = dice.choice(flows)
            made += [flow.packet() for _ in range(dice.randrange(1, 30))]
    return made[:packets]
