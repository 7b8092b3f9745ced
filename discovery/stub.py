"""What the stub resolver answers, and what it never does (B8, B48's details; RFC 1035).

A question for the AAAA of ``<host>.<domain>`` waits until the tunnel to that host stands, and is
answered with its host id; when the tunnel cannot be made it is answered "no such record" (NOERROR
without data, and the reason as an Extended DNS Error, RFC 8914), so that no application ever
connects without a tunnel. A host that the zone does not know is NXDOMAIN. Our own name is answered
at once. There is never an A record: a faked one would be used in clear.

Names of the account never leave this machine through here. Control names (bootstrap, targets,
tunnel services) are not answered: the zone client asks for them, signed, and nobody else.
Everything else is forwarded as it is, with a message ID of ours.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Final, TypeAlias

import dns.exception
import dns.name
import dns.rdatatype
import dns.wire

NOERROR: Final = 0
FORMERR: Final = 1
SERVFAIL: Final = 2
NXDOMAIN: Final = 3
NOTIMP: Final = 4

ADDRESS_TTL: Final = 10
"""Seconds for which an application's resolver may keep a host id: the tunnel stands *now*."""

UDP_PAYLOAD: Final = 1232  # octets, announced in EDNS

_HEADER: Final = struct.Struct("!HHHHHH")
_QR, _TC, _RD, _RA = 0x8000, 0x0200, 0x0100, 0x0080
_OPCODE: Final = 0x7800
_IN: Final = 1
_OPT: Final = 41
_EDE: Final = 15
_EDE_OTHER: Final = 0
_MAX_REASON: Final = 200  # octets of the reason that stands in an answer
_AAAA: Final = int(dns.rdatatype.AAAA)

_CONTROL_LABELS: Final = (b"ns", b"hostmaster")
_CONTROL_PREFIXES: Final = (b"_", b"autotunnel-")


@dataclass(frozen=True, slots=True)
class NotThere:
    """Why a peer cannot be reached, in one sentence. ``no_such_host``: the zone knows none."""

    reason: str
    no_such_host: bool = False


@dataclass(frozen=True, slots=True)
class Question:
    """A question that could be read: its octets as they came, so that they are echoed so."""

    identity: int
    flags: int
    octets: bytes
    name: dns.name.Name
    rdtype: int
    rdclass: int
    edns: bool

    def reply(self, rcode: int, address: IPv6Address | None = None, reason: str = "") -> bytes:
        """Return the answer: an AAAA, or none, and the reason where the client knows EDNS."""
        answer = b""
        if address is not None:
            answer = struct.pack("!HHHIH", 0xC00C, _AAAA, _IN, ADDRESS_TTL, 16) + address.packed
        flags = _QR | _RA | self.flags & (_OPCODE | _RD) | rcode
        counts = (1, int(address is not None), 0, int(self.edns))
        head = _HEADER.pack(self.identity, flags, *counts)
        return head + self.octets + answer + (_opt(reason) if self.edns else b"")

    def outcome(self, outcome: IPv6Address | NotThere) -> bytes:
        """Return the answer to a question that waited for a tunnel."""
        if isinstance(outcome, NotThere):
            rcode = NXDOMAIN if outcome.no_such_host else NOERROR
            return self.reply(rcode, reason=outcome.reason)
        return self.reply(NOERROR, outcome)


def _opt(reason: str) -> bytes:
    options = b""
    if reason:
        words = reason.encode()[:_MAX_REASON].decode("utf-8", "ignore").encode()
        options = struct.pack("!HHH", _EDE, 2 + len(words), _EDE_OTHER) + words
    return struct.pack("!BHHIH", 0, _OPT, UDP_PAYLOAD, 0, len(options)) + options


@dataclass(frozen=True, slots=True)
class Reply:
    """Answer this at once."""

    wire: bytes


@dataclass(frozen=True, slots=True)
class Hold:
    """Make the tunnel to the host ``label``, then answer with ``question.outcome``."""

    label: str
    question: Question


@dataclass(frozen=True, slots=True)
class Forward:
    """Ask the system's servers; ``wire`` is the query as it came."""

    question: Question
    wire: bytes


