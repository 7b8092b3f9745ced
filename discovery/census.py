"""What the owner of a rendezvous is shown of a zone: its size, and the hosts with their leases."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import dns.name
import dns.rdatatype

from discovery.backing.front import BackedZone
from discovery.content import ZoneContent
from discovery.held import HeldZone
from discovery.store import RecordSet

MOST: Final = 1000
"""Hosts that are named; the others are counted."""

_SERVICE: Final = (b"_autotunnel", b"_udp")  # B8: a host's SRV is at these below its name


def of_zone(zone: HeldZone, unix: int) -> dict[str, Any]:
    """``domain``, ``serial``, ``names``, ``records``, ``backing``, ``hosts_total`` and ``hosts``:
    of each ``name``, ``id`` and ``lease_s``, the seconds until its SRV ends (``None``: never)."""
    content = zone.content
    found = sorted(_hosts(content), key=lambda one: one.name)
    return {
        "domain": zone.account.domain,
        "serial": content.soa.serial if content.records else None,
        "names": content.names,
        "records": content.records,
        "backing": _backing(zone),
        "hosts_total": len(found),
        "hosts": [_host(content, one, unix) for one in found[:MOST]],
    }


def _hosts(content: ZoneContent) -> Iterator[RecordSet]:
    """The SRV records by which hosts are found; a name is ``_autotunnel._udp.<label>.<domain>``."""
    depth = len(content.origin.labels) + 3
    for one in content.sets():
        if one.rdtype != dns.rdatatype.SRV or len(one.name.labels) != depth:
            continue
        if tuple(label.lower() for label in one.name.labels[:2]) == _SERVICE:
            yield one


def _host(content: ZoneContent, srv: RecordSet, unix: int) -> dict[str, Any]:
    name = dns.name.Name(srv.name.labels[2:])
    found = content.get(name, dns.rdatatype.AAAA)
    ends = [item.expires for item in srv.items if item.expires is not None]
    return {
        "name": name.to_text(omit_final_dot=True),
        "id": found.items[0].rdata.to_text() if found else None,
        "lease_s": max(0, min(ends) - unix) if ends else None,
    }


def _backing(zone: HeldZone) -> dict[str, Any] | None:
    """The server that a zone is on, and why it cannot be reached, if it cannot."""
    backing = zone.account.backing
    if backing is None or not isinstance(zone, BackedZone):
        return None
    away = zone.upstream.away if zone.upstream is not None else ""
    host, port = backing.server
    return {"server": f"[{host}]:{port}" if ":" in host else f"{host}:{port}", "away": away or None}
