"""One signed question to the zone and the judgement of its answer (B58, B59).

Built for the client machine (:mod:`discovery.client`), the pin check of the transport and the
redeeming of invitations, so that all three judge an answer alike: only a response with our message
ID, our question, and a MAC over *our* request's MAC is an answer (RFC 8945 §5.3, §5.4).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

import dns.edns
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.wire

from discovery import llq, tsig
from discovery.llq import LlqFormatError, LlqOption
from discovery.rcodes import NOERROR
from discovery.records import LEASE_OPTION, UDP_PAYLOAD
from discovery.types import TsigKey

EDE_OPTION: Final = 15  # RFC 8914
MAX_EDE_TEXT: Final = 300  # characters of the server's words that we repeat

_HEADER_SIZE = 12
_QR, _TC = 0x8000, 0x0200
_OPT = 41

_RCODE_NAMES: Final = {1: "FORMERR", 2: "SERVFAIL", 3: "NXDOMAIN", 4: "NOTIMP", 5: "REFUSED"} | {
    6: "YXDOMAIN", 7: "YXRRSET", 8: "NXRRSET", 9: "NOTAUTH", 10: "NOTZONE", 16: "BADVERS"
}  # fmt: skip

# The data that a host reads; anything else in an answer is stepped over unread.
_READ = frozenset(
    int(rdtype)
    for rdtype in (
        dns.rdatatype.A,
        dns.rdatatype.AAAA,
        dns.rdatatype.CNAME,
        dns.rdatatype.PTR,
        dns.rdatatype.SOA,
        dns.rdatatype.SRV,
        dns.rdatatype.TLSA,
        dns.rdatatype.TXT,
    )
)


class ResponseError(Exception):
    """The octets are not a well-formed DNS response."""


@dataclass(frozen=True, slots=True)
class Response:
    """A response that could be read. ``rcode`` has 12 bits with EDNS; ``lease`` is the granted
    lease in seconds; ``words`` is the server's own explanation (RFC 8914), empty if none; ``llq``
    the first option of a long-lived query. ``gone`` has the places in ``answer`` of records with
    the TTL of those that an event takes away (RFC 8764 §6.1)."""

    identity: int
    opcode: int
    rcode: int
    truncated: bool
    question: tuple[dns.name.Name, int] | None
    answer: tuple[tuple[dns.name.Name, int, dns.rdata.Rdata], ...]
    lease: int | None = None
    words: str = ""
    llq: LlqOption | None = None
    gone: frozenset[int] = frozenset()

    def at(self, name: dns.name.Name, rdtype: int) -> tuple[dns.rdata.Rdata, ...]:
        """Return the answer's data at one name and type; names compare without case."""
        return tuple(data for owner, kind, data in self.answer if (owner, kind) == (name, rdtype))

    @property
    def says(self) -> str:
        """The RCODE in words, with the server's explanation."""
        name = rcode_name(self.rcode)
        return f"{name}: {self.words}" if self.words else name


def rcode_name(rcode: int) -> str:
    """Return the mnemonic of an RCODE, or its number."""
    return _RCODE_NAMES.get(rcode, f"RCODE {rcode}")


