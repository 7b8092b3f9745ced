"""Alarms ring in time, once, and do not pile up."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from discovery.alarms import NEVER, Alarms, Rings

times = st.floats(0, 1000)


def test_an_alarm_rings_once_and_can_be_set_again() -> None:
    alarms: Alarms[Rings] = Alarms()
    thing = Rings()
    alarms.set(thing, 5)
    alarms.set(thing, 9)  # later: whoever it rings for looks again
    assert alarms.next == 5
    assert list(alarms.ringing(4.9)) == []
    assert list(alarms.ringing(5)) == [thing]
    assert list(alarms.ringing(100)) == []
    alarms.set(thing, 101)
    assert list(alarms.ringing(101)) == [thing]
    assert alarms.next == NEVER


def test_what_was_cancelled_never_rings() -> None:
    alarms: Alarms[Rings] = Alarms()
    thing = Rings()
    alarms.set(thing, 5)
    alarms.cancel(thing)
    alarms.set(thing, 3)
    assert list(alarms.ringing(10)) == []


@given(st.lists(times, min_size=1, max_size=50))
def test_the_earliest_of_all_times_rings(wanted: list[float]) -> None:
    alarms: Alarms[Rings] = Alarms()
    thing = Rings()
    for at in wanted:
        alarms.set(thing, at)
    assert list(alarms.ringing(min(wanted))) == [thing]


def test_old_entries_do_not_pile_up() -> None:
    alarms: Alarms[Rings] = Alarms()
    things = [Rings() for _ in range(10)]
    for thing in things:
        alarms.set(thing, 5000)
    for turn in range(2000):
        for thing in things:
            alarms.set(thing, turn + 1)
        assert len(list(alarms.ringing(turn + 1))) == 10
        for thing in things:
            alarms.set(thing, 5000)
    assert len(alarms._heap) <= 100
    for thing in things:
        alarms.cancel(thing)
    assert len(alarms._heap) <= 100
