"""Long-lived queries at the rendezvous (RFC 8764; B42-B47), message by message."""

from __future__ import annotations

import pytest

from discovery import llq, tsig
from discovery.llq import LlqOption
from discovery.llq_server import LlqLimits
from discovery.subscriptions import SubscriptionLimits
from discovery.ways import End, Tell, Way
from tests.discovery.server.helpers import (
    ALICE,
    ANY,
    BOB,
    NONE,
    SOURCE,
    UNIX,
    add,
    key_of,
    opt,
    parse,
    query_wire,
    rr,
    update_wire,
)
from tests.discovery.server.subscribing import (
    ASKED_AT,
    DESK,
    Telling,
    llq_query,
    options_of,
    records_of,
)

ONE = "fd00::1"
TWO = "fd00::2"
SETUP = LlqOption(llq.SETUP, lease=7200)
AAAA = (DESK, "AAAA")


@pytest.fixture
def zone() -> Telling:
    return Telling()


def limited(**limits: int) -> Telling:
    return Telling(SubscriptionLimits(llq=LlqLimits(**limits)))


# --- The handshake (§5.2) -------------------------------------------------------------------


def test_b44_the_four_way_handshake(zone: Telling) -> None:
    zone.update(add(DESK, "AAAA", ONE))
    challenge, answer = zone.llq(SETUP)
    assert (challenge.opcode, challenge.error, challenge.lease) == (llq.SETUP, 0, 7200)
    assert challenge.id
    assert answer.id == 0x1001
    assert not answer.answer
    assert zone.told.size == 0
    done, answer = zone.llq(LlqOption(llq.SETUP, id=challenge.id, lease=challenge.lease))
    assert (done.error, done.id, done.lease) == (0, challenge.id, 7200)
    assert records_of(answer) == [f"{DESK}. 120 AAAA {ONE}"]
    assert zone.told.size == 1


def test_nothing_is_kept_before_the_challenge_came_back(zone: Telling) -> None:
    """The half-open flood that RFC 8764 Appendix A leaves open: a Setup costs no memory."""
    ids = {zone.llq(SETUP, way=zone.way((f"192.0.2.{n}", n + 1)))[0].id for n in range(200)}
    assert len(ids) == 200
    assert zone.told.size == 0
    assert not zone.told.is_ready
    assert zone.told.next_alarm == float("inf")


def test_a_repeated_setup_gets_the_same_challenge(zone: Telling) -> None:
    first, _ = zone.llq(SETUP)
    zone.later(6)
    assert zone.llq(SETUP)[0] == first


@pytest.mark.parametrize(
    ("asked", "granted"), [(0, 900), (899, 900), (900, 900), (7200, 7200), (2**32 - 1, 7200)]
)
def test_b45_leases_are_from_900_to_7200_seconds(asked: int, granted: int) -> None:
    zone = Telling()
    assert zone.llq(LlqOption(llq.SETUP, lease=asked))[0].lease == granted
    done, _ = zone.establish()
    assert zone.llq(LlqOption(llq.REFRESH, id=done.id, lease=asked or 1))[0].lease == granted


def test_only_the_client_that_was_challenged_can_answer(zone: Telling) -> None:
    challenge, _ = zone.llq(SETUP)
    answer = LlqOption(llq.SETUP, id=challenge.id, lease=7200)
    elsewhere = zone.way(("192.0.2.8", SOURCE[1]))
    other_port = zone.way((SOURCE[0], 40001))
    stream = Way("tcp", SOURCE, ASKED_AT, 7)
    for way in (elsewhere, other_port, stream):
        assert zone.llq(answer, way=way)[0].error == llq.NO_SUCH_LLQ
    assert zone.llq(answer, (DESK, "TXT"))[0].error == llq.NO_SUCH_LLQ
    assert zone.llq(LlqOption(llq.SETUP, id=challenge.id, lease=900))[0].error == llq.NO_SUCH_LLQ
    assert zone.llq(LlqOption(llq.SETUP, id=challenge.id ^ 1, lease=7200))[0].error
    assert zone.told.size == 0
    assert zone.llq(answer)[0].error == llq.NO_ERROR


