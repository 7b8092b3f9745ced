"""The content of one zone in memory, and a draft of changes to it.

A :class:`ZoneContent` answers what stands at a name; a :class:`Draft` lies over it while one
UPDATE is worked out, so that a failure at any step leaves nothing to undo (RFC 2136 §3.4.2.7). The
content knows which of its leases ends next (RFC 9664): a moment in which none ends costs nothing.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import dns.name
import dns.rdatatype
import dns.rdtypes.ANY.SOA

from discovery.store import Changes, RecordSet, SetKey

SOA = int(dns.rdatatype.SOA)
NS = int(dns.rdatatype.NS)
CNAME = int(dns.rdatatype.CNAME)

SERIAL_SPACE = 1 << 32

_SPARE_ENDS = 64


def serial_greater(one: int, other: int) -> bool:
    """Compare two serial numbers as RFC 1982 §3.2 does (undefined distance: false)."""
    return 0 < (one - other) % SERIAL_SPACE < SERIAL_SPACE // 2


def same_content(one: RecordSet | None, other: RecordSet | None) -> bool:
    """Say whether two sets answer alike: TTL and data; leases may differ."""
    if one is None or other is None:
        return one is other
    return one.ttl == other.ttl and canonical_data(one) == canonical_data(other)


def canonical_data(content: RecordSet) -> frozenset[bytes]:
    """Return the data of a set in canonical form, by which RRsets are compared."""
    return frozenset(item.canonical for item in content.items)


@dataclass(frozen=True, slots=True)
class ZoneChange:
    """What one durable change did to a zone's answers: the records that left and those that came,
    as sets that hold no others. A record whose TTL changed stands in ``added`` alone, since it is
    the same record (RFC 2136 §1.1.1); one whose lease alone changed stands in neither."""

    zone: dns.name.Name
    removed: tuple[RecordSet, ...]
    added: tuple[RecordSet, ...]


class Sets(Protocol):
    """Sets that can be asked for."""

    def get(self, name: dns.name.Name, rdtype: int) -> RecordSet | None:
        """Return one set, or ``None``."""
        ...


def difference(origin: dns.name.Name, base: Sets, changes: Changes) -> ZoneChange:
    """Return what ``changes`` will do to the answers of ``base``."""
    removed: list[RecordSet] = []
    added: list[RecordSet] = []
    for key, after in changes.items():
        before = base.get(*key)
        if before is not None:
            left = _without(before, canonical_data(after) if after else frozenset())
            removed += [left] if left else []
        if after is not None:
            known = canonical_data(before) if before and before.ttl == after.ttl else frozenset()
            came = _without(after, known)
            added += [came] if came else []
    return ZoneChange(origin, tuple(removed), tuple(added))


def _without(content: RecordSet, data: frozenset[bytes]) -> RecordSet | None:
    items = tuple(item for item in content.items if item.canonical not in data)
    return replace(content, items=items) if items else None


def _first_end(content: RecordSet) -> int | None:
    return min((item.expires for item in content.items if item.expires is not None), default=None)


class Contents(Protocol):
    """What a :class:`Draft` lies over: a zone's content, or a stage over it
    (:class:`discovery.held.Stage`)."""

    origin: dns.name.Name

    @property
    def records(self) -> int:
        """How many records there are."""
        ...

    @property
    def names(self) -> int:
        """How many names own records."""
        ...

    @property
    def soa(self) -> dns.rdtypes.ANY.SOA.SOA:
        """The SOA record's data."""
        ...

    def at(self, name: dns.name.Name) -> Mapping[int, RecordSet]:
        """Return the sets at a name by type; empty where there are none."""
        ...

    def get(self, name: dns.name.Name, rdtype: int) -> RecordSet | None:
        """Return one set, or ``None``."""
        ...


