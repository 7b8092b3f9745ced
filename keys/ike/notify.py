"""Notify payloads (RFC 7296 §3.10): errors below 16384, status above."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

FIRST_STATUS = 16384
_FIXED = struct.Struct(">BBH")


class NotifyType(IntEnum):
    """Types that we send or act on (RFC 7296 §3.10.1). Others are passed over politely."""

    UNSUPPORTED_CRITICAL_PAYLOAD = 1
    INVALID_IKE_SPI = 4
    INVALID_MAJOR_VERSION = 5
    INVALID_SYNTAX = 7
    INVALID_MESSAGE_ID = 9
    INVALID_SPI = 11
    NO_PROPOSAL_CHOSEN = 14
    INVALID_KE_PAYLOAD = 17
    AUTHENTICATION_FAILED = 24
    SINGLE_PAIR_REQUIRED = 34
    NO_ADDITIONAL_SAS = 35
    INTERNAL_ADDRESS_FAILURE = 36
    FAILED_CP_REQUIRED = 37
    TS_UNACCEPTABLE = 38
    INVALID_SELECTORS = 39
    UNACCEPTABLE_ADDRESSES = 40
    UNEXPECTED_NAT_DETECTED = 41
    TEMPORARY_FAILURE = 43
    CHILD_SA_NOT_FOUND = 44
    STATE_NOT_FOUND = 47

    INITIAL_CONTACT = 16384
    SET_WINDOW_SIZE = 16385
    ADDITIONAL_TS_POSSIBLE = 16386
    NAT_DETECTION_SOURCE_IP = 16388
    NAT_DETECTION_DESTINATION_IP = 16389
    COOKIE = 16390
    USE_TRANSPORT_MODE = 16391
    REKEY_SA = 16393
    ESP_TFC_PADDING_NOT_SUPPORTED = 16394
    MOBIKE_SUPPORTED = 16396
    ADDITIONAL_IP4_ADDRESS = 16397
    ADDITIONAL_IP6_ADDRESS = 16398
    NO_ADDITIONAL_ADDRESSES = 16399
    UPDATE_SA_ADDRESSES = 16400
    COOKIE2 = 16401
    NO_NATS_ALLOWED = 16402
    IKEV2_FRAGMENTATION_SUPPORTED = 16430
    SIGNATURE_HASH_ALGORITHMS = 16431
    USE_PPK = 16435
    PPK_IDENTITY = 16436
    NO_PPK_AUTH = 16437
    INTERMEDIATE_EXCHANGE_SUPPORTED = 16438
    ADDITIONAL_KEY_EXCHANGE = 16441


# Errors in an IKE_AUTH answer that refuse the CHILD_SA and let the IKE SA live (RFC 7296 §1.2).
CHILD_ERRORS = frozenset(
    {
        NotifyType.NO_PROPOSAL_CHOSEN,
        NotifyType.SINGLE_PAIR_REQUIRED,
        NotifyType.NO_ADDITIONAL_SAS,
        NotifyType.INTERNAL_ADDRESS_FAILURE,
        NotifyType.FAILED_CP_REQUIRED,
        NotifyType.TS_UNACCEPTABLE,
    }
)


@dataclass(frozen=True, slots=True)
class Notify:
    """One notification. ``protocol`` and ``spi`` only where they name an SA (RFC 7296 §3.10)."""

    kind: int
    data: bytes = b""
    protocol: int = 0
    spi: bytes = b""

    @property
    def is_error(self) -> bool:
        """Whether the request that this answers has failed."""
        return self.kind < FIRST_STATUS

    @property
    def name(self) -> str:
        """The type's name in the RFC, or its number."""
        try:
            return NotifyType(self.kind).name
        except ValueError:
            return f"notification {self.kind}"

    def encode(self) -> bytes:
        """The payload body."""
        return _FIXED.pack(self.protocol, len(self.spi), self.kind) + self.spi + self.data


def decode_notify(body: bytes) -> Notify:
    """Reads a payload body; raises ValueError if it is too short for what it says."""
    if len(body) < _FIXED.size:
        raise ValueError("a Notify payload is shorter than 4 octets")
    protocol, spi_size, kind = _FIXED.unpack_from(body)
    rest = body[_FIXED.size :]
    if len(rest) < spi_size:
        raise ValueError("a Notify payload is shorter than its SPI")
    return Notify(kind, rest[spi_size:], protocol, rest[:spi_size])