def test_a_challenge_is_good_for_its_lease_and_no_longer(zone: Telling) -> None:
    challenge, _ = zone.llq(LlqOption(llq.SETUP, lease=900))
    answer = LlqOption(llq.SETUP, id=challenge.id, lease=900)
    zone.later(890)
    assert zone.llq(answer)[0].error == llq.NO_ERROR
    zone.later(2000)
    assert zone.llq(answer)[0].error == llq.NO_SUCH_LLQ


def test_a_repeated_challenge_response_gets_the_answers_again(zone: Telling) -> None:
    zone.update(add(DESK, "AAAA", ONE))
    done, _ = zone.establish()
    zone.later(10)
    again, answer = zone.llq(LlqOption(llq.SETUP, id=done.id, lease=7200))
    assert (again.id, again.lease) == (done.id, 7190)
    assert records_of(answer) == [f"{DESK}. 120 AAAA {ONE}"]
    assert zone.told.size == 1


def test_a_client_that_begins_anew_replaces_its_query(zone: Telling) -> None:
    first, _ = zone.establish()
    zone.later(300)
    second, _ = zone.establish()
    assert first.id != second.id
    assert zone.told.size == 1
    assert zone.llq(LlqOption(llq.REFRESH, id=first.id, lease=900))[0].error == llq.NO_SUCH_LLQ


def test_several_questions_in_one_message_some_granted(zone: Telling) -> None:
    zone.update(add(DESK, "AAAA", ONE), add(DESK, "TXT", '"a"'))
    questions = [AAAA, (DESK, "TXT"), (DESK, "ANY")]
    answer = zone.ask(llq_query(questions, [SETUP] * 3))
    challenges = options_of(answer)
    assert [c.error for c in challenges] == [0, 0, llq.FORMAT_ERR]
    assert len(answer.question) == 3
    echoed = [LlqOption(llq.SETUP, id=c.id, lease=c.lease) for c in challenges[:2]]
    answer = zone.ask(llq_query(questions[:2], echoed))
    assert [o.id for o in options_of(answer)] == [c.id for c in challenges[:2]]
    assert len(answer.answer) == 2
    assert zone.told.size == 2


def test_additional_records_come_with_the_answers(zone: Telling) -> None:
    service = f"_ssh._tcp.{ALICE}"
    zone.update(add(service, "SRV", f"0 0 22 {DESK}."), add(DESK, "AAAA", ONE))
    _, answer = zone.establish((service, "SRV"))
    assert [str(rrset[0]) for rrset in answer.additional] == [ONE]


def test_answers_that_do_not_fit_one_packet_follow_as_events(zone: Telling) -> None:
    """§5.2.4: all of them, without delay, and no additional record instead of an answer."""
    for part in range(4):
        zone.update(*(add(DESK, "TXT", f'"{part}-{n}-{"x" * 100}"') for n in range(10)))
    _, answer = zone.establish((DESK, "TXT"))
    seen = records_of(answer)
    assert 0 < len(seen) < 40
    messages = 0
    while events := zone.events():
        for event in events:
            assert event.additional == []
            seen += records_of(event)
            messages += 1
            zone.acknowledge(event)
    assert len(seen) == len(set(seen)) == 40
    assert messages >= 3


# --- Errors ---------------------------------------------------------------------------------


def test_b58_unsigned_and_wrongly_signed_queries_are_refused(zone: Telling) -> None:
    (answer,) = zone.send(llq_query([AAAA], [SETUP]))
    assert parse(answer).rcode() == 5
    assert not options_of(parse(answer))
    forged, _ = tsig.sign(llq_query([AAAA], [SETUP]), key_of(BOB), UNIX)
    (answer,) = zone.send(forged.replace(b"\x03bob", b"\x05alice"))
    assert parse(answer).rcode() in (1, 9)
    assert zone.ask(llq_query([AAAA], [SETUP]), key=key_of(BOB)).rcode() == 5
    assert zone.told.size == 0


