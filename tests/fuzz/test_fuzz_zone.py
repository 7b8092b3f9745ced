"""Hostile octets against the rendezvous: never a crash, always a well-formed, bounded answer."""

from __future__ import annotations

import os
import random
import struct

import dns.message
import pytest

from discovery import invitations, tsig
from discovery.content import same_content
from discovery.invitations import Invitation
from discovery.io_store import SqliteStore
from discovery.types import TsigKey
from tests.discovery.server.helpers import (
    ALICE,
    BOB,
    SOURCE,
    UNIX,
    Rendezvous,
    account,
    add,
    invitation_key_of,
    key_of,
    name_wire,
    opt,
    query_wire,
    rr,
    update_wire,
)

INPUTS = {"unsigned": 70_000, "signed": 30_000}
SEED = int(os.environ.get("FUZZ_SEED", "6281"))
DESK = f"desk.{ALICE}"
ALICE_WIRE = name_wire(ALICE)


def seeds() -> list[bytes]:
    """Valid messages of every kind; mutants of them come close to being valid."""
    updates = (
        add(DESK, "AAAA", "fd01::1"),
        add(f"_autotunnel._udp.{DESK}", "SRV", f"0 0 4500 t.{ALICE}."),
        add(DESK, "TXT", '"v=1" "model=x"'),
        add(f"alias.{ALICE}", "CNAME", f"{DESK}."),
        rr(DESK, "ANY", 255),
        rr(DESK, "AAAA", 254, 0, "fd01::1"),
    )
    prerequisites = (rr(DESK, "ANY", 255), rr(DESK, "AAAA", 254), rr(DESK, "A", 1, 0, "192.0.2.1"))
    lease = opt(options=bytes.fromhex("0002000400001518"))
    return [
        query_wire(ALICE, "SOA"),
        query_wire(DESK, "AAAA"),
        query_wire(ALICE, "ANY", additional=()),
        query_wire(ALICE, "AXFR"),
        query_wire(f"ns.{ALICE}", "A", additional=(opt(4096),)),
        update_wire(updates=updates[:3], additional=(lease,)),
        update_wire(updates=updates, prerequisites=prerequisites),
        update_wire(BOB, (add(f"x.{BOB}", "MX", f"10 y.{BOB}."),)),
    ]


def mutate(chance: random.Random, wire: bytes) -> bytes:
    octets = bytearray(wire)
    for _ in range(chance.choice((1, 1, 1, 2, 4, 16))):
        at = chance.randrange(len(octets)) if octets else 0
        kind = chance.randrange(7)
        if kind == 0 and octets:
            octets[at] ^= 1 << chance.randrange(8)
        elif kind == 1 and octets:
            octets[at] = chance.choice((0, 1, 0x3F, 0x40, 0xC0, 0xFF, chance.randrange(256)))
        elif kind == 2:
            del octets[at : at + chance.randrange(1, 12)]
        elif kind == 3:
            octets[at:at] = chance.randbytes(chance.randrange(1, 12))
        elif kind == 4:
            octets[at:at] = bytes((0xC0, chance.randrange(64)))
        elif kind == 5:
            octets += octets[at : at + chance.randrange(64)]
        elif len(octets) > 12:
            octets[chance.randrange(4, 12)] = chance.choice((0, 1, 2, 255))
    return bytes(octets)


def assemble(chance: random.Random) -> bytes:
    """A message whose frame is right and whose records are anything: it reaches the update rules
    and the readers of all record types."""

    def record() -> bytes:
        owner = chance.choice((DESK, ALICE, f"*.{ALICE}", f"a.b.{ALICE}", f"ns.{ALICE}", BOB))
        rdtype = chance.choice((1, 2, 5, 6, 12, 16, 28, 33, 52, 255, chance.randrange(65536)))
        rdclass = chance.choice((1, 1, 254, 255, 255, chance.randrange(65536)))
        ttl = chance.choice((0, 0, 60, 0xFFFFFFFF))
        rdata = chance.choice(
            (b"", bytes(4), bytes(16), chance.randbytes(chance.randrange(40)), name_wire(DESK))
        )
        fixed = struct.pack("!HHIH", rdtype, rdclass, ttl, len(rdata))
        return name_wire(owner) + fixed + rdata

    updates = tuple(record() for _ in range(chance.randrange(1, 4)))
    prerequisites = tuple(record() for _ in range(chance.choice((0, 0, 0, 1))))
    identity = chance.randrange(65536)
    return update_wire(ALICE, updates, prerequisites, identity=identity)


