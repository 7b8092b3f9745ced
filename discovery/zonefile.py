"""Zones as standard zone files (RFC 1035 §5), out of the store and into it.

A record's lease has no place in the format: it is written as a comment that we read again and
others pass over. What cannot be kept here (delegations, DNSSEC) is refused on the way in, with its
line; the rendezvous' own records are left out on the way in, since every server writes its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

import dns.exception
import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.tokenizer
import dns.zone
import dns.zonefile

from discovery import audit, bootstrap, update
from discovery.content import NS, SOA
from discovery.lease import LeaseLimits
from discovery.store import Item, RecordSet, SetKey
from discovery.update import ZoneLimits

_LEASE: Final = re.compile(r"^\s*lease until ([0-9]{1,12})\b")


class ZoneFileError(Exception):
    """The file is no zone that can be kept here; says where, cause and fix."""


def write(zone: dns.name.Name, sets: Iterable[RecordSet]) -> str:
    """Return a zone as a zone file: the SOA first, then names in canonical order."""
    ordered = sorted(sets, key=lambda one: (one.rdtype != SOA, one.name, one.rdtype))
    lines = [f"$ORIGIN {zone.to_text()}"]
    for content in ordered:
        kind = dns.rdatatype.to_text(dns.rdatatype.RdataType.make(content.rdtype))
        for item in sorted(content.items, key=lambda item: item.canonical):
            lease = "" if item.expires is None else f" ; lease until {item.expires}"
            text = item.rdata.to_text()
            lines.append(f"{content.name.to_text()} {content.ttl} IN {kind} {text}{lease}")
    return "\n".join(lines) + "\n"


def read(
    zone: dns.name.Name, text: str, limits: ZoneLimits, leases: LeaseLimits, unix: int
) -> dict[SetKey, RecordSet]:
    """Return the sets of a zone file that the store is to hold, by key.

    Records whose lease ended by ``unix`` are left out. Raises :exc:`ZoneFileError`.
    """
    try:
        parsed = dns.zone.from_text(text, zone, relativize=False, check_origin=False)
    except (dns.exception.DNSException, ValueError, OSError) as error:
        raise ZoneFileError(f"{error or type(error).__name__}; correct that line") from error
    own = bootstrap.reserved_names(zone)
    tree = bootstrap.below(bootstrap.INVITE_LABEL, zone)
    found: dict[SetKey, RecordSet] = {}
    for name, node in parsed.nodes.items():
        if name in own or name.is_subdomain(tree):
            continue
        for rdataset in node:
            content = _record_set(name, rdataset, unix)
            if content is not None:
                found[name, content.rdtype] = content
    _refuse_what_is_not_kept(zone, found.values(), limits)
    wrong = audit.problems(zone, found.values(), leases, unix)
    if not found or wrong:
        raise ZoneFileError("; ".join(wrong) or f"it holds no records of {zone.to_text()}")
    return found


def _record_set(
    name: dns.name.Name, rdataset: dns.rdataset.Rdataset, unix: int
) -> RecordSet | None:
    items = []
    for rdata in rdataset:
        lease = _LEASE.match(rdata.rdcomment or "")
        expires = int(lease[1]) if lease else None
        if expires is None or expires > unix:
            items.append(Item(rdata.replace(rdcomment=None), expires))
    if not items:
        return None
    return RecordSet(name, int(rdataset.rdtype), min(rdataset.ttl, update.MAX_TTL), tuple(items))


def _refuse_what_is_not_kept(
    zone: dns.name.Name, sets: Iterable[RecordSet], limits: ZoneLimits
) -> None:
    names: set[dns.name.Name] = set()
    records = 0
    for content in sets:
        where = f"{content.name.to_text()} {dns.rdatatype.RdataType.make(content.rdtype).name}"
        if content.rdtype in update.NOT_TAKEN or (content.rdtype == NS and content.name != zone):
            raise ZoneFileError(
                f"{where}: this server does not delegate or sign; take such records out"
            )
        if len(content.items) > limits.records_per_set:
            raise ZoneFileError(f"{where}: a name may hold {limits.records_per_set} of one type")
        names.add(content.name)
        records += len(content.items)
    if len(names) > limits.names or records > limits.records:
        raise ZoneFileError(
            f"it has {records} records at {len(names)} names, and the account may have "
            f"{limits.records} at {limits.names}; raise its limits in [[serve.account]]"
        )
