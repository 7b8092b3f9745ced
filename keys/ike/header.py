"""The IKE header (RFC 7296 §3.1): who, what, which message, how long.

::

    SPIi 8 | SPIr 8 | next payload 1 | version 0x20 | exchange 1 | flags 1 | message ID 4 | length 4
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

HEADER = struct.Struct(">8s8sBBBBLL")
HEADER_OCTETS = HEADER.size  # 28
VERSION = 0x20  # major 2, minor 0
NO_SPI = bytes(8)

# An IKE message never needs more; a bound on what a stranger can make us look at. A UDP
# payload cannot be longer.
MAX_MESSAGE = 65535

RESPONSE = 0x20
INITIATOR = 0x08  # set by the original initiator of the IKE SA, in both directions of asking


class Exchange(IntEnum):
    """Exchange types (RFC 7296 §3.1, and where another RFC is named)."""

    IKE_SA_INIT = 34
    IKE_AUTH = 35
    CREATE_CHILD_SA = 36
    INFORMATIONAL = 37
    IKE_INTERMEDIATE = 43  # RFC 9242
    IKE_FOLLOWUP_KE = 44  # RFC 9370


class HeaderError(ValueError):
    """These octets are not an IKEv2 message: drop them, answer nothing."""


@dataclass(frozen=True, slots=True)
class Header:
    """One IKE header. ``next_payload`` and ``length`` belong to the message it came with."""

    spi_i: bytes
    spi_r: bytes
    exchange: int
    message_id: int
    response: bool
    initiator: bool
    next_payload: int = 0
    length: int = HEADER_OCTETS
    version: int = VERSION

    @property
    def major(self) -> int:
        """The major version; 2 is the only one that we speak."""
        return self.version >> 4

    def encode(self) -> bytes:
        """28 octets."""
        flags = (RESPONSE if self.response else 0) | (INITIATOR if self.initiator else 0)
        return HEADER.pack(
            self.spi_i,
            self.spi_r,
            self.next_payload,
            self.version,
            self.exchange,
            flags,
            self.message_id,
            self.length,
        )


def decode_header(data: bytes) -> Header:
    """Reads the header of a datagram and checks its length field against the datagram.

    Raises:
        HeaderError: too short or too long, a length that is not the datagram's.
    """
    if not HEADER_OCTETS <= len(data) <= MAX_MESSAGE:
        raise HeaderError("not the size of an IKE message")
    spi_i, spi_r, next_payload, version, exchange, flags, mid, length = HEADER.unpack_from(data)
    if length != len(data):
        raise HeaderError("the length field is not the datagram's length")
    return Header(
        spi_i=spi_i,
        spi_r=spi_r,
        exchange=exchange,
        message_id=mid,
        response=bool(flags & RESPONSE),
        initiator=bool(flags & INITIATOR),
        next_payload=next_payload,
        length=length,
        version=version,
    )
