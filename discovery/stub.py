"""What the stub resolver answers, and what it never does (B8, B48's details; RFC 1035).

A question for the AAAA of ``<host>.<domain>`` waits until the tunnel to that host stands, and is
answered with its host id; when the tunnel cannot be made it is answered "no such record" (NOERROR
without data, and the reason as an Extended DNS Error, RFC 8914), so that no application ever
connects without a tunnel. A host that the zone does not know is NXDOMAIN. Our own name is answered
at once. There is never an A record: a faked one would be used in clear.

Names of services (DNS-SD, RFC 6763) are asked of the zone, and what stands there is the answer,
without addresses beside it: those an application asks for, and so gets its tunnel. The reverse name
of a host id is answered with the host's name.

Names of the account never leave this machine through here: neither they nor the reverse names of
host ids, nor what a resolver makes of them with its search list. Control names (bootstrap, targets,
tunnel services) are not answered: the zone client asks for them, signed, and nobody else.
Everything else is forwarded as it is (:mod:`discovery.forwarding`).
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Final, TypeAlias

import dns.exception
import dns.name
import dns.rdata
import dns.rdatatype
import dns.wire

from discovery import services
from discovery.rcodes import BADVERS, FORMERR, NOERROR, NOTIMP, NXDOMAIN, SERVFAIL
from discovery.types import RecordsFound

ADDRESS_TTL: Final = 10
"""Seconds for which an application's resolver may keep a host id: the tunnel stands *now*."""
SERVICE_TTL: Final = 10
"""Seconds for which it may keep what a service is: so late, at most, it sees that one has gone."""

UDP_PAYLOAD: Final = 1232  # octets, announced in EDNS
PLAIN_UDP: Final = 512  # octets, RFC 1035 §4.2.1
TCP_PAYLOAD: Final = 65535

_HEADER: Final = struct.Struct("!HHHHHH")
_QR, _TC, _RD, _RA = 0x8000, 0x0200, 0x0100, 0x0080
_OPCODE: Final = 0x7800
_IN: Final = 1
_OPT: Final = 41
_DO: Final = 0x8000
_EDE: Final = 15
_EDE_OTHER: Final = 0
_MAX_REASON: Final = 200  # octets of the reason that stands in an answer
_MAX_NAMED: Final = 1024  # host ids that were given out or named, kept in mind
_AAAA: Final = int(dns.rdatatype.AAAA)
_PTR: Final = int(dns.rdatatype.PTR)
_OF_SERVICES: Final = frozenset((_PTR, int(dns.rdatatype.SRV), int(dns.rdatatype.TXT)))

_CONTROL_LABELS: Final = (b"ns", b"hostmaster")
_CONTROL_PREFIXES: Final = (b"_", b"autotunnel-")
_REVERSE: Final = dns.name.from_text("ip6.arpa.")
_NIBBLES: Final = 32
_ULA_FIRST: Final = 0xFC


@dataclass(frozen=True, slots=True)
class NotThere:
    """Why a peer cannot be reached, in one sentence. ``no_such_host``: the zone knows none."""

    reason: str
    no_such_host: bool = False


