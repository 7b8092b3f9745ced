"""ICMPv6 errors towards our own applications: Destination Unreachable, Packet Too Big."""

from __future__ import annotations

from typing import Final

DESTINATION_UNREACHABLE: Final = 1  # RFC 4443 §3.1
ADDRESS_UNREACHABLE: Final = 3
PACKET_TOO_BIG: Final = 2  # RFC 4443 §3.2
NEXT_HEADER: Final = 58
_IPV6_HEADER = 40
_MINIMUM_MTU = 1280  # an error never exceeds it (RFC 4443 §2.4(c))
_ICMP_HEADER = 8
_INFORMATIONAL = 128  # types below are errors (RFC 4443 §2.1)
_EXTENSIONS = frozenset((0, 43, 60, 135, 139))  # hop-by-hop, routing, destination, mobility, HIP
_FRAGMENT = 44
_MAX_EXTENSIONS = 8


def destination_unreachable(packet: bytes, code: int = ADDRESS_UNREACHABLE) -> bytes | None:
    """The IPv6 packet that tells the sender of ``packet`` that its destination is unreachable.

    ``None`` where RFC 4443 §2.4(e) forbids an answer, or where ``packet`` is no IPv6 packet.
    """
    return _error(packet, DESTINATION_UNREACHABLE, code, 0)


def packet_too_big(packet: bytes, mtu: int) -> bytes | None:
    """The IPv6 packet that tells the sender of ``packet`` that only ``mtu`` octets go.

    ``packet`` may be cut short, yet 512 octets of it are wanted: Linux looks for its socket in
    them. ``None`` as for :func:`destination_unreachable`.
    """
    return _error(packet, PACKET_TOO_BIG, 0, mtu)


def _error(packet: bytes, kind: int, code: int, word: int) -> bytes | None:
    """Its source is the destination's host id, not our own, because Linux ignores ICMPv6 errors
    whose source is the receiver itself."""
    if len(packet) < _IPV6_HEADER or packet[0] >> 4 != 6 or _is_error(packet):
        return None
    sender, destination = packet[8:24], packet[24:40]
    if sender[0] == 0xFF or destination[0] == 0xFF or not any(sender):
        return None
    quoted = packet[: _MINIMUM_MTU - _IPV6_HEADER - _ICMP_HEADER]
    body = bytes((kind, code, 0, 0)) + word.to_bytes(4) + quoted
    length = len(body).to_bytes(4)
    check = checksum(destination + sender + length + bytes((0, 0, 0, NEXT_HEADER)) + body)
    body = body[:2] + check.to_bytes(2) + body[4:]
    header = bytes((0x60, 0, 0, 0)) + length[2:] + bytes((NEXT_HEADER, 64))
    return header + destination + sender + body


def checksum(octets: bytes) -> int:
    """The Internet checksum (RFC 1071) of ``octets``: a sum of 16-bit words in one's complement is
    what is left of the whole as one number, divided by 65,535."""
    number = int.from_bytes(octets + bytes(len(octets) & 1))
    total = number % 0xFFFF or (0xFFFF if number else 0)
    return total ^ 0xFFFF


def _is_error(packet: bytes) -> bool:
    """Whether ``packet`` holds an ICMPv6 error, or is a later fragment (RFC 4443 §2.4(e))."""
    kind, at = packet[6], _IPV6_HEADER
    for _ in range(_MAX_EXTENSIONS):
        if kind == _FRAGMENT and len(packet) >= at + 8:
            if int.from_bytes(packet[at + 2 : at + 4]) >> 3:
                return True  # which may be a part of an error: nobody can tell
            kind, at = packet[at], at + 8
        elif kind in _EXTENSIONS and len(packet) >= at + 8:
            kind, at = packet[at], at + 8 * (packet[at + 1] + 1)
        else:
            break
    return kind == NEXT_HEADER and (len(packet) <= at or packet[at] < _INFORMATIONAL)
