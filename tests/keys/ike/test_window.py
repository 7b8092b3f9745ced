"""The window and the echoes, to the second and to the entry (RFC 7296 §2.1 to §2.4)."""

from __future__ import annotations

import pytest

from keys.ike.settings import IkeSettings
from keys.ike.window import Echoes, Window, digest

# Without jitter the times are plain: 1, 3, 7, 15, 19, 23, … seconds after the first try.
EXACT = IkeSettings(
    retransmit_first=1.0, retransmit_factor=2.0, retransmit_cap=4.0, retransmit_jitter=0.0
)


def window(settings: IkeSettings = EXACT, uniform: float = 0.5) -> Window:
    return Window(settings, lambda: uniform)


def test_a_request_is_sent_again_at_exact_times_and_given_up_after_the_last() -> None:
    one = window()
    one.sent((b"asks",), 100.0, 4)
    assert (one.next_id, one.expected) == (1, 0)
    out = one.outstanding
    assert out is not None
    assert (out.message_id, out.data, out.first_sent, out.tries_left) == (0, (b"asks",), 100.0, 3)
    for at, interval in ((101.0, 2.0), (103.0, 4.0), (107.0, 4.0)):
        assert out.due == at
        assert one.due(at - 0.001) is None and not one.gave_up(at)
        assert one.due(at) == (b"asks",)
        assert out.repeated and out.interval == interval
    assert out.repeats == 3 and out.tries_left == 0 and out.first_sent == 100.0
    assert one.due(111.0) is None, "no tries are left"
    assert not one.gave_up(110.999)
    assert one.gave_up(111.0)


def test_one_try_is_one_message() -> None:
    one = window()
    one.sent((b"asks",), 0.0, 1)
    assert one.due(1.0) is None and one.due(1000.0) is None
    assert not one.gave_up(0.999) and one.gave_up(1.0)


def test_a_peer_that_shows_up_gets_the_request_at_once() -> None:
    one = window()
    one.hasten(5.0)
    assert one.outstanding is None
    one.sent((b"asks",), 0.0, 1)
    one.hasten(5.0)
    assert not one.gave_up(5.0)
    assert one.due(5.0) == (b"asks",) and one.due(5.0) is None
    one.answered(0)
    one.sent((b"asks",), 0.0, 4)
    one.hasten(0.5)
    assert one.outstanding is not None and one.outstanding.tries_left == 3


def test_a_fresh_request_is_no_repeat() -> None:
    one = window()
    one.sent((b"asks",), 0.0, 3)
    assert one.outstanding is not None and one.outstanding.repeated is False


def test_nothing_is_due_where_nothing_waits() -> None:
    one = window()
    assert one.due(1e9) is None and not one.gave_up(1e9)
    assert one.answered(0) is None


@pytest.mark.parametrize(
    ("uniform", "factor"), [(0.0, 0.9), (0.5, 1.0), (0.75, 1.05), (0.99999, 1.099998)]
)
def test_jitter_is_symmetric(uniform: float, factor: float) -> None:
    one = window(IkeSettings(retransmit_first=2.0, retransmit_jitter=0.1), uniform)
    one.sent((b"asks",), 10.0, 3)
    assert one.outstanding is not None
    assert one.outstanding.due == pytest.approx(10 + 2 * factor)


def test_another_request_under_the_same_id_begins_its_times_anew() -> None:
    """COOKIE and INVALID_KE_PAYLOAD: the tries go on, the times begin again."""
    one = window()
    one.sent((b"asks",), 0.0, 4)
    one.due(1.0)
    one.again((b"asks with a cookie",), 2.0)
    out = one.outstanding
    assert out is not None
    assert (out.data, out.interval, out.due) == ((b"asks with a cookie",), 1.0, 3.0)
    assert (out.message_id, out.tries_left) == (0, 2)
    assert one.due(3.0) == (b"asks with a cookie",)


def test_only_the_right_answer_ends_the_wait() -> None:
    one = window()
    for number in range(3):
        one.sent((b"asks",), 0.0, 4)
        waits = one.outstanding
        assert one.answered(number + 1) is None and one.answered(number - 1) is None
        assert one.outstanding is waits
        assert one.answered(number) is waits and one.outstanding is None
        assert one.next_id == number + 1


def test_a_repeat_is_known_bit_for_bit_and_has_the_same_answer() -> None:
    one = window()
    assert not one.is_repeat(b"asks") and one.answer is None and one.last is None
    one.accept(b"asks")
    assert one.expected == 1
    assert one.is_repeat(b"asks") and not one.is_repeat(b"asks!")
    assert one.answer is None and one.last is None, "it is still being found"
    one.responded((b"told",))
    assert one.answer == (b"told",)
    assert one.last == (digest(b"asks"), (b"told",))
    one.accept(b"asks more")
    assert one.expected == 2
    assert not one.is_repeat(b"asks") and one.is_repeat(b"asks more")
    assert one.answer is None and one.last is None


# --- Echoes -----------------------------------------------------------------------------------


def test_an_echo_lasts_twenty_seconds() -> None:
    echoes = Echoes()
    echoes.keep((digest(b"asks"), (b"told",)), 100.0)
    assert echoes.find(b"asks", 100.0) == (b"told",)
    assert echoes.find(b"other", 100.0) is None
    assert echoes.find(b"asks", 119.999) == (b"told",)
    assert echoes.find(b"asks", 120.0) is None
    assert not echoes._answers


def test_old_echoes_go_and_young_ones_stay() -> None:
    echoes = Echoes()
    echoes.keep((digest(b"old"), (b"1",)), 0.0)
    echoes.keep((digest(b"older"), (b"2",)), 1.0)
    echoes.keep((digest(b"young"), (b"3",)), 15.0)
    assert echoes.find(b"young", 30.0) == (b"3",)
    assert list(echoes._answers) == [digest(b"young")]


def test_nothing_to_keep_is_nothing_kept() -> None:
    echoes = Echoes()
    echoes.keep(None, 0.0)
    assert not echoes._answers and echoes.find(b"", 0.0) is None


def test_echoes_are_bounded_and_the_oldest_go_first() -> None:
    echoes = Echoes()
    for number in range(Echoes.LIMIT + 1):
        echoes.keep((digest(b"%d" % number), (b"told",)), 0.0)
    assert len(echoes._answers) == Echoes.LIMIT == 256
    assert echoes.find(b"0", 0.0) is None
    assert echoes.find(b"1", 0.0) == (b"told",)
    assert echoes.find(b"256", 0.0) == (b"told",)
