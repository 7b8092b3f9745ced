"""DNS messages as the rendezvous reads and writes them (RFC 1035 §4, RFC 6891, RFC 8914).

dnspython knows the record types; the frame is read here, since a server must see what dnspython's
message class forgets (the TTL of an empty UPDATE record, the class that stood on the wire, where
an OPT stood) and must answer each flaw with its RCODE. Reading is bounded by the message: names by
RFC 1035's 255 octets, records by the octets that are there.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from io import SEEK_END, BytesIO
from typing import Final

import dns.exception
import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.wire

from discovery.rcodes import NOERROR, REFUSED
from discovery.store import RecordSet

HEADER_SIZE: Final = 12

QR: Final = 0x8000
AA: Final = 0x0400
TC: Final = 0x0200
RD: Final = 0x0100

OPCODE_QUERY: Final = 0
OPCODE_NOTIFY: Final = 4
OPCODE_UPDATE: Final = 5


IN: Final = 1
CLASS_NONE: Final = 254
CLASS_ANY: Final = 255

TYPE_SOA: Final = 6
TYPE_OPT: Final = 41
TYPE_TSIG: Final = 250
TYPE_IXFR: Final = 251
TYPE_AXFR: Final = 252
TYPE_ANY: Final = 255

_KNOWN_TYPES: Final = frozenset(int(rdtype) for rdtype in dns.rdatatype.RdataType)

EDE_OPTION: Final = 15
EDE_OTHER: Final = 0
EDE_PROHIBITED: Final = 18

UDP_PAYLOAD: Final = 1232
"""The largest UDP answer that we send and the payload size that we announce, in octets: it fits
the IPv6 minimum MTU (DNS flag day 2020; RFC 9715)."""

PLAIN_UDP: Final = 512  # octets, without EDNS (RFC 1035 §4.2.1)
TCP_PAYLOAD: Final = 65535


class FormatError(Exception):
    """The message is not what its header says: answer FORMERR if there is a header at all."""


@dataclass(frozen=True, slots=True)
class Question:
    """One entry of the question (or, in an UPDATE, zone) section."""

    name: dns.name.Name
    rdtype: int
    rdclass: int


@dataclass(frozen=True, slots=True)
class Record:
    """One record as it stood on the wire. ``length`` is its RDLENGTH; ``rdata`` is ``None`` where
    the RDLENGTH is zero or the class is one whose data have no form of their own."""

    name: dns.name.Name
    rdtype: int
    rdclass: int
    ttl: int
    length: int
    rdata: dns.rdata.Rdata | None


@dataclass(frozen=True, slots=True)
class Edns:
    """The OPT record of a request (RFC 6891 §6.1): payload size in octets, version, options."""

    payload: int
    version: int
    options: tuple[tuple[int, bytes], ...]


@dataclass(frozen=True, slots=True)
class Request:
    """A request that could be read. For an UPDATE, ``answer`` holds the prerequisites and
    ``authority`` the updates (RFC 2136 §2)."""

    identity: int
    flags: int
    questions: tuple[Question, ...]
    answer: tuple[Record, ...]
    authority: tuple[Record, ...]
    edns: Edns | None

    @property
    def opcode(self) -> int:
        """The OPCODE of the header."""
        return self.flags >> 11 & 15


@dataclass(slots=True)
class Reply:
    """What to answer: RCODE (12 bits, with EDNS), sections, one sentence for a refusal (sent as an
    Extended DNS Error, RFC 8914), and other EDNS options as (code, data)."""

    rcode: int = NOERROR
    authoritative: bool = False
    answer: list[RecordSet] = field(default_factory=list)
    authority: list[RecordSet] = field(default_factory=list)
    additional: list[RecordSet] = field(default_factory=list)
    reason: str = ""
    reason_code: int = EDE_OTHER
    options: list[tuple[int, bytes]] = field(default_factory=list)


def refuse(reason: str) -> Reply:
    """Return a REFUSED reply that says why."""
    return Reply(rcode=REFUSED, reason=reason, reason_code=EDE_PROHIBITED)


# --- Reading --------------------------------------------------------------------------------


def read_request(wire: bytes) -> Request:
    """Read a request; a TSIG record is stepped over (:mod:`discovery.tsig` judges it).

    Raises :exc:`FormatError`: truncated, trailing octets, bad names or data, a second OPT, an OPT
    or TSIG out of place.
    """
    try:
        return _read(dns.wire.Parser(wire))
    except dns.exception.DNSException as error:
        raise FormatError(type(error).__name__) from error


def _read(parser: dns.wire.Parser) -> Request:
    identity, flags, *counts = parser.get_struct("!HHHHHH")
    questions = tuple(_question(parser) for _ in range(counts[0]))
    answer = tuple(_record(parser) for _ in range(counts[1]))
    authority = tuple(_record(parser) for _ in range(counts[2]))
    edns = _additional(parser, counts[3])
    if parser.remaining():
        raise FormatError("octets after the last record")
    return Request(identity, flags, questions, answer, authority, edns)


def _question(parser: dns.wire.Parser) -> Question:
    name = parser.get_name(decompress=True)
    rdtype, rdclass = parser.get_struct("!HH")
    return Question(name, rdtype, rdclass)


def _record(parser: dns.wire.Parser) -> Record:
    name = parser.get_name(decompress=True)
    rdtype, rdclass, ttl, length = parser.get_struct("!HHIH")
    if rdtype in (TYPE_OPT, TYPE_TSIG):
        raise FormatError("OPT or TSIG outside the additional section")
    with parser.restrict_to(length):
        rdata = _rdata(parser, rdtype, rdclass, length)
    return Record(name, rdtype, rdclass, ttl, length, rdata)


def _rdata(
    parser: dns.wire.Parser, rdtype: int, rdclass: int, length: int
) -> dns.rdata.Rdata | None:
    if rdclass not in (IN, CLASS_NONE) or (rdclass == CLASS_NONE and not length):
        parser.get_bytes(length)
        return None
    kind = dns.rdatatype.RdataType.make(rdtype)
    if rdtype not in _KNOWN_TYPES:  # dnspython would remember each one for ever: 29 MB for all
        return dns.rdata.GenericRdata(dns.rdataclass.IN, kind, parser.get_remaining())
    return dns.rdata.from_wire_parser(dns.rdataclass.IN, kind, parser)


def _additional(parser: dns.wire.Parser, count: int) -> Edns | None:
    edns: Edns | None = None
    for index in range(count):
        name = parser.get_name(decompress=True)
        rdtype, rdclass, ttl, length = parser.get_struct("!HHIH")
        with parser.restrict_to(length):
            if rdtype == TYPE_OPT:
                if edns is not None or name != dns.name.root:
                    raise FormatError("more than one OPT, or one with a name (RFC 6891 §6.1.1)")
                edns = Edns(rdclass, ttl >> 16 & 0xFF, _options(parser))
            else:
                if rdtype == TYPE_TSIG and index != count - 1:
                    raise FormatError("TSIG is not the last record (RFC 8945 §5.1)")
                parser.get_bytes(length)  # other additional records say nothing to a server
    return edns


def _options(parser: dns.wire.Parser) -> tuple[tuple[int, bytes], ...]:
    options = []
    while parser.remaining():
        code, length = parser.get_struct("!HH")
        options.append((code, parser.get_bytes(length)))
    return tuple(options)


# --- Writing --------------------------------------------------------------------------------


def is_update(wire: bytes) -> bool:
    """Say whether a message's header is that of an UPDATE."""
    return len(wire) >= HEADER_SIZE and wire[2] >> 3 & 15 == OPCODE_UPDATE