@pytest.mark.parametrize(
    ("option", "error"),
    [
        (LlqOption(llq.SETUP, version=2), llq.BAD_VERS),
        (LlqOption(llq.EVENT), llq.FORMAT_ERR),
        (LlqOption(9), llq.UNKNOWN_ERR),
        (LlqOption(llq.SETUP, id=77, lease=900), llq.NO_SUCH_LLQ),
        (LlqOption(llq.REFRESH, id=77, lease=900), llq.NO_SUCH_LLQ),
        (LlqOption(llq.REFRESH, id=77), llq.NO_SUCH_LLQ),
    ],
)
def test_errors_are_answered_in_the_option(zone: Telling, option: LlqOption, error: int) -> None:
    found, answer = zone.llq(option)
    assert found.error == error
    assert found.lease == 0
    assert answer.rcode() == 0  # another RCODE would say "this server knows no LLQ" (§5.2.2)
    assert found.version == llq.VERSION


@pytest.mark.parametrize("data", [b"", bytes(17), bytes(19)])
def test_a_malformed_option_is_a_format_error_of_the_llq_alone(zone: Telling, data: bytes) -> None:
    answer = zone.ask(llq_query([AAAA], [data]))
    assert answer.rcode() == 0
    assert [o.error for o in options_of(answer)] == [llq.FORMAT_ERR]


def test_options_and_questions_must_be_as_many(zone: Telling) -> None:
    answer = zone.ask(llq_query([AAAA, (DESK, "TXT")], [SETUP]))
    assert [o.error for o in options_of(answer)] == [llq.FORMAT_ERR] * 2
    assert zone.ask(llq_query([], [SETUP])).rcode() == 1


@pytest.mark.parametrize("rdclass", [ANY, NONE, 0])
def test_only_class_in_and_types_with_data_are_watched(zone: Telling, rdclass: int) -> None:
    answer = zone.ask(llq_query([AAAA], [SETUP], rdclass=rdclass))
    assert [o.error for o in options_of(answer)] == [llq.FORMAT_ERR]


@pytest.mark.parametrize("limit", ["total", "per_account", "per_source"])
def test_a_full_server_says_when_to_ask_again(limit: str) -> None:
    zone = limited(**{limit: 2, "retry_after": 77})
    waiting, _ = zone.llq(SETUP, (DESK, "SRV"))
    zone.establish()
    zone.establish((DESK, "TXT"))
    full, _ = zone.llq(SETUP, (DESK, "A"))
    assert (full.error, full.id, full.lease) == (llq.SERV_FULL, 0, 77)
    late, _ = zone.llq(LlqOption(llq.SETUP, id=waiting.id, lease=7200), (DESK, "SRV"))
    assert (late.error, late.lease) == (llq.SERV_FULL, 77)
    assert zone.llq(SETUP)[0].error == llq.NO_ERROR  # its own again
    assert zone.told.size == 2


def test_limits_of_one_source_leave_room_for_others() -> None:
    zone = limited(per_source=1)
    zone.establish()
    assert zone.llq(SETUP, (DESK, "A"))[0].error == llq.SERV_FULL
    zone.establish((DESK, "A"), zone.way(("192.0.2.8", 1)))
    assert zone.told.size == 2


# --- Events (§6) ----------------------------------------------------------------------------


