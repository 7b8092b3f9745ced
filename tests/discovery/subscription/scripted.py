"""A client and a scripted rendezvous: the test answers each message itself, as a ladder diagram."""

from __future__ import annotations

import random as pseudo
from dataclasses import dataclass, field

import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.rdata
import dns.rdatatype

from discovery import dso, llq, push, tsig
from discovery.client import ClientSettings, ZoneClient
from discovery.dso import DsoMessage, Keepalive, RetryDelay, Tlv
from discovery.llq import LlqOption
from discovery.types import Changed, ClientCommand, DropZone, SendZone, TsigKey

UNIX = 1_700_000_000
DOMAIN = "alice.members.example"
KEY = TsigKey(DOMAIN + ".", bytes(range(32)))
DESK = dns.name.from_text(f"desk.{DOMAIN}.")
AAAA = int(dns.rdatatype.AAAA)
A = int(dns.rdatatype.A)
SOA = int(dns.rdatatype.SOA)


def aaaa(last: int) -> dns.rdata.Rdata:
    """The data of an AAAA record."""
    return dns.rdata.from_text("IN", "AAAA", f"fd01::{last}")


@dataclass
class Script:
    """One client on a virtual clock; what it says is collected for the test to answer."""

    settings: ClientSettings = field(default_factory=ClientSettings)
    now: float = 1000.0
    sent: list[bytes] = field(default_factory=list)
    told: list[ClientCommand] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.client = ZoneClient(
            domain=DOMAIN,
            label="laptop",
            key=KEY,
            random=pseudo.Random(8).randbytes,
            settings=self.settings,
        )

    @property
    def unix(self) -> int:
        return UNIX + int(self.now)

    def do(self, commands: list[ClientCommand]) -> None:
        for command in commands:
            if isinstance(command, SendZone):
                self.sent.append(command.wire)
            else:
                self.told.append(command)

    def up(self) -> None:
        self.do(self.client.transport_up(self.now, self.unix))

    def subscribe(self, name: dns.name.Name = DESK, rdtype: int = AAAA) -> None:
        self.do(self.client.subscribe(name, rdtype, self.now, self.unix))

    def unsubscribe(self, name: dns.name.Name = DESK, rdtype: int = AAAA) -> None:
        self.do(self.client.unsubscribe(name, rdtype, self.now, self.unix))

    def hear(self, wire: bytes) -> None:
        self.do(self.client.receive(wire, self.now, self.unix))

    def wait(self, seconds: float) -> None:
        """Let time pass, timer by timer."""
        end = self.now + seconds
        for _ in range(10_000):
            timer = self.client.next_timer()
            if timer is None or timer > end:
                break
            self.now = max(self.now, timer)
            self.do(self.client.advance(self.now, self.unix))
        else:
            raise AssertionError("the client's timers never come to rest")
        self.now = end

    # --- What it said ---

    def taken(self) -> list[bytes]:
        """All messages since the last look."""
        sent, self.sent = self.sent, []
        return sent

    def changes(self) -> list[Changed]:
        """All changes since the last look."""
        found = [one for one in self.told if isinstance(one, Changed)]
        self.told = [one for one in self.told if not isinstance(one, Changed)]
        return found

    def dropped(self) -> list[DropZone]:
        """All commands to leave the connection."""
        return [one for one in self.told if isinstance(one, DropZone)]

    # --- DSO ---

    def dso(self) -> list[DsoMessage]:
        """The DSO messages among :meth:`taken`; beside them there may only be introductions."""
        taken = self.taken()
        for wire in taken:
            if not dso.is_dso(wire):
                asked = dns.message.from_wire(tsig_off(wire)).question[0]
                assert asked.name.labels[0] == b"_push"
        return [DsoMessage.parse(wire) for wire in taken if dso.is_dso(wire)]

    def accept(self, asked: DsoMessage, *tlvs: Tlv, rcode: int = 0) -> None:
        self.hear(DsoMessage(asked.id, tlvs, True, rcode).pack())

    def session(self, interval_ms: int = 3_600_000) -> None:
        """A session stands, and nothing is subscribed to in it yet."""
        self.up()
        asked = next(m for m in self.dso() if m.primary and m.primary.type == dso.KEEPALIVE)
        self.accept(asked, Keepalive(dso.INFINITE_MS, interval_ms).tlv())

    def push(self, *changes: push.Change) -> None:
        for wire in push.push_messages(changes):
            self.hear(wire)

    def away(self, delay_ms: int) -> None:
        self.hear(DsoMessage(0, (RetryDelay(delay_ms).tlv(),)).pack())

    # --- Long-lived queries and questions ---

    def reply(
        self,
        wire: bytes,
        option: LlqOption | None = None,
        answer: tuple[dns.rdata.Rdata, ...] = (),
        rcode: int = 0,
    ) -> None:
        """Answer a signed question over its own MAC."""
        verified = tsig.verify(wire, lambda *_: KEY, self.unix)
        assert isinstance(verified, tsig.Verified), "an unsigned question (B58)"
        asked = dns.message.from_wire(verified.message)
        made = dns.message.make_response(asked)
        made.set_rcode(dns.rcode.Rcode(rcode))
        add_answer(made, asked.question[0].name, answer, 120)
        if option is not None:
            made.use_edns(0, options=[generic(option)])
        signed, _ = tsig.sign(made.to_wire(), KEY, self.unix, request_mac=verified.mac)
        self.hear(signed)

    def event(
        self,
        identity: int,
        question: tuple[dns.name.Name, int],
        llq_id: int,
        *changes: tuple[dns.rdata.Rdata, bool],
        signed: bool = True,
    ) -> None:
        made = dns.message.make_query(question[0], dns.rdatatype.RdataType(question[1]))
        made.id, made.flags = identity, dns.flags.QR
        for rdata, gone in changes:
            add_answer(made, question[0], (rdata,), llq.REMOVED_TTL if gone else 120)
        made.use_edns(0, options=[generic(LlqOption(llq.EVENT, 0, llq_id, 0))])
        wire = made.to_wire()
        self.hear(tsig.sign(wire, KEY, self.unix)[0] if signed else wire)


def add_answer(
    made: dns.message.Message, name: dns.name.Name, data: tuple[dns.rdata.Rdata, ...], ttl: int
) -> None:
    """Add each as a set of its own: one set has one TTL."""
    for rdata in data:
        found = made.find_rrset(
            made.answer, name, rdata.rdclass, rdata.rdtype, create=True, force_unique=True
        )
        found.add(rdata, 0)
        found.ttl = ttl


def generic(option: LlqOption) -> dns.edns.Option:
    """The option as dnspython writes it."""
    return dns.edns.GenericOption(dns.edns.OptionType.make(llq.OPTION_CODE), option.pack())


def llq_of(wire: bytes) -> LlqOption | None:
    """The option of a long-lived query in a message."""
    message = dns.message.from_wire(tsig_off(wire))
    found = [one for one in message.options if int(one.otype) == llq.OPTION_CODE]
    return LlqOption.parse(found[0].to_wire()) if found else None


def tsig_off(wire: bytes) -> bytes:
    """The message without its signature, which is its last record."""
    owner = dns.name.from_text(KEY.name).to_wire() or b""
    start = wire.rindex(owner + bytes((0, 250)))
    return wire[:10] + (int.from_bytes(wire[10:12]) - 1).to_bytes(2) + wire[12:start]
