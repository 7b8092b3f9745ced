"""Handing questions on to the system's own servers: whom, and what counts as their answer.

A question goes out as it came, EDNS and all, with a message ID of ours and from a port of its own;
nothing of an answer is kept. ``resolv.conf`` (resolv.conf(5)) is read and never written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

import dns.exception
import dns.name

from discovery.rcodes import FORMERR, NOTIMP, SERVFAIL
from discovery.stub import Question
from discovery.types import Endpoint

DNS_PORT: Final = 53
MAX_SERVERS: Final = 8
MAX_SEARCHES: Final = 32
PROBE_OCTETS: Final = 8  # of randomness in the name of a probe for loops

_HEADER_SIZE: Final = 12
_TC: Final = 0x0200
_MAX_NAME: Final = 255  # octets, RFC 1035 §2.3.4


@dataclass(frozen=True, slots=True)
class ResolvConf:
    """What a resolv.conf names: servers in order, and the search list."""

    servers: tuple[Endpoint, ...] = ()
    searches: tuple[dns.name.Name, ...] = ()


def parse_resolv_conf(text: str) -> ResolvConf:
    """Read a resolv.conf; lines that make no sense are stepped over, as the C library does."""
    servers: list[Endpoint] = []
    searches: tuple[dns.name.Name, ...] = ()
    for line in text.splitlines():
        words = line.split()
        if len(words) < 2:
            continue
        if words[0] == "nameserver":
            server = _server(words[1])
            if server is not None and server not in servers:
                servers.append(server)
        elif words[0] in ("search", "domain"):  # the last of them counts
            searches = tuple(name for word in words[1:] if (name := _domain(word)) is not None)
    return ResolvConf(tuple(servers[:MAX_SERVERS]), searches[:MAX_SEARCHES])


def _server(word: str) -> Endpoint | None:
    try:
        return str(ip_address(word)), DNS_PORT
    except ValueError:
        return None


def _domain(word: str) -> dns.name.Name | None:
    try:
        return dns.name.from_text(word.rstrip(".") + ".")
    except (dns.exception.DNSException, UnicodeError):
        return None


def same_server(one: Endpoint, other: Endpoint) -> bool:
    """Say whether two endpoints are the same, however their addresses are spelt."""
    try:
        return one[1] == other[1] and ip_address(one[0]) == ip_address(other[0])
    except ValueError:
        return one == other


def is_loopback(server: Endpoint) -> bool:
    """Say whether a server is on this machine's loopback: only there can we be our own server."""
    try:
        return ip_address(server[0]).is_loopback
    except ValueError:
        return False


def with_identity(wire: bytes, identity: int) -> bytes:
    """Return the message with another ID."""
    return identity.to_bytes(2) + wire[2:]


def is_answer(query: bytes, question: Question, wire: bytes) -> bool:
    """Say whether ``wire`` answers the ``query`` that we sent: ID, QR and question match.

    Whoever would forge an answer must guess our ID and our source port (RFC 5452 §9.1).
    """
    if len(wire) < _HEADER_SIZE or wire[:2] != query[:2] or not wire[2] & 0x80:
        return False
    if int.from_bytes(wire[4:6]) == 0:  # an error before the question was read
        return wire[3] & 15 in (FORMERR, SERVFAIL, NOTIMP)
    octets = wire[_HEADER_SIZE : _HEADER_SIZE + len(question.octets)]
    # Lower-casing a name's octets touches only letters: length octets are below 64.
    same_name = octets[:-4].lower() == question.octets[:-4].lower()
    return same_name and octets[-4:] == question.octets[-4:]


def is_truncated(wire: bytes) -> bool:
    """Say whether TC is set."""
    return bool(int.from_bytes(wire[2:4]) & _TC)


def probe_for(question: Question, token: bytes, identity: int) -> bytes:
    """Return a query for a name that nobody has, below the one of ``question``: it goes the same
    ways, and whoever gets it back has found a loop. It tells a server nothing new."""
    label = token.hex().encode()
    name = question.octets[:-4]
    if len(name) + len(label) + 1 > _MAX_NAME:
        name = b"\0"
    head = identity.to_bytes(2) + b"\x01\x00\0\1\0\0\0\0\0\0"
    return head + bytes([len(label)]) + label + name + b"\0\1\0\1"


def probe_token(question: Question, tokens: Sequence[bytes]) -> bytes | None:
    """Return which of our probes this question is, if any."""
    label = question.octets[1 : 1 + 2 * PROBE_OCTETS].lower()
    return next((token for token in tokens if token.hex().encode() == label), None)
