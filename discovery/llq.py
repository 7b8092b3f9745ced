"""The option of long-lived queries (RFC 8764 §3): EDNS option 1, read and written.

A long-lived query asks a question once and is told of every later change of its answer. Its
messages are ordinary DNS queries and responses with one :class:`LlqOption` per question, in the
order of the questions; :mod:`discovery.subscriptions` is the server's side of the conversation.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

OPTION_CODE: Final = 1
OPTION_SIZE: Final = 18  # octets of data, RFC 8764 §3.2
VERSION: Final = 1

SETUP: Final = 1
REFRESH: Final = 2
EVENT: Final = 3

NO_ERROR: Final = 0
SERV_FULL: Final = 1
STATIC: Final = 2
FORMAT_ERR: Final = 3
NO_SUCH_LLQ: Final = 4
BAD_VERS: Final = 5
UNKNOWN_ERR: Final = 6

REMOVED_TTL: Final = 0xFFFFFFFF
"""The TTL of a record that an event takes away (RFC 8764 §6.1: "-1")."""

MINIMUM_LEASE: Final = 900  # seconds, RFC 6281 §5.3 (B17)
MAXIMUM_LEASE: Final = 7200

PORT: Final = 5352
"""The registered port of long-lived queries; the zone's SRV record says the one in use."""

_LAYOUT: Final = struct.Struct("!HHHQI")


class LlqFormatError(Exception):
    """The option's data do not have the 18 octets that they must have."""


@dataclass(frozen=True, slots=True)
class LlqOption:
    """One question's option: ``opcode`` and ``error`` (RFC 8764 §3.2, §3.3), the 64-bit ``id``
    that the server gives (0 in the first request) and ``lease`` in seconds (0 in a REFRESH gives
    the query up; with SERV-FULL it is the time after which to ask again)."""

    opcode: int
    error: int = NO_ERROR
    id: int = 0
    lease: int = 0
    version: int = VERSION

    def pack(self) -> bytes:
        """Return the option's 18 octets of data."""
        return _LAYOUT.pack(self.version, self.opcode, self.error, self.id, self.lease)

    @classmethod
    def parse(cls, data: bytes) -> LlqOption:
        """Read an option's data, whatever its version. Raises :exc:`LlqFormatError`."""
        if len(data) != OPTION_SIZE:
            raise LlqFormatError(f"an LLQ option has {OPTION_SIZE} octets, not {len(data)}")
        version, opcode, error, identity, lease = _LAYOUT.unpack(data)
        return cls(opcode, error, identity, lease, version)


def pack_options(options: Iterable[LlqOption]) -> bytes:
    """Return options with their code and length, as they stand in the data of an OPT record."""
    head = struct.pack("!HH", OPTION_CODE, OPTION_SIZE)
    return b"".join(head + option.pack() for option in options)
