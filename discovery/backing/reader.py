"""Zone transfers as a requestor reads them: AXFR (RFC 5936) and IXFR (RFC 1995).

The answer is a run of records over one or more messages, framed by the new SOA. After it either
comes the old SOA, and then differences (what left, SOA, what came, and so on), or any other record,
and then the whole zone; or nothing: our serial is the newest.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Final, Protocol

import dns.name
import dns.rdtypes.ANY.SOA

from discovery import message
from discovery.content import SOA, Contents, Draft, serial_greater
from discovery.exchange import rcode_name
from discovery.message import IN, FormatError, Record
from discovery.store import Changes, Item, RecordSet, SetKey
from discovery.tsig import TsigFailure
from discovery.tsig_stream import StreamVerifier

MOST_RECORDS: Final = 1_000_000
"""Records of one transfer, above which it is given up: the primary is the person's own, but a
mistake there must not end this process."""


class Mirrorable(Contents, Protocol):
    """What a transfer changes: a zone's content that can be gone through."""

    def sets(self) -> Iterable[RecordSet]:
        """Return all sets, in no order."""
        ...


class TransferError(Exception):
    """The answer is no transfer of this zone; says why. The connection is to be closed."""


class _At(Enum):
    FIRST = auto()  # nothing came yet
    SECOND = auto()  # the new SOA came: differences or a whole zone?
    WHOLE = auto()
    LEAVING = auto()  # records that a step removes
    COMING = auto()  # records that it adds
    END = auto()


@dataclass(frozen=True, slots=True)
class _Step:
    left: list[Record]
    came: list[Record]


class TransferReader:
    """Reads one answer. ``serial``: the one that we have and named, ``None`` for AXFR."""

    def __init__(
        self, origin: dns.name.Name, identity: int, verifier: StreamVerifier, serial: int | None
    ) -> None:
        self._origin, self._identity, self._verifier = origin, identity, verifier
        self._serial = serial
        self._at = _At.FIRST
        self._soa: Record | None = None
        self._whole: list[Record] = []
        self._steps: list[_Step] = []
        self._count = 0

    def take(self, wire: bytes, unix: int) -> bool:
        """Take the next message; true when it was the last. Raises :exc:`TransferError`."""
        bare = self._verifier.take(wire, unix)
        if isinstance(bare, TsigFailure):
            raise TransferError(bare.reason)
        try:
            answer = message.read_request(bare)
        except FormatError as error:
            raise TransferError(f"a message is malformed ({error})") from None
        if answer.identity != self._identity or not answer.flags & message.QR:
            raise TransferError("a message answers another question")
        rcode = answer.flags & 15
        if rcode:
            raise TransferError(f"the primary answered {rcode_name(rcode)}")
        for record in answer.answer:
            self._record(record)
        if self._at is _At.SECOND and self._is_newest():
            self._at = _At.END
        if self._at is not _At.END:
            return False
        failure = self._verifier.end()
        if failure is not None:
            raise TransferError(failure.reason)
        return True

    def changes(self, content: Mirrorable) -> Changes:
        """What the transfer changes in ``content``; records that stay keep their leases.

        Raises :exc:`TransferError` when its differences do not fit (then: AXFR).
        """
        if self._whole:
            return _whole(content, self._whole)
        draft = Draft(content)
        for step in self._steps:
            for record in step.left:
                _leave(draft, record)
            for record in step.came:
                _come(draft, record)
        return draft.changes()

    # --- Inside -----------------------------------------------------------------------------

    def _record(self, record: Record) -> None:
        self._count += 1
        if self._count > MOST_RECORDS:
            raise TransferError(f"it has more than {MOST_RECORDS:,} records")
        if self._at is _At.END:
            raise TransferError("records follow its end")
        if record.rdclass != IN or record.rdata is None:
            raise TransferError("it has a record of another class")
        if not record.name.is_subdomain(self._origin):
            raise TransferError(f"it has a name outside of the zone ({record.name})")
        if record.rdtype == SOA:
            self._soa_came(record)
        elif self._at in (_At.SECOND, _At.WHOLE):
            self._at = _At.WHOLE
            self._whole.append(record)
        elif self._at is _At.LEAVING:
            self._steps[-1].left.append(record)
        elif self._at is _At.COMING:
            self._steps[-1].came.append(record)
        else:
            raise TransferError("it does not begin with the zone's SOA")

    def _soa_came(self, record: Record) -> None:
        if record.name != self._origin:
            raise TransferError("it has the SOA of another zone")
        if self._at is _At.FIRST:
            self._soa, self._at = record, _At.SECOND
        elif self._at is _At.SECOND and _serial(record) != self._serial:
            # A zone of nothing but its SOA, or differences from a serial that we do not have.
            self._whole, self._at = [self._new], _At.END
        elif self._at in (_At.SECOND, _At.COMING) and not self._ends(record):
            self._steps.append(_Step([record], []))
            self._at = _At.LEAVING
        elif self._at is _At.LEAVING:
            self._steps[-1].came.append(record)
            self._at = _At.COMING
        else:
            self._whole += [self._new] if self._at is _At.WHOLE else []
            self._at = _At.END

    def _ends(self, record: Record) -> bool:
        """Whether this SOA is the last record: the new one again, after a step that led to it."""
        if self._at is not _At.COMING:
            return False
        return _serial(record) == _serial(self._new) == _serial(self._steps[-1].came[0])

    def _is_newest(self) -> bool:
        return self._serial is not None and not serial_greater(_serial(self._new), self._serial)

    @property
    def _new(self) -> Record:
        assert self._soa is not None
        return self._soa


