"""DNS Push at the rendezvous (RFC 8765 over RFC 8490), message by message."""

from __future__ import annotations

import struct

import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import pytest

from discovery import dso, push, rcodes, tsig
from discovery.dso import DsoMessage, Keepalive, RetryDelay, Tlv
from discovery.push import REMOVE_ALL, REMOVE_ONE, Change, Reconfirm, Subscribe, Unsubscribe
from discovery.push_server import PushLimits
from discovery.subscriptions import SubscriptionLimits
from discovery.types import TsigKey
from discovery.ways import End, Tell, Way
from tests.discovery.server.helpers import (
    ALICE,
    ANY,
    BOB,
    NONE,
    SOURCE,
    UNIX,
    add,
    invitation_key_of,
    key_of,
    opt,
    query_wire,
    rr,
    update_wire,
)
from tests.discovery.server.subscribing import DESK, Telling

AAAA = int(dns.rdatatype.AAAA)
TXT = int(dns.rdatatype.TXT)
NAME = dns.name.from_text(DESK)
TLS = Way("tls", SOURCE, connection=1)
INTRODUCTION = query_wire(f"_push.{ALICE}", "SOA")
KEEPALIVE = Keepalive(0xFFFFFFFF, 300_000)


class Client:
    """A subscriber on a TLS connection of its own."""

    def __init__(self, zone: Telling, number: int = 1) -> None:
        self.zone = zone
        self.way = Way("tls", (SOURCE[0], 40000 + number), connection=number)

    def introduce(self) -> Client:
        assert self.zone.ask(INTRODUCTION, self.way).rcode() == 3
        return self

    def send(self, *tlvs: Tlv, identity: int = 7) -> list[bytes]:
        return self.zone.send(DsoMessage(identity, tlvs).pack(), self.way)

    def ask(self, *tlvs: Tlv, identity: int = 7) -> DsoMessage:
        (wire,) = self.send(*tlvs, identity=identity)
        answer = DsoMessage.parse(wire)
        assert answer.response
        assert answer.id == identity
        return answer

    def subscribe(
        self, rdtype: int = AAAA, name: dns.name.Name = NAME, identity: int = 7
    ) -> list[Change]:
        """Subscribe; return the initial changes."""
        wire, *pushed = self.send(Subscribe(name, rdtype).tlv(), identity=identity)
        assert DsoMessage.parse(wire) == DsoMessage(identity, (), response=True)
        return [change for one in pushed for change in push.parse_push(one)]

    def pushed(self) -> list[Change]:
        """Return the changes of the one message that this client was sent."""
        wires = [t.wire for t in self.zone.take() if isinstance(t, Tell) and t.way == self.way]
        assert len(wires) <= 1
        return [change for wire in wires for change in push.parse_push(wire)]

    def is_aborted(self) -> bool:
        """Whether the server does nothing but abort the connection."""
        ended = self.zone.take() == [End(self.way.connection, abort=True)]
        assert not ended or self.send(KEEPALIVE.tlv()) == []
        return ended


@pytest.fixture
def zone() -> Telling:
    return Telling()


@pytest.fixture
def client(zone: Telling) -> Client:
    return Client(zone).introduce()


def record(text: str, ttl: int = 120, rdtype: int = AAAA) -> Change:
    data = dns.rdata.from_text(dns.rdataclass.IN, dns.rdatatype.RdataType.make(rdtype), text)
    return Change(NAME, rdtype, 1, ttl, data)


# --- Who may (decision 0042) ----------------------------------------------------------------


def test_who_was_not_introduced_is_refused(zone: Telling) -> None:
    stranger = Client(zone)
    answer = stranger.ask(Subscribe(NAME, AAAA).tlv())
    assert answer.rcode == rcodes.REFUSED
    delay = answer.additional(dso.RETRY_DELAY)
    assert delay is not None
    assert RetryDelay.parse(delay.data).delay_ms == 300_000
    assert zone.told.size == 0


