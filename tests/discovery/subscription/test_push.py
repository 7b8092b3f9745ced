"""DNS Push as a client sees it (RFC 8765, RFC 8490)."""

from __future__ import annotations

import dns.message
import dns.name
import pytest

from discovery import dso, push, rcodes
from discovery.client import ClientSettings
from discovery.dso import DsoMessage, Keepalive, RetryDelay, Tlv
from discovery.push import Change
from discovery.types import Changed
from tests.discovery.subscription.scripted import AAAA, DESK, DOMAIN, Script, aaaa, llq_of, tsig_off

HOUR_MS = 3_600_000
LAPTOP = dns.name.from_text(f"laptop.{DOMAIN}.")


def subscribed(script: Script | None = None) -> tuple[Script, DsoMessage]:
    """A session with one subscription, not answered yet."""
    script = script or Script()
    script.subscribe()
    script.session()
    (asked,) = script.dso()
    return script, asked


def live() -> tuple[Script, DsoMessage]:
    """A session with one subscription; what stands there was told."""
    script, asked = subscribed()
    script.accept(asked)
    script.push(Change(DESK, AAAA, 1, 120, aaaa(1)))
    assert script.changes() == [Changed(DESK, AAAA, (aaaa(1),), (), (aaaa(1),))]
    return script, asked


def test_a_session_begins_with_a_keepalive_and_subscribes_when_it_is_accepted() -> None:
    script = Script()
    script.subscribe()
    script.up()
    (first,) = script.dso()
    assert first.id != 0 and first.primary is not None
    assert Keepalive.parse(first.primary.data).inactivity_ms == dso.INFINITE_MS
    script.accept(first, Keepalive(15_000, HOUR_MS).tlv())
    (second,) = script.dso()
    assert second.id not in (0, first.id) and second.primary is not None
    assert push.Subscribe.parse(second.primary.data) == push.Subscribe(DESK, AAAA)
    assert script.client.holds and script.client.step != "push"
    script.accept(second)
    assert script.client.step == "push"


def test_the_signed_introduction_comes_before_the_first_message_of_the_session() -> None:
    script = Script()
    script.subscribe()
    script.up()
    introduction, first = script.taken()
    assert dso.is_dso(first) and not dso.is_dso(introduction)
    asked = dns.message.from_wire(tsig_off(introduction)).question[0]
    assert asked.name == dns.name.from_text(f"_push.{DOMAIN}.") and asked.rdtype == 6
    before = script.client.counters["foreign"]
    script.reply(introduction)
    assert script.client.counters["foreign"] == before


def test_every_request_is_padded_to_a_multiple_of_128_octets() -> None:
    script = Script()
    script.subscribe()
    script.up()
    assert [len(wire) % 128 for wire in script.taken() if dso.is_dso(wire)] == [0]


def test_a_replaced_record_is_one_change() -> None:
    script, _ = live()
    script.push(
        Change(DESK, AAAA, 1, push.REMOVE_ONE, aaaa(1)), Change(DESK, AAAA, 1, 120, aaaa(2))
    )
    assert script.changes() == [Changed(DESK, AAAA, (aaaa(2),), (aaaa(1),), (aaaa(2),))]


@pytest.mark.parametrize(("rdtype", "rdclass"), [(AAAA, 1), (255, 1), (0, 255)])
def test_a_collective_removal_takes_all(rdtype: int, rdclass: int) -> None:
    script, _ = live()
    script.push(Change(DESK, rdtype, rdclass, push.REMOVE_ALL, None))
    assert script.changes() == [Changed(DESK, AAAA, (), (aaaa(1),), ())]


def test_a_name_where_nothing_stands_is_told_as_empty_once_it_is_sure() -> None:
    script, asked = subscribed()
    script.accept(asked)
    assert script.changes() == []
    script.wait(1.0)
    assert script.changes() == [Changed(DESK, AAAA, (), (), ())]


def test_a_new_session_tells_only_the_difference() -> None:
    script, _ = live()
    script.do(script.client.transport_down("gone", script.now, script.unix))
    script.session()
    (asked,) = script.dso()
    script.accept(asked)
    script.push(Change(DESK, AAAA, 1, 120, aaaa(1)))
    script.wait(2.0)
    assert script.changes() == []


def test_what_a_new_session_does_not_tell_again_is_gone() -> None:
    script, _ = live()
    script.session()  # the old connection ended without a word
    (asked,) = script.dso()
    script.accept(asked)
    script.push(Change(DESK, AAAA, 1, 120, aaaa(2)))
    assert script.changes() == [Changed(DESK, AAAA, (aaaa(2),), (), (aaaa(1), aaaa(2)))]
    script.wait(2.0)
    assert script.changes() == [Changed(DESK, AAAA, (), (aaaa(1),), (aaaa(2),))]


