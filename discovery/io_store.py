"""The durable zone store, on SQLite.

Every change is one transaction in WAL mode with ``synchronous=FULL``: SQLite calls fsync on the log
before the commit returns, so that an acknowledged UPDATE survives a power cut (RFC 2136 §3.5).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import RLock
from typing import Final

import dns.exception
import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdatatype

from discovery.store import Changes, Item, RecordSet, SetKey, StoreError

SCHEMA_VERSION: Final = 1

# `zone` and `name` are canonical text (lower case), `owner` the name as it was first given; `data`
# is uncompressed RDATA, `canonical` the form by which records compare. `expires` is unix seconds,
# NULL for a permanent record.
_SCHEMA: Final = """
CREATE TABLE record (
  zone      TEXT NOT NULL,
  name      TEXT NOT NULL,
  type      INTEGER NOT NULL,
  canonical BLOB NOT NULL,
  owner     TEXT NOT NULL,
  ttl       INTEGER NOT NULL,
  data      BLOB NOT NULL,
  expires   INTEGER,
  PRIMARY KEY (zone, name, type, canonical)
) WITHOUT ROWID;
CREATE INDEX record_expires ON record (expires) WHERE expires IS NOT NULL;
CREATE TABLE invitation (
  zone     TEXT NOT NULL,
  identity BLOB NOT NULL,
  nonce    BLOB NOT NULL,
  expires  INTEGER NOT NULL,
  PRIMARY KEY (zone, identity)
) WITHOUT ROWID;
"""

_INSERT: Final = (
    "INSERT INTO record (zone, name, type, canonical, owner, ttl, data, expires)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)


class SqliteStore:
    """A :class:`discovery.store.ZoneStore` in one file (or ``":memory:"``).

    Raises :exc:`StoreError` when the file cannot be opened, is not ours, or was written by a later
    version.
    """

    def __init__(self, path: Path | str) -> None:
        self._path = str(path)
        self._lock = RLock()
        try:
            # Transactions are written out; `timeout` bounds the wait for another process' lock.
            # Changes are written by another thread than what reads; the lock keeps them apart.
            self._db = sqlite3.connect(
                self._path, timeout=5.0, isolation_level=None, check_same_thread=False
            )
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._prepare()
        except sqlite3.Error as error:
            raise StoreError(
                f"cannot use {self._path} as the zone store: {error}; "
                "check that state_dir exists and is writable, or move the file away"
            ) from error

    def load(self, zone: dns.name.Name) -> Iterable[RecordSet]:
        """See :meth:`discovery.store.ZoneStore.load`."""
        sets: dict[SetKey, RecordSet] = {}
        with self._errors():
            rows = self._db.execute(
                "SELECT owner, type, ttl, data, expires FROM record WHERE zone = ?"
                " ORDER BY name, type, canonical",
                (_text(zone),),
            ).fetchall()
        try:
            for owner, rdtype, ttl, data, expires in rows:
                name = dns.name.from_text(owner)
                item = Item(_rdata(rdtype, data), expires)
                before = sets.get((name, rdtype))
                items = (*before.items, item) if before else (item,)
                sets[name, rdtype] = RecordSet(name, rdtype, ttl, items)
        except dns.exception.DNSException as error:
            raise StoreError(f"{self._path} holds a record that cannot be read: {error}") from error
        return sets.values()

    def commit(self, changes: Mapping[dns.name.Name, Changes]) -> None:
        """See :meth:`discovery.store.ZoneStore.commit`."""
        with self._transaction():
            for zone, of_zone in changes.items():
                domain = _text(zone)
                for (name, rdtype), content in of_zone.items():
                    self._replace((domain, _text(name), rdtype), content)

    def _replace(self, key: tuple[str, str, int], content: RecordSet | None) -> None:
        self._db.execute("DELETE FROM record WHERE zone = ? AND name = ? AND type = ?", key)
        if content is None:
            return
        owner = content.name.to_text()
        rows = [
            (*key, i.canonical, owner, content.ttl, i.rdata.to_wire(), i.expires)
            for i in content.items
        ]
        self._db.executemany(_INSERT, rows)

    def bind_invitation(
        self, zone: dns.name.Name, identity: bytes, nonce: bytes, expires: int
    ) -> bytes:
        """See :meth:`discovery.store.ZoneStore.bind_invitation`."""
        key = (_text(zone), identity)
        with self._transaction():
            self._db.execute(
                "INSERT OR IGNORE INTO invitation (zone, identity, nonce, expires)"
                " VALUES (?, ?, ?, ?)",
                (*key, nonce, expires),
            )
            found = self._db.execute(
                "SELECT nonce FROM invitation WHERE zone = ? AND identity = ?", key
            ).fetchone()
        return bytes(found[0])

    def forget_invitations(self, before: int) -> None:
        """See :meth:`discovery.store.ZoneStore.forget_invitations`."""
        with self._errors():
            self._db.execute("DELETE FROM invitation WHERE expires < ?", (before,))

    def zones(self) -> list[dns.name.Name]:
        """Return the zones that the store has records of. Raises :exc:`StoreError`."""
        with self._errors():
            rows = self._db.execute("SELECT DISTINCT zone FROM record ORDER BY zone").fetchall()
        return [dns.name.from_text(zone) for (zone,) in rows]

    def problems(self) -> list[str]:
        """Return what is wrong with the file, its index and its rows, a sentence each.

        Raises :exc:`StoreError` if it cannot even be read.
        """
        with self._errors():
            integrity = self._db.execute("PRAGMA integrity_check(20)").fetchall()
            rows = self._db.execute(
                "SELECT zone, name, type, canonical, owner, ttl, data FROM record"
                " ORDER BY zone, name, type"
            )
            found = [f"SQLite: {text}" for (text,) in integrity if text != "ok"]
            before: tuple[tuple[str, str, int], int] | None = None
            for zone, name, rdtype, canonical, owner, ttl, data in rows:
                key = (zone, name, rdtype)
                where = f"the row of {owner} ({dns.rdatatype.to_text(rdtype)}) in {zone}"
                if before is not None and before[0] == key and before[1] != ttl:
                    found.append(f"{where} has another TTL than its set")
                before = key, ttl
                found += [
                    f"{where} {what}"
                    for what in _row_problems(name, canonical, owner, rdtype, data)
                ]
        return found

    def close(self) -> None:
        """Close the file; what was committed stays."""
        with self._lock:
            self._db.close()

    def _prepare(self) -> None:
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA_VERSION:
            raise StoreError(
                f"{self._path} was written by a later version of autotunnel (schema {version}); "
                "use that version, or move the file away"
            )
        if version < SCHEMA_VERSION:
            self._db.executescript(
                f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
            )

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            with self._lock:
                yield
        except sqlite3.Error as error:
            raise StoreError(f"{self._path}: {error}") from error

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._errors():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise


def _row_problems(
    name: str, canonical: bytes, owner: str, rdtype: int, data: bytes
) -> Iterator[str]:
    try:
        if _text(dns.name.from_text(owner)) != name:
            yield "is filed under another name"
        if _rdata(rdtype, data).to_digestable() != canonical:
            yield "is filed under other data"
    except dns.exception.DNSException as error:
        yield f"cannot be read: {error}"


def _text(name: dns.name.Name) -> str:
    return name.canonicalize().to_text()


def _rdata(rdtype: int, data: bytes) -> dns.rdata.Rdata:
    return dns.rdata.from_wire(
        dns.rdataclass.IN, dns.rdatatype.RdataType.make(rdtype), data, 0, len(data)
    )