def test_b46_a_new_record_and_one_that_left_are_told(zone: Telling) -> None:
    done, _ = zone.establish()
    zone.update(add(DESK, "AAAA", ONE))
    (event,) = zone.events()
    assert event.flags & 0x8000
    assert [(q.name.to_text(), q.rdtype) for q in event.question] == [(f"{DESK}.", 28)]
    assert options_of(event) == [LlqOption(llq.EVENT, id=done.id)]
    assert records_of(event) == [f"{DESK}. 120 AAAA {ONE}"]
    zone.acknowledge(event)
    zone.update(rr(DESK, "AAAA", ANY))
    (gone,) = zone.take()
    assert isinstance(gone, Tell)
    assert gone.way == zone.way()
    assert b"\x00\x1c\x00\x01\xff\xff\xff\xff\x00\x10" in gone.wire  # AAAA IN, TTL -1


def test_a_replaced_record_is_one_event(zone: Telling) -> None:
    zone.update(add(DESK, "AAAA", ONE))
    zone.establish()
    zone.update(rr(DESK, "AAAA", ANY), add(DESK, "AAAA", TWO))
    (event,) = zone.take()
    assert isinstance(event, Tell)
    assert event.wire.count(b"\x00\x1c\x00\x01\xff\xff\xff\xff\x00\x10") == 1
    assert b"\x00\x1c\x00\x01\x00\x00\x00\x78\x00\x10" in event.wire


def test_only_who_asked_is_told(zone: Telling) -> None:
    zone.establish()
    zone.update(add(DESK, "TXT", '"a"'), add(f"den.{ALICE}", "AAAA", ONE))
    assert zone.events() == []


def test_a_cname_at_the_name_is_told(zone: Telling) -> None:
    zone.establish()
    zone.update(add(DESK, "CNAME", f"den.{ALICE}."))
    (event,) = zone.events()
    assert records_of(event) == [f"{DESK}. 120 CNAME den.{ALICE}."]


def test_a_refreshed_record_is_no_event(zone: Telling) -> None:
    zone.update(add(DESK, "AAAA", ONE))
    zone.establish()
    zone.update(add(DESK, "AAAA", ONE))
    assert zone.events() == []


def test_b47_an_event_is_sent_three_times_then_the_query_is_gone(zone: Telling) -> None:
    done, _ = zone.establish()
    zone.update(add(DESK, "AAAA", ONE))
    (first,) = zone.events()
    for wait in (2, 4):
        zone.later(wait - 0.01)
        assert zone.events() == []
        zone.later(0.01)
        (again,) = zone.events()
        assert again.id == first.id
        assert records_of(again) == records_of(first)
    zone.later(7.99)
    assert zone.told.size == 1
    zone.later(0.01)
    assert zone.told.size == 0
    assert zone.events() == []
    assert zone.server.counters["llq.unreachable"] == 1
    assert zone.llq(LlqOption(llq.REFRESH, id=done.id, lease=900))[0].error == llq.NO_SUCH_LLQ


def test_an_acknowledgement_stops_the_repetition(zone: Telling) -> None:
    zone.establish()
    zone.update(add(DESK, "AAAA", ONE))
    (event,) = zone.events()
    zone.later(2)
    (event,) = zone.events()
    zone.acknowledge(event)
    zone.later(100)
    assert zone.events() == []
    assert zone.told.size == 1


def test_an_acknowledgement_must_fit_in_id_query_and_address(zone: Telling) -> None:
    done, _ = zone.establish()
    zone.update(add(DESK, "AAAA", ONE))
    (event,) = zone.events()
    ours = LlqOption(llq.EVENT, id=done.id)
    wrong = [
        llq_query([AAAA], [ours], identity=event.id ^ 1, flags=0x8000),
        llq_query([AAAA], [LlqOption(llq.EVENT, id=done.id ^ 1)], identity=event.id, flags=0x8000),
        query_wire(*AAAA, identity=event.id)[:2] + b"\x80" + query_wire(*AAAA)[3:],
        llq_query([AAAA], [ours], identity=event.id, flags=0x8000)[:-5],
    ]
    for wire in wrong:
        assert zone.send(wire) == []
    right = llq_query([AAAA], [ours], identity=event.id, flags=0x8000)
    assert zone.send(right, zone.way((SOURCE[0], 1))) == []
    assert zone.server.counters["llq.acknowledged"] == 0
    assert zone.server.counters["dropped"] == len(wrong) + 1
    zone.later(2)
    assert len(zone.events()) == 1
    zone.send(right)
    assert zone.server.counters["llq.acknowledged"] == 1


