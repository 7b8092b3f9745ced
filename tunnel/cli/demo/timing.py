"""When things happened on the internet, read from its capture.

IKE messages on UDP port 4500 begin with four zero octets (RFC 3948 §2.2); octet 18 of an IKE
header is the exchange, octet 19 has the response bit 0x20 (RFC 7296 §3.1).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tunnel.io.lab import Packet, read_packets

_MARKER = bytes(4)
IKE_AUTH = 35
_RESPONSE = 0x20


@dataclass(frozen=True, slots=True)
class Handshake:
    """First IKE message → answer of IKE_AUTH, in milliseconds; how many messages it took."""

    milliseconds: float
    messages: int


def measure_question(capture: Path, host: str, server: str, since: float) -> float | None:
    """Milliseconds from the first octet that ``host`` sent to ``server`` after ``since`` (wall
    clock, seconds) to the last octet of the answers; ``None``: no answer is captured yet."""
    asked = answered = None
    for packet in read_packets(capture):
        if packet.time < since or not packet.payload:
            continue
        ends = packet.source[0], packet.target[0]
        if ends == (host, server) and asked is None:
            asked = packet.time
        elif ends == (server, host) and asked is not None:
            answered = packet.time
    return None if asked is None or answered is None else round((answered - asked) * 1000, 2)


def measure_handshake(capture: Path, since: float) -> Handshake | None:
    """The first tunnel that was made after ``since`` (wall clock, seconds); ``None``: there was
    none, or the capture has not got its end yet."""
    begun = None
    messages = 0
    for packet in read_packets(capture):
        exchange = ike_exchange(packet)
        if packet.time < since or exchange is None:
            continue
        messages += 1
        begun = packet.time if begun is None else begun
        if exchange == (IKE_AUTH, True):
            return Handshake(round((packet.time - begun) * 1000, 2), messages)
    return None


def ike_exchange(packet: Packet) -> tuple[int, bool] | None:
    """(exchange, whether it is a response) of an IKE message on port 4500, else ``None``."""
    on_port = packet.kind == "udp" and 4500 in (packet.source[1], packet.target[1])
    if not on_port or len(packet.payload) < 32 or packet.payload[:4] != _MARKER:
        return None
    return packet.payload[22], bool(packet.payload[23] & _RESPONSE)


def esp_packets(capture: Path) -> int:
    """How many ESP packets the capture has."""
    return sum(
        1
        for packet in read_packets(capture)
        if packet.kind == "udp"
        and 4500 in (packet.source[1], packet.target[1])
        and len(packet.payload) > 8
        and packet.payload[:4] != _MARKER
    )