def test_only_the_question_of_its_own_introduces(zone: Telling) -> None:
    """A signed message that was overheard or lured out elsewhere opens nothing."""
    stranger = Client(zone)
    for wire in (
        query_wire(f"_853._tcp.ns.{ALICE}", "TLSA"),
        query_wire(DESK, "AAAA"),
        query_wire(f"_push.{ALICE}", "TXT"),
        query_wire(f"_push.desk.{ALICE}", "SOA"),
        update_wire(updates=[add(DESK, "AAAA", "fd00::1")]),
    ):
        zone.ask(wire, stranger.way)
    zone.send(INTRODUCTION, stranger.way)
    zone.ask(INTRODUCTION, Way("tcp", SOURCE, connection=1))
    zone.ask(INTRODUCTION, Way("tls", SOURCE, connection=2))
    zone.ask(INTRODUCTION, Way("udp", SOURCE))
    identity, expires = bytes(8), UNIX + 60
    invited = f"{identity.hex()}-{expires}._invite.{ALICE}."
    secret = invitation_key_of(ALICE, identity, expires)
    zone.send(tsig.sign(INTRODUCTION, TsigKey(invited, secret), UNIX)[0], stranger.way)
    assert stranger.ask(Subscribe(NAME, AAAA).tlv()).rcode == rcodes.REFUSED


def test_an_account_is_told_of_its_own_zone_only(zone: Telling, client: Client) -> None:
    for name in (BOB, f"desk.{BOB}"):
        wanted = Subscribe(dns.name.from_text(name), AAAA)
        assert client.ask(wanted.tlv()).rcode == rcodes.REFUSED
    elsewhere = Subscribe(dns.name.from_text("example.org"), AAAA)
    assert client.ask(elsewhere.tlv()).rcode == rcodes.NOTAUTH
    zone.ask(query_wire(f"_push.{BOB}", "SOA"), client.way, key_of(BOB))
    assert client.ask(Subscribe(NAME, AAAA).tlv()).rcode == rcodes.REFUSED


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_without_tls_there_is_no_dso(zone: Telling, transport: str) -> None:
    (wire,) = zone.send(DsoMessage(7, (KEEPALIVE.tlv(),)).pack(), Way(transport, SOURCE))
    assert wire[3] & 15 == rcodes.NOTIMP


# --- Subscriptions (RFC 8765 §6.2 to §6.4) ---------------------------------------------------


def test_what_stands_there_is_pushed_first(zone: Telling, client: Client) -> None:
    zone.update(add(DESK, "AAAA", "fd00::1"), add(DESK, "AAAA", "fd00::2"))
    zone.update(add(DESK, "TXT", '"a"'))
    assert client.subscribe() == [record("fd00::1"), record("fd00::2")]
    assert client.subscribe(identity=8, rdtype=255)[2:] == [record('"a"', rdtype=TXT)]
    assert client.subscribe(identity=9, name=dns.name.from_text(f"no.{ALICE}")) == []


def test_changes_are_pushed_as_they_happen(zone: Telling, client: Client) -> None:
    client.subscribe()
    zone.update(add(DESK, "AAAA", "fd00::1"), add(DESK, "AAAA", "fd00::2"))
    assert client.pushed() == [record("fd00::1"), record("fd00::2")]
    zone.update(rr(DESK, "AAAA", NONE, 0, "fd00::1"))
    assert client.pushed() == [record("fd00::1", REMOVE_ONE)]
    zone.update(add(DESK, "TXT", '"not asked for"'))
    assert client.pushed() == []


def test_a_whole_set_and_a_whole_name_leave_collectively(zone: Telling, client: Client) -> None:
    client.subscribe()
    client.subscribe(rdtype=255, identity=8)
    zone.update(add(DESK, "AAAA", "fd00::1"), add(DESK, "TXT", '"a"'), add(DESK, "TXT", '"b"'))
    assert len(client.pushed()) == 3
    zone.update(rr(DESK, "TXT", ANY))
    assert client.pushed() == [Change(NAME, TXT, 1, REMOVE_ALL, None)]
    zone.update(rr(DESK, "AAAA", ANY))
    assert client.pushed() == [Change(NAME, 255, 1, REMOVE_ALL, None)]


def test_who_watches_one_type_hears_of_that_type(zone: Telling, client: Client) -> None:
    zone.update(add(DESK, "AAAA", "fd00::1"), add(DESK, "TXT", '"a"'))
    client.subscribe()
    zone.update(rr(DESK, "ANY", ANY))
    assert client.pushed() == [Change(NAME, AAAA, 1, REMOVE_ALL, None)]