def header_only(wire: bytes, rcode: int) -> bytes:
    """Answer a message of which only the header can be trusted: no sections."""
    identity, flags = struct.unpack_from("!HH", wire)
    return struct.pack("!HHHHHH", identity, response_flags(flags, rcode), 0, 0, 0, 0)


def render(request: Request, reply: Reply, limit: int) -> bytes | None:
    """Write the reply in at most ``limit`` octets, or return ``None`` if it does not fit.

    Additional records are left out silently where they alone do not fit (RFC 2181 §9).
    """
    opt = _opt(request, reply)
    out = Writer(limit - len(opt))
    fits = all(out.question(question) for question in _echoed(request))
    fits = fits and all(out.record_set(1, content) for content in reply.answer)
    fits = fits and all(out.record_set(2, content) for content in reply.authority)
    if not fits:
        return None
    for content in reply.additional:
        out.record_set(3, content)
    return out.finish(
        request.identity, response_flags(request.flags, reply.rcode, reply.authoritative), opt
    )


def render_truncated(request: Request, reply: Reply) -> bytes:
    """Write the reply with its question only and TC set; the requestor comes again over TCP."""
    bare = Reply(rcode=reply.rcode, authoritative=reply.authoritative)
    out = Writer(TCP_PAYLOAD)
    for question in _echoed(request)[:1]:
        out.question(question)
    flags = response_flags(request.flags, reply.rcode, reply.authoritative) | TC
    return out.finish(request.identity, flags, _opt(request, bare))


