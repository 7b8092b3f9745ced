"""Clients of long-lived queries, octet by octet, and a rendezvous in memory that tells them."""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass, field

import dns.message
import dns.name
import dns.rdatatype

from discovery import llq, tsig
from discovery.llq import LlqOption
from discovery.store import MemoryStore
from discovery.subscriptions import DEFAULT_LIMITS, SubscriptionLimits, Subscriptions
from discovery.types import Endpoint, TsigKey
from discovery.ways import Tell, Unasked, Way
from discovery.zone import ZoneServer
from tests.discovery.server.helpers import (
    ALICE,
    BOB,
    PLACE,
    SOURCE,
    UNIX,
    account,
    key_of,
    name_wire,
    opt,
    parse,
    update_wire,
)

DESK = f"desk.{ALICE}"
ASKED_AT = ("203.0.113.10", 53)


def llq_query(
    questions: list[tuple[str, str]],
    options: list[LlqOption] | list[bytes],
    *,
    identity: int = 0x1001,
    flags: int = 0x0100,
    rdclass: int = 1,
) -> bytes:
    """Return an unsigned query with LLQ options (given as data, they may be malformed)."""
    packed = b"".join(
        struct.pack("!HH", 1, len(data)) + data
        for data in (o if isinstance(o, bytes) else o.pack() for o in options)
    )
    header = struct.pack("!HHHHHH", identity, flags, len(questions), 0, 0, 1)
    body = b"".join(
        name_wire(name) + struct.pack("!HH", dns.rdatatype.from_text(rdtype), rdclass)
        for name, rdtype in questions
    )
    return header + body + opt(options=packed)


def options_of(answer: dns.message.Message) -> list[LlqOption]:
    return [LlqOption.parse(o.to_wire()) for o in answer.options if o.otype == llq.OPTION_CODE]


def records_of(answer: dns.message.Message) -> list[str]:
    return [
        f"{rrset.name} {rrset.ttl} {dns.rdatatype.to_text(rrset.rdtype)} {rdata}"
        for rrset in answer.answer
        for rdata in rrset
    ]


@dataclass
class Telling:
    """A :class:`ZoneServer` that tells, its clock, and a signing client at ``source``."""

    limits: SubscriptionLimits = DEFAULT_LIMITS
    legacy_md5: bool = False
    store: MemoryStore = field(default_factory=MemoryStore)
    now: float = 1000.0
    key: TsigKey = field(default_factory=lambda: key_of(ALICE))

    def __post_init__(self) -> None:
        self.server = ZoneServer(
            [account(ALICE, legacy_md5=self.legacy_md5), account(BOB)],
            self.store,
            PLACE,
            unix=UNIX,
            random=random.Random(8764).randbytes,
            subscription_limits=self.limits,
        )
        self._identity = 0

    @property
    def told(self) -> Subscriptions:
        assert self.server.subscriptions is not None
        return self.server.subscriptions

    @property
    def unix(self) -> int:
        return UNIX + int(self.now - 1000)

    def way(self, source: Endpoint = SOURCE) -> Way:
        return Way("udp", source, ASKED_AT)

    def send(self, wire: bytes, way: Way | None = None) -> list[bytes]:
        used = way or self.way()
        return self.server.handle(
            wire, used.source, used.transport, self.unix, way=used, now=self.now
        )

    def ask(
        self, wire: bytes, way: Way | None = None, key: TsigKey | None = None
    ) -> dns.message.Message:
        """Sign, ask, demand a right signature, read."""
        used = key or self.key
        signed, mac = tsig.sign(wire, used, self.unix)
        (answer,) = self.send(signed, way)
        verdict = tsig.verify(answer, lambda *_: used, self.unix, request_mac=mac)
        assert isinstance(verdict, tsig.Verified), verdict
        return parse(answer)

    def llq(
        self,
        option: LlqOption,
        question: tuple[str, str] = (DESK, "AAAA"),
        way: Way | None = None,
    ) -> tuple[LlqOption, dns.message.Message]:
        """Ask about one long-lived query."""
        answer = self.ask(llq_query([question], [option]), way)
        (found,) = options_of(answer)
        return found, answer

    def establish(
        self, question: tuple[str, str] = (DESK, "AAAA"), way: Way | None = None, lease: int = 7200
    ) -> tuple[LlqOption, dns.message.Message]:
        """Go through the four-way handshake; return the last message."""
        challenge, _ = self.llq(LlqOption(llq.SETUP, lease=lease), question, way)
        assert challenge.error == llq.NO_ERROR
        again = LlqOption(llq.SETUP, id=challenge.id, lease=challenge.lease)
        return self.llq(again, question, way)

    def update(self, *records: bytes) -> None:
        """Let another host of the account change the zone."""
        self._identity += 1
        wire = update_wire(updates=records, identity=self._identity)
        answer = self.ask(wire, Way("tcp", ("192.0.2.99", 5), connection=0), key_of(ALICE))
        assert answer.rcode() == 0

    def take(self) -> list[Unasked]:
        return self.told.take(1000, self.now, self.unix)

    def events(self, key: TsigKey | None = None) -> list[dns.message.Message]:
        """Take what the server wants to say: signed events, read."""
        found = []
        for told in self.take():
            assert isinstance(told, Tell), told
            verdict = tsig.verify(told.wire, lambda *_: key or self.key, self.unix)
            assert isinstance(verdict, tsig.Verified), verdict
            found.append(parse(told.wire))
        return found

    def acknowledge(self, event: dns.message.Message, way: Way | None = None) -> None:
        """Echo an event's option, as RFC 8764 §6.3 and Apple's clients do, unsigned."""
        (question,) = event.question
        asked = (question.name.to_text(), dns.rdatatype.to_text(question.rdtype))
        wire = llq_query([asked], options_of(event), identity=event.id, flags=0x8000)
        assert self.send(wire, way) == []

    def later(self, seconds: float) -> None:
        """Let time pass, in one step."""
        self.now += seconds
        self.told.tick(self.now)
