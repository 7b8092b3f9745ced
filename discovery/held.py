"""One account's zone as the rendezvous holds it: its content, what is the server's own in it, and
what waits to be written.

Content changes in two ways only. :meth:`HeldZone.stage` lays a :class:`Stage` over the content;
UPDATEs are worked out on it, its changes are written, and :meth:`HeldZone.settle` makes them true.
And :meth:`HeldZone.expire` hides records whose lease ended at once (RFC 9664 §7: they must not be
answered), whatever the disk does; the next stage writes that too, with a step of the serial.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

import dns.name
import dns.rdtypes.ANY.SOA

from discovery import bootstrap, lease, rates, tsig, update
from discovery.bootstrap import ServerIdentity
from discovery.content import (
    SERIAL_SPACE,
    SOA,
    Draft,
    ZoneChange,
    ZoneContent,
    difference,
    same_content,
)
from discovery.duplicates import AnsweredUpdates
from discovery.message import Reply
from discovery.rates import Bucket, RateLimits
from discovery.store import Changes, RecordSet, SetKey
from discovery.types import Endpoint, TsigKey
from discovery.update import UpdateError, UpdatePolicy, ZoneLimits

if TYPE_CHECKING:
    from discovery.batch import Waiting

SHA256: Final = "hmac-sha256"
ALGORITHMS: Final = frozenset(("hmac-sha224", SHA256, "hmac-sha384", "hmac-sha512"))
"""What an account's key may be used with (RFC 8945 §6). hmac-md5 only where the account allows it,
hmac-sha1 and the cut variants never."""


@dataclass(frozen=True, slots=True)
class Backing:
    """The primary server that holds an account's zone, and the key that it knows us by (``None``:
    the account's own)."""

    server: Endpoint
    key: TsigKey | None = None


@dataclass(frozen=True, slots=True)
class ZoneAccount:
    """One account of the rendezvous.

    ``tsig_secret`` is the secret of the TSIG key, whose name is the domain. ``account_secret`` is
    what an invitation hands out, sealed; ``invitation_key(id, expires)`` derives an invitation's
    key from it. ``legacy_md5`` accepts hmac-md5 too (Apple's clients; RFC 8945 §6 forbids new use).
    ``limits`` bound its zone (``None``: as the server has them for all), ``rates`` what it asks.
    ``backing``: another server holds the zone (:mod:`discovery.backing`).
    """

    domain: str
    tsig_secret: bytes = field(repr=False)
    account_secret: bytes = field(repr=False)
    invitation_key: Callable[[bytes, int], bytes] = field(repr=False)
    legacy_md5: bool = False
    limits: ZoneLimits | None = None
    rates: RateLimits = rates.DEFAULT_LIMITS
    backing: Backing | None = None


class Stage:
    """A zone's content with changes that are worked out and not yet written."""

    def __init__(self, base: ZoneContent) -> None:
        self.origin = base.origin
        self.records = base.records
        self.names = base.names
        self.changes: dict[SetKey, RecordSet | None] = {}
        self._base = base
        self._nodes: dict[dns.name.Name, dict[int, RecordSet]] = {}

    def at(self, name: dns.name.Name) -> Mapping[int, RecordSet]:
        """Return the sets at a name by type; empty where there are none."""
        return self._nodes[name] if name in self._nodes else self._base.at(name)

    def get(self, name: dns.name.Name, rdtype: int) -> RecordSet | None:
        """Return one set, or ``None``."""
        return self.at(name).get(rdtype)

    @property
    def soa(self) -> dns.rdtypes.ANY.SOA.SOA:
        """The SOA record's data."""
        rdata = self.at(self.origin)[SOA].items[0].rdata
        assert isinstance(rdata, dns.rdtypes.ANY.SOA.SOA)
        return rdata

    def merge(self, changes: Changes) -> None:
        """Lay further changes over what is there."""
        for key, content in changes.items():
            name, rdtype = key
            node = self._nodes.setdefault(name, dict(self._base.at(name)))
            existed, before = bool(node), node.pop(rdtype, None)
            if content is not None:
                node[rdtype] = content
            self.records += len(content.items) if content else 0
            self.records -= len(before.items) if before else 0
            self.names += bool(node) - existed
            self.changes[key] = content


@dataclass(frozen=True, slots=True)
class Writing:
    """What of one zone is being written, and what a listener is told when it is durable."""

    changes: Changes
    told: ZoneChange
    ended: dict[SetKey, RecordSet | None]
    left: dict[SetKey, RecordSet]


