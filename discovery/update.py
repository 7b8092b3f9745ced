"""DNS UPDATE (RFC 2136 §3): prerequisites, prescan, and the changes that an UPDATE makes.

Pure functions of the zone's content: :func:`work_out` returns the changes, which the caller makes
durable and then true, or raises :exc:`UpdateError`, after which nothing has happened.

The order is RFC 2136's, but permission comes before the prerequisites: whoever may not change a
zone should not learn by prerequisites what is in it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final

import dns.name
import dns.rdatatype
import dns.rdtypes.ANY.SOA

from discovery import message, rcodes
from discovery.content import (
    CNAME,
    NS,
    SERIAL_SPACE,
    SOA,
    Contents,
    Draft,
    canonical_data,
    serial_greater,
)
from discovery.lease import PERMANENT, LeaseEnds
from discovery.message import CLASS_ANY, CLASS_NONE, IN, TYPE_ANY, Record
from discovery.store import Item, RecordSet, SetKey

MAX_TTL: Final = 0x7FFFFFFF  # RFC 2181 §8: a TTL with the top bit set means zero

_SINGLETONS: Final = frozenset({SOA, CNAME})  # RFC 2136 §3.4.2.2: a new one replaces the old

# This server neither delegates nor signs nor rewrites; records that would make it lie are refused.
NOT_TAKEN: Final = frozenset(
    int(rdtype)
    for rdtype in (
        dns.rdatatype.DNAME,
        dns.rdatatype.DS,
        dns.rdatatype.DNSKEY,
        dns.rdatatype.RRSIG,
        dns.rdatatype.NSEC,
        dns.rdatatype.NSEC3,
        dns.rdatatype.NSEC3PARAM,
        dns.rdatatype.SIG,
        dns.rdatatype.NXT,
    )
)


class UpdateError(Exception):
    """An UPDATE that is not carried out: its RCODE, and one sentence for refusals."""

    def __init__(self, rcode: int, reason: str = "") -> None:
        super().__init__(reason or f"RCODE {rcode}")
        self.rcode = rcode
        self.reason = reason


@dataclass(frozen=True, slots=True)
class ZoneLimits:
    """What one account may keep on the rendezvous, and ask for in one UPDATE (``update_records``,
    prerequisites included). ``record_octets`` bounds one record's data, ``set_octets`` all data of
    one name and type, so that the set can be answered in one message."""

    names: int = 2000
    records: int = 10000
    records_per_set: int = 128
    record_octets: int = 4096
    set_octets: int = 48_000
    update_records: int = 1000


DEFAULT_LIMITS: Final = ZoneLimits()


@dataclass(frozen=True, slots=True)
class UpdatePolicy:
    """What of the zone is the server's own: ``reserved`` names, and everything at or below
    ``reserved_tree``; and the account's limits."""

    reserved: Collection[dns.name.Name] = ()
    reserved_tree: dns.name.Name | None = None
    limits: ZoneLimits = DEFAULT_LIMITS


NO_POLICY: Final = UpdatePolicy()


def work_out(
    content: Contents,
    prerequisites: Collection[Record],
    updates: Collection[Record],
    policy: UpdatePolicy = NO_POLICY,
    ends: LeaseEnds = PERMANENT,
) -> dict[SetKey, RecordSet | None]:
    """Return the changes that an UPDATE makes to ``content``, which stays as it is.

    ``ends`` says when the records that this UPDATE adds leave by themselves (RFC 9664 §4).
    Raises :exc:`UpdateError`.
    """
    limits = policy.limits
    check_size(prerequisites, updates, limits)
    _check_prerequisites(content, prerequisites)
    _prescan(content.origin, updates)
    _check_policy(content.origin, updates, policy)
    draft = Draft(content)
    for record in updates:
        _apply(draft, record, limits, ends)
    _check_limits(draft, limits)
    step_serial(draft)
    return draft.changes()


def check_size(
    prerequisites: Collection[Record], updates: Collection[Record], limits: ZoneLimits
) -> None:
    """Raise :exc:`UpdateError` if an UPDATE has too many records."""
    if len(prerequisites) + len(updates) > limits.update_records:
        raise UpdateError(
            rcodes.REFUSED, f"an UPDATE may hold {limits.update_records} records; send several"
        )


