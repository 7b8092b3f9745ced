"""What the zone last said of the account's hosts, kept on disk: they find each other without it.

The file holds records and no secret: labels, host ids, target names, endpoints, device information;
all of it is read as a stranger's, since a disk may hold anything. What is in it is used while the
rendezvous cannot be asked, and never against what it says; an endpoint of it must be proven like
any other, by IKE.
"""

from __future__ import annotations

import json
from ipaddress import IPv6Address
from typing import Any, Final

from discovery import records as words
from discovery.types import HostRecords
from tunnel.core import Core

SCHEMA: Final = "autotunnel/records/v1"
MAX_FILE: Final = 1 << 20  # octets
_PAUSE: Final = 5.0  # seconds between two writes
_MAX_INFO: Final = 16  # strings


class RememberedError(ValueError):
    """The kept records are damaged; the text says what is wrong."""


def to_json(domain: str, hosts: list[HostRecords]) -> bytes:
    """Write records, sorted by label; those that would make the file too large are left out."""
    lines: list[str] = []
    room = MAX_FILE - 256
    for one in sorted(hosts, key=lambda one: one.label):
        line = json.dumps(
            {
                "label": one.label,
                "id": str(one.host_id),
                "target": one.target,
                "endpoints": [list(endpoint) for endpoint in one.endpoints],
                "info": list(one.info),
                "home_agents": [str(agent) for agent in one.home_agents],
            }
        )
        room -= len(line) + 2
        if room < 0:
            break
        lines.append(line)
    head = f'{{"schema": {json.dumps(SCHEMA)}, "domain": {json.dumps(domain)}, "hosts": [\n'
    return (head + ",\n".join(lines) + "\n]}\n").encode()


def from_json(octets: bytes, domain: str, limit: int) -> tuple[HostRecords, ...]:
    """Read at most ``limit`` records of this account; those of another one are not there.

    Raises :exc:`RememberedError`.
    """
    if len(octets) > MAX_FILE:
        raise RememberedError("it is larger than any that this host writes")
    try:
        kept = json.loads(octets)
    except (ValueError, RecursionError):
        raise RememberedError("it is not JSON") from None
    if not isinstance(kept, dict) or kept.get("schema") != SCHEMA:
        raise RememberedError(f"it is not of the form {SCHEMA}")
    hosts = kept.get("hosts")
    if not isinstance(hosts, list):
        raise RememberedError("it has no list of hosts")
    if kept.get("domain") != domain:
        return ()
    return tuple(_host(one, domain) for one in hosts[:limit])


def _host(entry: Any, domain: str) -> HostRecords:
    try:
        endpoints = tuple((str(host), int(port)) for host, port in entry["endpoints"])
        info = tuple(str(text) for text in entry["info"][:_MAX_INFO])
        host_id = IPv6Address(str(entry["id"]))
        agents = tuple(IPv6Address(str(one)) for one in entry.get("home_agents", ()))
        label, target = str(entry["label"]), str(entry["target"])
        found = HostRecords(label, host_id, target, endpoints, info, home_agents=agents[:_MAX_INFO])
        words.update_message(found, domain, 0)  # whatever the zone would refuse is refused here
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise RememberedError(f"the record of a host cannot be read ({error})") from None
    return found


class Remembered:
    """Keeps the file true to the peer table; ``hosts`` are what it held at the start."""

    def __init__(self, core: Core, hosts: tuple[HostRecords, ...]) -> None:
        self._core = core
        self._hosts = {one.label: one for one in hosts}
        self._due: float | None = None
        self._written_at = float("-inf")

    @property
    def hosts(self) -> list[HostRecords]:
        """All that is remembered, by label."""
        return sorted(self._hosts.values(), key=lambda one: one.label)

    def found(self, records: HostRecords) -> None:
        """The zone's word on one host."""
        label = records.label.lower()
        if self._hosts.get(label) == records:
            return
        if label in self._hosts or len(self._hosts) < self._core.settings.peers:
            self._hosts[label] = records
            self._soon()

    def gone(self, label: str) -> None:
        """The zone says that there is no such host."""
        if self._hosts.pop(label.lower(), None) is not None:
            self._soon()

    def _soon(self) -> None:
        if self._due is None:
            self._due = max(self._core.now, self._written_at + _PAUSE)

    def write(self) -> bytes | None:
        """What to write now, if it is time."""
        core = self._core
        if self._due is None or (self._due > core.now and not core.ending):
            return None
        self._due, self._written_at = None, core.now
        assert core.identity.domain is not None
        return to_json(core.identity.domain, self.hosts)

    def timers(self) -> list[float]:
        """When :meth:`write` has something."""
        return [] if self._due is None else [self._due]
