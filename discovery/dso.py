"""DNS Stateful Operations (RFC 8490): messages of opcode 6 and their TLVs, read and written.

A DSO message is a DNS header with four empty sections, and TLVs behind it: the first, the *primary*
TLV, says what is meant. A request has an id and gets one response with it; a unidirectional message
has id 0 and gets none. :mod:`discovery.push` has the TLVs of DNS Push.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from discovery.rcodes import NOERROR

OPCODE: Final = 6
HEADER_SIZE: Final = 12

KEEPALIVE: Final = 1
RETRY_DELAY: Final = 2
PADDING: Final = 3


DEFAULT_TIMEOUT_MS: Final = 15_000
"""Both timeouts of a session in which no Keepalive was exchanged (RFC 8490 §6.2)."""

MINIMUM_INTERVAL_MS: Final = 10_000
"""The shortest keepalive interval (RFC 8490 §6.5.2): less is a fatal error."""

INFINITE_MS: Final = 0xFFFFFFFF

EDNS_TCP_KEEPALIVE: Final = 11
"""The EDNS option (RFC 7828) that no message of a DSO session may carry (RFC 8490 §5.4.6)."""

_QR: Final = 0x8000


class DsoError(Exception):
    """The message is not what RFC 8490 calls a DSO message, or a TLV's data are malformed."""


@dataclass(frozen=True, slots=True)
class Tlv:
    """One TLV: ``type`` and its data."""

    type: int
    data: bytes = b""

    def pack(self) -> bytes:
        """Return type, length and data."""
        return struct.pack("!HH", self.type, len(self.data)) + self.data


@dataclass(frozen=True, slots=True)
class DsoMessage:
    """One DSO message. ``id`` is 0 in a unidirectional one; ``response`` is the header's QR bit."""

    id: int = 0
    tlvs: tuple[Tlv, ...] = ()
    response: bool = False
    rcode: int = NOERROR

    @property
    def primary(self) -> Tlv | None:
        """The first TLV; a response may have none."""
        return self.tlvs[0] if self.tlvs else None

    def additional(self, kind: int) -> Tlv | None:
        """Return the first TLV of a type behind the first one (in a response: among all)."""
        later = self.tlvs if self.response else self.tlvs[1:]
        return next((tlv for tlv in later if tlv.type == kind), None)

    def pack(self) -> bytes:
        """Return the message, without the two octets of length that frame it on a stream."""
        flags = (_QR if self.response else 0) | OPCODE << 11 | self.rcode
        header = struct.pack("!HHHHHH", self.id, flags, 0, 0, 0, 0)
        return header + b"".join(tlv.pack() for tlv in self.tlvs)

    @classmethod
    def parse(cls, wire: bytes) -> DsoMessage:
        """Read a message; the Z bits are ignored (RFC 8490 §5.4.1).

        Raises :exc:`DsoError`: no header, another opcode, a section that is not empty, or a TLV
        that is cut off.
        """
        if not is_dso(wire):
            raise DsoError("this is no DSO message")
        identity, flags = struct.unpack_from("!HH", wire)
        if any(wire[4:HEADER_SIZE]):
            raise DsoError("a DSO message has no records (RFC 8490 §5.4)")
        return cls(identity, _tlvs(wire), bool(flags & _QR), flags & 15)


def is_dso(wire: bytes) -> bool:
    """Say whether a DNS message has the opcode of DSO."""
    return len(wire) >= HEADER_SIZE and wire[2] >> 3 & 15 == OPCODE


def _tlvs(wire: bytes) -> tuple[Tlv, ...]:
    tlvs = []
    at = HEADER_SIZE
    while at < len(wire):
        if at + 4 > len(wire):
            raise DsoError("a TLV is cut off")
        kind, size = struct.unpack_from("!HH", wire, at)
        at += 4
        if at + size > len(wire):
            raise DsoError("a TLV is longer than its message")
        tlvs.append(Tlv(kind, wire[at : at + size]))
        at += size
    return tuple(tlvs)


@dataclass(frozen=True, slots=True)
class Keepalive:
    """The session's two timeouts in milliseconds (RFC 8490 §7.1): asked for in a client's request,
    decided in the server's response or in a unidirectional message of the server."""

    inactivity_ms: int
    interval_ms: int

    def tlv(self) -> Tlv:
        """Return it as a TLV."""
        return Tlv(KEEPALIVE, struct.pack("!II", self.inactivity_ms, self.interval_ms))

    @classmethod
    def parse(cls, data: bytes) -> Keepalive:
        """Read a TLV's data. Raises :exc:`DsoError`."""
        if len(data) != 8:
            raise DsoError("a Keepalive TLV has 8 octets")
        return cls(*struct.unpack("!II", data))


@dataclass(frozen=True, slots=True)
class RetryDelay:
    """How long not to try again, in milliseconds (RFC 8490 §7.2): as the primary TLV it ends the
    session, as an additional one of a response it speaks of the refused operation."""

    delay_ms: int

    def tlv(self) -> Tlv:
        """Return it as a TLV."""
        return Tlv(RETRY_DELAY, self.delay_ms.to_bytes(4))

    @classmethod
    def parse(cls, data: bytes) -> RetryDelay:
        """Read a TLV's data. Raises :exc:`DsoError`."""
        if len(data) != 4:
            raise DsoError("a Retry Delay TLV has 4 octets")
        return cls(int.from_bytes(data))


def padding_for(size: int, block: int) -> Tlv:
    """Return the Encryption Padding TLV that brings a message of ``size`` octets to a multiple of
    ``block`` (RFC 8490 §7.3; RFC 8467 §4.1 advises 128 for questions and 468 for answers)."""
    return Tlv(PADDING, bytes(-(size + 4) % block))