def test_one_commit_is_one_push_for_all_subscriptions(zone: Telling, client: Client) -> None:
    den = dns.name.from_text(f"den.{ALICE}")
    client.subscribe()
    client.subscribe(rdtype=255, identity=8)
    client.subscribe(name=den, identity=9)
    zone.update(add(DESK, "AAAA", "fd00::1"), add(f"den.{ALICE}", "AAAA", "fd00::2"))
    changes = client.pushed()
    assert [(change.name, str(change.rdata)) for change in changes] == [
        (NAME, "fd00::1"),
        (den, "fd00::2"),
    ]


def test_a_replacement_removes_and_adds_in_one_push(zone: Telling, client: Client) -> None:
    zone.update(add(DESK, "AAAA", "fd00::1"))
    client.subscribe()
    zone.update(rr(DESK, "AAAA", ANY), add(DESK, "AAAA", "fd00::2"))
    assert client.pushed() == [record("fd00::1", REMOVE_ONE), record("fd00::2")]
    zone.update(add(DESK, "AAAA", "fd00::2", 60))
    assert client.pushed() == [record("fd00::2", 60)]


def test_a_cname_matches_every_type(zone: Telling, client: Client) -> None:
    client.subscribe()
    zone.update(add(DESK, "CNAME", f"den.{ALICE}."))
    (change,) = client.pushed()
    assert change.rdtype == dns.rdatatype.CNAME
    assert client.subscribe(rdtype=TXT, identity=8) == [change]


def test_a_wildcard_is_a_literal_asterisk(zone: Telling, client: Client) -> None:
    zone.update(add(f"*.{ALICE}", "AAAA", "fd00::1"))
    assert client.subscribe() == []
    star = dns.name.from_text(f"*.{ALICE}")
    assert len(client.subscribe(name=star, identity=8)) == 1


def test_after_unsubscribe_there_is_silence(zone: Telling, client: Client) -> None:
    client.subscribe()
    assert client.send(Unsubscribe(7).tlv(), identity=0) == []
    assert client.send(Unsubscribe(7).tlv(), identity=0) == []  # unknown: ignored
    zone.update(add(DESK, "AAAA", "fd00::1"))
    assert client.pushed() == []
    assert zone.told.size == 0
    assert len(client.subscribe()) == 1  # its id and question are free again


def test_subscriptions_end_with_the_connection(zone: Telling, client: Client) -> None:
    client.subscribe()
    client.subscribe(rdtype=255, identity=8)
    zone.told.gone(1)
    zone.update(add(DESK, "AAAA", "fd00::1"))
    assert zone.take() == []
    assert zone.told.size == 0
    assert not zone.told.push._interests


def test_names_match_without_case_and_classes_may_be_any(zone: Telling, client: Client) -> None:
    upper = dns.name.from_text(DESK.upper())
    client.send(Subscribe(upper, AAAA, push.CLASS_ANY).tlv())
    client.send(Subscribe(NAME, AAAA).tlv(), identity=8)
    zone.update(add(DESK, "AAAA", "fd00::1"))
    assert client.pushed() == [record("fd00::1")]
    client.send(Unsubscribe(7).tlv(), identity=0)
    zone.update(rr(DESK, "AAAA", ANY))
    assert client.pushed() == [Change(NAME, AAAA, 1, REMOVE_ALL, None)]
    wanted = Subscribe(NAME, AAAA, 3)
    assert client.ask(wanted.tlv(), identity=9).rcode == rcodes.NOTAUTH


def test_a_doubted_record_is_taken_note_of(zone: Telling, client: Client) -> None:
    client.subscribe()
    data = record("fd00::1").rdata
    assert data is not None
    assert client.send(Reconfirm(NAME, AAAA, 1, data).tlv(), identity=0) == []
    assert zone.take() == []
    assert zone.server.counters["push.reconfirm"] == 1


@pytest.mark.parametrize("limit", ["total", "per_account", "per_session"])
def test_a_full_server_says_servfail_and_a_minute(limit: str) -> None:
    zone = Telling(SubscriptionLimits(push=PushLimits(**{limit: 1})))
    client = Client(zone).introduce()
    client.subscribe()
    answer = client.ask(Subscribe(NAME, TXT).tlv(), identity=8)
    assert answer.rcode == rcodes.SERVFAIL
    assert RetryDelay.parse(answer.tlvs[0].data).delay_ms == 60_000
    zone.update(add(DESK, "AAAA", "fd00::1"))
    assert client.pushed() == [record("fd00::1")]  # the others go on


