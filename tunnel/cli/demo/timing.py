"""When things happened on the internet, read from its capture.

IKE messages on UDP port 4500 begin with four zero octets (RFC 3948 §2.2); octet 18 of an IKE
header is the exchange, octet 19 has the response bit 0x20 (RFC 7296 §3.1).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tunnel.io.lab import Packet, read_packets

_MARKER = bytes(4)
IKE_SA_INIT, IKE_AUTH = 34, 35
_RESPONSE = 0x20


@dataclass(frozen=True, slots=True)
class Timing:
    """``discovery_ms``: first octet to the rendezvous → first IKE message; ``handshake_ms``:
    first IKE message → last answer of IKE_AUTH. ``messages`` is how many IKE messages it took."""

    discovery_ms: float
    handshake_ms: float
    messages: int


def measure(capture: Path, rendezvous: str, since: float) -> Timing | None:
    """The first tunnel that was made after ``since`` (wall clock, seconds); ``None``: there was
    none, or the capture has not got its end yet."""
    asked = begun = None
    messages = 0
    for packet in read_packets(capture):
        if packet.time < since:
            continue
        if packet.target[0] == rendezvous and packet.payload and asked is None:
            asked = packet.time
        exchange = ike_exchange(packet)
        if exchange is None:
            continue
        messages += 1
        if begun is None:
            begun = packet.time
        if exchange == (IKE_AUTH, True):
            return Timing(
                round((begun - (begun if asked is None else min(asked, begun))) * 1000, 1),
                round((packet.time - begun) * 1000, 1),
                messages,
            )
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
