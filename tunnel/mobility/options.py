"""Mobility options (RFC 6275 §6.2, RFC 5555 §3, the draft's Nonce), and endpoints said by them.

An option is type, length of its data, data; ``Pad1`` and ``PadN`` align the next one (RFC 6275
§6.2.2, §6.2.3). Unknown ones are skipped silently (§6.2.1). No standard option carries a UDP port,
and our care-of addresses have one: it travels in an option of RFC 5096's experimental type 18,
marked as ours, since others may use that number, too.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_address
from typing import Final, TypeAlias, TypeVar

from fastpath.types import Endpoint

PAD1, PADN = 0, 1
REFRESH_ADVICE, ALTERNATE_CARE_OF, NONCE = 2, 3, 88
IPV4_HOME, IPV4_ACKNOWLEDGEMENT, NAT_DETECTION, IPV4_CARE_OF = 29, 30, 31, 32
EXPERIMENTAL = 18  # RFC 5096 §3

UNIT: Final = 4  # seconds of a lifetime's unit (RFC 6275 §6.1.7)
NONCE_OCTETS: Final = 8
NEVER: Final = 0xFFFFFFFF  # a NAT refresh time: no keepalives are needed (RFC 5555 §3.2.2)
_OURS: Final = b"aT"  # begins the data of our private option
_THIS_NETWORK: Final = IPv4Network("0.0.0.0/8")
_BROADCAST: Final = IPv4Address("255.255.255.255")


class MobilityError(ValueError):
    """These octets are no mobility message that we understand; the text says why."""


@dataclass(frozen=True, slots=True)
class RefreshAdvice:
    """Binding Refresh Advice: please refresh after so many seconds, a multiple of four."""

    seconds: int


@dataclass(frozen=True, slots=True)
class AlternateCareOf:
    """The care-of address that the sender means; IPv4 is mapped (``::ffff:a.b.c.d``)."""

    address: IPv6Address


@dataclass(frozen=True, slots=True)
class Port:
    """The UDP port that goes with the care-of address (ours, type 18)."""

    port: int


@dataclass(frozen=True, slots=True)
class Nonce:
    """Eight octets that only who receives at the address under test can know (I24)."""

    value: bytes


@dataclass(frozen=True, slots=True)
class Ipv4Home:
    """Asks for an IPv4 home address; 0.0.0.0 asks for any (RFC 5555 §3.1.1)."""

    prefix_length: int
    address: IPv4Address
    prefix: bool = False


@dataclass(frozen=True, slots=True)
class Ipv4Acknowledgement:
    """What became of it (RFC 5555 §3.2.1); ``status`` from 128 on means no."""

    status: int
    prefix_length: int
    address: IPv4Address


@dataclass(frozen=True, slots=True)
class NatDetection:
    """What the home agent saw of a NAT (RFC 5555 §3.2.2). ``refresh`` in seconds: the time between
    keepalives, 0 for no advice, :data:`NEVER` for no NAT; ``forced``: UDP whether NAT or not."""

    refresh: int
    forced: bool = False


@dataclass(frozen=True, slots=True)
class Ipv4CareOf:
    """The address as the sender itself has it, before any NAT (RFC 5555 §3.1.2)."""

    address: IPv4Address


Option: TypeAlias = (
    RefreshAdvice
    | AlternateCareOf
    | Port
    | Nonce
    | Ipv4Home
    | Ipv4Acknowledgement
    | NatDetection
    | Ipv4CareOf
)
_Kind = TypeVar("_Kind", bound=Option)

_LENGTHS: Final = {
    REFRESH_ADVICE: 2,
    ALTERNATE_CARE_OF: 16,
    NONCE: NONCE_OCTETS,
    IPV4_HOME: 6,
    IPV4_ACKNOWLEDGEMENT: 6,
    NAT_DETECTION: 6,
    IPV4_CARE_OF: 6,
}


def first(options: Sequence[Option], kind: type[_Kind]) -> _Kind | None:
    """The first option of this kind, which is the one that counts."""
    return next((one for one in options if isinstance(one, kind)), None)


# --- Octets -------------------------------------------------------------------------------------


def pack(options: Sequence[Option], offset: int) -> bytes:
    """The options as they stand from octet ``offset`` of a Mobility Header on, aligned, and padded
    so that the whole is a multiple of eight octets."""
    octets = bytearray()
    for option in options:
        kind, data, (step, remainder) = _encoded(option)
        octets += _padding((remainder - offset - len(octets)) % step)
        octets += bytes((kind, len(data))) + data
    return bytes(octets + _padding(-(offset + len(octets)) % 8))


def read(octets: bytes) -> tuple[Option, ...]:
    """The known options among these. Raises :exc:`MobilityError`."""
    options: list[Option] = []
    at = 0
    while at < len(octets):
        kind = octets[at]
        if kind == PAD1:
            at += 1
            continue
        if at + 2 > len(octets) or at + 2 + octets[at + 1] > len(octets):
            raise MobilityError(f"option {kind} is longer than its message")
        data = octets[at + 2 : at + 2 + octets[at + 1]]
        at += 2 + len(data)
        option = _decoded(kind, data)
        if option is not None:
            options.append(option)
    return tuple(options)


def _padding(count: int) -> bytes:
    if count == 1:
        return bytes((PAD1,))
    return bytes((PADN, count - 2)) + bytes(count - 2) if count else b""


def _encoded(option: Option) -> tuple[int, bytes, tuple[int, int]]:
    """Type, data and alignment: the offset of the type octet is ``step × n + remainder``."""
    match option:
        case RefreshAdvice(seconds):
            return REFRESH_ADVICE, struct.pack("!H", seconds // UNIT), (2, 0)
        case AlternateCareOf(address):
            return ALTERNATE_CARE_OF, address.packed, (8, 6)
        case Port(port):
            return EXPERIMENTAL, _OURS + struct.pack("!H", port), (2, 0)
        case Nonce(value):
            return NONCE, value, (8, 6)
        case Ipv4Home(length, home, prefix):
            return IPV4_HOME, struct.pack("!BB", length << 2 | prefix << 1, 0) + home.packed, (4, 0)
        case Ipv4Acknowledgement(status, length, home):
            return IPV4_ACKNOWLEDGEMENT, bytes((status, length << 2)) + home.packed, (4, 0)
        case NatDetection(refresh, forced):
            return NAT_DETECTION, struct.pack("!HI", forced << 15, refresh), (4, 0)
        case Ipv4CareOf(care_of):
            return IPV4_CARE_OF, bytes(2) + care_of.packed, (4, 0)


def _decoded(kind: int, data: bytes) -> Option | None:
    if len(data) != _LENGTHS.get(kind, len(data)):
        raise MobilityError(f"option {kind} has {len(data)} octets, not {_LENGTHS[kind]}")
    match kind:
        case _ if kind == REFRESH_ADVICE:
            return RefreshAdvice(int.from_bytes(data) * UNIT)
        case _ if kind == ALTERNATE_CARE_OF:
            return AlternateCareOf(IPv6Address(data))
        case _ if kind == NONCE:
            return Nonce(data)
        case _ if kind == IPV4_HOME:
            return Ipv4Home(data[0] >> 2, IPv4Address(data[2:]), bool(data[0] & 2))
        case _ if kind == IPV4_ACKNOWLEDGEMENT:
            return Ipv4Acknowledgement(data[0], data[1] >> 2, IPv4Address(data[2:]))
        case _ if kind == NAT_DETECTION:
            return NatDetection(int.from_bytes(data[2:]), bool(data[0] & 0x80))
        case _ if kind == IPV4_CARE_OF:
            return Ipv4CareOf(IPv4Address(data[2:]))
        case _ if kind == EXPERIMENTAL and len(data) == 4 and data[:2] == _OURS:
            return Port(int.from_bytes(data[2:]))
    return None


# --- Endpoints ----------------------------------------------------------------------------------


def mapped(address: str) -> IPv6Address:
    """``address`` as the Alternate Care-of Address option has it."""
    parsed = ip_address(address)
    if isinstance(parsed, IPv6Address):
        return parsed
    return IPv6Address(bytes(10) + b"\xff\xff" + parsed.packed)


def unmapped(address: IPv6Address) -> str:
    """The address text of an endpoint, which is never mapped."""
    return str(address.ipv4_mapped or address)


def is_unicast(endpoint: Endpoint) -> bool:
    """Whether something can be at this endpoint: a routable unicast address (RFC 6275 §9.5.1), and
    a port. Private addresses are; two hosts may share a network."""
    address, port = ip_address(endpoint[0]), endpoint[1]
    if address.is_unspecified or address.is_multicast or address.is_loopback:
        return False
    if isinstance(address, IPv4Address) and (address == _BROADCAST or address in _THIS_NETWORK):
        return False
    return 0 < port < 65536 and not address.is_link_local
