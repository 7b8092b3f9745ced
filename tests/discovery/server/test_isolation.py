"""Nothing of an account is readable or changed without its key, whatever is asked (B4, B58)."""

from __future__ import annotations

import itertools

import dns.message
import dns.rcode
import pytest

from discovery import invitations, tsig
from discovery.invitations import Invitation
from discovery.types import TsigKey
from tests.discovery.server.helpers import (
    ALICE,
    ANY,
    BOB,
    NONE,
    SOURCE,
    UNIX,
    Rendezvous,
    add,
    invitation_key_of,
    key_of,
    query_wire,
    rr,
    update_wire,
)

SECRET = "fd01::5ec"
NAMES = (
    ALICE,
    f"desk.{ALICE}",
    f"empty.{ALICE}",
    f"leaf.empty.{ALICE}",
    f"any.wild.{ALICE}",
    f"*.wild.{ALICE}",
    f"alias.{ALICE}",
    f"none.{ALICE}",
    f"_853._tcp.ns.{ALICE}",
    f"_invite.{ALICE}",
    f"ns.{ALICE}",
    f"\\000.{ALICE}",
    f"~.{ALICE}",
)
TYPES = (
    *("A", "AAAA", "TXT", "SRV", "PTR", "CNAME", "NS", "SOA", "MX", "NSEC", "NSEC3PARAM"),
    *("DNSKEY", "DS", "RRSIG", "KEY", "TLSA", "HINFO", "DNAME", "ANY", "AXFR", "IXFR"),
    *("MAILB", "TYPE65400"),
)
# What leads a stranger to the server, and is the same whatever the account keeps.
PUBLIC = {("SOA", ALICE), ("NS", ALICE), ("A", f"ns.{ALICE}"), ("AAAA", f"ns.{ALICE}")}


def invitation_key() -> TsigKey:
    return TsigKey(
        invitations.key_name(Invitation(bytes(8), UNIX), ALICE),
        invitation_key_of(ALICE, bytes(8), UNIX),
    )


ASKERS: dict[str, TsigKey | None] = {
    "nobody": None,
    "another account": key_of(BOB),
    "a wrong secret": TsigKey(ALICE + ".", bytes(32)),
    "an invitation": invitation_key(),
}


@pytest.fixture(scope="module")
def zones() -> tuple[Rendezvous, Rendezvous]:
    """A zone with everything that could be leaked, and one with nothing."""
    full, empty = Rendezvous(), Rendezvous()
    assert (
        full.update(
            add(f"desk.{ALICE}", "AAAA", SECRET),
            add(f"leaf.empty.{ALICE}", "TXT", '"private"'),
            add(f"*.wild.{ALICE}", "TXT", '"private"'),
            add(f"alias.{ALICE}", "CNAME", f"desk.{ALICE}."),
            add(f"outward.{ALICE}", "CNAME", f"desk.{BOB}."),
            add(ALICE, "TXT", '"private"'),
        )
        == "NOERROR"
    )
    return full, empty


def answers(zone: Rendezvous, wire: bytes, transport: str) -> list[bytes]:
    return zone.server.handle(wire, SOURCE, transport, UNIX)


@pytest.mark.parametrize("asker", ASKERS)
def test_answers_do_not_depend_on_what_the_account_keeps(
    zones: tuple[Rendezvous, Rendezvous], asker: str
) -> None:
    """Octet by octet the same with a full zone and an empty one, but for the public serial."""
    full, empty = zones
    key = ASKERS[asker]
    for name, rdtype, transport in itertools.product(NAMES, TYPES, ("udp", "tcp")):
        wire = query_wire(name, rdtype)
        if key is not None:
            wire = tsig.sign(wire, key, UNIX)[0]
        seen = [
            [without_serial(answer) for answer in answers(zone, wire, transport)]
            for zone in (full, empty)
        ]
        assert seen[0] == seen[1], (asker, name, rdtype, transport)
        for text in seen[0]:
            assert "private" not in text
            assert SECRET not in text
            if key is None and "rcode NOERROR" in text and "\n;ANSWER\n;AUTH" not in text:
                served = (rdtype, name) in PUBLIC or rdtype == "SOA"
                assert served, (name, rdtype, text)


def without_serial(wire: bytes) -> str:
    read = dns.message.from_wire(wire, keyring=False)
    lines = []
    for line in read.to_text().splitlines():
        fields = line.split()
        if len(fields) > 6 and fields[3] == "SOA":
            fields[6] = "serial"
        lines.append(" ".join(fields) if "SOA" in fields[3:4] else line)
    return "\n".join(line for line in lines if "TSIG" not in line)


@pytest.mark.parametrize("asker", [name for name in ASKERS if name != "nobody"])
def test_no_other_key_changes_anything(asker: str) -> None:
    zone = Rendezvous()
    zone.update(add(f"desk.{ALICE}", "AAAA", SECRET))
    serial, key = zone.serial, ASKERS[asker]
    assert key is not None
    attempts = (
        (add(f"desk.{ALICE}", "AAAA", "fd01::666"),),
        (rr(f"desk.{ALICE}", "ANY", ANY),),
        (rr(f"desk.{ALICE}", "AAAA", NONE, 0, SECRET),),
        (),
    )
    for identity, updates in enumerate(attempts):
        for unsigned in (False, True):
            wire = update_wire(ALICE, updates, identity=identity)
            wire = wire if unsigned else tsig.sign(wire, key, UNIX)[0]
            (answer,) = answers(zone, wire, "tcp")
            rcode = dns.message.from_wire(answer, keyring=False).rcode()
            assert rcode in (dns.rcode.REFUSED, dns.rcode.NOTAUTH)
    assert zone.serial == serial
    assert zone.data(f"desk.{ALICE}", "AAAA") == [SECRET]


def test_an_alias_into_another_account_is_not_followed(
    zones: tuple[Rendezvous, Rendezvous],
) -> None:
    full, _ = zones
    full.update(add(f"desk.{BOB}", "AAAA", "fd01::b0b"), zone=BOB)
    answer = full.ask(f"outward.{ALICE}", "AAAA")
    assert "b0b" not in answer.to_text()
    full.update(add(f"s.{ALICE}", "SRV", f"0 0 1 desk.{BOB}."))
    assert "b0b" not in full.ask(f"s.{ALICE}", "SRV").to_text()


def test_one_accounts_transfer_holds_nothing_of_another() -> None:
    zone = Rendezvous()
    zone.update(add(f"desk.{ALICE}", "AAAA", SECRET))
    wire, _ = tsig.sign(query_wire(BOB, "AXFR"), key_of(BOB), UNIX)
    text = "".join(
        dns.message.from_wire(one, keyring=False).to_text() for one in answers(zone, wire, "tcp")
    )
    assert "SOA" in text
    assert ALICE not in text
