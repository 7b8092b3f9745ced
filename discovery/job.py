"""One message on its way through the rendezvous (:mod:`discovery.zone` says the stages)."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdatatype

from discovery import (
    answers,
    dso,
    invitations,
    lease,
    llq_messages,
    message,
    push,
    rcodes,
    transfer,
    tsig,
)
from discovery.backing.front import BackedZone
from discovery.batch import Waiting
from discovery.content import SOA
from discovery.held import HeldZone
from discovery.invitations import Invitation
from discovery.lease import LeaseError
from discovery.message import FormatError, Question, Reply, Request, refuse
from discovery.store import Item, RecordSet, StoreError
from discovery.subscriptions import Subscriptions
from discovery.ways import Way

if TYPE_CHECKING:
    from discovery.zone import ZoneServer

UNSIGNED_ENTRIES: Final = 32
SIGNED_ENTRIES: Final = 2048
"""Questions and records in a message, without and with a right signature, above which it is refused
unread. An ordinary query has two."""

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
    rcodes.NOERROR: "NOERROR",
    rcodes.FORMERR: "FORMERR",
    rcodes.SERVFAIL: "SERVFAIL",
    rcodes.NXDOMAIN: "NXDOMAIN",
    rcodes.NOTIMP: "NOTIMP",
    rcodes.REFUSED: "REFUSED",
    rcodes.YXDOMAIN: "YXDOMAIN",
    rcodes.YXRRSET: "YXRRSET",
    rcodes.NXRRSET: "NXRRSET",
    rcodes.NOTAUTH: "NOTAUTH",
    rcodes.NOTZONE: "NOTZONE",
    rcodes.BADVERS: "BADVERS",
}


@dataclass(frozen=True, slots=True)
class Asker:
    """Who signed: the account itself, or the holder of one of its invitations."""

    zone: HeldZone
    invitation: Invitation | None


def entries(wire: bytes) -> int:
    """Return how many questions and records a message says that it holds."""
    counts: tuple[int, ...] = struct.unpack_from("!HHHH", wire, 4)
    return sum(counts)


class Job:
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

    def cut(self) -> list[bytes]:
        """Answer a stranger that it should come again over TCP, in no more octets than it sent."""
        try:
            request = message.read_request(self._wire) if self.is_modest else None
        except FormatError:
            request = None
        if request is None or len(request.questions) != 1 or self.opcode != message.OPCODE_QUERY:
            return []
        return [message.render_truncated(replace(request, edns=None), Reply())]

    def tsig_failed(self, failure: tsig.TsigFailure) -> bytes:
        """Answer by the table of RFC 8945 §5.2."""
        if self.opcode not in _KINDS:  # its form is another's, such as DSO's (RFC 8490 §5.4)
            return self.bare("other", rcodes.NOTIMP)
        what = _TSIG_ERRORS.get(failure.error, "FORMERR")
        self._server.count(f"tsig.{what}", self._source, reason=failure.reason)
        if failure.rcode == rcodes.FORMERR:
            return message.header_only(self._wire, rcodes.FORMERR)
        reply = Reply(rcode=rcodes.NOTAUTH, reason=failure.reason)
        try:
            request = message.read_request(self._wire)
        except FormatError:
            bare = message.header_only(self._wire, rcodes.NOTAUTH)
            return tsig.attach_error(bare, failure, self._unix)
        wire = message.render(request, reply, message.PLAIN_UDP - _TSIG_ROOM)
        if wire is None:
            wire = message.header_only(self._wire, rcodes.NOTAUTH)
        return tsig.attach_error(wire, failure, self._unix)

    def answer(self, verified: tsig.Verified | None) -> list[bytes] | None:
        """Answer a message that is unsigned or signed well; ``None``: it waits for the disk."""
        kind = _KINDS.get(self.opcode, "other")
        if kind == "other":
            answer = self._notified(verified) if self.opcode == message.OPCODE_NOTIFY else None
            return [answer or self.bare(kind, rcodes.NOTIMP, verified)]
        if self._entries > SIGNED_ENTRIES:
            return [self.bare("large", rcodes.REFUSED, verified)]
        asker = self._server.asker(verified.record.key_name) if verified else None
        if kind == "update" and asker is not None:
            again = asker.zone.answered.find(self._wire, self._unix)
            if again is not None:
                self._server.count("update.repeated", self._source)
                return [again]
        try:
            request = message.read_request(verified.message if verified else self._wire)
        except FormatError:
            return [self.bare(kind, rcodes.FORMERR, verified)]
        if self._breaks_session(request):
            return []
        return self._carry_out(kind, request, asker, verified)

    def _carry_out(
        self,
        kind: str,
        request: Request,
        asker: Asker | None,
        verified: tsig.Verified | None,
    ) -> list[bytes] | None:
        told = self._told
        if request.edns is not None and request.edns.version:
            reply = Reply(rcode=rcodes.BADVERS)
        elif (unready := self._unready(request)) is not None:
            reply = unready
        elif asker is not None and (hasty := self._hasty(kind, asker.zone)) is not None:
            reply = hasty
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
        elif verified and asker and told is not None and llq_messages.has_option(request):
            return [self._long_lived(told, request, asker, verified)]
        else:
            reply = self._query(request, asker)
            self._introduce(request, asker)
        return [self._complete(kind, request, reply, asker, verified)]

    def _unready(self, request: Request) -> Reply | None:
        """Say that a zone which is on another server was never seen."""
        zone = self._server.zone_of(request.questions[0].name) if request.questions else None
        if zone is None or zone.is_ready:
            return None
        reason = "the server that this zone is on was not reached yet; try again"
        return Reply(rcode=rcodes.SERVFAIL, reason=reason)

    def _notified(self, verified: tsig.Verified | None) -> bytes | None:
        """Answer a NOTIFY (RFC 1996 §3) by the server that a zone is on, else ``None``."""
        try:
            request = message.read_request(verified.message if verified else self._wire)
        except FormatError:
            return self.bare("notify", rcodes.FORMERR, verified)
        named = request.questions[0] if len(request.questions) == 1 else None
        zone = self._server.zone_of(named.name) if named else None
        if named is None or not isinstance(zone, BackedZone) or zone.origin != named.name:
            return None
        if not zone.is_backed_by(self._source[0]):
            return None
        self._server.on_notify(zone)
        reply = Reply(authoritative=True)
        return self._complete("notify", request, reply, None, verified)

    def _hasty(self, kind: str, zone: HeldZone) -> Reply | None:
        """Refuse an account that asks more often than it may."""
        bucket, rates = (zone.queries, zone.account.rates)
        allowed = f"{rates.queries} questions"
        if kind == "update":
            bucket, allowed = zone.updates, f"{rates.updates} updates"
        if bucket.take(self._server.now):
            return None
        return refuse(f"this account may send {allowed} per second; wait a little")

    def _complete(
        self,
        kind: str,
        request: Request,
        reply: Reply,
        asker: Asker | None,
        verified: tsig.Verified | None,
    ) -> bytes:
        zone = asker.zone.text if asker else ""
        what = f"{kind}.{_RCODES.get(reply.rcode, 'other')}"
        self._server.count(what, self._source, zone, reply.reason)
        return self._finish(request, reply, verified)

    # --- The three things that can be asked ---

    def _query(self, request: Request, asker: Asker | None) -> Reply:
        if len(request.questions) != 1:
            return Reply(rcode=rcodes.FORMERR)
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
        self, told: Subscriptions, request: Request, asker: Asker, verified: tsig.Verified
    ) -> bytes:
        """Answer a request about long-lived queries (RFC 8764)."""
        strange = [q for q in request.questions if self._server.zone_of(q.name) is not asker.zone]
        if strange or not request.questions:
            reply = refuse("this key is of another account") if strange else Reply(rcodes.FORMERR)
            return self._complete("llq", request, reply, asker, verified)
        wire = told.llq.answer(
            request, asker.zone.content, self._way, verified.key, self._server.now
        )
        return self._sign(wire, verified)

    def _introduce(self, request: Request, asker: Asker | None) -> None:
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

    def _is_transfer(self, request: Request, asker: Asker) -> bool:
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
            return Reply(rcode=rcodes.SERVFAIL, reason=f"the store failed: {error}")
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
        self, request: Request, asker: Asker | None, verified: tsig.Verified | None
    ) -> Reply | None:
        """Return why an UPDATE is not carried out, or ``None``: it waits for the disk."""
        if len(request.questions) != 1 or request.questions[0].rdtype != SOA:
            return Reply(rcode=rcodes.FORMERR)
        named = request.questions[0]
        zone = self._server.zone_of(named.name)
        if zone is None or zone.origin != named.name or named.rdclass != message.IN:
            return Reply(rcode=rcodes.NOTAUTH, reason="this server does not hold that zone")
        if asker is None or verified is None:
            return refuse("updates must be signed with the account's key (TSIG)")
        if asker.zone is not zone or asker.invitation is not None:
            return refuse("this key may not change that zone")
        try:
            asked = lease.asked_in(request.edns.options if request.edns else ())
        except LeaseError as error:
            return Reply(rcode=rcodes.FORMERR, reason=str(error))
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
            return Reply(rcode=rcodes.SERVFAIL, reason="too many updates wait; try again")
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
            wire = message.header_only(self._wire, rcodes.SERVFAIL)
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