def test_what_happens_meanwhile_is_told_in_the_next_event(zone: Telling) -> None:
    zone.establish()
    zone.update(add(DESK, "AAAA", ONE))
    (first,) = zone.events()
    zone.update(add(DESK, "AAAA", TWO))
    zone.update(add(DESK, "AAAA", "fd00::3"))
    zone.update(rr(DESK, "AAAA", NONE, 0, TWO))
    assert zone.events() == []
    zone.acknowledge(first)
    (second,) = zone.take()
    assert isinstance(second, Tell)
    said = parse(second.wire)
    assert second.wire.count(b"\xff\xff\xff\xff\x00\x10") == 1
    assert sum(len(rrset) for rrset in said.answer) == 2
    zone.acknowledge(said)
    assert zone.events() == []


def test_a_client_that_lags_too_far_behind_is_given_up() -> None:
    zone = limited(lag=3)
    zone.establish()
    for number in range(5):
        zone.update(add(DESK, "AAAA", f"fd00::{number + 1}"))
        zone.take()
    assert zone.server.counters["llq.lagging"] == 1
    assert zone.told.size == 0


def test_events_go_to_where_the_setup_came_from(zone: Telling) -> None:
    zone.establish()
    moved = zone.way((SOURCE[0], 40009))
    done, _ = zone.establish((DESK, "TXT"))
    assert zone.llq(LlqOption(llq.REFRESH, id=done.id, lease=900), (DESK, "TXT"), moved)[0].lease
    zone.update(add(DESK, "TXT", '"a"'))
    (event,) = zone.take()
    assert isinstance(event, Tell)
    assert event.way == Way("udp", SOURCE, ASKED_AT)


# --- Leases (§7) ----------------------------------------------------------------------------


def test_no_event_after_the_lease(zone: Telling) -> None:
    zone.establish(lease=900)
    zone.later(899)
    assert zone.told.size == 1
    zone.update(add(DESK, "AAAA", ONE))
    zone.later(1)
    assert zone.told.size == 0
    assert zone.events() == []


def test_a_refresh_prolongs_and_answers_nothing(zone: Telling) -> None:
    zone.update(add(DESK, "AAAA", ONE))
    done, _ = zone.establish(lease=900)
    zone.later(720)
    found, answer = zone.llq(LlqOption(llq.REFRESH, id=done.id, lease=900))
    assert (found.opcode, found.error, found.id, found.lease) == (llq.REFRESH, 0, done.id, 900)
    assert answer.answer == []
    zone.later(800)
    assert zone.told.size == 1
    zone.later(100)
    assert zone.told.size == 0


def test_one_refresh_for_many(zone: Telling) -> None:
    first, _ = zone.establish()
    second, _ = zone.establish((DESK, "TXT"))
    options = [LlqOption(llq.REFRESH, id=o.id, lease=7200) for o in (first, second)]
    options.append(LlqOption(llq.REFRESH, id=5, lease=7200))
    answer = zone.ask(llq_query([AAAA, (DESK, "TXT"), (DESK, "A")], options))
    assert [(o.error, o.id) for o in options_of(answer)] == [
        (0, first.id),
        (0, second.id),
        (llq.NO_SUCH_LLQ, 5),
    ]


def test_a_lease_of_zero_gives_the_query_up(zone: Telling) -> None:
    done, _ = zone.establish()
    found, _ = zone.llq(LlqOption(llq.REFRESH, id=done.id))
    assert (found.error, found.lease) == (0, 0)
    assert zone.told.size == 0
    zone.update(add(DESK, "AAAA", ONE))
    assert zone.events() == []


