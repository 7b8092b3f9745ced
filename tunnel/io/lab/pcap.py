"""Reading a capture: who sent what to whom, and when (pcap files with Ethernet frames).

Only what a lab needs: IPv4 and IPv6 with UDP or TCP, no fragments, no extension headers. Anything
else is passed over.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from tunnel.io.lab.process import LabError

_MAGIC_MICROSECONDS = 0xA1B2C3D4
_ETHERNET = 1
_IPV4, _IPV6 = 0x0800, 0x86DD
_TCP, _UDP = 6, 17


@dataclass(frozen=True, slots=True)
class Packet:
    """One datagram or segment; ``time`` is wall-clock seconds, ``kind`` is "udp" or "tcp"."""

    time: float
    kind: str
    source: tuple[str, int]
    target: tuple[str, int]
    payload: bytes


def read_packets(file: Path) -> Iterator[Packet]:
    """Read a capture in the order of its packets. A last packet that is cut short ends it.

    Raises :class:`LabError` if the file is no pcap file of Ethernet frames.
    """
    with file.open("rb") as opened:
        header = opened.read(24)
        if len(header) < 24:
            raise LabError(f"{file.name} is no capture")
        order = "<" if struct.unpack("<I", header[:4])[0] == _MAGIC_MICROSECONDS else ">"
        magic, link = struct.unpack(f"{order}I16xI", header)
        if magic != _MAGIC_MICROSECONDS or link != _ETHERNET:
            raise LabError(f"{file.name} is no pcap file of Ethernet frames")
        while len(record := opened.read(16)) == 16:
            seconds, micros, length, _ = struct.unpack(f"{order}IIII", record)
            frame = opened.read(length)
            packet = _parse(seconds + micros / 1e6, frame)
            if packet is not None:
                yield packet


def _parse(time: float, frame: bytes) -> Packet | None:
    kind = int.from_bytes(frame[12:14], "big")
    if kind == _IPV4 and len(frame) >= 34:
        start, protocol = 14 + (frame[14] & 0x0F) * 4, frame[23]
        source, target = str(IPv4Address(frame[26:30])), str(IPv4Address(frame[30:34]))
        end = 14 + int.from_bytes(frame[16:18], "big")
    elif kind == _IPV6 and len(frame) >= 54:
        start, protocol = 54, frame[20]
        source, target = str(IPv6Address(frame[22:38])), str(IPv6Address(frame[38:54]))
        end = 54 + int.from_bytes(frame[18:20], "big")
    else:
        return None
    body = frame[start:end]
    if protocol == _UDP and len(body) >= 8:
        name, data = "udp", body[8:]
    elif protocol == _TCP and len(body) >= 20:
        name, data = "tcp", body[(body[12] >> 4) * 4 :]
    else:
        return None
    ports = struct.unpack(">HH", body[:4])
    return Packet(time, name, (source, ports[0]), (target, ports[1]), data)
