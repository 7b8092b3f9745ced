"""Properties: any run of updates against a plain model, the store, and the signed wire."""

from __future__ import annotations

import dns.name
import dns.rdata
import dns.rdatatype
from hypothesis import given, settings
from hypothesis import strategies as st

from discovery import invitations, message
from discovery.content import canonical_data, serial_greater
from discovery.invitations import Invitation
from discovery.io_store import SqliteStore
from discovery.message import Reply, Request
from discovery.store import Item, RecordSet
from tests.discovery.server.helpers import ALICE, ANY, NONE, Rendezvous, add, rr

NAMES = tuple(f"{label}.{ALICE}" for label in ("a", "b", "c.b"))
VALUES = {
    "AAAA": ("fd01::1", "fd01::2"),
    "TXT": ('"x"', '"y"'),
    "CNAME": ("d.example.", "e.example."),
}
Model = dict[tuple[str, str], dict[str, int]]  # (name, type) -> value -> TTL

types = st.sampled_from(sorted(VALUES))
operations = st.one_of(
    st.tuples(
        st.just("add"), st.sampled_from(NAMES), types, st.integers(0, 1), st.sampled_from((60, 90))
    ),
    st.tuples(st.just("one"), st.sampled_from(NAMES), types, st.integers(0, 1), st.just(0)),
    st.tuples(st.just("set"), st.sampled_from(NAMES), types, st.just(0), st.just(0)),
    st.tuples(st.just("name"), st.sampled_from(NAMES), types, st.just(0), st.just(0)),
)
Operation = tuple[str, str, str, int, int]


def wire_of(operation: Operation) -> bytes:
    kind, name, rdtype, index, ttl = operation
    value = VALUES[rdtype][index]
    if kind == "add":
        return add(name, rdtype, value, ttl)
    if kind == "one":
        return rr(name, rdtype, NONE, 0, value)
    return rr(name, rdtype if kind == "set" else "ANY", ANY)


def apply(model: Model, operation: Operation) -> None:
    """RFC 2136 §3.4.2 as one would tell it to a child."""
    kind, name, rdtype, index, ttl = operation
    value = VALUES[rdtype][index]
    here = {t for (n, t), values in model.items() if n == name and values}
    content = model.setdefault((name, rdtype), {})
    if kind == "add":
        if (rdtype == "CNAME" and here - {"CNAME"}) or (rdtype != "CNAME" and "CNAME" in here):
            return
        if rdtype == "CNAME":
            content.clear()
        content[value] = ttl
        for each in content:
            content[each] = ttl
    elif kind == "one":
        content.pop(value, None)
    else:
        for found in here if kind == "name" else {rdtype}:
            model[name, found].clear()


def shown(zone: Rendezvous) -> Model:
    return {
        (found.name.to_text().rstrip("."), dns.rdatatype.to_text(found.rdtype)): {
            item.rdata.to_text(): found.ttl for item in found.items
        }
        for found in zone.server.content(ALICE).sets()
        if found.name.to_text().rstrip(".") in NAMES
    }


@settings(deadline=None, max_examples=150)
@given(st.lists(st.lists(operations, min_size=1, max_size=6), max_size=6))
def test_updates_do_what_the_model_says_and_the_serial_tells(
    updates: list[list[Operation]],
) -> None:
    zone = Rendezvous(store=SqliteStore(":memory:"))
    model: Model = {}
    for update in updates:
        before, serial = shown(zone), zone.serial
        assert zone.update(*map(wire_of, update)) == "NOERROR"
        for operation in update:
            apply(model, operation)
        after = shown(zone)
        assert after == {key: values for key, values in model.items() if values}
        assert zone.serial == serial + (after != before)
        zone.restart()
        assert shown(zone) == after
        assert zone.serial == serial + (after != before)


@given(st.integers(0, 2**32 - 1), st.integers(1, 2**31 - 1))
def test_serials_grow_by_any_lawful_step(serial: int, step: int) -> None:
    later = (serial + step) % 2**32
    assert serial_greater(later, serial)
    assert not serial_greater(serial, later)


labels = st.binary(min_size=1, max_size=20)
names = st.lists(labels, min_size=1, max_size=5).map(lambda parts: dns.name.Name((*parts, b"")))
rdatas = st.one_of(
    st.binary(min_size=4, max_size=4).map(lambda octets: (1, octets)),
    st.binary(min_size=16, max_size=16).map(lambda octets: (28, octets)),
    st.binary(min_size=1, max_size=80).map(lambda text: (16, bytes((len(text),)) + text)),
    names.map(lambda name: (33, b"\x00\x00\x00\x00\x11\x94" + name.to_wire())),
    names.map(lambda name: (12, name.to_wire())),
    st.binary(max_size=60).map(lambda octets: (65400, octets)),
)


@st.composite
def record_sets(draw: st.DrawFn) -> RecordSet:
    rdtype, data = draw(rdatas)
    rdata = dns.rdata.from_wire(1, rdtype, data, 0, len(data))
    return RecordSet(draw(names), rdtype, draw(st.integers(0, 2**31 - 1)), (Item(rdata),))


@given(st.lists(record_sets(), max_size=8), st.integers(0, 65535), st.integers(12, 700))
def test_replies_are_read_back_as_they_were_meant_and_keep_their_bound(
    sets: list[RecordSet], identity: int, limit: int
) -> None:
    request = Request(identity, 0, (message.Question(dns.name.root, 2, 1),), (), (), None)
    wire = message.render(request, Reply(answer=sets), limit)
    if wire is None:
        return
    assert len(wire) <= limit
    read = message.read_request(wire)
    assert read.identity == identity
    assert [(r.name, r.rdtype, r.ttl, r.rdata) for r in read.answer] == [
        (s.name, s.rdtype, s.ttl, s.items[0].rdata) for s in sets
    ]


@given(st.lists(record_sets(), max_size=8))
def test_the_store_gives_back_what_it_was_given(sets: list[RecordSet]) -> None:
    store, zone = SqliteStore(":memory:"), dns.name.root
    wanted = {(content.name, content.rdtype): content for content in sets}
    store.commit({zone: wanted})
    found = {(content.name, content.rdtype): content for content in store.load(zone)}
    assert found.keys() == wanted.keys()
    for key, content in wanted.items():
        assert canonical_data(found[key]) == canonical_data(content)
        assert found[key].ttl == content.ttl
        assert found[key].name.labels == content.name.labels  # case and all


@given(st.binary(min_size=1, max_size=24), st.integers(0, 10**12 - 1), names)
def test_invitation_keys_round_trip(identity: bytes, expires: int, domain: dns.name.Name) -> None:
    name = invitations.key_name(Invitation(identity, expires), "example")
    assert invitations.parse_key_label(name.split(".")[0]) == Invitation(identity, expires)
    assert len(name.split(".")[0]) <= 63


@given(st.binary(min_size=1, max_size=64), st.binary(min_size=16, max_size=16))
def test_sealed_secrets_open(secret: bytes, nonce: bytes) -> None:
    sealed = invitations.seal(secret, b"k" * 32, nonce, ALICE)
    assert invitations.open_sealed(sealed, b"k" * 32, nonce, ALICE) == secret
