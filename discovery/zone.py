"""The rendezvous as a pure machine: DNS messages in, DNS messages out.

A message's way through :meth:`ZoneServer.handle`, in order:

1. not a request (short, or QR set): dropped, never answered, unless it acknowledges an event
   (:mod:`discovery.llq_server`); a DSO message goes to :mod:`discovery.push_server`;
2. TSIG (RFC 8945 §5.2): wrong signatures get the answer of its table;
3. form: FORMERR, or BADVERS for an unknown EDNS version;
4. who asks: an account's key, an invitation's key (:mod:`discovery.invitations`), or nobody;
5. what: a query (:mod:`discovery.answers`), a long-lived one, or an UPDATE
   (:mod:`discovery.update`), in the zone of that account and no other, or a NOTIFY by the server
   that a zone is on (:mod:`discovery.backing`); everything else is NOTIMP;
6. an UPDATE's changes are made durable, then true, and only then answered (RFC 2136 §3.5), many
   of them together where they come together (:mod:`discovery.batch`);
7. the answer is cut to what the transport carries and signed if the question was.

What changed is told to those who asked to be told (:mod:`discovery.subscriptions`); the driver
takes that from :attr:`ZoneServer.subscriptions`.

Accounts share nothing but the process: each has its own content, limits and memory of UPDATEs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdatatype

from discovery import (
    bootstrap,
    census,
    dso,
    invitations,
    lease,
    message,
    rcodes,
    subscriptions,
    tsig,
    update,
)
from discovery.backing.front import BackedZone
from discovery.batch import Batch, UpdateQueue, Waiting
from discovery.bootstrap import ServerIdentity
from discovery.content import ZoneChange, ZoneContent
from discovery.held import SHA256, HeldZone, ZoneAccount
from discovery.invitations import Invitation
from discovery.job import UNSIGNED_ENTRIES, Asker, Job, entries
from discovery.lease import LeaseLimits
from discovery.rates import Strangers
from discovery.store import RecordSet, StoreError, ZoneStore
from discovery.subscriptions import SubscriptionLimits, Subscriptions
from discovery.types import Endpoint, TsigKey
from discovery.update import ZoneLimits
from discovery.ways import Way

FORGET_AFTER: Final = 86400
"""Seconds after its expiry at which a used invitation is forgotten (its expiry refuses it; the day
is for clocks that were set back)."""

NOBODY: Final[Endpoint] = ("", 0)  # the source of what happens by itself

_NEVER: Final = 1 << 63  # unix seconds


@dataclass(frozen=True, slots=True)
class Happening:
    """Something that the operator's log may say: ``what`` (as in the counters), where from, the
    zone concerned if it is one of ours, and a reason in words."""

    what: str
    source: Endpoint
    zone: str
    reason: str


class ZoneServer:
    """The zones of all accounts of one rendezvous. ``unix`` is the wall clock in whole seconds.

    ``unsigned_per_s`` bounds what one network gets unsigned over UDP (``None``: nothing does);
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
        unsigned_per_s: int | None = None,
    ) -> None:
        self._strangers = None if unsigned_per_s is None else Strangers(unsigned_per_s)
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
        self.on_notify: Callable[[BackedZone], None] = lambda _: None
        """Told when the server that a zone is on says that it changed."""
        self._zones: dict[dns.name.Name, HeldZone] = {}
        self._by_key: dict[str, HeldZone] = {}
        self._queue = UpdateQueue()
        self._not_before = 0  # unix seconds until which no lease ends
        for account in accounts:
            origin = dns.name.from_text(account.domain).canonicalize()
            if origin in self._zones:
                raise ValueError(f"the domain {account.domain} stands in two accounts")
            zone = self._held(account, store.load(origin), limits)
            self._zones[origin] = self._by_key[zone.text] = zone
        self._take_place(server, unix)

    def _held(
        self, account: ZoneAccount, sets: Iterable[RecordSet], limits: ZoneLimits
    ) -> HeldZone:
        if account.backing is None:
            return HeldZone(account, sets, limits)
        where = account.backing.server
        return BackedZone(
            account,
            sets,
            limits,
            lambda reason: self.count("backing.refused", where, account.domain, reason),
        )

    @property
    def backed(self) -> list[BackedZone]:
        """The zones that are on other servers."""
        return [zone for zone in self._zones.values() if isinstance(zone, BackedZone)]

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

    def census(self, unix: int) -> list[dict[str, Any]]:
        """What the owner is shown of each zone (:func:`discovery.census.of_zone`)."""
        return [census.of_zone(zone, unix) for zone in self._zones.values()]

    def content(self, domain: str) -> ZoneContent:
        """Return the content of an account's zone. Raises KeyError."""
        return self._zones[dns.name.from_text(domain)].content

    def _content_of(self, name: dns.name.Name) -> ZoneContent | None:
        zone = self.zone_of(name)
        return zone.content if zone and zone.is_ready else None

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
        job = Job(self, wire, way, unix, ticket)
        verdict = tsig.verify(wire, self._find_key, unix)
        if isinstance(verdict, tsig.Verified):
            return job.answer(verdict)
        if self._strangers is not None and way.transport == "udp":
            allowed = self._strangers.verdict(way.source[0], self._now)
            if allowed != "answer":
                self._tally(f"unsigned.{allowed}")
                return job.cut() if allowed == "cut" else []
        if not job.is_modest:
            return [job.bare("large", rcodes.REFUSED)]
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
                if self.subscriptions is not None:
                    self.subscriptions.changed(writing.told, self._now)
                self.on_change(writing.told)
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

    def asker(self, key_name: str) -> Asker | None:
        """Return whose key has this name (as :data:`discovery.tsig.KeyFinder` gets it)."""
        zone = self._by_key.get(key_name)
        if zone is not None:
            return Asker(zone, None)
        name = dns.name.from_text(key_name)
        if len(name.labels) < 3 or name.labels[1].lower() != bootstrap.INVITE_LABEL.encode():
            return None
        zone = self._zones.get(dns.name.Name(name.labels[2:]))
        invitation = invitations.parse_key_label(name.labels[0].decode("latin-1"))
        return Asker(zone, invitation) if zone and invitation else None

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
