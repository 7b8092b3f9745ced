"""A disk that is really full: SERVFAIL, nothing changed, and on it goes when there is room."""

from __future__ import annotations

from pathlib import Path

import dns.name

from discovery import audit
from discovery.io_store import SqliteStore
from discovery.lease import LeaseLimits
from tests.discovery.server.helpers import ALICE, UNIX, Rendezvous, add


def test_a_full_disk_means_servfail_and_nothing_changed(small_disk: Path) -> None:
    """RFC 2136 §3.4.2.7 and §3.5."""
    store = SqliteStore(small_disk / "zone.sqlite")
    zone = Rendezvous(store=store)
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(200_000))
    text = " ".join(f'"{"x" * 240}"' for _ in range(4))
    number = 0
    while (outcome := zone.update(add(f"h{number}.{ALICE}", "TXT", text))) == "NOERROR":
        number += 1
        assert number < 1000
    assert outcome == "SERVFAIL"
    serial = zone.serial
    assert "the store failed" in zone.happenings[-1].reason
    assert zone.data(f"h{number}.{ALICE}", "TXT") == []
    assert zone.update(add(f"h{number}.{ALICE}", "TXT", text)) == "SERVFAIL"
    assert zone.serial == serial
    ballast.unlink()
    assert zone.update(add(f"h{number}.{ALICE}", "TXT", text)) == "NOERROR"
    assert zone.serial == serial + 1
    zone.restart()
    assert zone.serial == serial + 1
    assert all(zone.data(f"h{n}.{ALICE}", "TXT") for n in range(number + 1))
    origin = dns.name.from_text(ALICE)
    assert store.problems() == []
    assert audit.problems(origin, store.load(origin), LeaseLimits(), UNIX) == []
    store.close()