@dataclass(frozen=True, slots=True)
class Question:
    """A question that could be read: its octets as they came, so that they are echoed so.

    ``payload`` is what the asker takes over UDP, in octets, if it knows EDNS (RFC 6891), else
    ``None``; ``version`` and ``dnssec`` (the DO bit, RFC 3225) come with it.
    """

    identity: int
    flags: int
    octets: bytes
    name: dns.name.Name
    rdtype: int
    rdclass: int
    payload: int | None = None
    version: int = 0
    dnssec: bool = False

    def reply(
        self,
        rcode: int,
        data: Sequence[bytes] = (),
        *,
        ttl: int = ADDRESS_TTL,
        reason: str = "",
        limit: int = TCP_PAYLOAD,
    ) -> bytes:
        """Return the answer: records of the type and name asked for, or none, and the reason
        where the client knows EDNS. What does not fit into ``limit`` octets is cut (TC)."""
        opt = b"" if self.payload is None else self._opt(rcode, reason)
        record = struct.Struct("!HHHIH")  # RFC 1035 §4.1.4: a pointer to the question's name
        answer = b"".join(
            record.pack(0xC00C, self.rdtype, _IN, ttl, len(one)) + one for one in data
        )
        flags = _QR | _RA | self.flags & (_OPCODE | _RD) | rcode & 15
        count = len(data)
        if _HEADER.size + len(self.octets) + len(answer) + len(opt) > limit:
            answer, count, flags = b"", 0, flags | _TC
        head = _HEADER.pack(self.identity, flags, 1, count, 0, int(bool(opt)))
        return head + self.octets + answer + opt

    def _opt(self, rcode: int, reason: str) -> bytes:
        options = b""
        if reason:
            words = reason.encode()[:_MAX_REASON].decode("utf-8", "ignore").encode()
            options = struct.pack("!HHH", _EDE, 2 + len(words), _EDE_OTHER) + words
        flags = (rcode >> 4) << 24 | (_DO if self.dnssec else 0)
        return struct.pack("!BHHIH", 0, _OPT, UDP_PAYLOAD, flags, len(options)) + options

    def outcome(self, outcome: IPv6Address | NotThere) -> bytes:
        """Return the answer to a question that waited for a tunnel."""
        if isinstance(outcome, NotThere):
            rcode = NXDOMAIN if outcome.no_such_host else NOERROR
            return self.reply(rcode, reason=outcome.reason)
        return self.reply(NOERROR, [outcome.packed])

    def found(self, found: RecordsFound, domain: str, *, tcp: bool) -> bytes:
        """Return the answer to a question that was asked of the zone. A zone that cannot be asked
        is SERVFAIL: no data would mean that the services are gone."""
        if found.reason:
            return self.reply(SERVFAIL, reason=found.reason)
        if not found.exists:
            return self.reply(NXDOMAIN)
        data = [wire_of(one) for one in services.inside(found.answer, domain)]
        limit = max(PLAIN_UDP, min(self.payload or 0, UDP_PAYLOAD))
        return self.reply(NOERROR, data, ttl=SERVICE_TTL, limit=TCP_PAYLOAD if tcp else limit)


def wire_of(rdata: dns.rdata.Rdata) -> bytes:
    """Return record data in wire format, without compression."""
    wire = rdata.to_wire()
    assert wire is not None  # it is written to nothing else
    return wire


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
class AskZone:
    """Ask the zone, signed, then answer with ``question.found``."""

    question: Question


@dataclass(frozen=True, slots=True)
class Forward:
    """Ask the system's servers; ``wire`` is the query as it came."""

    question: Question
    wire: bytes


Decision: TypeAlias = Reply | Hold | AskZone | Forward | None


