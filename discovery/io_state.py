"""The state directory of a rendezvous: one server at a time, and upkeep of its store.

Looking (:func:`check`, :func:`export`) may be done while a server runs; putting a zone in
(:func:`put`) may not: the server holds the zone in memory.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final, TextIO

import dns.name
import dns.rdtypes.ANY.SOA

from discovery import audit, bootstrap, zonefile
from discovery.content import SERIAL_SPACE, SOA, serial_greater
from discovery.io_store import SqliteStore
from discovery.lease import LeaseLimits
from discovery.store import Changes, Item, RecordSet, SetKey

STORE_NAME: Final = "zone.sqlite"
LOCK_NAME: Final = "serve.lock"


class StateError(Exception):
    """The state directory cannot be used as it is; says cause and fix."""


def claim(state_dir: Path) -> TextIO:
    """Make the directory where it is missing, and take it for this process until the returned file
    is closed. Raises :exc:`StateError`."""
    try:
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = (state_dir / LOCK_NAME).open("a")
    except OSError as error:
        raise StateError(
            f"cannot write in {state_dir}: {error.strerror}; "
            "choose another [serve] state_dir or make it writable"
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise StateError(
            f"another rendezvous is running on {state_dir}; "
            "stop it, or give this one a [serve] state_dir of its own"
        ) from None
    return lock


@contextmanager
def _opened(state_dir: Path) -> Iterator[SqliteStore]:
    path = state_dir / STORE_NAME
    if not path.exists():
        raise StateError(
            f"there is no zone store in {state_dir}; run `autotunnel serve` once, "
            "or check [serve] state_dir"
        )
    with closing(SqliteStore(path)) as store:
        yield store


def check(state_dir: Path, leases: LeaseLimits, unix: int) -> dict[str, list[str]]:
    """Return what is wrong in a store, by zone; ``""`` stands for the file itself.

    Raises :exc:`StateError` and :exc:`discovery.store.StoreError`.
    """
    with _opened(state_dir) as store:
        found = {"": store.problems()}
        if not found[""]:  # else a set may not be readable
            for zone in store.zones():
                found[zone.to_text()] = audit.problems(zone, store.load(zone), leases, unix)
    return found


def export(state_dir: Path, domain: str) -> str:
    """Return the zone file of a domain. Raises :exc:`StateError` and
    :exc:`discovery.store.StoreError`."""
    zone = dns.name.from_text(domain)
    with _opened(state_dir) as store:
        sets = list(store.load(zone))
    if not sets:
        raise StateError(f"the store in {state_dir} has no zone {domain}; check its name")
    return zonefile.write(zone, sets)


def put(state_dir: Path, domain: str, sets: Mapping[SetKey, RecordSet]) -> int:
    """Replace what the store has of a domain, in one transaction, but for the server's own records;
    return the new serial, which is greater than the old one whatever the file says.

    Raises :exc:`StateError` while a server runs, and :exc:`discovery.store.StoreError`.
    """
    zone = dns.name.from_text(domain)
    with claim(state_dir), closing(SqliteStore(state_dir / STORE_NAME)) as store:
        old = {(content.name, content.rdtype): content for content in store.load(zone)}
        own = bootstrap.reserved_names(zone)
        gone: dict[SetKey, RecordSet | None] = {key: None for key in old if key[0] not in own}
        soa = _greater(sets[zone, SOA], old.get((zone, SOA)))
        changes: Changes = {**gone, **sets, (zone, SOA): soa}
        store.commit({zone: changes})
    return _serial(soa)


def _greater(new: RecordSet, old: RecordSet | None) -> RecordSet:
    if old is None or serial_greater(_serial(new), _serial(old)):
        return new
    serial = (_serial(old) + 1) % SERIAL_SPACE
    return RecordSet(new.name, SOA, new.ttl, (Item(new.items[0].rdata.replace(serial=serial)),))


def _serial(content: RecordSet) -> int:
    rdata = content.items[0].rdata
    assert isinstance(rdata, dns.rdtypes.ANY.SOA.SOA)
    return int(rdata.serial)