def test_unsubscribe_names_the_message_id_and_later_pushes_are_ignored() -> None:
    script, asked = live()
    script.unsubscribe()
    (gone,) = script.dso()
    assert gone.id == 0 and gone.primary is not None
    assert push.Unsubscribe.parse(gone.primary.data).subscribe_id == asked.id
    script.push(Change(DESK, AAAA, 1, 120, aaaa(9)))
    assert script.changes() == []


def test_one_subscription_serves_all_who_want_it() -> None:
    script, _ = live()
    script.subscribe()
    assert script.sent == []  # a duplicate would be fatal (RFC 8765 §6.2)
    assert script.changes() == [Changed(DESK, AAAA, (), (), (aaaa(1),))]
    script.unsubscribe()
    assert script.sent == []


@pytest.mark.parametrize(
    "rcode", [rcodes.NOTIMP, rcodes.DSOTYPENI, rcodes.NOTAUTH, rcodes.SERVFAIL]
)
def test_a_server_without_sessions_is_asked_by_long_lived_queries(rcode: int) -> None:
    script = Script()
    script.subscribe()
    script.up()
    (asked,) = script.dso()
    script.accept(asked, rcode=rcode)
    (setup,) = script.taken()
    assert llq_of(setup) is not None
    script.wait(push.retry_delay_ms(rcode) / 1000 + 0.1)
    assert any(dso.is_dso(wire) for wire in script.sent)  # it climbs again


def test_a_refused_question_is_asked_again_and_polled_meanwhile() -> None:
    script, _ = live()
    script.subscribe(LAPTOP)
    (asked,) = script.dso()
    script.accept(asked, RetryDelay(30_000).tlv(), rcode=rcodes.REFUSED)
    script.wait(5.0)
    assert [dso.is_dso(wire) for wire in script.taken()][:1] == [False]
    assert script.client.step == "push"
    script.wait(26.0)
    assert any(dso.is_dso(wire) for wire in script.taken())


def test_a_session_in_which_all_is_refused_is_given_up_for_long_lived_queries() -> None:
    script, asked = subscribed()
    script.accept(asked, rcode=rcodes.REFUSED)
    (setup,) = script.taken()
    assert llq_of(setup) is not None and script.client.step == "poll"


def test_a_keepalive_is_sent_within_the_interval() -> None:
    script = Script()
    script.subscribe()
    script.session(interval_ms=60_000)
    (asked,) = script.dso()
    script.accept(asked)
    script.wait(60.0)
    (again,) = script.dso()
    assert again.primary is not None and again.primary.type == dso.KEEPALIVE
    script.wait(30.1)  # nobody answers: RFC 8490 §5.1
    assert len(script.dropped()) == 1


def test_the_server_may_change_the_interval_but_not_below_ten_seconds() -> None:
    script, _ = live()
    script.hear(DsoMessage(0, (Keepalive(dso.INFINITE_MS, 20_000).tlv(),)).pack())
    script.wait(19.0)
    assert len(script.dso()) == 1
    script.hear(DsoMessage(0, (Keepalive(dso.INFINITE_MS, 9_999).tlv(),)).pack())
    assert len(script.dropped()) == 1


def test_a_server_that_sends_us_away_is_left_for_that_time() -> None:
    script, _ = live()
    script.away(7_000)
    (drop,) = script.dropped()
    assert drop.pause == 7.0


@pytest.mark.parametrize(
    "wire",
    [
        DsoMessage(0, (Tlv(push.PUSH),)).pack(),
        DsoMessage(0, (Tlv(0x1234),)).pack(),
        DsoMessage(0).pack(),
        DsoMessage(77, (Tlv(dso.KEEPALIVE),)).pack(),
        DsoMessage(0, response=True).pack(),
        DsoMessage(4711, response=True).pack(),
        DsoMessage(0, (Tlv(dso.RETRY_DELAY, b"\0"),)).pack(),
    ],
)
def test_a_server_that_breaks_the_rules_is_left(wire: bytes) -> None:
    script, _ = live()
    script.hear(wire)
    assert len(script.dropped()) == 1
    assert script.client.step != "push"


def test_a_connection_that_ends_when_a_session_is_asked_for_is_not_asked_again_soon() -> None:
    script = Script()
    script.subscribe()
    script.up()
    script.taken()
    script.up()
    assert not any(dso.is_dso(wire) for wire in script.taken())


def test_no_session_is_asked_for_where_the_transport_is_not_tls() -> None:
    script = Script(ClientSettings(secure=False))
    script.subscribe()
    script.up()
    assert not any(dso.is_dso(wire) for wire in script.taken())


def test_a_name_in_other_letters_is_the_same() -> None:
    script, _ = live()
    shouted = dns.name.from_text(f"DESK.{DOMAIN.upper()}.")
    script.push(Change(shouted, AAAA, 1, push.REMOVE_ONE, aaaa(1)))
    assert script.changes()[0].records == ()