def _serial(record: Record) -> int:
    assert isinstance(record.rdata, dns.rdtypes.ANY.SOA.SOA)
    return record.rdata.serial


def _whole(content: Mirrorable, records: Iterable[Record]) -> Changes:
    """The changes that make ``content`` equal to a zone's records."""
    sets: dict[SetKey, dict[bytes, Item]] = {}
    shown: dict[SetKey, Record] = {}
    for record in records:
        assert record.rdata is not None
        item = Item(record.rdata)
        key = (record.name, record.rdtype)
        sets.setdefault(key, {})[item.canonical] = item
        shown.setdefault(key, record)
    changes: dict[SetKey, RecordSet | None] = {
        (one.name, one.rdtype): None for one in content.sets() if (one.name, one.rdtype) not in sets
    }
    for key, items in sets.items():
        before = content.get(*key)
        known = {one.canonical: one for one in before.items} if before else {}
        kept = tuple(known.get(data, item) for data, item in items.items())
        after = RecordSet(shown[key].name, key[1], shown[key].ttl, kept)
        if before is None or set(known) != set(items) or before.ttl != after.ttl:
            changes[key] = after
    return changes


def _leave(draft: Draft, record: Record) -> None:
    before = draft.get(record.name, record.rdtype)
    assert record.rdata is not None
    data = record.rdata.to_digestable()
    if before is None or all(item.canonical != data for item in before.items):
        raise TransferError("its differences do not fit what we have")
    kept = tuple(item for item in before.items if item.canonical != data)
    if kept:
        draft.put(replace(before, items=kept))
    else:
        draft.drop(record.name, record.rdtype)


def _come(draft: Draft, record: Record) -> None:
    assert record.rdata is not None
    before = draft.get(record.name, record.rdtype)
    items = before.items if before else ()
    item = Item(record.rdata)
    # The same record again, with another TTL, keeps its lease.
    old = draft.base.get(record.name, record.rdtype)
    item = (
        next((one for one in old.items if one.canonical == item.canonical), item) if old else item
    )
    if all(one.canonical != item.canonical for one in items):
        items = (*items, item)
    name = before.name if before else record.name
    draft.put(RecordSet(name, record.rdtype, record.ttl, items))
