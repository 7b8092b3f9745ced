"""What keeps it small: three of a type a second, deadlines that cost nothing, numbers that wrap."""

from __future__ import annotations

import random

import pytest

from tunnel.mobility.limits import MAX_UPDATE_RATE, Deadlines, Rate, following, is_old


def test_what_is_to_be_free_at_a_time_is_free_then() -> None:
    """``now - 1.0`` may be rounded to below a time whose sum with 1.0 is ``now``: a timer that
    trusted the one and a rate that asked the other would never come to rest."""
    chance = random.Random(6275)
    for _ in range(20_000):
        rate, now = Rate(), chance.uniform(0, 10_000)
        for _ in range(MAX_UPDATE_RATE):
            assert rate.allows(now)
            now += chance.uniform(0, 0.3)
        at = rate.free_at(now)
        assert at == now or not rate.allows(now)
        assert rate.allows(at)


def test_three_in_any_second_and_the_next_when_the_first_is_a_second_old() -> None:
    rate = Rate()
    assert rate.free_at(5.0) == 5.0
    assert [rate.allows(at) for at in (5.0, 5.25, 5.5)] == [True] * 3
    assert rate.free_at(5.75) == 6.0
    assert rate.free_at(6.75) == 6.75, "in no second that begins now are there three"
    assert not rate.allows(5.75) and not rate.allows(5.999)
    assert rate.free_at(6.0) == 6.0
    assert rate.allows(6.0), "what is a second old counts no more"
    assert rate.free_at(6.1) == 6.25
    assert rate.free_at(9.0) == 9.0


@pytest.mark.parametrize(
    ("sequence", "last", "old"),
    [(15, 15, True), (32783, 15, True), (32782, 15, False), (16, 15, False), (65535, 0, True)],
)
def test_half_of_all_numbers_are_old(sequence: int, last: int, old: bool) -> None:
    assert is_old(sequence, last) is old


def test_the_number_after_the_last_is_the_first() -> None:
    assert [following(number) for number in (0, 65534, 65535)] == [1, 65535, 0]


def test_the_first_deadline_is_the_next_one() -> None:
    due: Deadlines[str] = Deadlines()
    assert due.next() is None and due.due(100.0) == []
    due.set("late", 3.0)
    due.set("soon", 1.0)
    due.set("then", 1.0)
    assert due.next() == 1.0
    due.set("soon", 2.0)
    assert due.next() == 1.0, "of the other one"
    due.clear("then")
    assert due.next() == 2.0
    due.clear("nobody")
    assert due.due(2.0) == ["soon"], "each once, and not at what it was due before"
    assert due.due(2.0) == [] and due.next() == 3.0
    assert due.due(10.0) == ["late"] and due.next() is None


def test_those_that_are_due_at_once_come_as_they_were_set() -> None:
    due: Deadlines[str] = Deadlines()
    for key in ("b", "a", "c"):
        due.set(key, 1.0)
    due.set("b", 1.0)
    assert due.due(1.0) == ["b", "a", "c"]


def test_deadlines_that_are_set_again_and_again_leave_nothing_behind() -> None:
    due: Deadlines[int] = Deadlines()
    for number in range(2000):
        due.set(number % 10, 1000.0 + number)
        assert len(due._heap) <= 2 * 10 + 64
    assert due.next() == 2990.0
    assert due.due(3000.0) == list(range(10))
