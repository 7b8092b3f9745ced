"""The durable store: what went in comes out, whole or not at all."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import dns.name
import dns.rdata
import dns.rdatatype
import pytest

from discovery.io_store import SCHEMA_VERSION, SqliteStore
from discovery.store import Item, MemoryStore, RecordSet, SetKey, StoreError, ZoneStore
from discovery.zone import ZoneServer
from tests.discovery.server.helpers import ALICE, UNIX, account

ZONE = dns.name.from_text(ALICE)
OTHER = dns.name.from_text("bob.members.example")


def record_set(name: str, rdtype: str, *texts: str, ttl: int = 60) -> RecordSet:
    number = int(dns.rdatatype.from_text(rdtype))
    items = tuple(Item(dns.rdata.from_text("IN", rdtype, text)) for text in texts)
    return RecordSet(dns.name.from_text(name, ZONE), number, ttl, items)


def keyed(*sets: RecordSet) -> dict[SetKey, RecordSet | None]:
    return {(content.name, content.rdtype): content for content in sets}


@pytest.fixture(params=["sqlite", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ZoneStore:
    return SqliteStore(tmp_path / "zone.sqlite") if request.param == "sqlite" else MemoryStore()


def shown(
    store: ZoneStore, zone: dns.name.Name = ZONE
) -> set[tuple[str, int, int, frozenset[str]]]:
    return {
        (s.name.to_text(), s.rdtype, s.ttl, frozenset(i.rdata.to_text() for i in s.items))
        for s in store.load(zone)
    }


def test_sets_are_written_replaced_and_removed_per_zone(store: ZoneStore) -> None:
    desk = record_set("Desk", "AAAA", "fd01::1", "fd01::2")
    text = record_set("desk", "TXT", '"a" "b\\"c"')
    store.commit({ZONE: keyed(desk, text)})
    store.commit({OTHER: keyed(record_set("desk", "AAAA", "fd01::9"))})
    assert len(shown(store)) == 2
    assert ("Desk." + ALICE + ".", 28, 60, frozenset(("fd01::1", "fd01::2"))) in shown(store)
    store.commit({ZONE: keyed(record_set("desk", "AAAA", "fd01::3", ttl=9))})
    assert {row[3] for row in shown(store) if row[1] == 28} == {frozenset(("fd01::3",))}
    store.commit({ZONE: {(text.name, text.rdtype): None}})
    assert len(shown(store)) == 1
    assert len(shown(store, OTHER)) == 1


def test_a_lease_end_is_kept(store: ZoneStore) -> None:
    rdata = dns.rdata.from_text("IN", "A", "192.0.2.1")
    leased = RecordSet(ZONE, 1, 60, (Item(rdata, UNIX + 5400),))
    store.commit({ZONE: keyed(leased)})
    assert list(store.load(ZONE)) == [leased]


def test_an_invitation_is_bound_to_its_first_nonce(store: ZoneStore) -> None:
    assert store.bind_invitation(ZONE, b"id", b"one", 100) == b"one"
    assert store.bind_invitation(ZONE, b"id", b"two", 100) == b"one"
    assert store.bind_invitation(OTHER, b"id", b"two", 100) == b"two"
    store.forget_invitations(101)
    assert store.bind_invitation(ZONE, b"id", b"two", 200) == b"two"


def test_a_new_process_finds_everything(tmp_path: Path) -> None:
    path = tmp_path / "zone.sqlite"
    first = SqliteStore(path)
    first.commit({ZONE: keyed(record_set("desk", "AAAA", "fd01::1"))})
    first.bind_invitation(ZONE, b"id", b"one", 100)
    before = shown(first)
    first.close()
    second = SqliteStore(path)
    assert shown(second) == before
    assert second.bind_invitation(ZONE, b"id", b"two", 100) == b"one"


def test_writes_are_synchronous_and_logged_ahead(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "zone.sqlite")
    assert store._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert store._db.execute("PRAGMA synchronous").fetchone() == (2,)


def test_a_commit_that_fails_half_way_leaves_nothing(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "zone.sqlite")
    store.commit({ZONE: keyed(record_set("desk", "AAAA", "fd01::1"))})
    before = shown(store)
    twice = Item(dns.rdata.from_text("IN", "A", "192.0.2.1"))
    broken = RecordSet(dns.name.from_text("lamp", ZONE), 1, 60, (twice, twice))
    with pytest.raises(StoreError):
        store.commit({ZONE: keyed(record_set("desk", "AAAA", "fd01::2"), broken)})
    assert shown(store) == before
    store.commit({ZONE: keyed(record_set("lamp", "AAAA", "fd01::2"))})  # and it goes on


def test_a_full_disk_is_a_store_error_and_nothing_changes(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "zone.sqlite")
    server = ZoneServer((account(ALICE),), store, unix=UNIX)
    store._db.execute(
        f"PRAGMA max_page_count = {store._db.execute('PRAGMA page_count').fetchone()[0]}"
    )
    large = keyed(*[record_set(f"h{n}", "TXT", '"' + "x" * 200 + '"') for n in range(200)])
    serial = server.content(ALICE).soa.serial
    with pytest.raises(StoreError, match="full"):
        store.commit({ZONE: large})
    assert not any(row[1] == 16 for row in shown(store))
    assert server.content(ALICE).soa.serial == serial


def test_a_file_that_is_no_store_is_named_with_a_way_out(tmp_path: Path) -> None:
    path = tmp_path / "zone.sqlite"
    path.write_text("this is not a database, and it is long enough to be seen as none" * 20)
    with pytest.raises(StoreError, match="move the file away"):
        SqliteStore(path)
    with pytest.raises(StoreError, match="state_dir exists"):
        SqliteStore(tmp_path / "missing" / "zone.sqlite")


def test_a_store_of_a_later_version_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "zone.sqlite"
    SqliteStore(path).close()
    with sqlite3.connect(path) as db:
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    with pytest.raises(StoreError, match="later version"):
        SqliteStore(path)


def test_a_damaged_record_is_a_store_error(tmp_path: Path) -> None:
    path = tmp_path / "zone.sqlite"
    store = SqliteStore(path)
    store.commit({ZONE: keyed(record_set("desk", "AAAA", "fd01::1"))})
    store._db.execute("UPDATE record SET data = x'00'")
    with pytest.raises(StoreError, match="cannot be read"):
        store.load(ZONE)
