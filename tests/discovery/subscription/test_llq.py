"""Long-lived queries as a client sees them (RFC 8764; B43-B47)."""

from __future__ import annotations

import pytest

from discovery import llq
from discovery.client import ClientSettings
from discovery.llq import LlqOption
from discovery.types import Changed
from tests.discovery.subscription.scripted import AAAA, DESK, Script, aaaa, llq_of

UDP = ClientSettings(reliable=False, secure=False)
TCP = ClientSettings(secure=False)
ID = 0x1122334455667788
QUESTION = (DESK, AAAA)


def only(sent: list[bytes]) -> tuple[bytes, LlqOption]:
    """The one message with an LLQ option among these, and the option."""
    found = [(wire, option) for wire in sent if (option := llq_of(wire)) is not None]
    assert len(found) == 1
    return found[0]


def setup(settings: ClientSettings = UDP) -> tuple[Script, bytes, LlqOption]:
    script = Script(settings)
    script.subscribe()
    script.up()
    return script, *only(script.taken())


def established(settings: ClientSettings = UDP, lease: int = 7200) -> Script:
    script, first, _ = setup(settings)
    script.reply(first, LlqOption(llq.SETUP, 0, ID, lease))
    second, _ = only(script.taken())
    script.reply(second, LlqOption(llq.SETUP, 0, ID, lease), (aaaa(1),))
    assert script.changes() == [Changed(DESK, AAAA, (aaaa(1),), (), (aaaa(1),))]
    return script


@pytest.mark.parametrize("settings", [UDP, TCP])
def test_b44_the_four_way_handshake(settings: ClientSettings) -> None:
    script, first, option = setup(settings)
    assert option == LlqOption(llq.SETUP, 0, 0, 7200)  # B45: the longest lease of BTMM
    script.reply(first, LlqOption(llq.SETUP, 0, ID, 5000))
    second, option = only(script.taken())
    assert option == LlqOption(llq.SETUP, 0, ID, 5000)
    assert script.client.step == "poll"  # nothing stands before the fourth message
    script.reply(second, LlqOption(llq.SETUP, 0, ID, 5000), (aaaa(1), aaaa(2)))
    assert script.client.step == "llq"
    assert script.changes()[0].records == (aaaa(1), aaaa(2))


def test_setup_is_sent_three_times_and_then_hourly() -> None:
    script, first, _ = setup()
    times = []
    for _ in range(150):
        script.wait(0.1)
        times += [script.now for wire in script.taken() if wire == first]
    assert [round(at - 1000, 1) for at in times] == [2.0, 6.0]
    assert script.client.step == "poll"
    script.wait(3580)
    assert not any(llq_of(wire) for wire in script.taken())
    script.wait(20)
    assert any(llq_of(wire) for wire in script.taken())


def test_a_second_challenge_changes_nothing() -> None:
    script, first, _ = setup()
    script.reply(first, LlqOption(llq.SETUP, 0, ID, 7200))
    second, _ = only(script.taken())
    script.reply(second, LlqOption(llq.SETUP, 0, ID, 7200), (aaaa(1),))
    script.changes()
    script.reply(first, LlqOption(llq.SETUP, 0, ID + 1, 7200))  # RFC 8764 appendix A
    assert not [wire for wire in script.taken() if llq_of(wire)]
    assert script.client.step == "llq"


def test_b46_b47_events_add_and_remove_and_are_acknowledged() -> None:
    script = established()
    script.event(77, QUESTION, ID, (aaaa(1), True), (aaaa(2), False))
    assert script.changes() == [Changed(DESK, AAAA, (aaaa(2),), (aaaa(1),), (aaaa(2),))]
    (ack,) = script.taken()
    assert ack[:2] == (77).to_bytes(2) and ack[2] & 0x80
    assert llq_of(ack) == LlqOption(llq.EVENT, 0, ID, 0)
    script.event(77, QUESTION, ID, (aaaa(1), True), (aaaa(2), False))  # our ACK was lost
    assert len(script.taken()) == 1 and script.changes() == []


def test_a_late_copy_of_an_older_event_changes_nothing() -> None:
    script = established()
    script.event(1, QUESTION, ID, (aaaa(2), False))
    script.event(2, QUESTION, ID, (aaaa(2), True))
    script.changes()
    script.event(1, QUESTION, ID, (aaaa(2), False))
    assert script.changes() == []


def test_an_event_of_an_unknown_id_is_ignored() -> None:
    script = established()
    script.event(77, QUESTION, ID + 1, (aaaa(2), False))
    assert script.taken() == [] and script.changes() == []


def test_an_unsigned_event_is_no_more_than_a_reason_to_ask() -> None:
    script = established()
    script.event(77, QUESTION, ID, (aaaa(2), False), signed=False)
    assert script.changes() == []
    assert len(script.taken()) == 1  # acknowledged all the same


def test_a_refresh_is_sent_at_80_90_and_95_percent_and_then_all_is_over() -> None:
    script = established(TCP, lease=1000)
    begun, times = script.now, []
    for _ in range(999):
        script.wait(1.0)
        times += [round(script.now - begun) for wire in script.taken() if llq_of(wire)]
    assert times == [800, 900, 950]
    script.wait(2.0)
    assert script.client.step == "poll"


def test_a_refresh_that_is_answered_renews_the_lease() -> None:
    script = established(TCP, lease=1000)
    script.wait(800)
    wire, option = only(script.taken())
    assert option == LlqOption(llq.REFRESH, 0, ID, 1000)
    script.reply(wire, LlqOption(llq.REFRESH, 0, ID, 2000))
    script.wait(1599)
    assert not [wire for wire in script.taken() if llq_of(wire)]
    script.wait(2)
    assert only(script.taken())[1].opcode == llq.REFRESH


def test_no_such_llq_begins_anew_at_once() -> None:
    script = established(TCP, lease=1000)
    script.wait(800)
    wire, _ = only(script.taken())
    script.reply(wire, LlqOption(llq.REFRESH, llq.NO_SUCH_LLQ, ID, 0))
    assert only(script.taken())[1] == LlqOption(llq.SETUP, 0, 0, 7200)


def test_a_full_server_says_when_to_come_back() -> None:
    script, first, _ = setup(TCP)
    script.reply(first, LlqOption(llq.SETUP, llq.SERV_FULL, 0, 120))
    script.wait(119)
    assert not [wire for wire in script.taken() if llq_of(wire)]
    script.wait(2)
    assert only(script.taken())[1].opcode == llq.SETUP


@pytest.mark.parametrize("rcode", [0, 1, 4])
def test_a_server_without_long_lived_queries_is_polled(rcode: int) -> None:
    script, first, _ = setup(TCP)
    script.reply(first, None, rcode=rcode)
    script.wait(0)
    assert script.client.step == "poll"
    script.wait(10)
    assert [wire for wire in script.taken() if not llq_of(wire)]


def test_giving_one_up_is_a_refresh_without_a_lease() -> None:
    script = established(TCP)
    script.unsubscribe()
    assert only(script.taken())[1] == LlqOption(llq.REFRESH, 0, ID, 0)


def test_a_new_way_to_the_server_sets_up_anew() -> None:
    script = established()
    script.up()
    assert only(script.taken())[1] == LlqOption(llq.SETUP, 0, 0, 7200)
    assert script.changes() == []  # what is known stays known