def check(server: Rendezvous, wire: bytes, transport: str) -> None:
    """One answer at most, with the question's ID, readable by dnspython, within its bound."""
    answers = server.server.handle(wire, SOURCE, transport, UNIX)
    assert len(answers) <= 1
    if len(wire) < 12 or wire[2] & 0x80:
        assert not answers
        return
    (answer,) = answers
    assert answer[:2] == wire[:2]
    assert answer[2] & 0x80
    assert len(answer) <= (1232 if transport == "udp" else 65535)
    dns.message.from_wire(answer, keyring=False)


@pytest.mark.parametrize("kind", ["unsigned", "signed"])
def test_mutated_messages_never_crash_the_zone(kind: str) -> None:
    """Unsigned: what strangers can send. Signed: mutants signed afterwards with a right key, so
    that the parsers behind TSIG are reached too."""
    print(f"seed {SEED}; FUZZ_SEED=… picks another")
    chance = random.Random(SEED)
    server = Rendezvous(accounts=(account(ALICE, legacy_md5=True), account(BOB)))
    valid = seeds()
    identity = bytes(8)
    invited = TsigKey(
        invitations.key_name(Invitation(identity, UNIX), ALICE),
        invitation_key_of(ALICE, identity, UNIX),
    )
    valid.append(query_wire(invitations.question_name(identity, bytes(16), ALICE), "TXT"))
    keys = (key_of(ALICE), key_of(ALICE), key_of(BOB), key_of(ALICE, "hmac-md5"), invited)
    presigned = [tsig.sign(wire, key, UNIX)[0] for wire in valid for key in keys]
    for number in range(INPUTS[kind]):
        transport = ("udp", "tcp")[number % 2]
        if kind == "signed":
            wire = assemble(chance) if number % 3 else mutate(chance, chance.choice(valid))
            if len(wire) >= 12 and wire[10:12] != b"\xff\xff":  # room for one more record
                wire = tsig.sign(wire, chance.choice(keys), UNIX)[0]
        elif number % 5:
            wire = mutate(chance, chance.choice(valid + presigned))
        else:
            wire = chance.randbytes(chance.choice((0, 5, 12, 13, 30, 100, 600)))
        try:
            check(server, wire, transport)
        except Exception:
            print(f"input {wire.hex()}")
            raise
    print(dict(server.server.counters))
    content = server.server.content(ALICE)
    store = SqliteStore(":memory:")  # whatever was taken can be stored and loaded again
    wanted = {(found.name, found.rdtype): found for found in content.sets()}
    store.commit({content.origin: wanted})
    loaded = {(found.name, found.rdtype): found for found in store.load(content.origin)}
    assert all(same_content(loaded[f.name, f.rdtype], f) for f in content.sets())
    assert len(server.server.counters) < 60


def test_the_largest_messages_are_refused_without_being_read() -> None:
    """65,535 octets of pointers to one long name cost a stranger little and must cost us little."""
    server = Rendezvous()
    long_name = b"\x01a" * 100 + ALICE_WIRE
    pointer = bytes((0xC0, 12)) + bytes.fromhex("00ff00ff000000000000")
    count = (65535 - 400) // len(pointer)
    wire = b"\x12\x34\x28\x00\x00\x01\x00\x00" + count.to_bytes(2) + b"\x00\x00"
    wire += long_name + b"\x00\x06\x00\x01" + pointer * count
    assert server.unsigned(wire).rcode() == 5
    assert server.signed(wire).rcode() == 5
    wrong = TsigKey(ALICE + ".", bytes(32))
    assert dns.message.from_wire(server.raw(tsig.sign(wire, wrong, UNIX)[0])).rcode() == 5
    assert server.server.counters["large.REFUSED"] == 3
