"""The rendezvous as a pure machine: DNS messages in, DNS messages out.

A message's way through :meth:`ZoneServer.handle`, in order:

1. not a request (short, or QR set): dropped, never answered, unless it acknowledges an event
   (:mod:`discovery.llq_server`); a DSO message goes to :mod:`discovery.push_server`;
2. TSIG (RFC 8945 §5.2): wrong signatures get the answer of its table;
3. form: FORMERR, or BADVERS for an unknown EDNS version;
4. who asks: an account's key, an invitation's key (:mod:`discovery.invitations`), or nobody;
5. what: a query (:mod:`discovery.answers`), a long-lived one, or an UPDATE
   (:mod:`discovery.update`), in the zone of that account and no other; everything else is NOTIMP;
6. an UPDATE's changes are made durable, then true, and only then answered (RFC 2136 §3.5), many
   of them together where they come together (:mod:`discovery.batch`);
7. the answer is cut to what the transport carries and signed if the question was.

What changed is told to those who asked to be told (:mod:`discovery.subscriptions`); the driver
takes that from :attr:`ZoneServer.subscriptions`.

Accounts share nothing but the process: each has its own content, limits and memory of UPDATEs.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdatatype

from discovery import (
    answers,
    bootstrap,
    dso,
    invitations,
    lease,
    llq_server,
    message,
    push,
    subscriptions,
    transfer,
    tsig,
    update,
)
from discovery.batch import Batch, UpdateQueue, Waiting
from discovery.bootstrap import ServerIdentity
from discovery.content import SOA, ZoneChange, ZoneContent
from discovery.held import SHA256, HeldZone, ZoneAccount
from discovery.invitations import Invitation
from discovery.lease import LeaseError, LeaseLimits
from discovery.message import FormatError, Question, Reply, Request, refuse
from discovery.store import Item, RecordSet, StoreError, ZoneStore
from discovery.subscriptions import SubscriptionLimits, Subscriptions
from discovery.types import Endpoint, TsigKey
from discovery.update import ZoneLimits
from discovery.ways import Way

FORGET_AFTER: Final = 86400
"""Seconds after its expiry at which a used invitation is forgotten (its expiry refuses it; the day
is for clocks that were set back)."""

NOBODY: Final[Endpoint] = ("", 0)  # the source of what happens by itself

UNSIGNED_ENTRIES: Final = 32
SIGNED_ENTRIES: Final = 2048
"""Questions and records in a message, without and with a right signature, above which it is refused
unread. An ordinary query has two."""

_NEVER: Final = 1 << 63  # unix seconds

_TXT = int(dns.rdatatype.TXT)
_TSIG_ROOM: Final = 340  # octets: the longest TSIG record of an error

_KINDS: Final = {message.OPCODE_QUERY: "query", message.OPCODE_UPDATE: "update"}
_TSIG_ERRORS: Final = {
    tsig.BADSIG: "BADSIG",
    tsig.BADKEY: "BADKEY",
    tsig.BADTIME: "BADTIME",
    tsig.BADTRUNC: "BADTRUNC",
}
_RCODES: Final = {
    message.NOERROR: "NOERROR",
    message.FORMERR: "FORMERR",
    message.SERVFAIL: "SERVFAIL",
    message.NXDOMAIN: "NXDOMAIN",
    message.NOTIMP: "NOTIMP",
    message.REFUSED: "REFUSED",
    message.YXDOMAIN: "YXDOMAIN",
    message.YXRRSET: "YXRRSET",
    message.NXRRSET: "NXRRSET",
    message.NOTAUTH: "NOTAUTH",
    message.NOTZONE: "NOTZONE",
    message.BADVERS: "BADVERS",
}


@dataclass(frozen=True, slots=True)
class Happening:
    """Something that the operator's log may say: ``what`` (as in the counters), where from, the
    zone concerned if it is one of ours, and a reason in words."""

    what: str
    source: Endpoint
    zone: str
    reason: str


@dataclass(frozen=True, slots=True)
class _Asker:
    """Who signed: the account itself, or the holder of one of its invitations."""

    zone: HeldZone
    invitation: Invitation | None


class ZoneServer:
    """The zones of all accounts of one rendezvous. ``unix`` is the wall clock in whole seconds.

    ``report`` is told of what an operator may want to know (often: limit its rate); ``on_change``
    of every change of a zone's answers, once it is durable and true. ``random`` gives octets for
    the ids of subscriptions; without it nobody can subscribe. Raises
    ValueError for an unusable domain and :exc:`StoreError` when the store cannot be read.
    """

    def __init__(
        self,
        accounts: Iterable[ZoneAccount],
        store: ZoneStore,
        server: ServerIdentity = bootstrap.UNPLACED,
        *,
        unix: int,
        limits: ZoneLimits = update.DEFAULT_LIMITS,
        report: Callable[[Happening], None] = lambda _: None,
        on_change: Callable[[ZoneChange], None] = lambda _: None,
        leases: LeaseLimits = lease.DEFAULT_LIMITS,
        random: Callable[[int], bytes] | None = None,
        subscription_limits: SubscriptionLimits = subscriptions.DEFAULT_LIMITS,
    ) -> None:
        self.counters: Counter[str] = Counter()
        self.leases = leases
        self.on_change = on_change
        self._store = store
        self._report = report
        self._now = 0.0
        self.subscriptions: Subscriptions | None = None
        if random is not None:
            self.subscriptions = Subscriptions(
                random, self._tally, self._content_of, subscription_limits
            )
        self._zones: dict[dns.name.Name, HeldZone] = {}
        self._by_key: dict[str, HeldZone] = {}
        self._queue = UpdateQueue()
        self._not_before = 0  # unix seconds until which no lease ends
        for account in accounts:
            origin = dns.name.from_text(account.domain).canonicalize()
            if origin in self._zones:
                raise ValueError(f"the domain {account.domain} stands in two accounts")
            zone = HeldZone(account, store.load(origin), limits)
            self._zones[origin] = self._by_key[zone.text] = zone
        self._take_place(server, unix)

    def _take_place(self, server: ServerIdentity, unix: int) -> None:
        writings = []
        for zone in self._zones.values():
            zone.expire(unix)
            stage = zone.stage()
            zone.found(stage, unix)
            zone.take_place(stage, server)
            writings.append((zone, zone.write(stage)))
        changes = Batch(writings).changes
        if changes:
            self._store.commit(changes)
        for zone, writing in writings:
            zone.settle(writing)

    def content(self, domain: str) -> ZoneContent:
        """Return the content of an account's zone. Raises KeyError."""
        return self._zones[dns.name.from_text(domain)].content

    def _content_of(self, name: dns.name.Name) -> ZoneContent | None:
        zone = self.zone_of(name)
        return zone.content if zone else None

    def _tally(self, what: str) -> None:
        self.counters[what] += 1

    def handle(
        self,
        wire: bytes,
        source: Endpoint,
        transport: str,
        unix: int,
        *,
        way: Way | None = None,
        now: float | None = None,
    ) -> list[bytes]:
        """Answer one message that came over ``transport`` ("udp", "tcp" or "tls"): no message, one,
        or several for a zone transfer. What it changes is written before this returns; a driver
        that would rather write for many at once uses :meth:`submit`. ``way`` says more exactly
        where it came from, ``now`` is monotonic seconds (by default ``unix``)."""
        found = self.submit(wire, way or Way(transport, source), unix, now) or []
        return found + [answer for _, answer in self._flush(unix)]

    def submit(
        self, wire: bytes, way: Way, unix: int, now: float | None = None, ticket: object = None
    ) -> list[bytes] | None:
        """Answer one message; ``None``: it is an UPDATE that waits for the disk, and its answer
        comes with ``ticket`` from :meth:`end`, after the next :meth:`begin`."""
        self._now = float(unix) if now is None else now
        told = self.subscriptions
        if told is not None and told.push.is_closing(way.connection):
            return []
        is_dso = way.transport == "tls" and way.connection and dso.is_dso(wire)
        if told is not None and is_dso:
            return told.push.message(wire, way, self._now)
        if len(wire) < message.HEADER_SIZE or wire[2] & 0x80:
            self._stray(wire, way)
            return []
        if told is not None:
            told.push.heard(way.connection, self._now)
        self.expire(unix)
        job = _Job(self, wire, way, unix, ticket)
        verdict = tsig.verify(wire, self._find_key, unix)
        if isinstance(verdict, tsig.Verified):
            return job.answer(verdict)
        if not job.is_modest:
            return [job.bare("large", message.REFUSED)]
        if isinstance(verdict, tsig.TsigFailure):
            return [job.tsig_failed(verdict)]
        return job.answer(None)

    def _stray(self, wire: bytes, way: Way) -> None:
        """Take what is not a request: the acknowledgement of an event, or nothing."""
        told = self.subscriptions
        modest = len(wire) >= message.HEADER_SIZE and entries(wire) <= UNSIGNED_ENTRIES
        if told is not None and modest and told.llq.acknowledged(wire, way.source):
            return
        self.counters["dropped"] += 1
        if told is not None:
            told.end(way)

    # --- Writing ---

    def queue(self, one: Waiting) -> bool:
        """Let an UPDATE wait for the disk, or say that too many do."""
        return self._queue.add(one)

    def begin(self, unix: int) -> Batch | None:
        """Return what waits to be written, for the store's ``commit``; ``None`` if nothing does.
        :meth:`end` must follow before the next."""
        return self._queue.begin(self._zones.values(), unix)

    def end(self, batch: Batch, error: StoreError | None, unix: int) -> list[tuple[object, bytes]]:
        """Take the word of the store on a batch; return the answers of its UPDATEs, by ticket."""
        answers = self._queue.end(batch, error, unix)
        self._not_before = 0  # leases came
        for zone, writing in batch.writings:
            if error is None and (writing.told.removed or writing.told.added):
                self.on_change(writing.told)
                if self.subscriptions is not None:
                    self.subscriptions.changed(writing.told, self._now)
            if error is not None and writing.ended:
                self.count("lease.SERVFAIL", NOBODY, zone.text, f"the store failed: {error}")
        self.counters["update.repeated"] += len(batch.repeated)
        return [(one.ticket, answer) for one, answer in answers]

    def _flush(self, unix: int) -> list[tuple[object, bytes]]:
        batch = self.begin(unix)
        if batch is None:
            return []
        error = None
        try:
            if batch.changes:
                self._store.commit(batch.changes)
        except StoreError as problem:
            error = problem
        return self.end(batch, error, unix)

    @property
    def next_end(self) -> int | None:
        """The unix second at which :meth:`tick` is wanted next, or ``None``."""
        ends = (zone.next_end for zone in self._zones.values())
        return min((end for end in ends if end is not None), default=None)

    def expire(self, unix: int) -> None:
        """Answer no record any more whose lease ended (RFC 9664 §7); :meth:`begin` writes it."""
        if unix < self._not_before:
            return
        for zone in self._zones.values():
            end = zone.next_end
            if end is not None and end <= unix:
                zone.expire(unix)
        end = self.next_end
        self._not_before = _NEVER if end is None else end

    def tick(self, unix: int) -> None:
        """Let records leave whose lease ended, and write it. A store that fails is told and tried
        again; the records are not answered any more in any case."""
        self.expire(unix)
        self._flush(unix)

    def zone_of(self, name: dns.name.Name) -> HeldZone | None:
        """Return the zone that a name belongs to: the closest one above it."""
        while True:
            zone = self._zones.get(name)
            if zone is not None or name == dns.name.root:
                return zone
            name = name.parent()

    @property
    def now(self) -> float:
        """The monotonic clock when the last message came, in seconds."""
        return self._now

    def asker(self, key_name: str) -> _Asker | None:
        """Return whose key has this name (as :data:`discovery.tsig.KeyFinder` gets it)."""
        zone = self._by_key.get(key_name)
        if zone is not None:
            return _Asker(zone, None)
        name = dns.name.from_text(key_name)
        if len(name.labels) < 3 or name.labels[1].lower() != bootstrap.INVITE_LABEL.encode():
            return None
        zone = self._zones.get(dns.name.Name(name.labels[2:]))
        invitation = invitations.parse_key_label(name.labels[0].decode("latin-1"))
        return _Asker(zone, invitation) if zone and invitation else None

    def _find_key(self, key_name: str, algorithm: str) -> TsigKey | None:
        asker = self.asker(key_name)
        if asker is None or asker.invitation is None:
            return asker.zone.key(algorithm) if asker else None
        if algorithm != SHA256:
            return None
        given = asker.invitation
        secret = asker.zone.account.invitation_key(given.identity, given.expires)
        return TsigKey(key_name, secret, algorithm)

    def bind_invitation(
        self, zone: HeldZone, invitation: Invitation, nonce: bytes, unix: int
    ) -> bytes:
        """Bind an invitation to the first nonce that comes; return the nonce it is bound to."""
        self._store.forget_invitations(unix - FORGET_AFTER)
        return self._store.bind_invitation(
            zone.origin, invitation.identity, nonce, invitation.expires
        )

    def count(self, what: str, source: Endpoint, zone: str = "", reason: str = "") -> None:
        """Count an outcome, and report those that have a reason in words."""
        self.counters[what] += 1
        if reason:
            self._report(Happening(what, source, zone, reason))