def _is_meta(rdtype: int) -> bool:
    return rdtype in (0, message.TYPE_OPT) or 128 <= rdtype <= 255


# --- Prerequisites (RFC 2136 §3.2) ----------------------------------------------------------


def _check_prerequisites(content: Contents, records: Iterable[Record]) -> None:
    # §3.2.5's pseudocode lacks an `else` before its zone-class test; this follows the prose.
    wanted: dict[SetKey, set[bytes]] = {}
    for record in records:
        if record.ttl != 0:
            raise UpdateError(rcodes.FORMERR)
        if not record.name.is_subdomain(content.origin):
            raise UpdateError(rcodes.NOTZONE)
        if record.rdclass == IN:
            if record.rdata is None or _is_meta(record.rdtype):
                raise UpdateError(rcodes.FORMERR)
            key = (record.name, record.rdtype)
            wanted.setdefault(key, set()).add(record.rdata.to_digestable())
        else:
            _check_existence(content, record)
    for (name, rdtype), data in wanted.items():
        found = content.get(name, rdtype)
        if found is None or canonical_data(found) != data:
            raise UpdateError(rcodes.NXRRSET)


def _check_existence(content: Contents, record: Record) -> None:
    if record.rdclass not in (CLASS_ANY, CLASS_NONE) or record.length:
        raise UpdateError(rcodes.FORMERR)
    if record.rdtype == TYPE_ANY:
        exists = bool(content.at(record.name))
        missing, present = rcodes.NXDOMAIN, rcodes.YXDOMAIN
    elif _is_meta(record.rdtype):
        raise UpdateError(rcodes.FORMERR)
    else:
        exists = content.get(record.name, record.rdtype) is not None
        missing, present = rcodes.NXRRSET, rcodes.YXRRSET
    if record.rdclass == CLASS_ANY and not exists:
        raise UpdateError(missing)
    if record.rdclass == CLASS_NONE and exists:
        raise UpdateError(present)


# --- Prescan (RFC 2136 §3.4.1) and permission (§3.3) ----------------------------------------


def _prescan(origin: dns.name.Name, records: Iterable[Record]) -> None:
    for record in records:
        if not record.name.is_subdomain(origin):
            raise UpdateError(rcodes.NOTZONE)
        if not _is_well_formed(record):
            raise UpdateError(rcodes.FORMERR)


def _is_well_formed(record: Record) -> bool:
    if record.rdclass == IN:
        return record.rdata is not None and not _is_meta(record.rdtype)
    if record.rdclass == CLASS_ANY:
        concrete = record.rdtype == TYPE_ANY or not _is_meta(record.rdtype)
        return concrete and record.ttl == 0 and record.length == 0
    return record.rdclass == CLASS_NONE and record.ttl == 0 and not _is_meta(record.rdtype)


def _check_policy(origin: dns.name.Name, records: Iterable[Record], policy: UpdatePolicy) -> None:
    tree = policy.reserved_tree
    for record in records:
        if record.name in policy.reserved or (tree and record.name.is_subdomain(tree)):
            raise UpdateError(
                rcodes.REFUSED, "the rendezvous keeps this name itself; updates cannot change it"
            )
        if record.rdclass != IN:
            continue
        if record.rdtype in NOT_TAKEN or (record.rdtype == NS and record.name != origin):
            raise UpdateError(
                rcodes.REFUSED, "this server does not delegate or sign: such records are not taken"
            )
        if record.length > policy.limits.record_octets:
            raise UpdateError(
                rcodes.REFUSED, f"a record may hold {policy.limits.record_octets} octets"
            )


# --- Applying (RFC 2136 §3.4.2) -------------------------------------------------------------


def _apply(draft: Draft, record: Record, limits: ZoneLimits, ends: LeaseEnds) -> None:
    if record.rdclass == IN:
        _add(draft, record, limits, ends)
    elif record.rdclass == CLASS_NONE:
        _delete_one(draft, record)
    elif record.rdtype == TYPE_ANY:
        for rdtype in draft.types_at(record.name):
            _delete_set(draft, record.name, rdtype)
    else:
        _delete_set(draft, record.name, record.rdtype)