def test_many_changes_take_several_lawful_messages(zone: Telling, client: Client) -> None:
    client.subscribe(TXT)
    zone.update(*(add(DESK, "TXT", f'"{n:03d}{"x" * 240}"') for n in range(100)))
    told = [one.wire for one in zone.take() if isinstance(one, Tell)]
    assert len(told) == 2
    assert sum(len(push.parse_push(wire)) for wire in told) == 100


def test_sessions_that_are_told_the_same_share_the_octets(zone: Telling) -> None:
    clients = [Client(zone, number).introduce() for number in range(1, 6)]
    for client in clients:
        client.subscribe()
    zone.update(add(DESK, "AAAA", "fd00::1"))
    wires = [one.wire for one in zone.take() if isinstance(one, Tell)]
    assert len(wires) == 5
    assert len({id(wire) for wire in wires}) == 1


# --- Sessions (RFC 8490) --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "granted"),
    [
        ((15_000, 15_000), (15_000, 15_000)),
        ((0, 0), (15_000, 10_000)),
        ((0xFFFFFFFF, 0xFFFFFFFF), (300_000, 3_600_000)),
        ((60_000, 300_000), (60_000, 300_000)),
    ],
)
def test_the_server_decides_both_timeouts(
    zone: Telling, asked: tuple[int, int], granted: tuple[int, int]
) -> None:
    answer = Client(zone).ask(Keepalive(*asked).tlv())
    assert answer.rcode == rcodes.NOERROR
    assert answer.tlvs == (Keepalive(*granted).tlv(),)


def test_padding_is_answered_with_padding(zone: Telling, client: Client) -> None:
    answer = client.ask(KEEPALIVE.tlv(), dso.padding_for(24, 128))
    assert answer.additional(dso.PADDING) is not None
    assert len(answer.pack()) == 468
    (wire, *_) = client.send(Subscribe(NAME, AAAA).tlv(), Tlv(dso.PADDING, b"\x01"), identity=8)
    assert len(wire) == 468
    assert client.ask(KEEPALIVE.tlv(), Tlv(0x77, b"unknown"), identity=9).rcode == 0


def test_a_silent_session_is_aborted_after_twice_its_interval(
    zone: Telling, client: Client
) -> None:
    client.ask(Keepalive(15_000, 10_000).tlv())
    client.subscribe(identity=8)
    zone.later(19.9)
    assert zone.take() == []
    client.ask(Keepalive(15_000, 10_000).tlv(), identity=9)
    zone.later(19.9)
    assert zone.take() == []
    zone.later(0.2)
    assert client.is_aborted()
    assert zone.told.size == 0


def test_default_timeouts_are_15_seconds(zone: Telling, client: Client) -> None:
    client.subscribe()
    assert zone.told.holds(1)
    zone.later(29.9)
    assert zone.take() == []
    zone.later(0.2)
    assert client.is_aborted()


def test_an_idle_session_is_aborted_however_it_keeps_alive(zone: Telling, client: Client) -> None:
    for second in range(0, 32, 4):
        client.ask(Keepalive(15_000, 10_000).tlv(), identity=second + 1)
        zone.later(4)
    assert client.is_aborted()


def test_any_other_message_keeps_it_active(zone: Telling, client: Client) -> None:
    client.ask(Keepalive(15_000, 300_000).tlv())
    for _ in range(5):
        zone.later(20)
        zone.ask(query_wire(DESK, "AAAA"), client.way)
    assert zone.take() == []
    client.subscribe(identity=8)  # while somebody waits for news, nobody is idle
    zone.later(599)
    assert zone.take() == []
    zone.later(2)
    assert client.is_aborted()


def test_a_push_resets_the_timers(zone: Telling, client: Client) -> None:
    client.subscribe()
    zone.later(29)
    zone.update(add(DESK, "AAAA", "fd00::1"))
    assert len(client.pushed()) == 1
    zone.later(29)
    assert zone.take() == []


def test_at_shutdown_everybody_is_sent_away_at_another_time(zone: Telling) -> None:
    clients = [Client(zone, number) for number in range(1, 20)]
    for client in clients:
        client.ask(KEEPALIVE.tlv())
    zone.told.push.shut_down()
    farewells = [DsoMessage.parse(one.wire) for one in zone.take() if isinstance(one, Tell)]
    assert all((one.id, one.response, one.rcode) == (0, False, 0) for one in farewells)
    delays = {RetryDelay.parse(one.tlvs[0].data).delay_ms for one in farewells}
    assert len(delays) > 15
    assert max(delays) < 10_000
    assert clients[0].send(KEEPALIVE.tlv()) == []  # §6.6.1.1: ignored from now on
    assert zone.send(query_wire(DESK, "AAAA"), clients[0].way) == []
    assert zone.take() == []