class HeldZone:
    """The zone of one account; ``sets`` are what the store has of it."""

    def __init__(self, account: ZoneAccount, sets: Iterable[RecordSet], limits: ZoneLimits) -> None:
        self.account = account
        self.origin = dns.name.from_text(account.domain).canonicalize()
        self.text = self.origin.to_text()
        self.invite_tree = bootstrap.below(bootstrap.INVITE_LABEL, self.origin)
        self.public = bootstrap.public_names(self.origin)
        self.policy = UpdatePolicy(
            bootstrap.reserved_names(self.origin), self.invite_tree, account.limits or limits
        )
        self.updates = Bucket(account.rates.updates, 0.0)
        self.queries = Bucket(account.rates.queries, 0.0)
        self.answered = AnsweredUpdates()
        self.content = ZoneContent(self.origin, sets)
        self._ended: dict[SetKey, RecordSet | None] = {}  # not answered any more, not yet written
        self._left: dict[SetKey, RecordSet] = {}  # and what they were
        self._retry = 0  # unix seconds; not before then is a failed write tried again

    def key(self, algorithm: str) -> TsigKey | None:
        """Return the account's key, if it may be used with this algorithm."""
        legacy = self.account.legacy_md5 and algorithm == tsig.HMAC_MD5
        if algorithm not in ALGORITHMS and not legacy:
            return None
        return TsigKey(self.text, self.account.tsig_secret, algorithm)

    # --- Ends of leases ---

    @property
    def next_end(self) -> int | None:
        """The unix second at which :meth:`expire` has something to do."""
        return self._retry if self._ended else self.content.next_end

    def has_due_end(self, unix: int) -> bool:
        """Say whether records ended whose end is to be written now."""
        return bool(self._ended) and self._retry <= unix

    def expire(self, unix: int) -> None:
        """Answer no record any more whose lease ended by ``unix``."""
        ended = self.content.ended(unix)
        for content in difference(self.origin, self.content, ended).removed:
            key = (content.name, content.rdtype)
            before = self._left.get(key)
            items = (*before.items, *content.items) if before else content.items
            self._left[key] = replace(content, items=items)
        self.content.merge(ended)
        self._ended |= ended

    # --- Changes ---

    @property
    def is_ready(self) -> bool:
        """Whether there is a zone to answer from."""
        return True

    def prepare(self, unix: int) -> None:
        """Make ready what is to be done at ``unix`` by itself; here: nothing."""

    def replies(self) -> list[tuple[Waiting, Reply]]:
        """Take the replies that waited for somebody else; here: none."""
        return []

    def carry_out(self, stage: Stage, one: Waiting, unix: int) -> Reply | None:
        """Work an UPDATE out on ``stage``, and return its reply, for when that is durable;
        ``None``: it comes with :meth:`replies`."""
        request, granted = one.request, one.granted
        ends = lease.ends_of(granted, unix)
        try:
            changes = update.work_out(stage, request.answer, request.authority, self.policy, ends)
        except UpdateError as error:
            return Reply(rcode=error.rcode, reason=error.reason)
        stage.merge(changes)
        return Reply(options=[(lease.OPTION, granted.octets())] if granted else [])

    def stage(self) -> Stage:
        """Return a stage over the content as it is."""
        stage = Stage(self.content)
        if self._ended:
            draft = Draft(stage)
            update.raise_serial(draft)
            stage.merge(draft.changes())
        return stage

    def write(self, stage: Stage) -> Writing:
        """Take a stage's changes as those which are written now. :meth:`settle` or :meth:`undo`
        follows; until then there is no other."""
        told = difference(self.origin, self.content, stage.changes)
        told = replace(told, removed=(*self._left.values(), *told.removed))
        writing = Writing({**self._ended, **stage.changes}, told, self._ended, self._left)
        self._ended, self._left = {}, {}
        return writing

    def settle(self, writing: Writing) -> None:
        """What was written is true now."""
        # What ended while it was being written is hidden anew by the next expire: merging notes its
        # end again.
        for key in writing.changes:
            self._ended.pop(key, None)
            self._left.pop(key, None)
        self.content.merge(writing.changes)

    def undo(self, writing: Writing, unix: int) -> None:
        """What should have been written was not; only that leases ended remains true."""
        self._retry = unix + 1
        self._ended = {**writing.ended, **self._ended}
        self._left = {**writing.left, **self._left}

    # --- The server's own records ---

    def found(self, stage: Stage, unix: int) -> None:
        """Give a zone that is new its SOA and NS."""
        if not self.content.records:
            first = bootstrap.apex_records(self.origin, unix % SERIAL_SPACE)
            stage.merge({(content.name, content.rdtype): content for content in first})

    def take_place(self, stage: Stage, server: ServerIdentity) -> None:
        """Write the server's own records where they differ from what the zone has."""
        wanted = bootstrap.server_records(self.origin, server)
        draft = Draft(stage)
        for name in self.policy.reserved:
            for rdtype in stage.at(name):
                if (name, rdtype) not in wanted:
                    draft.drop(name, rdtype)
        for key, content in wanted.items():
            if not same_content(content, stage.get(*key)):
                draft.put(content)
        update.step_serial(draft)
        stage.merge(draft.changes())