def _echoed(request: Request) -> tuple[Question, ...]:
    """Return the question, or an UPDATE's zone section if it is one (RFC 2136 §3.8 lets us choose
    between echoing sections and leaving them out)."""
    asked = request.questions
    if request.opcode != OPCODE_UPDATE:
        return asked
    is_zone = len(asked) == 1 and (asked[0].rdtype, asked[0].rdclass) == (TYPE_SOA, IN)
    return asked if is_zone else ()


def response_flags(request_flags: int, rcode: int, authoritative: bool = False) -> int:
    """Return the header's flags for the answer of a request with these flags."""
    # Opcode and RD are copied; CD, AD, RA and Z stay zero: we neither validate nor recurse.
    copied = request_flags & (0x7800 | RD)
    return QR | copied | (AA if authoritative else 0) | (rcode & 15)


def _opt(request: Request, reply: Reply) -> bytes:
    """Return the OPT record of the reply; empty for a request without one (RFC 6891 §6.1.1)."""
    if request.edns is None:
        return b""
    options = b"".join(struct.pack("!HH", code, len(data)) + data for code, data in reply.options)
    if reply.reason:
        text = struct.pack("!H", reply.reason_code) + reply.reason.encode()
        options += struct.pack("!HH", EDE_OPTION, len(text)) + text
    extended = reply.rcode >> 4 << 24
    fixed = struct.pack("!BHHIH", 0, TYPE_OPT, UDP_PAYLOAD, extended, len(options))
    return fixed + options


class Writer:
    """A message under construction: sections in order, names compressed, never above ``limit``."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._out = BytesIO(bytes(HEADER_SIZE))
        self._out.seek(HEADER_SIZE)
        self._compress: dict[dns.name.Name, int] = {}
        self._counts = [0, 0, 0, 0]

    def question(self, question: Question) -> bool:
        """Write a question, unless it does not fit: then return false."""
        start = self._out.tell()
        question.name.to_wire(self._out, self._compress)
        self._out.write(struct.pack("!HH", question.rdtype, question.rdclass))
        return self._keep(start, 0, 1)

    def record_set(self, section: int, content: RecordSet) -> bool:
        """Write a whole set, or nothing of it: then return false."""
        start = self._out.tell()
        for item in content.items:
            content.name.to_wire(self._out, self._compress)
            self._out.write(struct.pack("!HHIH", content.rdtype, IN, content.ttl, 0))
            data = self._out.tell()
            item.rdata.to_wire(self._out, self._compress)
            length = self._out.tell() - data
            self._out.seek(data - 2)
            self._out.write(struct.pack("!H", length))
            self._out.seek(0, SEEK_END)
            if self._out.tell() > self._limit:
                break
        return self._keep(start, section, len(content.items))

    def finish(self, identity: int, flags: int, opt: bytes) -> bytes:
        """Return the message; ``opt`` is its OPT record, or nothing."""
        additional = self._counts[3] + (1 if opt else 0)
        header = struct.pack("!HHHHHH", identity, flags, *self._counts[:3], additional)
        return header + self._out.getvalue()[HEADER_SIZE:] + opt

    def _keep(self, start: int, section: int, count: int) -> bool:
        if self._out.tell() <= self._limit:
            self._counts[section] += count
            return True
        self._out.seek(start)
        self._out.truncate()
        for name in [name for name, at in self._compress.items() if at >= start]:
            del self._compress[name]
        return False
