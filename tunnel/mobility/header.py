"""Mobility Header messages (RFC 6275 §6.1, and the four of draft-ebalard-mext-ipsec-ro §4).

::

    0 next header, 59 | 1 length in 8 octets, less the first 8 | 2 type | 3 zero
    4 checksum        | 6 the message, then its options

The checksum covers the IPv6 pseudo-header (RFC 8200 §8.1) with the two *home addresses*, whatever
endpoints the message travels between (§6.1.1, I11). Message types 30–33 are the draft's own test
values; IANA never assigned them.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv6Address
from typing import Final, TypeAlias

from tunnel.icmpv6 import checksum
from tunnel.mobility import options as opts
from tunnel.mobility.options import UNIT, MobilityError, Nonce, Option

NEXT_HEADER: Final = 135
NO_NEXT_HEADER: Final = 59
MAX_OCTETS: Final = 1280
"""No message of ours comes near it; a longer one is not looked at."""


class Kind(IntEnum):
    """Message types."""

    REFRESH_REQUEST = 0
    BINDING_UPDATE = 5
    BINDING_ACK = 6
    BINDING_ERROR = 7
    AOTO = 30
    AOTC = 31
    AOTR = 32
    AOTS = 33


class Status(IntEnum):
    """Of a Binding Acknowledgement; below 128 it is accepted (RFC 6275 §6.1.8, RFC 5555 §3.2)."""

    ACCEPTED = 0
    UNSPECIFIED = 128
    PROHIBITED = 129
    NO_RESOURCES = 130
    NO_HOME_REGISTRATION = 131
    NOT_HOME_AGENT = 133
    SEQUENCE = 135
    NO_FORCED_UDP = 144
    INVALID_CARE_OF = 174


class Verdict(IntEnum):
    """Code of an AOTS (I28)."""

    NOT_ALLOWED = 0
    VALID = 1


UNKNOWN_BINDING: Final = 1  # of a Binding Error (RFC 6275 §6.1.9)
UNKNOWN_TYPE: Final = 2


@dataclass(frozen=True, slots=True)
class RefreshRequest:
    """BRR: please send a BU."""

    options: tuple[Option, ...] = ()


@dataclass(frozen=True, slots=True)
class BindingUpdate:
    """BU. ``lifetime`` in seconds, sent in units of four; 0 deletes the binding."""

    sequence: int
    lifetime: int
    options: tuple[Option, ...] = ()
    acknowledge: bool = True  # A
    home: bool = False  # H: this is for a home agent
    link_local: bool = False  # L
    keys: bool = False  # K
    force_udp: bool = False  # F (RFC 5555 §3.1.3)


@dataclass(frozen=True, slots=True)
class BindingAck:
    """BA. ``lifetime`` in seconds, as granted."""

    status: int
    sequence: int
    lifetime: int
    options: tuple[Option, ...] = ()
    keys: bool = False

    @property
    def accepted(self) -> bool:
        """Whether the binding stands."""
        return self.status < Status.UNSPECIFIED


@dataclass(frozen=True, slots=True)
class BindingError:
    """BE: a message could not be used, and why."""

    status: int
    home: IPv6Address
    options: tuple[Option, ...] = ()


@dataclass(frozen=True, slots=True)
class Aoto:
    """A mobile asks for a test of the address that it sends this from (I20)."""


@dataclass(frozen=True, slots=True)
class Aotc:
    """The challenge, to the address under test."""

    nonce: bytes


@dataclass(frozen=True, slots=True)
class Aotr:
    """Its answer, from there, with the same nonce."""

    nonce: bytes


@dataclass(frozen=True, slots=True)
class Aots:
    """The end of a test that an AOTO asked for."""

    code: int


@dataclass(frozen=True, slots=True)
class Unrecognised:
    """A well-formed message of a type that we do not speak."""

    kind: int


Message: TypeAlias = (
    RefreshRequest | BindingUpdate | BindingAck | BindingError | Aoto | Aotc | Aotr | Aots
)

_FLAGS: Final = {
    "acknowledge": 0x8000,
    "home": 0x4000,
    "link_local": 0x2000,
    "keys": 0x1000,
    "force_udp": 0x0100,
}
_KEYS: Final = 0x80  # of an acknowledgement
_FIXED: Final = {  # octets of a message before its options, the header's six included
    Kind.REFRESH_REQUEST: 8,
    Kind.BINDING_UPDATE: 12,
    Kind.BINDING_ACK: 12,
    Kind.BINDING_ERROR: 24,
    Kind.AOTO: 8,
    Kind.AOTC: 8,
    Kind.AOTR: 8,
    Kind.AOTS: 8,
}


def pack(message: Message, source: IPv6Address, destination: IPv6Address) -> bytes:
    """The whole Mobility Header of a message between two home addresses."""
    kind, fixed, options = _encoded(message)
    body = fixed + opts.pack(options, 6 + len(fixed))
    head = struct.pack("!BBBBH", NO_NEXT_HEADER, (len(body) - 2) // 8, kind, 0, 0)
    octets = head + body
    check = _checksum(octets, source, destination)
    return octets[:4] + check.to_bytes(2) + octets[6:]


def read(octets: bytes, source: IPv6Address, destination: IPv6Address) -> Message | Unrecognised:
    """The message between these two home addresses. Raises :exc:`MobilityError`.

    ``octets`` are the whole upper layer; nothing may follow the message (RFC 6275 §6.1.1).
    """
    if not 8 <= len(octets) <= MAX_OCTETS or len(octets) != 8 * (octets[1] + 1):
        raise MobilityError(f"a message of {len(octets)} octets does not have the length it says")
    if octets[0] != NO_NEXT_HEADER:
        raise MobilityError(f"next header {octets[0]} follows a message")
    if _checksum(octets, source, destination):
        raise MobilityError("the checksum is wrong for these two home addresses")
    kind = octets[2]
    if kind not in _FIXED:
        return Unrecognised(kind)
    fixed = _FIXED[Kind(kind)]
    if len(octets) < fixed:
        raise MobilityError(f"a message of type {kind} is longer than {len(octets)} octets")
    return _decoded(Kind(kind), octets[6:fixed], octets[fixed:])


def packet(message: bytes, source: IPv6Address, destination: IPv6Address) -> bytes:
    """The inner IPv6 packet around a message."""
    head = struct.pack("!IHBB", 0x60000000, len(message), NEXT_HEADER, 64)
    return head + source.packed + destination.packed + message


def _checksum(octets: bytes, source: IPv6Address, destination: IPv6Address) -> int:
    """0 over a message that has the right one already."""
    length = struct.pack("!II", len(octets), NEXT_HEADER)
    return checksum(source.packed + destination.packed + length + octets)


def _encoded(message: Message) -> tuple[int, bytes, tuple[Option, ...]]:
    match message:
        case RefreshRequest(options):
            return Kind.REFRESH_REQUEST, bytes(2), options
        case BindingUpdate(sequence, lifetime, options):
            flags = sum(bit for name, bit in _FLAGS.items() if getattr(message, name))
            fixed = struct.pack("!HHH", sequence, flags, lifetime // UNIT)
            return Kind.BINDING_UPDATE, fixed, options
        case BindingAck(status, sequence, lifetime, options, keys):
            fixed = struct.pack("!BBHH", status, keys * _KEYS, sequence, lifetime // UNIT)
            return Kind.BINDING_ACK, fixed, options
        case BindingError(status, home, options):
            return Kind.BINDING_ERROR, bytes((status, 0)) + home.packed, options
        case Aoto():
            return Kind.AOTO, bytes(2), ()
        case Aotc(nonce):
            return Kind.AOTC, bytes(2), (Nonce(nonce),)
        case Aotr(nonce):
            return Kind.AOTR, bytes(2), (Nonce(nonce),)
        case Aots(code):
            return Kind.AOTS, bytes((code, 0)), ()


def _decoded(kind: Kind, fixed: bytes, rest: bytes) -> Message:
    options = opts.read(rest)
    match kind:
        case Kind.REFRESH_REQUEST:
            return RefreshRequest(options)
        case Kind.BINDING_UPDATE:
            sequence, flags, lifetime = struct.unpack("!HHH", fixed)
            said = {name: bool(flags & bit) for name, bit in _FLAGS.items()}
            return BindingUpdate(sequence, lifetime * UNIT, options, **said)
        case Kind.BINDING_ACK:
            status, flags, sequence, lifetime = struct.unpack("!BBHH", fixed)
            return BindingAck(status, sequence, lifetime * UNIT, options, bool(flags & _KEYS))
        case Kind.BINDING_ERROR:
            return BindingError(fixed[0], IPv6Address(fixed[2:]), options)
        case Kind.AOTO:
            return Aoto()
        case Kind.AOTS:
            return Aots(fixed[0])
        case Kind.AOTC | Kind.AOTR:
            nonce = opts.first(options, Nonce)
            if nonce is None:
                raise MobilityError(f"{kind.name} without a nonce")
            return (Aotc if kind is Kind.AOTC else Aotr)(nonce.value)