class Stub:
    """Decides on each query. ``label`` and ``host_id`` are this host's own.

    ``name_of`` gives the full name of the host with a host id, ``searches`` the search list of the
    system's resolver (resolv.conf(5)).
    """

    def __init__(
        self,
        domain: str,
        label: str,
        host_id: IPv6Address,
        *,
        name_of: Callable[[IPv6Address], str | None] = lambda _: None,
        searches: Callable[[], Iterable[dns.name.Name]] = lambda: (),
    ) -> None:
        self.domain = domain
        self._origin = dns.name.from_text(domain.rstrip(".") + ".")
        self._own = dns.name.from_text(label, self._origin)
        self._host_id = host_id
        self._name_of = name_of
        self._searches = searches
        self._named: OrderedDict[IPv6Address, str] = OrderedDict()

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
        ours = self._ours(question)
        if ours is None:
            return Forward(question, wire)
        return Reply(question.reply(BADVERS)) if question.version else ours

    def _ours(self, question: Question) -> Decision:
        """Decide on what is the account's; ``None`` for everything else."""
        if question.name.is_subdomain(self._origin):
            return self._account_name(question)
        host_id = reversed_host_id(question.name)
        if host_id is not None:
            return self._reverse_name(question, host_id)
        if self._is_search_variant(question.name):
            return Reply(question.reply(NXDOMAIN, reason="names of the account stay here"))
        return None

    def _account_name(self, question: Question) -> Decision:
        below = question.name.labels[: -len(self._origin.labels)]
        if question.rdclass != _IN or not below:
            return Reply(question.reply(NOERROR))  # the apex: nothing for applications
        if len(below) > 1:
            return self._service_name(question, below)
        label = below[0].lower()
        if label.startswith(_CONTROL_PREFIXES) or label in _CONTROL_LABELS:
            return Reply(question.reply(NXDOMAIN, reason="control names are not resolved here"))
        if question.rdtype != _AAAA:
            return Reply(question.reply(NOERROR))
        if question.name == self._own:
            return Reply(question.reply(NOERROR, [self._host_id.packed]))
        text = label.decode("latin-1")
        if not (text.isascii() and text.isprintable()) or set(text) & set('. \\"'):
            return Reply(question.reply(NXDOMAIN, reason="this is not a host's name"))
        return Hold(text, question)

    def _service_name(self, question: Question, below: tuple[bytes, ...]) -> Decision:
        """DNS-SD: services are the zone's to tell; where to browse is this domain (§11)."""
        if _is_browse_name(below):
            origin = [self._origin.to_wire() or b""] if question.rdtype == _PTR else []
            return Reply(question.reply(NOERROR, origin, ttl=SERVICE_TTL))
        if services.is_service_question(below) and question.rdtype in _OF_SERVICES:
            return AskZone(question)
        return Reply(question.reply(NOERROR))

    # --- Reverse names and search lists ---

    def remember(self, host_id: IPv6Address, label: str) -> None:
        """An application learns this host id: whatever it asks about it must not leave."""
        self._named[host_id] = f"{label}.{self.domain}"
        self._named.move_to_end(host_id)
        if len(self._named) > _MAX_NAMED:
            self._named.popitem(last=False)

    def _reverse_name(self, question: Question, host_id: IPv6Address) -> Decision:
        """RFC 3596 §2.5 names of host ids; a stranger's unique local address is forwarded."""
        if host_id == self._host_id:
            name: str | None = self._own.to_text()
        else:
            name = self._name_of(host_id) or self._named.get(host_id)
        if name is None:
            return None
        below = question.name.labels[: -(_NIBBLES + len(_REVERSE.labels))]
        if below and not _is_browse_name(below):
            return Reply(question.reply(NXDOMAIN))
        if question.rdtype != _PTR or question.rdclass != _IN:
            return Reply(question.reply(NOERROR))
        target = self._origin if below else dns.name.from_text(name.rstrip(".") + ".")
        return Reply(question.reply(NOERROR, [target.to_wire() or b""]))

    def _is_search_variant(self, name: dns.name.Name) -> bool:
        """Say whether a resolver made this of a name of the account, with its search list."""
        for search in self._searches():
            if len(search.labels) > 1 and name.is_subdomain(search) and name != search:
                rest = dns.name.Name((*name.labels[: -len(search.labels)], b""))
                if rest.is_subdomain(self._origin):
                    return True
        return False


def _is_browse_name(below: tuple[bytes, ...]) -> bool:
    """RFC 6763 §11: ``b``, ``db`` or ``lb`` below ``_dns-sd._udp``."""
    kinds = [kind.encode() for kind in services.DOMAIN_KINDS]
    labels = [label.lower() for label in below]
    return labels[1:] == [b"_dns-sd", b"_udp"] and labels[0] in kinds


def reversed_host_id(name: dns.name.Name) -> IPv6Address | None:
    """Return the unique local address whose reverse name this is, or is below; else ``None``."""
    if not name.is_subdomain(_REVERSE):
        return None
    nibbles = name.labels[-(_NIBBLES + len(_REVERSE.labels)) : -len(_REVERSE.labels)]
    if len(nibbles) != _NIBBLES or any(len(one) != 1 for one in nibbles):
        return None
    try:
        octets = bytes.fromhex(b"".join(reversed(nibbles)).decode("ascii"))
    except ValueError:
        return None
    return IPv6Address(octets) if len(octets) == 16 and octets[0] & 0xFE == _ULA_FIRST else None


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
    if len(octets) != 4 + sum(len(label) + 1 for label in name.labels):
        raise ValueError("the name of a question has nothing to point to")
    edns: tuple[int | None, int] = None, 0
    for _ in range(additional):
        dns.name.from_wire_parser(parser)
        kind, size, ttl, length = parser.get_struct("!HHIH")
        parser.get_bytes(length)
        if kind == _OPT:
            if edns[0] is not None:
                raise ValueError("a query holds at most one OPT (RFC 6891 §6.1.1)")
            edns = size, ttl
    payload, ttl = edns
    version, dnssec = ttl >> 16 & 0xFF, bool(ttl & _DO)
    return Question(identity, flags, octets, name, rdtype, rdclass, payload, version, dnssec)


def _bare(identity: int, flags: int, rcode: int) -> bytes:
    reply_flags = _QR | _RA | flags & (_OPCODE | _RD) | rcode
    return _HEADER.pack(identity, reply_flags, 0, 0, 0, 0)
