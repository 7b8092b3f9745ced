"""An account's zone whose truth is on another server: the front's side of it.

What is answered is :attr:`BackedZone.content`; what the primary has is :attr:`BackedZone.mirror`:
the same, and the records whose lease ended that are not deleted there yet. An UPDATE is judged by
our policy and limits; then the leases that it will have are written (a *promise*: should we die in
between, its records must not stay forever), then it is passed on, and when the primary has
acknowledged it and the mirror has what it did, that is written, and its requestor answered. The
primary alone judges prerequisites: our mirror may be a moment old.

What passes between us and the primary besides UPDATEs are errands of our own: the deletion of what
ended, and the records by which hosts find us (decision 0048).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING, Final, Protocol

import dns.name
import dns.rdtypes.ANY.SOA

from discovery import bootstrap, duplicates, lease, rcodes, update
from discovery.backing.primary import Mirrored, Passed
from discovery.bootstrap import ServerIdentity
from discovery.content import SOA, ZoneContent, difference, same_content
from discovery.held import HeldZone, Stage, Writing, ZoneAccount
from discovery.message import CLASS_ANY, CLASS_NONE, IN, Record, Reply
from discovery.store import Item, RecordSet, SetKey
from discovery.update import UpdateError, UpdatePolicy, ZoneLimits

if TYPE_CHECKING:
    from discovery.batch import Waiting

RETRY: Final = 10
"""Seconds after which the primary is asked again for what it refused us."""

TOGETHER: Final = 32_000  # octets of records that are deleted by one UPDATE


class Upstream(Protocol):
    """The way to the primary (:class:`discovery.io_backing.BackingLink`)."""

    @property
    def away(self) -> str:
        """Why the primary cannot be asked now, in words; empty: it can."""
        ...

    def update(
        self, ticket: int, prerequisites: Iterable[Record], updates: Iterable[Record]
    ) -> None:
        """Pass an UPDATE on; :meth:`BackedZone.passed` gets its outcome, perhaps at once."""
        ...


@dataclass(slots=True)
class _Errand:
    """An UPDATE for the primary, and who wants to know what became of it."""

    ticket: int
    prerequisites: Sequence[Record]
    updates: Sequence[Record]
    done: Callable[[Passed], None]


@dataclass(frozen=True, slots=True)
class _Promise:
    """A record that an UPDATE on its way adds, with its lease; ``ticket`` 0: it was lost there."""

    ticket: int
    name: dns.name.Name
    ttl: int
    item: Item


@dataclass(frozen=True, slots=True)
class _BackedWriting(Writing):
    touched: dict[SetKey, RecordSet | None]
    errands: list[_Errand]


class Mirror:
    """What the primary has, as far as we know; changes to it go to :meth:`BackedZone.mirrored`."""

    def __init__(self, shown: ZoneContent, hidden: ZoneContent) -> None:
        self.origin = shown.origin
        self._shown, self._hidden = shown, hidden

    @property
    def records(self) -> int:
        """How many records it has."""
        return self._shown.records + self._hidden.records

    @property
    def names(self) -> int:
        """How many names own records that are answered."""
        return self._shown.names

    @property
    def soa(self) -> dns.rdtypes.ANY.SOA.SOA:
        """The SOA record's data."""
        return self._shown.soa

    def at(self, name: dns.name.Name) -> Mapping[int, RecordSet]:
        """Return the sets at a name by type."""
        hidden = self._hidden.at(name)
        if not hidden:
            return self._shown.at(name)
        types = {*hidden, *self._shown.at(name)}
        return {rdtype: found for rdtype in types if (found := self.get(name, rdtype))}

    def get(self, name: dns.name.Name, rdtype: int) -> RecordSet | None:
        """Return one set, or ``None``."""
        return _united(self._shown.get(name, rdtype), self._hidden.get(name, rdtype))

    def sets(self) -> Iterable[RecordSet]:
        """Return all sets, in no order."""
        for content in self._shown.sets():
            yield self.get(content.name, content.rdtype) or content
        for content in self._hidden.sets():
            if self._shown.get(content.name, content.rdtype) is None:
                yield content


