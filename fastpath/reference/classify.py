"""What a datagram on the UDP 4500 socket is (RFC 3948 §2), before any key is used."""

from __future__ import annotations

from collections.abc import Container
from enum import Enum, auto

KEEPALIVE = b"\xff"
MARKER_OCTETS = 4
NON_ESP_MARKER = bytes(MARKER_OCTETS)
IKE_HEADER_OCTETS = 28
IKE_MAJOR_VERSION = 2
FIRST_EXCHANGE, LAST_EXCHANGE = 34, 44  # IKE_SA_INIT .. IKE_FOLLOWUP_KE (RFC 7296, 9370)
NO_SPI = bytes(8)


class Kind(Enum):
    """One of the things that may come to the socket."""

    KEEPALIVE = auto()
    IKE = auto()  # behind the non-ESP marker
    BARE_IKE = auto()  # without it, as strongSwan sends from port 500
    ESP = auto()  # of an SPI that we hold
    UNKNOWN_SPI = auto()
    MALFORMED = auto()


def classify(datagram: bytes, inbound: Container[int]) -> Kind:
    """Tells what ``datagram`` is; ``inbound`` holds the SPIs of our inbound SAs.

    A known SPI goes first: an IKE SPI that happens to look like it must not steal its packets.
    """
    if datagram == KEEPALIVE:
        return Kind.KEEPALIVE
    if len(datagram) < MARKER_OCTETS:
        return Kind.MALFORMED
    if datagram.startswith(NON_ESP_MARKER):
        return Kind.IKE
    if int.from_bytes(datagram[:4], "big") in inbound:
        return Kind.ESP
    return Kind.BARE_IKE if looks_like_ike(datagram) else Kind.UNKNOWN_SPI


def looks_like_ike(datagram: bytes) -> bool:
    """Whether version, exchange and length are those of an IKEv2 message (RFC 7296 §3.1)."""
    return (
        len(datagram) >= IKE_HEADER_OCTETS
        and datagram[17] >> 4 == IKE_MAJOR_VERSION
        and FIRST_EXCHANGE <= datagram[18] <= LAST_EXCHANGE
        and int.from_bytes(datagram[24:28], "big") == len(datagram)
    )


def is_first_word(message: bytes) -> bool:
    """Whether an IKE message, without its marker, is a stranger's first: an IKE_SA_INIT request,
    in which the responder has no SPI yet (RFC 7296 §3.1)."""
    return (
        len(message) >= IKE_HEADER_OCTETS
        and message[18] == FIRST_EXCHANGE
        and message[8:16] == NO_SPI
    )