def _add(draft: Draft, record: Record, limits: ZoneLimits, ends: LeaseEnds) -> None:
    assert record.rdata is not None  # the prescan saw to it
    if record.rdtype == SOA and not _is_newer_soa(draft, record):
        return
    if _conflicts(record.rdtype, draft.types_at(record.name)):
        return
    added = Item(record.rdata, ends.of(record.rdtype))
    before = draft.get(record.name, record.rdtype)
    items: tuple[Item, ...] = (added,)
    if before is not None and record.rdtype not in _SINGLETONS:
        data = added.canonical
        kept = [item for item in before.items if item.canonical != data]
        items = (*kept, added)
        if len(kept) < len(before.items):  # the same data again: its place is kept
            items = tuple(added if i.canonical == data else i for i in before.items)
    if before is not None and len(before.items) < len(items) > limits.records_per_set:
        raise UpdateError(
            rcodes.REFUSED, f"a name may hold {limits.records_per_set} records of one type"
        )
    # A name is shown as it was first written, whatever later records call it (RFC 4343 §4).
    name = next((content.name for content in draft.base.at(record.name).values()), record.name)
    ttl = record.ttl if record.ttl <= MAX_TTL else 0
    draft.put(RecordSet(name, record.rdtype, ttl, items))


def _is_newer_soa(draft: Draft, record: Record) -> bool:
    before = draft.get(record.name, SOA)
    if before is None:  # not the apex: a zone has no second SOA
        return False
    old, new = before.items[0].rdata, record.rdata
    assert isinstance(old, dns.rdtypes.ANY.SOA.SOA)
    return isinstance(new, dns.rdtypes.ANY.SOA.SOA) and serial_greater(new.serial, old.serial)


def _conflicts(rdtype: int, present: set[int]) -> bool:
    """Say whether a CNAME would stand beside other data (the added record is then ignored)."""
    return bool(present - {CNAME}) if rdtype == CNAME else CNAME in present


def _delete_set(draft: Draft, name: dns.name.Name, rdtype: int) -> None:
    if name == draft.base.origin and rdtype in (SOA, NS):
        return  # §3.4.2.3: the apex keeps them
    draft.drop(name, rdtype)


def _delete_one(draft: Draft, record: Record) -> None:
    before = draft.get(record.name, record.rdtype)
    if before is None or record.rdata is None or record.rdtype == SOA:
        return
    data = record.rdata.to_digestable()
    kept = tuple(item for item in before.items if item.canonical != data)
    if kept:
        draft.put(RecordSet(before.name, before.rdtype, before.ttl, kept))
    else:
        _delete_set(draft, record.name, record.rdtype)  # spares the apex' last NS, §3.4.2.4


def _check_limits(draft: Draft, limits: ZoneLimits) -> None:
    """Refuse growth above the limits; shrinking is always allowed."""
    records, names = draft.base.records, draft.base.names
    grown = False
    touched: set[dns.name.Name] = set()
    for (name, rdtype), content in draft.changes().items():
        before = draft.base.get(name, rdtype)
        count = len(content.items) if content else 0
        difference = count - (len(before.items) if before else 0)
        records += difference
        grown = grown or difference > 0
        touched.add(name)
        size = sum(len(item.canonical) + 12 for item in content.items) if content else 0
        if difference > 0 and size > limits.set_octets:
            raise UpdateError(
                rcodes.REFUSED,
                f"the records of a name and type may hold {limits.set_octets} octets",
            )
    names += sum(bool(draft.types_at(name)) - bool(draft.base.at(name)) for name in touched)
    if grown and records > limits.records:
        raise UpdateError(rcodes.REFUSED, f"the zone is full: {limits.records} records")
    if grown and names > limits.names:
        raise UpdateError(rcodes.REFUSED, f"the zone is full: {limits.names} names")


def step_serial(draft: Draft) -> None:
    """Raise the serial by one if answers change and the UPDATE itself did not (§3.6)."""
    origin = draft.base.origin
    changed = draft.visible_changes()
    if changed and (origin, SOA) not in changed:
        raise_serial(draft)


def raise_serial(draft: Draft) -> None:
    """Raise the serial by one."""
    before = draft.base.get(draft.base.origin, SOA)
    assert before is not None
    soa = draft.base.soa
    after = soa.replace(serial=(soa.serial + 1) % SERIAL_SPACE)
    draft.put(RecordSet(before.name, SOA, before.ttl, (Item(after),)))
