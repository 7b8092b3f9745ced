"""Messages octet by octet, and a rendezvous in memory to send them to."""

from __future__ import annotations

import hashlib
import hmac
import struct
from dataclasses import dataclass, field
from functools import cache

import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype

from discovery import tsig
from discovery.bootstrap import ServerIdentity
from discovery.held import ZoneAccount
from discovery.rates import RateLimits
from discovery.store import MemoryStore
from discovery.types import TsigKey
from discovery.update import DEFAULT_LIMITS, ZoneLimits
from discovery.zone import Happening, ZoneServer

UNIX = 1_700_000_000
ALICE = "alice.members.example"
BOB = "bob.members.example"
SOURCE = ("192.0.2.7", 40000)
PLACE = ServerIdentity(("203.0.113.10", "2001:db8::10"), 53, 853, bytes(range(32)))

IN, NONE, ANY = 1, 254, 255


def secret_of(domain: str) -> bytes:
    return hashlib.sha256(b"tsig " + domain.encode()).digest()


def account_secret_of(domain: str) -> bytes:
    return hashlib.sha256(b"account " + domain.encode()).digest()


def invitation_key_of(domain: str, identity: bytes, expires: int) -> bytes:
    text = identity + expires.to_bytes(8)
    return hmac.digest(account_secret_of(domain), text, "sha256")


UNHURRIED = RateLimits(10**9, 10**9)  # most tests stand still in time


def account(
    domain: str,
    *,
    legacy_md5: bool = False,
    limits: ZoneLimits | None = None,
    rates: RateLimits = UNHURRIED,
) -> ZoneAccount:
    return ZoneAccount(
        domain,
        secret_of(domain),
        account_secret_of(domain),
        lambda identity, expires: invitation_key_of(domain, identity, expires),
        legacy_md5,
        limits,
        rates,
    )


def key_of(domain: str, algorithm: str = "hmac-sha256") -> TsigKey:
    return TsigKey(domain + ".", secret_of(domain), algorithm)


@cache
def name_wire(text: str) -> bytes:
    return dns.name.from_text(text).to_wire()


def rdata_wire(rdtype: str, text: str) -> bytes:
    rdata = dns.rdata.from_text("IN", rdtype, text)
    return rdata.to_wire()


def rr(name: str, rdtype: str, rdclass: int, ttl: int = 0, text: str = "") -> bytes:
    data = rdata_wire(rdtype, text) if text else b""
    number = dns.rdatatype.from_text(rdtype)
    return name_wire(name) + struct.pack("!HHIH", number, rdclass, ttl, len(data)) + data


def add(name: str, rdtype: str, text: str, ttl: int = 120) -> bytes:
    return rr(name, rdtype, IN, ttl, text)


def opt(payload: int = 1232, version: int = 0, options: bytes = b"") -> bytes:
    return struct.pack("!BHHBBHH", 0, 41, payload, 0, version, 0, len(options)) + options


def update_wire(
    zone: str = ALICE,
    updates: tuple[bytes, ...] | list[bytes] = (),
    prerequisites: tuple[bytes, ...] | list[bytes] = (),
    *,
    identity: int = 0x1234,
    additional: tuple[bytes, ...] = (),
    ztype: int = 6,
    zclass: int = IN,
    zones: int = 1,
) -> bytes:
    counts = (zones, len(prerequisites), len(updates), len(additional))
    section = (name_wire(zone) + struct.pack("!HH", ztype, zclass)) * zones
    body = b"".join((*prerequisites, *updates, *additional))
    return struct.pack("!HHHHHH", identity, 0x2800, *counts) + section + body


def query_wire(
    name: str,
    rdtype: str,
    *,
    identity: int = 0x4321,
    additional: tuple[bytes, ...] = (opt(),),
    rdclass: int = IN,
) -> bytes:
    header = struct.pack("!HHHHHH", identity, 0x0100, 1, 0, 0, len(additional))
    question = name_wire(name) + struct.pack("!HH", dns.rdatatype.from_text(rdtype), rdclass)
    return header + question + b"".join(additional)


def parse(wire: bytes) -> dns.message.Message:
    """Read an answer with dnspython's own reader, an independent judge of its form."""
    return dns.message.from_wire(wire, keyring=False)


def reason_of(message: dns.message.Message) -> str:
    return " ".join(str(getattr(option, "text", "")) for option in message.options)


def texts(message: dns.message.Message) -> list[str]:
    return sorted(line for rrset in message.answer for line in rrset.to_text().splitlines())


@dataclass
class Rendezvous:
    """A :class:`ZoneServer` for Alice and Bob, and the ways to ask it."""

    limits: ZoneLimits = DEFAULT_LIMITS
    store: MemoryStore = field(default_factory=MemoryStore)
    accounts: tuple[ZoneAccount, ...] = (account(ALICE), account(BOB))
    place: ServerIdentity = PLACE
    happenings: list[Happening] = field(default_factory=list)
    unix: int = UNIX

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        self.server = ZoneServer(
            self.accounts,
            self.store,
            self.place,
            unix=self.unix,
            limits=self.limits,
            report=self.happenings.append,
        )

    def raw(self, wire: bytes, transport: str = "tcp", unix: int = UNIX) -> bytes:
        (answer,) = self.server.handle(wire, SOURCE, transport, unix)
        return answer

    def unsigned(self, wire: bytes, transport: str = "udp") -> dns.message.Message:
        answer = self.raw(wire, transport)
        assert isinstance(tsig.verify(answer, lambda *_: None, UNIX), tsig.NoTsig)
        return parse(answer)

    def signed(
        self,
        wire: bytes,
        key: TsigKey | None = None,
        transport: str = "tcp",
        unix: int = UNIX,
    ) -> dns.message.Message:
        """Sign, ask, demand a valid signature on the answer (B59), and read it."""
        used = key or key_of(ALICE)
        question, mac = tsig.sign(wire, used, unix)
        answer = self.raw(question, transport, unix)
        verdict = tsig.verify(answer, lambda *_: used, unix, request_mac=mac)
        assert isinstance(verdict, tsig.Verified), verdict
        return parse(answer)

    def update(
        self, *updates: bytes, prerequisites: tuple[bytes, ...] = (), zone: str = ALICE
    ) -> str:
        wire = update_wire(zone, updates, prerequisites, identity=self.next_identity())
        return dns.rcode.to_text(self.signed(wire, key_of(zone)).rcode())

    def ask(self, name: str, rdtype: str, zone: str = ALICE) -> dns.message.Message:
        return self.signed(query_wire(name, rdtype), key_of(zone))

    def data(self, name: str, rdtype: str) -> list[str]:
        answer = self.ask(name, rdtype).answer
        return sorted(item.to_text() for rrset in answer for item in rrset)

    @property
    def serial(self) -> int:
        return self.server.content(ALICE).soa.serial

    def next_identity(self) -> int:
        # Two updates in one second with one ID would be the same message: a retransmission.
        self._identity = getattr(self, "_identity", 0) + 1
        return self._identity
