"""Long-lived queries, DSO and DNS Push against 100,000 hostile messages: an answer, an abort or
silence, never a crash, and nothing left behind by what was refused."""

from __future__ import annotations

import random

from discovery import dso, llq, push, tsig
from discovery.dso import DsoError, DsoMessage, Keepalive, RetryDelay
from discovery.llq import LlqFormatError, LlqOption
from discovery.llq_server import LlqLimits
from discovery.push import Reconfirm, Subscribe, Unsubscribe
from discovery.push_server import PushLimits
from discovery.subscriptions import SubscriptionLimits
from discovery.ways import End, Way
from tests.discovery.codecs.test_push import ADDED, rdata
from tests.discovery.server.helpers import ALICE, SOURCE, add
from tests.discovery.server.subscribing import DESK, Telling, llq_query
from tests.discovery.server.test_push import INTRODUCTION, NAME
from tests.fuzz.mutate import SEED, mutants

CODECS = 100_000
MESSAGES = 12_000
PACE = 0.05  # seconds between them: no account may ask without pause
LIMITS = SubscriptionLimits(llq=LlqLimits(total=50), push=PushLimits(total=50))

SAID = [
    DsoMessage(1, (Keepalive(15_000, 60_000).tlv(), dso.padding_for(24, 128))).pack(),
    DsoMessage(2, (Subscribe(NAME, 28).tlv(),)).pack(),
    DsoMessage(3, (Subscribe(NAME, 255, 255).tlv(),)).pack(),
    DsoMessage(0, (Unsubscribe(2).tlv(),)).pack(),
    DsoMessage(0, (Reconfirm(NAME, 28, 1, rdata("AAAA", "fd00::1")).tlv(),)).pack(),
    DsoMessage(0, (RetryDelay(5).tlv(),)).pack(),
    DsoMessage(7, (), response=True).pack(),
    *push.push_messages([ADDED, ADDED]),
]


def test_codecs_read_or_say_why_not() -> None:
    read = refused = 0
    for wire in mutants(SAID, CODECS):
        for parse in (DsoMessage.parse, push.parse_push, Reconfirm.parse):
            try:
                parse(wire)
                read += 1
            except DsoError:
                refused += 1
        data = wire[12:]
        for parse_data in (Subscribe.parse, Unsubscribe.parse, Keepalive.parse, RetryDelay.parse):
            try:
                parse_data(data)
            except DsoError:
                refused += 1
        try:
            LlqOption.parse(wire[:18])
        except LlqFormatError:
            refused += 1
    assert min(read, refused) > 1000


def test_sessions_survive_whatever_clients_send() -> None:
    zone = Telling(LIMITS)
    zone.update(add(DESK, "AAAA", "fd00::1"))
    way = Way("tls", SOURCE, connection=1)
    aborted = answered = 0
    for number, wire in enumerate(mutants(SAID, MESSAGES)):
        if not zone.told.push._sessions:
            way = Way("tls", SOURCE, connection=number + 1)
            zone.now += PACE
            zone.ask(INTRODUCTION, way)
            zone.send(SAID[0], way)
        answered += len(zone.send(wire, way))
        for told in zone.take():
            if isinstance(told, End):
                zone.told.gone(told.connection)
                aborted += 1
    assert min(aborted, answered) > 1000
    zone.told.gone(way.connection)
    machine = zone.told.push
    left = (machine._sessions, machine._interests, machine._aborted, len(machine))
    assert not any(left)


def test_long_lived_queries_survive_whatever_key_holders_send() -> None:
    zone = Telling(LIMITS)
    chance = random.Random(SEED)
    done, _ = zone.establish()
    asked = [(DESK, "AAAA"), (f"den.{ALICE}", "TXT")]
    seeds = [
        llq_query(asked[:1], [LlqOption(llq.SETUP, lease=7200)]),
        llq_query(asked[:1], [LlqOption(llq.SETUP, id=done.id, lease=7200)]),
        llq_query(asked[:1], [LlqOption(llq.REFRESH, id=done.id, lease=900)]),
        llq_query(asked, [LlqOption(llq.SETUP)] * 2),
    ]
    answers = 0
    for wire in mutants(seeds, MESSAGES):
        if len(wire) < 12 or wire[2] & 0x80:
            continue
        zone.later(PACE)
        way = zone.way((f"192.0.2.{chance.randrange(4)}", 4000))
        answers += len(zone.send(tsig.sign(wire, zone.key, zone.unix)[0], way))
    assert answers > 1000
    assert zone.server.counters["llq.granted"] > 200
    assert zone.told.size <= 50


def test_acknowledgements_survive_whatever_comes() -> None:
    zone = Telling(LIMITS)
    done, _ = zone.establish()
    zone.update(add(DESK, "AAAA", "fd00::1"))
    (event,) = zone.events()
    echo = LlqOption(llq.EVENT, id=done.id)
    right = llq_query([(DESK, "AAAA")], [echo], identity=event.id, flags=0x8000)
    wrong = [wire for wire in mutants([right], MESSAGES) if done.id.to_bytes(8) not in wire]
    for wire in wrong:
        if wire[2:3] and wire[2] & 0x80:
            assert zone.send(wire) == []
    assert zone.server.counters["llq.acknowledged"] == 0
    zone.send(right)
    assert zone.server.counters["llq.acknowledged"] == 1