@dataclass(frozen=True, slots=True)
class Request:
    """A signed request that waits for its answer; ``mac`` must be digested by the response."""

    identity: int
    wire: bytes
    mac: bytes
    key: TsigKey
    question: tuple[dns.name.Name, int] | None


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why a message is not the answer.

    ``kind`` is ``clock`` or ``secret`` where the server refuses our signature, else ``foreign``.
    ``proven``: the server's key signed this word, so that it can be believed at once; an unproven
    one may be anybody's, and the request goes on waiting (RFC 8945 §5.4).
    """

    kind: str
    reason: str
    proven: bool = False


Judgement: TypeAlias = Response | Rejection


# --- Requests -------------------------------------------------------------------------------


def query(
    name: dns.name.Name, rdtype: int, identity: int, options: Mapping[int, bytes] | None = None
) -> bytes:
    """Return an unsigned query in wire format, with EDNS and these options of it."""
    message = dns.message.QueryMessage(id=identity)
    message.flags = dns.flags.Flag(0)  # no recursion: the rendezvous is authoritative
    message.find_rrset(
        message.question,
        name,
        dns.rdataclass.IN,
        dns.rdatatype.RdataType.make(rdtype),
        create=True,
        force_unique=True,
    )
    message.use_edns(0, payload=UDP_PAYLOAD, options=_options(options or {}))
    return message.to_wire()


def _options(options: Mapping[int, bytes]) -> list[dns.edns.Option]:
    return [
        dns.edns.GenericOption(dns.edns.OptionType.make(code), data)
        for code, data in options.items()
    ]


def sign_request(
    unsigned: bytes, question: tuple[dns.name.Name, int] | None, key: TsigKey, unix: int
) -> Request:
    """Sign a query (with its question) or an UPDATE (``None``) at the wall clock ``unix``."""
    wire, mac = tsig.sign(unsigned, key, unix)
    return Request(int.from_bytes(unsigned[:2]), wire, mac, key, question)


def signed_query(
    name: dns.name.Name, rdtype: int, identity: int, key: TsigKey, unix: int
) -> Request:
    """Return a signed query."""
    return sign_request(query(name, rdtype, identity), (name, rdtype), key, unix)


def fresh_identity(random: Callable[[int], bytes], taken: Callable[[int], bool]) -> int:
    """Return a random message ID that is not in use (callers keep far fewer than 65,536)."""
    identity = int.from_bytes(random(2))
    while taken(identity):
        identity = (identity + 1) & 0xFFFF
    return identity


# --- Answers --------------------------------------------------------------------------------


def judge(request: Request, wire: bytes, unix: int) -> Judgement:
    """Judge a message that may answer ``request``, at the wall clock ``unix``."""
    is_response = len(wire) >= _HEADER_SIZE and wire[2] & 0x80
    if not is_response or int.from_bytes(wire[:2]) != request.identity:
        return Rejection("foreign", "the message does not answer our request")
    verdict = tsig.verify(wire, _only(request.key), unix, request_mac=request.mac)
    if isinstance(verdict, tsig.NoTsig):
        return Rejection("foreign", "the answer is not signed")
    if isinstance(verdict, tsig.TsigFailure):
        return _refused(verdict, unix)
    if verdict.record.error:
        return _signed_error(verdict, unix)
    try:
        response = read_response(verdict.message)
    except ResponseError as error:
        return Rejection("foreign", f"the answer cannot be read: {error}")
    return _matched(request, response)


def _matched(request: Request, response: Response) -> Judgement:
    opcode = request.wire[2] >> 3 & 15
    # An UPDATE's response may leave its sections empty (RFC 2136 §3.8).
    echoed = response.question == request.question or request.question is None
    if response.opcode != opcode or not (echoed or response.rcode != NOERROR):
        return Rejection("foreign", "the answer is to another question")
    return response


def _only(key: TsigKey) -> tsig.KeyFinder:
    def find(name: str, _algorithm: str) -> TsigKey | None:
        return key if name == tsig.canonical_name(key.name) else None

    return find


def _refused(failure: tsig.TsigFailure, unix: int) -> Rejection:
    if failure.from_peer and failure.error in (tsig.BADSIG, tsig.BADKEY):
        return Rejection("secret", _SECRET_REASON[failure.error])
    if failure.error == tsig.BADTIME and failure.record is not None:
        return Rejection("clock", clock_reason(unix - failure.record.time_signed), proven=True)
    if failure.error == tsig.BADSIG:
        return Rejection("secret", _SECRET_REASON[0])
    return Rejection("foreign", f"the answer's signature is not valid: {failure.reason}")


_SECRET_REASON: Final = {
    0: "the rendezvous signs with another account secret than this host's; "
    "copy the secret file from a working host, or join again with a new invitation",
    tsig.BADSIG: "the rendezvous refuses this host's signature: its account secret is a different "
    "one; copy the secret file from a working host, or join again with a new invitation",
    tsig.BADKEY: "the rendezvous does not know this account: check [account] domain, and that the "
    "account is in the rendezvous' configuration",
}


def _signed_error(verdict: tsig.Verified, unix: int) -> Rejection:
    if verdict.record.error == tsig.BADTIME and verdict.server_time is not None:
        return Rejection("clock", clock_reason(unix - verdict.server_time), proven=True)
    reason = f"the rendezvous refuses the signature (TSIG error {verdict.record.error})"
    return Rejection("secret", reason, proven=True)


def clock_reason(ahead: int) -> str:
    """Say by how many seconds our clock differs from the rendezvous', and how to mend it."""
    direction = "ahead of" if ahead >= 0 else "behind"
    return (
        f"your clock is {abs(ahead)} s {direction} the rendezvous; "
        "fix the clock (e.g. timedatectl set-ntp true)"
    )


def read_response(wire: bytes) -> Response:
    """Read a response (without its TSIG record). Raises :exc:`ResponseError`."""
    try:
        return _read(dns.wire.Parser(wire))
    except (dns.exception.DNSException, ValueError) as error:
        raise ResponseError(type(error).__name__) from error