def test_nobody_else_refreshes_or_ends_a_query(zone: Telling) -> None:
    done, _ = zone.establish()
    elsewhere = zone.way(("192.0.2.8", SOURCE[1]))
    for option, question in (
        (LlqOption(llq.REFRESH, id=done.id), AAAA),
        (LlqOption(llq.REFRESH, id=done.id), (DESK, "TXT")),
    ):
        way = elsewhere if question == AAAA else None
        assert zone.llq(option, question, way)[0].error == llq.NO_SUCH_LLQ
    assert zone.told.size == 1


def test_a_record_that_leaves_with_its_lease_is_told(zone: Telling) -> None:
    leased = opt(options=b"\x00\x02\x00\x04" + (1800).to_bytes(4))
    wire = update_wire(updates=[add(DESK, "AAAA", ONE)], additional=(leased,))
    assert zone.ask(wire, Way("tcp", SOURCE)).rcode() == 0
    zone.establish()
    zone.later(1800)
    zone.server.tick(zone.unix)
    (event,) = zone.take()
    assert isinstance(event, Tell)
    assert b"\x00\x1c\x00\x01\xff\xff\xff\xff\x00\x10" in event.wire


# --- Streams --------------------------------------------------------------------------------


def test_over_a_connection_the_query_lives_and_ends_with_it(zone: Telling) -> None:
    way = Way("tls", SOURCE, ASKED_AT, 3)
    zone.establish(way=way)
    assert zone.told.holds(3)
    zone.update(add(DESK, "AAAA", ONE))
    (event,) = zone.take()
    assert isinstance(event, Tell)
    assert event.way == way
    zone.later(6)
    assert zone.events() == []  # the stream repeats by itself
    zone.acknowledge(parse(event.wire), way)
    zone.later(30)
    assert zone.told.holds(3)
    zone.told.gone(3)
    assert not zone.told.holds(3)
    assert zone.told.size == 0


def test_a_stream_that_never_acknowledges_loses_its_query(zone: Telling) -> None:
    zone.establish(way=Way("tcp", SOURCE, ASKED_AT, 3))
    zone.update(add(DESK, "AAAA", ONE))
    zone.events()
    zone.later(14)
    assert zone.told.size == 0


def test_nonsense_ends_a_stream(zone: Telling) -> None:
    way = Way("tcp", SOURCE, ASKED_AT, 3)
    assert zone.send(b"\x00\x01\x80" + bytes(9), way) == []
    assert zone.take() == [End(3, abort=False)]


# --- Much of it -----------------------------------------------------------------------------


def test_an_event_is_written_once_for_all(zone: Telling) -> None:
    for number in range(50):
        zone.establish(way=zone.way(("192.0.2.7", 1000 + number)))
    zone.update(add(DESK, "AAAA", ONE))
    events = zone.events()
    assert len({event.id for event in events}) > 45
    assert len({options_of(event)[0].id for event in events}) == 50
    assert len(zone.told.llq._watches) == 1


def test_events_leave_in_portions(zone: Telling) -> None:
    for number in range(30):
        zone.establish(way=zone.way(("192.0.2.7", 1000 + number)))
    zone.update(add(DESK, "AAAA", ONE))
    portions = []
    while zone.told.is_ready:
        portions.append(len(zone.told.take(16, zone.now, zone.unix)))
    assert portions == [16, 14]


def test_what_is_gone_leaves_nothing_behind(zone: Telling) -> None:
    for number in range(400):
        way = zone.way(("192.0.2.7", 1000 + number))
        done, _ = zone.establish(way=way)
        zone.llq(LlqOption(llq.REFRESH, id=done.id), way=way)
    machine = zone.told.llq
    assert len(machine._alarms._heap) < 100
    tables = (machine._watches, machine._types, machine._asked, machine._awaited, machine._ways)
    assert not any(tables)
    assert not any((machine._accounts, machine._sources, machine._streams, machine._held))
