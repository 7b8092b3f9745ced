"""What a listener is told of a zone: the records that left and came, durable and true already."""

from __future__ import annotations

from discovery.content import SOA, ZoneChange
from discovery.store import RecordSet
from tests.discovery.server.helpers import ALICE, ANY, NONE, Rendezvous, add, rr

DESK = f"desk.{ALICE}"


def shown(sets: tuple[RecordSet, ...]) -> set[str]:
    return {
        f"{content.ttl} {item.rdata.to_text()}"
        for content in sets
        for item in content.items
        if content.rdtype != SOA
    }


def test_a_listener_hears_what_left_and_what_came() -> None:
    zone = Rendezvous()
    heard: list[ZoneChange] = []
    zone.server.on_change = heard.append
    zone.update(add(DESK, "AAAA", "fd01::1"), add(DESK, "AAAA", "fd01::2"))
    assert shown(heard[-1].added) == {"120 fd01::1", "120 fd01::2"}
    assert not shown(heard[-1].removed)
    assert heard[-1].zone.to_text() == ALICE + "."
    zone.update(rr(DESK, "AAAA", NONE, 0, "fd01::1"), add(DESK, "AAAA", "fd01::3"))
    assert (shown(heard[-1].removed), shown(heard[-1].added)) == (
        {"120 fd01::1"},
        {"120 fd01::3"},
    )
    zone.update(add(DESK, "AAAA", "fd01::3", 60))  # one TTL for the whole set, RFC 2181 §5.2
    assert (shown(heard[-1].removed), shown(heard[-1].added)) == (
        set(),
        {"60 fd01::2", "60 fd01::3"},
    )
    zone.update(rr(DESK, "ANY", ANY))
    assert shown(heard[-1].removed) == {"60 fd01::2", "60 fd01::3"}


def test_a_listener_hears_nothing_of_what_did_not_happen() -> None:
    zone = Rendezvous()
    zone.update(add(DESK, "AAAA", "fd01::1"))
    heard: list[ZoneChange] = []
    zone.server.on_change = heard.append
    assert zone.update(add(DESK, "AAAA", "fd01::1")) == "NOERROR"
    zone.store.fail = True
    assert zone.update(rr(DESK, "ANY", ANY)) == "SERVFAIL"
    assert heard == []