def _read(parser: dns.wire.Parser) -> Response:
    identity, flags, *counts = parser.get_struct("!HHHHHH")
    if not flags & _QR or counts[0] > 1:
        raise ResponseError("it is not a response to one question")
    question = None
    if counts[0]:
        name = dns.name.from_wire_parser(parser)
        question = (name, parser.get_struct("!HH")[0])
    answer: list[tuple[dns.name.Name, int, dns.rdata.Rdata]] = []
    gone: set[int] = set()
    for _ in range(counts[1]):
        owner, rdtype, ttl, rdata = _record(parser)
        if rdata is not None and not isinstance(rdata, bytes):
            if ttl == llq.REMOVED_TTL:
                gone.add(len(answer))
            answer.append((owner, rdtype, rdata))
    extended, options = 0, b""
    for _ in range(counts[2] + counts[3]):
        _, rdtype, ttl, rdata = _record(parser)
        if rdtype == _OPT and isinstance(rdata, bytes):
            extended, options = ttl >> 24, rdata
    if parser.remaining():
        raise ResponseError("octets after the last record")
    lease, words, long_lived = _read_options(options)
    rcode = extended << 4 | flags & 15
    return Response(
        identity,
        flags >> 11 & 15,
        rcode,
        bool(flags & _TC),
        question,
        tuple(answer),
        lease,
        words,
        long_lived,
        frozenset(gone),
    )


def _record(
    parser: dns.wire.Parser,
) -> tuple[dns.name.Name, int, int, dns.rdata.Rdata | bytes | None]:
    """Read one record: owner, type, TTL and data; octets for OPT, ``None`` for unread types."""
    owner = dns.name.from_wire_parser(parser)
    rdtype, rdclass, ttl, length = parser.get_struct("!HHIH")
    with parser.restrict_to(length):
        if rdtype == _OPT:
            return owner, rdtype, ttl, parser.get_bytes(length)
        if rdtype not in _READ or rdclass != int(dns.rdataclass.IN):
            parser.get_bytes(length)
            return owner, rdtype, ttl, None
        kind = dns.rdatatype.RdataType.make(rdtype)
        return owner, rdtype, ttl, dns.rdata.from_wire_parser(dns.rdataclass.IN, kind, parser)


def _read_options(options: bytes) -> tuple[int | None, str, LlqOption | None]:
    """Return the granted lease, the explanation and the long-lived query of an OPT record."""
    lease: int | None = None
    words = ""
    long_lived: LlqOption | None = None
    parser = dns.wire.Parser(options)
    while parser.remaining():
        code, length = parser.get_struct("!HH")
        data = parser.get_bytes(length)
        if code == LEASE_OPTION and length in (4, 8):
            lease = int.from_bytes(data[:4])
        elif code == EDE_OPTION and length >= 2 and not words:
            words = _plain(data[2:])
        elif code == llq.OPTION_CODE and long_lived is None:
            try:
                long_lived = LlqOption.parse(data)
            except LlqFormatError as error:
                raise ResponseError(str(error)) from error
    return lease, words, long_lived


def _plain(text: bytes) -> str:
    """Return printable text of bounded length: it ends up in logs and on terminals."""
    decoded = text.decode("utf-8", "replace").rstrip("\x00")
    return "".join(c if c.isprintable() else "�" for c in decoded)[:MAX_EDE_TEXT]


# --- Events of long-lived queries -----------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Event:
    """An event of a long-lived query (RFC 8764 §6), as the server sends it unasked.

    ``signed``: by the account's key. ``changes`` are the question's data, each with whether it is
    gone. ``mac`` is that of the event, for the acknowledgement.
    """

    identity: int
    question: tuple[dns.name.Name, int]
    llq: LlqOption
    changes: tuple[tuple[dns.rdata.Rdata, bool], ...]
    signed: bool
    mac: bytes


def read_event(wire: bytes, key: TsigKey, unix: int) -> Event | None:
    """Read a message that may be an event; ``None`` if it is none, or signed wrongly."""
    if len(wire) < _HEADER_SIZE or not wire[2] & 0x80:
        return None
    verdict = tsig.verify(wire, _only(key), unix)
    if isinstance(verdict, tsig.TsigFailure):
        return None
    signed = isinstance(verdict, tsig.Verified)
    try:
        said = read_response(verdict.message if isinstance(verdict, tsig.Verified) else wire)
    except ResponseError:
        return None
    if said.llq is None or said.llq.opcode != llq.EVENT or said.question is None:
        return None
    changes = tuple(
        (data, place in said.gone)
        for place, (owner, kind, data) in enumerate(said.answer)
        if (owner, kind) == said.question
    )
    mac = verdict.mac if isinstance(verdict, tsig.Verified) else b""
    return Event(said.identity, said.question, said.llq, changes, signed, mac)


def acknowledge(event: Event, key: TsigKey, unix: int) -> bytes:
    """Return the signed acknowledgement: a *response* with the event's ID, question and option
    (RFC 8764 §6.2)."""
    option = LlqOption(llq.EVENT, llq.NO_ERROR, event.llq.id, event.llq.lease)
    unsigned = query(*event.question, event.identity, {llq.OPTION_CODE: option.pack()})
    response = unsigned[:2] + bytes((unsigned[2] | 0x80,)) + unsigned[3:]
    return tsig.sign(response, key, unix, request_mac=event.mac)[0]