class ZoneContent:
    """All sets of the zone ``origin``, found by name without regard to case."""

    def __init__(self, origin: dns.name.Name, sets: Iterable[RecordSet] = ()) -> None:
        self.origin = origin
        self.records = 0
        self._nodes: dict[dns.name.Name, dict[int, RecordSet]] = {}
        self._below: Counter[dns.name.Name] = Counter()
        self._ends: list[tuple[int, int, SetKey]] = []  # a heap of (unix seconds, tie break, set)
        self._pushed = 0
        for content in sets:
            self._put(content)

    @property
    def names(self) -> int:
        """How many names own records."""
        return len(self._nodes)

    def at(self, name: dns.name.Name) -> Mapping[int, RecordSet]:
        """Return the sets at a name by type; empty where there are none."""
        return self._nodes.get(name, {})

    def get(self, name: dns.name.Name, rdtype: int) -> RecordSet | None:
        """Return one set, or ``None``."""
        return self.at(name).get(rdtype)

    def is_above_something(self, name: dns.name.Name) -> bool:
        """Say whether names with records lie below ``name`` (an empty non-terminal exists for a
        query, RFC 4592 §2.2.2, and is not in use for an UPDATE, RFC 2136 §2.4.5)."""
        return self._below[name] > 0 if name in self._below else False

    def sets(self) -> Iterable[RecordSet]:
        """Return all sets, in no order."""
        for node in self._nodes.values():
            yield from node.values()

    @property
    def soa(self) -> dns.rdtypes.ANY.SOA.SOA:
        """The SOA record's data. Every zone has one from its first start."""
        rdata = self._nodes[self.origin][SOA].items[0].rdata
        assert isinstance(rdata, dns.rdtypes.ANY.SOA.SOA)
        return rdata

    @property
    def next_end(self) -> int | None:
        """The unix second at which the next lease ends, or ``None`` where all is permanent. A set
        that was refreshed since may let it be too early, never too late."""
        return self._ends[0][0] if self._ends else None

    def ended(self, unix: int) -> dict[SetKey, RecordSet | None]:
        """Return the changes by which every record leaves whose lease ended at or before ``unix``
        (RFC 9664 §7). The content stays as it is."""
        found: dict[SetKey, RecordSet | None] = {}
        while self._ends and self._ends[0][0] <= unix:
            end, _, key = heapq.heappop(self._ends)
            content = self.get(*key)
            if content is None or _first_end(content) != end:
                continue  # gone or refreshed since; the refresh has an entry of its own
            kept = tuple(i for i in content.items if i.expires is None or i.expires > unix)
            found[key] = replace(content, items=kept) if kept else None
        return found

    def merge(self, changes: Changes) -> None:
        """Take over changes that the store has made durable."""
        for key, content in changes.items():
            self._drop(key)
            if content is not None:
                self._put(content)

    def _ancestors(self, name: dns.name.Name) -> Iterable[dns.name.Name]:
        while name != self.origin:
            name = name.parent()
            yield name

    def _put(self, content: RecordSet) -> None:
        node = self._nodes.get(content.name)
        if node is None:
            node = self._nodes[content.name] = {}
            self._below.update(self._ancestors(content.name))
        node[content.rdtype] = content
        self.records += len(content.items)
        self._note_end(content)

    def _note_end(self, content: RecordSet) -> None:
        end = _first_end(content)
        if end is None:
            return
        if len(self._ends) > 2 * self.records + _SPARE_ENDS:  # refreshes leave stale entries behind
            self._ends = [
                (found, number, (each.name, each.rdtype))
                for number, each in enumerate(self.sets())
                if (found := _first_end(each)) is not None
            ]
            heapq.heapify(self._ends)
            self._pushed = len(self._ends)
            return  # this set is among them
        self._pushed += 1
        heapq.heappush(self._ends, (end, self._pushed, (content.name, content.rdtype)))

    def _drop(self, key: SetKey) -> None:
        name, rdtype = key
        node = self._nodes.get(name)
        if node is None or rdtype not in node:
            return
        self.records -= len(node.pop(rdtype).items)
        if not node:
            del self._nodes[name]
            for above in self._ancestors(name):
                self._below[above] -= 1
                if not self._below[above]:
                    del self._below[above]


class Draft:
    """Changes that lie over a zone's content and are not yet true."""

    def __init__(self, base: Contents) -> None:
        self.base = base
        self._changed: dict[SetKey, RecordSet | None] = {}
        self._types: dict[dns.name.Name, set[int]] = {}

    def get(self, name: dns.name.Name, rdtype: int) -> RecordSet | None:
        """Return one set as the draft has it."""
        key = (name, rdtype)
        return self._changed[key] if key in self._changed else self.base.get(name, rdtype)

    def types_at(self, name: dns.name.Name) -> set[int]:
        """Return the types that own records at a name as the draft has it."""
        return set(self.base.at(name)) if name not in self._types else set(self._types[name])

    def put(self, content: RecordSet) -> None:
        """Replace (or add) one set."""
        self._types_of(content.name).add(content.rdtype)
        self._changed[content.name, content.rdtype] = content

    def drop(self, name: dns.name.Name, rdtype: int) -> None:
        """Remove one set; that it is not there is no error (RFC 2136 §3.4.2.4)."""
        self._types_of(name).discard(rdtype)
        self._changed[name, rdtype] = None

    def changes(self) -> dict[SetKey, RecordSet | None]:
        """Return the sets that differ from the base, be it only in their leases."""
        return {k: v for k, v in self._changed.items() if v != self.base.get(*k)}

    def visible_changes(self) -> list[SetKey]:
        """Return the keys of the sets that answer otherwise than before."""
        return [k for k, v in self._changed.items() if not same_content(v, self.base.get(*k))]

    def _types_of(self, name: dns.name.Name) -> set[int]:
        return self._types.setdefault(name, set(self.base.at(name)))