# --- What no client does (RFC 8490 §5.3: abort, and say nothing) -----------------------------


@pytest.mark.parametrize(
    ("identity", "tlv"),
    [
        (0, KEEPALIVE.tlv()),
        (0, Subscribe(NAME, TXT).tlv()),
        (0, Tlv(push.PUSH, b"")),
        (9, Tlv(push.PUSH, b"")),
        (9, Unsubscribe(7).tlv()),
        (9, Tlv(push.RECONFIRM, b"\x00\x00\x1c\x00\x01" + bytes(16))),
        (0, RetryDelay(5).tlv()),
        (9, RetryDelay(5).tlv()),
        (0, Tlv(0x77)),
        (0, Tlv(push.UNSUBSCRIBE, b"1")),
        (0, Tlv(push.RECONFIRM, b"\x00\x00\xff\x00\x01")),
        (7, Subscribe(NAME, TXT).tlv()),
        (9, Subscribe(dns.name.from_text(DESK.upper()), AAAA).tlv()),
    ],
    ids=[
        "keepalive without id",
        "subscribe without id",
        "push",
        "push with id",
        "unsubscribe with id",
        "reconfirm with id",
        "retry delay",
        "retry delay with id",
        "unknown without id",
        "malformed unsubscribe",
        "reconfirm any",
        "id of a subscription",
        "subscribed twice",
    ],
)
def test_fatal_errors(zone: Telling, client: Client, identity: int, tlv: Tlv) -> None:
    client.subscribe()
    assert client.send(tlv, identity=identity) == []
    assert client.is_aborted()
    assert zone.told.size == 0


def test_nothing_unidirectional_before_there_is_a_session(zone: Telling, client: Client) -> None:
    assert client.send(Unsubscribe(7).tlv(), identity=0) == []
    assert client.is_aborted()


@pytest.mark.parametrize("identity", [0, 7])
def test_an_answer_to_nothing_is_fatal(zone: Telling, client: Client, identity: int) -> None:
    wire = DsoMessage(identity, (), response=True).pack()
    assert zone.send(wire, client.way) == []
    assert client.is_aborted()


def test_edns_tcp_keepalive_on_a_session_is_fatal(zone: Telling, client: Client) -> None:
    option = opt(options=struct.pack("!HH", dso.EDNS_TCP_KEEPALIVE, 0))
    wire = query_wire(f"ns.{ALICE}", "A", additional=(option,))
    assert len(zone.send(wire, client.way)) == 1
    client.ask(KEEPALIVE.tlv())
    assert zone.send(wire, client.way) == []
    assert client.is_aborted()


def test_an_unknown_request_is_dsotypeni_with_an_hour(zone: Telling) -> None:
    for kind in (0x77, dso.PADDING, 0):
        answer = Client(zone).ask(Tlv(kind, b"x"))
        assert answer.rcode == rcodes.DSOTYPENI
        assert RetryDelay.parse(answer.tlvs[0].data).delay_ms == 3_600_000


@pytest.mark.parametrize(
    "wire",
    [
        DsoMessage(7).pack(),
        DsoMessage(7, (Tlv(dso.KEEPALIVE, b"short"),)).pack(),
        DsoMessage(7, (Tlv(push.SUBSCRIBE, b"\xc0\x0c\x00\x1c\x00\x01"),)).pack(),
        DsoMessage(7, (KEEPALIVE.tlv(),)).pack()[:-1],
        DsoMessage(7, (KEEPALIVE.tlv(),)).pack()[:11] + b"\x01" + bytes(12),
    ],
    ids=["no TLV", "short keepalive", "compressed name", "cut off", "ARCOUNT"],
)
def test_a_malformed_request_is_formerr(zone: Telling, client: Client, wire: bytes) -> None:
    (answer,) = zone.send(wire, client.way)
    said = DsoMessage.parse(answer)
    assert (said.id, said.rcode) == (7, rcodes.FORMERR)
    assert not zone.told.holds(1)
    assert zone.take() == []
