"""Hostile octets against the rendezvous: never a crash, always a well-formed, bounded answer."""

from __future__ import annotations

import os
import random

import dns.message
import pytest

from discovery import invitations, tsig
from discovery.invitations import Invitation
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
    opt,
    query_wire,
    rr,
    update_wire,
)

INPUTS = 100_000
SEED = int(os.environ.get("FUZZ_SEED", "6281"))
DESK = f"desk.{ALICE}"


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
    for number in range(INPUTS // 2):
        transport = ("udp", "tcp")[number % 2]
        if kind == "signed":
            wire = mutate(chance, chance.choice(valid))
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
    server.restart()  # whatever was stored can be loaded again
    assert len(server.server.counters) < 60


def test_a_message_of_the_greatest_size_is_bounded_in_work() -> None:
    """65,535 octets of the shortest records: read in full, refused by count, answered briefly."""
    server = Rendezvous()
    tiny = bytes((0xC0, 12)) + bytes.fromhex("00ff00ff000000000000")
    count = (65535 - 200) // len(tiny)
    wire = update_wire(updates=(tiny * count,))
    wire = wire[:8] + count.to_bytes(2) + wire[10:]
    answer = server.signed(wire)
    assert answer.rcode() == 5
    names = b"".join(bytes((0xC0, 12)) + b"\x00\x01\x00\x01" for _ in range(10000))
    many = update_wire()[:4] + (10000).to_bytes(2) + bytes(6) + b"\x01a\x00\x00\x01\x00\x01" + names
    assert server.unsigned(many[: 12 + 7 + 6 * 9999]).rcode() == 1