def entries(wire: bytes) -> int:
    """Return how many questions and records a message says that it holds."""
    counts: tuple[int, ...] = struct.unpack_from("!HHHH", wire, 4)
    return sum(counts)


class _Job:
    """One message on its way through the server."""

    def __init__(
        self,
        server: ZoneServer,
        wire: bytes,
        way: Way,
        unix: int,
        ticket: object,
    ) -> None:
        self._ticket = ticket
        self._server = server
        self._wire = wire
        self._way = way
        self._source = way.source
        self._transport = way.transport
        self._unix = unix

    # --- Outcomes before the message is understood ---

    @property
    def opcode(self) -> int:
        """The OPCODE of the header."""
        return self._wire[2] >> 3 & 15

    @property
    def is_modest(self) -> bool:
        """Say whether a message that nobody signed is small enough to be read at all: reading
        names is work, and strangers should not be able to order much of it."""
        return self._entries <= UNSIGNED_ENTRIES

    @property
    def _entries(self) -> int:
        return entries(self._wire)

    def bare(self, kind: str, rcode: int, verified: tsig.Verified | None = None) -> bytes:
        """Answer with a header alone."""
        self._server.count(f"{kind}.{_RCODES[rcode]}", self._source)
        return self._sign(message.header_only(self._wire, rcode), verified)

    def tsig_failed(self, failure: tsig.TsigFailure) -> bytes:
        """Answer by the table of RFC 8945 §5.2."""
        if self.opcode not in _KINDS:  # its form is another's, such as DSO's (RFC 8490 §5.4)
            return self.bare("other", message.NOTIMP)
        what = _TSIG_ERRORS.get(failure.error, "FORMERR")
        self._server.count(f"tsig.{what}", self._source, reason=failure.reason)
        if failure.rcode == message.FORMERR:
            return message.header_only(self._wire, message.FORMERR)
        reply = Reply(rcode=message.NOTAUTH, reason=failure.reason)
        try:
            request = message.read_request(self._wire)
        except FormatError:
            bare = message.header_only(self._wire, message.NOTAUTH)
            return tsig.attach_error(bare, failure, self._unix)
        wire = message.render(request, reply, message.PLAIN_UDP - _TSIG_ROOM)
        if wire is None:
            wire = message.header_only(self._wire, message.NOTAUTH)
        return tsig.attach_error(wire, failure, self._unix)

    def answer(self, verified: tsig.Verified | None) -> list[bytes] | None:
        """Answer a message that is unsigned or signed well; ``None``: it waits for the disk."""
        kind = _KINDS.get(self.opcode, "other")
        if kind == "other":
            return [self.bare(kind, message.NOTIMP, verified)]
        if self._entries > SIGNED_ENTRIES:
            return [self.bare("large", message.REFUSED, verified)]
        asker = self._server.asker(verified.record.key_name) if verified else None
        if kind == "update" and asker is not None:
            again = asker.zone.answered.find(self._wire, self._unix)
            if again is not None:
                self._server.count("update.repeated", self._source)
                return [again]
        try:
            request = message.read_request(verified.message if verified else self._wire)
        except FormatError:
            return [self.bare(kind, message.FORMERR, verified)]
        if self._breaks_session(request):
            return []
        return self._carry_out(kind, request, asker, verified)

    def _carry_out(
        self,
        kind: str,
        request: Request,
        asker: _Asker | None,
        verified: tsig.Verified | None,
    ) -> list[bytes] | None:
        if request.edns is not None and request.edns.version:
            reply = Reply(rcode=message.BADVERS)
        elif kind == "update":
            waits = self._update(request, asker, verified)
            if waits is None:
                return None
            reply = waits
        elif asker is not None and asker.invitation is not None:
            kind = "invitation"
            reply = self._redeem(request, asker.zone, asker.invitation)
        elif verified and asker and self._is_transfer(request, asker):
            self._server.count("transfer.NOERROR", self._source)
            content = asker.zone.content
            return transfer.transfer(content, request, verified.key, verified.mac, self._unix)
        elif verified and asker and self._told and llq_server.has_option(request):
            return [self._long_lived(self._told, request, asker, verified)]
        else:
            reply = self._query(request, asker)
            self._introduce(request, asker)
        return [self._complete(kind, request, reply, asker, verified)]

    def _complete(
        self,
        kind: str,
        request: Request,
        reply: Reply,
        asker: _Asker | None,
        verified: tsig.Verified | None,
    ) -> bytes:
        zone = asker.zone.text if asker else ""
        what = f"{kind}.{_RCODES.get(reply.rcode, 'other')}"
        self._server.count(what, self._source, zone, reply.reason)
        return self._finish(request, reply, verified)

    # --- The three things that can be asked ---

    def _query(self, request: Request, asker: _Asker | None) -> Reply:
        if len(request.questions) != 1:
            return Reply(rcode=message.FORMERR)
        question = request.questions[0]
        zone = self._server.zone_of(question.name)
        if zone is None or question.rdclass not in (message.IN, message.CLASS_ANY):
            return refuse("this server does not hold that zone, and does not ask others")
        if asker is None:
            return answers.answer_unsigned(zone.content, question, zone.public)
        if asker.zone is not zone:
            return refuse("this key is of another account")
        if question.rdtype in (message.TYPE_IXFR, message.TYPE_AXFR):
            return refuse("zone transfers are made of the whole zone, over TCP or TLS")
        return answers.answer_signed(zone.content, question)

    # --- Subscriptions ---

    @property
    def _told(self) -> Subscriptions | None:
        return self._server.subscriptions

    def _long_lived(
        self, told: Subscriptions, request: Request, asker: _Asker, verified: tsig.Verified
    ) -> bytes:
        """Answer a request about long-lived queries (RFC 8764)."""
        strange = [q for q in request.questions if self._server.zone_of(q.name) is not asker.zone]
        if strange or not request.questions:
            reply = refuse("this key is of another account") if strange else Reply(message.FORMERR)
            return self._complete("llq", request, reply, asker, verified)
        wire = told.llq.answer(
            request, asker.zone.content, self._way, verified.key, self._server.now
        )
        return self._sign(wire, verified)

    def _introduce(self, request: Request, asker: _Asker | None) -> None:
        """Note what introduces a DSO session to an account (decision 0042)."""
        if self._told is None or asker is None or len(request.questions) != 1:
            return
        label, *domain = request.questions[0].name.labels
        is_ours = (
            label.lower() == push.SESSION_LABEL.encode()
            and tuple(domain)
            and (dns.name.Name(domain) == asker.zone.origin)
        )
        if is_ours and request.questions[0].rdtype == SOA:
            self._told.push.introduced(self._way, asker.zone.content, self._server.now)

    def _breaks_session(self, request: Request) -> bool:
        """Abort a DSO session whose client uses what DSO replaces (RFC 8490 §5.4.6)."""
        held = self._told is not None and self._told.push.holds(self._way.connection)
        options = request.edns.options if request.edns and held else ()
        if self._told is None or all(code != dso.EDNS_TCP_KEEPALIVE for code, _ in options):
            return False
        self._told.push.abort(self._way.connection, "edns-tcp-keepalive")
        return True

    def _is_transfer(self, request: Request, asker: _Asker) -> bool:
        """Say whether this is the account asking for its whole zone, where it can be carried."""
        if self._transport == "udp" or len(request.questions) != 1:
            return False
        asked = request.questions[0]
        return (
            asked.rdtype
            in (message.TYPE_IXFR, message.TYPE_AXFR)  # RFC 1995 §4: a whole one will do
            and asked.rdclass == message.IN
            and asked.name == asker.zone.origin
        )

    def _redeem(self, request: Request, zone: HeldZone, invitation: Invitation) -> Reply:
        nonce = _nonce_asked(request.questions, zone, invitation)
        if nonce is None:
            return refuse("the key of an invitation serves to redeem it, and for nothing else")
        if self._unix > invitation.expires:
            return refuse("this invitation has expired; make a new one with `autotunnel invite`")
        try:
            bound = self._server.bind_invitation(zone, invitation, nonce, self._unix)
        except StoreError as error:
            return Reply(rcode=message.SERVFAIL, reason=f"the store failed: {error}")
        if bound != nonce:
            return refuse("this invitation was used already; make a new one")
        account = zone.account
        sealed = invitations.seal(
            account.account_secret,
            account.invitation_key(invitation.identity, invitation.expires),
            nonce,
            account.domain,
        )
        rdata = dns.rdata.from_text(dns.rdataclass.IN, dns.rdatatype.TXT, f'"{sealed}"')
        answer = RecordSet(request.questions[0].name, _TXT, 0, (Item(rdata),))
        return Reply(authoritative=True, answer=[answer])

    def _update(
        self, request: Request, asker: _Asker | None, verified: tsig.Verified | None
    ) -> Reply | None:
        """Return why an UPDATE is not carried out, or ``None``: it waits for the disk."""
        if len(request.questions) != 1 or request.questions[0].rdtype != SOA:
            return Reply(rcode=message.FORMERR)
        named = request.questions[0]
        zone = self._server.zone_of(named.name)
        if zone is None or zone.origin != named.name or named.rdclass != message.IN:
            return Reply(rcode=message.NOTAUTH, reason="this server does not hold that zone")
        if asker is None or verified is None:
            return refuse("updates must be signed with the account's key (TSIG)")
        if asker.zone is not zone or asker.invitation is not None:
            return refuse("this key may not change that zone")
        try:
            asked = lease.asked_in(request.edns.options if request.edns else ())
        except LeaseError as error:
            return Reply(rcode=message.FORMERR, reason=str(error))
        one = Waiting(
            zone,
            request,
            self._wire,
            verified.record.time_signed + verified.record.fudge,
            self._server.leases.grant(asked) if asked else None,
            lambda reply: self._complete("update", request, reply, asker, verified),
            self._ticket,
        )
        if not self._server.queue(one):
            return Reply(rcode=message.SERVFAIL, reason="too many updates wait; try again")
        return None

    # --- The way out ---

    def _finish(self, request: Request, reply: Reply, verified: tsig.Verified | None) -> bytes:
        limit = message.TCP_PAYLOAD
        if self._transport == "udp":
            asked = request.edns.payload if request.edns else message.PLAIN_UDP
            limit = max(message.PLAIN_UDP, min(asked, message.UDP_PAYLOAD))
        room = limit - (tsig.overhead(verified.key) if verified else 0)
        wire = message.render(request, reply, room)
        if wire is None and self._transport == "udp":
            wire = message.render_truncated(request, reply)
        if wire is None:
            wire = message.header_only(self._wire, message.SERVFAIL)
        return self._sign(wire, verified)

    def _sign(self, wire: bytes, verified: tsig.Verified | None) -> bytes:
        if verified is None:
            return wire
        return tsig.sign(wire, verified.key, self._unix, request_mac=verified.mac)[0]


def _nonce_asked(
    questions: tuple[Question, ...], zone: HeldZone, invitation: Invitation
) -> bytes | None:
    """Return the nonce if this is the one question that the invitation may ask."""
    if len(questions) != 1 or questions[0].rdtype != _TXT or questions[0].rdclass != message.IN:
        return None
    name = questions[0].name
    nonce = invitations.parse_nonce_label(name.labels[0].decode("latin-1"))
    if nonce is None:
        return None
    allowed = invitations.question_name(invitation.identity, nonce, zone.text)
    return nonce if name == dns.name.from_text(allowed) else None
