"""What must be true of every zone in the store, whatever happened to the server (DESIGN §4).

:func:`problems` says in words what is not. The store checks its own rows before
(:meth:`discovery.io_store.SqliteStore.problems`); here it is about what they mean.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import dns.name
import dns.rdatatype

from discovery.content import CNAME, NS, SOA
from discovery.lease import LeaseLimits
from discovery.store import RecordSet

_PERMANENT = frozenset((SOA, NS))


def problems(
    zone: dns.name.Name, sets: Iterable[RecordSet], leases: LeaseLimits, unix: int
) -> list[str]:
    """Return what is wrong with a zone's sets, a sentence each; empty: nothing."""
    found: list[str] = []
    types: defaultdict[dns.name.Name, set[int]] = defaultdict(set)
    for content in sets:
        where = f"{content.name.to_text()} {_type(content.rdtype)}"
        if not content.name.is_subdomain(zone):
            found.append(f"{where} lies outside the zone")
        types[content.name].add(content.rdtype)
        if content.rdtype in (SOA, CNAME) and len(content.items) != 1:
            found.append(f"{where} has {len(content.items)} records; there may be one")
        if content.rdtype == SOA and content.name != zone:
            found.append(f"{where} stands below the zone's apex")
        found += _lease_problems(where, content, leases, unix)
    found += [
        f"{name.to_text()} has a CNAME beside other records"
        for name, here in types.items()
        if CNAME in here and len(here) > 1
    ]
    missing = [] if not types else _PERMANENT - types[zone]
    found += [f"the zone's {_type(rdtype)} is missing" for rdtype in missing]
    return found


def _lease_problems(where: str, content: RecordSet, leases: LeaseLimits, unix: int) -> list[str]:
    ends = [item.expires for item in content.items if item.expires is not None]
    if ends and content.rdtype in _PERMANENT:
        return [f"{where} has a lease; it must stay"]
    latest = unix + max(leases.longest, leases.longest_key)
    return [f"{where} has a lease until {end}, longer than any" for end in ends if end > latest]


def _type(rdtype: int) -> str:
    return dns.rdatatype.to_text(dns.rdatatype.RdataType.make(rdtype))