class _Told:
    """The sets as listeners know them, for :func:`discovery.content.difference`."""

    def __init__(self, sets: Mapping[SetKey, RecordSet | None]) -> None:
        self._sets = sets

    def get(self, name: dns.name.Name, rdtype: int) -> RecordSet | None:
        return self._sets[name, rdtype]


class BackedZone(HeldZone):
    """The zone of an account with :attr:`~discovery.held.ZoneAccount.backing`; ``sets`` are the
    last mirror, with the leases. ``trouble`` is told in words what the primary refuses *us*."""

    def __init__(
        self,
        account: ZoneAccount,
        sets: Iterable[RecordSet],
        limits: ZoneLimits,
        trouble: Callable[[str], None] = lambda _: None,
    ) -> None:
        super().__init__(account, sets, limits)
        reserved = bootstrap.reserved_names(self.origin) | {
            bootstrap.below(bootstrap.FRONT_LABEL, self.origin)
        }
        self.policy = UpdatePolicy(reserved, self.invite_tree, account.limits or limits)
        self.public |= {bootstrap.below(bootstrap.FRONT_LABEL, self.origin)}
        self.upstream: Upstream | None = None
        self._hidden = ZoneContent(self.origin)  # ended, and not yet deleted at the primary
        self.mirror = Mirror(self.content, self._hidden)
        self._trouble = trouble
        self._promised: dict[SetKey, dict[bytes, _Promise]] = {}
        self._touched: dict[SetKey, RecordSet | None] = {}  # to be written, as listeners know them
        self._ready: list[_Errand] = []  # pass these on once that is written
        self._under_way: dict[int, _Errand] = {}
        self._askers: dict[bytes, list[Waiting]] = {}  # by message: who waits for the primary
        self._answered: list[tuple[Waiting, Reply]] = []
        self._tickets = 0
        self._unix = 0
        self._deleting = False
        self._delete_at = 0  # unix seconds; not before then again
        self._own: Mapping[SetKey, RecordSet] = {}
        self._own_due, self._own_at, self._own_trouble = True, 0, ""

    def is_backed_by(self, host: str) -> bool:
        """Say whether a NOTIFY from this address counts (RFC 1996 §3.10)."""
        assert self.account.backing is not None
        return _plain(host) == _plain(self.account.backing.server[0])

    # --- What HeldZone does otherwise -------------------------------------------------------

    @property
    def is_ready(self) -> bool:
        """Whether the zone was ever mirrored."""
        return self.content.get(self.origin, SOA) is not None

    @property
    def next_end(self) -> int | None:
        """See :attr:`HeldZone.next_end`."""
        return self.content.next_end

    def has_due_end(self, unix: int) -> bool:
        """Whether something is to be written, passed on or answered."""
        return bool(self._touched or self._ready or self._answered) and self._retry <= unix

    def expire(self, unix: int) -> None:
        """Answer no record any more whose lease ended by ``unix``; the primary is told later."""
        self._unix = unix
        for key, kept in self.content.ended(unix).items():
            before = self.content.get(*key)
            assert before is not None
            ended = tuple(i for i in before.items if i.expires is not None and i.expires <= unix)
            hidden = _united(replace(before, items=ended), self._hidden.get(*key))
            self._put(key, kept, hidden)

    def prepare(self, unix: int) -> None:
        """Make ready what the primary is to be asked for by ourselves."""
        self._unix = unix
        if self.upstream is None or self.upstream.away:
            return
        if self._hidden.records and not self._deleting and self._delete_at <= unix:
            self._delete()
        if self._own_due and self._own_at <= unix:
            self._own_due = False
            self._publish()

    def stage(self) -> Stage:
        """See :meth:`HeldZone.stage`: here UPDATEs are only tried on it."""
        return Stage(self.content)

    def found(self, _stage: Stage, _unix: int) -> None:
        """The primary has the SOA."""

    def take_place(self, _stage: Stage, server: ServerIdentity) -> None:
        """The server's own records are published at the primary, when it is there."""
        self._own = bootstrap.server_records(self.origin, server, bootstrap.FRONT_LABEL)

    def carry_out(self, stage: Stage, one: Waiting, unix: int) -> Reply | None:
        """See :meth:`HeldZone.carry_out`; ``None``: the answer comes with :meth:`replies`."""
        key = duplicates.key_of(one.wire)
        if key in self._askers:  # it came again while the primary has it
            self._askers[key].append(one)
            return None
        if self.upstream is None or self.upstream.away:
            why = self.upstream.away if self.upstream else "the rendezvous is starting; try again"
            return Reply(rcode=rcodes.SERVFAIL, reason=why)
        ends = lease.ends_of(one.granted, unix)
        prerequisites, updates = one.request.answer, one.request.authority
        if not all(map(_is_readable, prerequisites)):
            return Reply(rcode=rcodes.FORMERR)
        try:
            update.check_size(prerequisites, updates, self.policy.limits)
            stage.merge(update.work_out(stage, (), updates, self.policy, ends))
        except UpdateError as error:
            return Reply(rcode=error.rcode, reason=error.reason)
        self._askers[key] = [one]
        errand = self._errand(
            prerequisites, updates, lambda word: self._carried_out(word, key, updates, ends)
        )
        self._promise(errand.ticket, updates, ends)
        return None

    def replies(self) -> list[tuple[Waiting, Reply]]:
        """Take the replies that may be sent once what was touched is written."""
        replies, self._answered = self._answered, []
        return replies

    def write(self, _stage: Stage) -> Writing:
        """See :meth:`HeldZone.write`."""
        touched, self._touched = self._touched, {}
        errands, self._ready = self._ready, []
        told = difference(
            self.origin, _Told(touched), {key: self.content.get(*key) for key in touched}
        )
        changes = {key: self._kept(key) for key in touched}
        return _BackedWriting(changes, told, {}, {}, touched, errands)

    def settle(self, writing: Writing) -> None:
        """What was written is durable: pass on what waited for that."""
        assert isinstance(writing, _BackedWriting)
        for errand in writing.errands:
            assert self.upstream is not None
            self._under_way[errand.ticket] = errand
            self.upstream.update(errand.ticket, errand.prerequisites, errand.updates)

    def undo(self, writing: Writing, unix: int) -> None:
        """It was not written: nothing of it is passed on."""
        assert isinstance(writing, _BackedWriting)
        self._retry = unix + 1
        self._touched = {**self._touched, **writing.touched}
        for errand in writing.errands:
            self._forget_promises(errand.ticket)
            errand.done(Passed(errand.ticket, rcodes.SERVFAIL, "the store failed; try again"))

    # --- What the primary says --------------------------------------------------------------

    def mirrored(self, word: Mirrored) -> None:
        """Take what changed at the primary."""
        for key, after in word.changes.items():
            hidden = self._hidden.get(*key)
            ended = _data(hidden)
            known = ended | _data(self.content.get(*key))
            items = [self._leased(key, i, known) for i in after.items] if after else []
            self._put(
                key,
                _of(after, [item for item in items if item.canonical not in ended]),
                _of(after, [item for item in items if item.canonical in ended]),
            )
            self._own_due = self._own_due or key[0] in self.policy.reserved

    def passed(self, word: Passed) -> None:
        """Take the primary's word on an UPDATE."""
        errand = self._under_way.pop(word.ticket, None)
        if errand is not None:
            errand.done(word)

    def reached(self) -> None:
        """The primary is back, and the mirror is what it has: what was lost there is decided."""
        self._own_due, self._own_at, self._delete_at = True, 0, 0
        self._forget_promises(0)

    # --- UPDATEs of the account -------------------------------------------------------------

    def _errand(
        self,
        prerequisites: Sequence[Record],
        updates: Sequence[Record],
        done: Callable[[Passed], None],
    ) -> _Errand:
        self._tickets += 1
        errand = _Errand(self._tickets, prerequisites, updates, done)
        self._ready.append(errand)
        return errand

    def _promise(self, ticket: int, updates: Iterable[Record], ends: lease.LeaseEnds) -> None:
        for record in updates:
            if record.rdclass == IN and record.rdata is not None:
                key = record.name, record.rdtype
                item = Item(record.rdata, ends.of(record.rdtype))
                promise = _Promise(ticket, record.name, record.ttl, item)
                self._touch(key)
                self._promised.setdefault(key, {})[item.canonical] = promise

    def _forget_promises(self, ticket: int) -> None:
        for key, promises in list(self._promised.items()):
            kept = {data: one for data, one in promises.items() if one.ticket != ticket}
            if len(kept) < len(promises):
                self._touch(key)
            if kept:
                self._promised[key] = kept
            else:
                del self._promised[key]

    def _orphan_promises(self, ticket: int) -> None:
        """Keep the promises of an UPDATE of which the primary's word is missing."""
        for promises in self._promised.values():
            for data, one in promises.items():
                if one.ticket == ticket:
                    promises[data] = replace(one, ticket=0)

    def _leased(self, key: SetKey, item: Item, known: frozenset[bytes]) -> Item:
        """A record that came newly has the lease that was promised for it."""
        promise = self._promised.get(key, {}).get(item.canonical)
        if promise is None or item.canonical in known:
            return item
        return promise.item

    def _carried_out(
        self, word: Passed, key: bytes, updates: Sequence[Record], ends: lease.LeaseEnds
    ) -> None:
        if word.rcode == rcodes.SERVFAIL and len(self._promised) <= self.policy.limits.records:
            self._orphan_promises(word.ticket)
        else:
            self._forget_promises(word.ticket)
        reply = Reply(rcode=word.rcode, reason=word.reason)
        if word.rcode == rcodes.NOERROR:
            for record in updates:
                if record.rdclass == IN and record.rdata is not None:
                    item = Item(record.rdata, ends.of(record.rdtype))
                    self._grant((record.name, record.rdtype), item)
        for one in self._askers.pop(key):
            granted = one.granted if word.rcode == rcodes.NOERROR else None
            options = [(lease.OPTION, granted.octets())] if granted else []
            self._answered.append((one, replace(reply, options=options)))

    def _grant(self, key: SetKey, item: Item) -> None:
        """Give a record its new lease, if the primary has it; one that ended is answered again."""
        if key[1] == SOA:
            return
        whole, hidden = self.mirror.get(*key), self._hidden.get(*key)
        if whole is None or item.canonical not in _data(whole):
            return
        ended = _data(hidden) - {item.canonical}
        items = [item if one.canonical == item.canonical else one for one in whole.items]
        self._put(
            key,
            _of(whole, [one for one in items if one.canonical not in ended]),
            _of(whole, [one for one in items if one.canonical in ended]),
        )

    # --- Errands of our own -----------------------------------------------------------------

    def _delete(self) -> None:
        """Delete at the primary what ended, unless it is just being added again."""
        found: list[tuple[SetKey, Item]] = []
        size = 0
        for content in self._hidden.sets():
            key = content.name, content.rdtype
            again = self._promised.get(key, {})
            due = [item for item in content.items if item.canonical not in again]
            found += [(key, item) for item in due]
            size += sum(len(item.canonical) + 64 for item in due)
            if size > TOGETHER:
                break
        if found:
            self._deleting = True
            updates = [_record(key, CLASS_NONE, 0, item) for key, item in found]
            self._errand((), updates, lambda word: self._deleted(word, found))

    def _deleted(self, word: Passed, found: Sequence[tuple[SetKey, Item]]) -> None:
        self._deleting = False
        if word.rcode != rcodes.NOERROR:
            self._delete_at = self._unix + RETRY
            if self.upstream is not None and not self.upstream.away:  # that is told already
                self._trouble(f"records whose lease ended are not yet deleted there: {word.reason}")
            return
        for key, item in found:
            if item.canonical in _data(self._hidden.get(*key)) - set(self._promised.get(key, {})):
                # The deletion is done, and there it is: somebody else has added it since.
                self._grant(key, Item(item.rdata))

    def _publish(self) -> None:
        """Let the zone lead to us, where it does not."""
        updates: list[Record] = []
        for name in self._own_names():
            for rdtype in {*self.content.at(name), *(t for n, t in self._own if n == name)}:
                wanted = self._own.get((name, rdtype))
                if same_content(wanted, self.content.get(name, rdtype)):
                    continue
                updates.append(Record(name, rdtype, CLASS_ANY, 0, 0, None))
                items = wanted.items if wanted else ()
                ttl = wanted.ttl if wanted else 0
                updates += [_record((name, rdtype), IN, ttl, item) for item in items]
        if updates:
            self._errand((), updates, self._published)

    def _own_names(self) -> Iterable[dns.name.Name]:
        """The names that are ours at the primary: its own ``ns`` is not."""
        server = bootstrap.below(bootstrap.SERVER_LABEL, self.origin)
        return (name for name in self.policy.reserved if name != server)

    def _published(self, word: Passed) -> None:
        if word.rcode == rcodes.NOERROR:
            self._own_trouble = ""
            return
        self._own_due, self._own_at = True, self._unix + RETRY
        if word.rcode != rcodes.SERVFAIL and word.reason != self._own_trouble:
            self._own_trouble = word.reason
            fix = "let our key update the whole zone there, or hosts must name this rendezvous"
            self._trouble(f"the zone does not lead to this rendezvous: {word.reason}; {fix}")

    # --- Inside -----------------------------------------------------------------------------

    def _touch(self, key: SetKey) -> None:
        self._touched.setdefault(key, self.content.get(*key))

    def _put(self, key: SetKey, shown: RecordSet | None, hidden: RecordSet | None) -> None:
        self._touch(key)
        self.content.merge({key: shown})
        self._hidden.merge({key: hidden})

    def _kept(self, key: SetKey) -> RecordSet | None:
        """What the store keeps of a set: what the primary has, and what is promised."""
        found = self._promised.get(key, {})
        # That a record will stay is not written ahead: should it not, its lease must still end.
        promised = {data: one for data, one in found.items() if one.item.expires is not None}
        whole = self.mirror.get(*key)
        if not promised:
            return whole
        first = next(iter(promised.values()))
        base = whole or RecordSet(first.name, key[1], first.ttl, ())
        items = tuple(i for i in base.items if i.canonical not in promised)
        return replace(base, items=(*items, *(one.item for one in promised.values())))


def _plain(host: str) -> str:
    """An address as it is compared: without a scope, IPv4 as such."""
    address = ip_address(host.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(mapped or address)


def _united(one: RecordSet | None, other: RecordSet | None) -> RecordSet | None:
    """Both sets as one; where both have a record, it is that of ``one``."""
    if one is None or other is None:
        return one or other
    known = _data(one)
    return replace(one, items=(*one.items, *(i for i in other.items if i.canonical not in known)))


def _of(content: RecordSet | None, items: Sequence[Item]) -> RecordSet | None:
    return replace(content, items=tuple(items)) if content is not None and items else None


def _data(content: RecordSet | None) -> frozenset[bytes]:
    return frozenset(item.canonical for item in content.items) if content else frozenset()


def _record(key: SetKey, rdclass: int, ttl: int, item: Item) -> Record:
    return Record(key[0], key[1], rdclass, ttl, len(item.canonical), item.rdata)


def _is_readable(record: Record) -> bool:
    """Whether a prerequisite has a form that can be passed on (RFC 2136 §2.4)."""
    if record.rdclass == IN:
        return record.rdata is not None
    return record.rdclass in (CLASS_ANY, CLASS_NONE) and not record.length