Decision: TypeAlias = Reply | Hold | Forward | None


class Stub:
    """Decides on each query. ``label`` and ``host_id`` are this host's own."""

    def __init__(self, domain: str, label: str, host_id: IPv6Address) -> None:
        self._origin = dns.name.from_text(domain.rstrip(".") + ".")
        self._own = dns.name.from_text(label, self._origin)
        self._host_id = host_id

    def decide(self, wire: bytes) -> Decision:
        """Decide on a message from an application; ``None`` for what is no query at all."""
        if len(wire) < _HEADER.size or wire[2] & 0x80:
            return None
        identity, flags = struct.unpack_from("!HH", wire)
        if flags & _OPCODE:
            return Reply(_bare(identity, flags, NOTIMP))
        try:
            question = read_question(wire)
        except (dns.exception.DNSException, ValueError):
            return Reply(_bare(identity, flags, FORMERR))
        if not question.name.is_subdomain(self._origin):
            return Forward(question, wire)
        return self._account_name(question)

    def _account_name(self, question: Question) -> Decision:
        below = question.name.labels[: -len(self._origin.labels)]
        if question.rdclass != _IN or len(below) != 1:
            return Reply(question.reply(NOERROR))  # the apex, services: nothing for applications
        label = below[0].lower()
        if label.startswith(_CONTROL_PREFIXES) or label in _CONTROL_LABELS:
            return Reply(question.reply(NXDOMAIN, reason="control names are not resolved here"))
        if question.rdtype != _AAAA:
            return Reply(question.reply(NOERROR))
        if question.name == self._own:
            return Reply(question.reply(NOERROR, self._host_id))
        text = label.decode("latin-1")
        if not (text.isascii() and text.isprintable()) or set(text) & set('. \\"'):
            return Reply(question.reply(NXDOMAIN, reason="this is not a host's name"))
        return Hold(text, question)


def read_question(wire: bytes) -> Question:
    """Read a query with exactly one question. Raises dnspython's errors and ValueError."""
    parser = dns.wire.Parser(wire)
    identity, flags, questions, answers, authority, additional = parser.get_struct("!HHHHHH")
    if questions != 1 or answers or authority:
        raise ValueError("a query holds one question and no answers")
    start = parser.current
    name = dns.name.from_wire_parser(parser)
    rdtype, rdclass = parser.get_struct("!HH")
    octets = wire[start : parser.current]
    edns = False
    for _ in range(additional):
        dns.name.from_wire_parser(parser)
        kind, _, _, length = parser.get_struct("!HHIH")
        parser.get_bytes(length)
        edns = edns or kind == _OPT
    return Question(identity, flags, octets, name, rdtype, rdclass, edns)


def _bare(identity: int, flags: int, rcode: int) -> bytes:
    reply_flags = _QR | _RA | flags & (_OPCODE | _RD) | rcode
    return _HEADER.pack(identity, reply_flags, 0, 0, 0, 0)


# --- Forwarding -----------------------------------------------------------------------------


def with_identity(wire: bytes, identity: int) -> bytes:
    """Return the message with another ID."""
    return identity.to_bytes(2) + wire[2:]


def is_answer(query: bytes, question: Question, wire: bytes) -> bool:
    """Say whether ``wire`` answers the ``query`` that we sent: ID, QR and question match.

    Whoever would forge an answer must guess our ID and our source port (RFC 5452 §9.1).
    """
    if len(wire) < _HEADER.size or wire[:2] != query[:2] or not wire[2] & 0x80:
        return False
    if int.from_bytes(wire[4:6]) == 0:  # an error before the question was read
        return wire[3] & 15 in (FORMERR, SERVFAIL, NOTIMP)
    octets = wire[_HEADER.size : _HEADER.size + len(question.octets)]
    # Lower-casing a name's octets touches only letters: length octets are below 64.
    same_name = octets[:-4].lower() == question.octets[:-4].lower()
    return same_name and octets[-4:] == question.octets[-4:]


def is_truncated(wire: bytes) -> bool:
    """Say whether TC is set."""
    return bool(int.from_bytes(wire[2:4]) & _TC)
