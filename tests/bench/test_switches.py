"""What a switch of path costs: how the datagrams are judged, and what people are shown."""

from __future__ import annotations

from pathlib import Path

from bench import numbered, switches
from bench.numbered import RECORD, Found, judge
from bench.switches import EVENTS, Series


def test_each_datagram_is_lost_overtaken_doubled_or_well() -> None:
    came = [0, 1, 4, 3, 4, 5, 5, 9]
    records = [(number, 100.0 + number / 10, 100.2 + place) for place, number in enumerate(came)]
    assert judge(records, 100.0, 101.0) == Found(10, 4, 2, 1, 1000.0)


def test_only_those_sent_within_the_time_count() -> None:
    records = [(number, float(number), number + 0.5) for number in range(10) if number != 5]
    assert judge(records, 2.0, 5.0) == Found(3, 0, 0, 0, 1000.0)
    assert judge(records, 2.0, 8.0) == Found(6, 1, 0, 0, 2000.0)


def test_a_file_that_is_being_written_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    file = tmp_path / "datagrams"
    file.write_bytes(RECORD.pack(1, 2.0, 3.0) + RECORD.pack(2, 3.0, 4.0)[:-1])
    assert numbered.read(file) == [(1, 2.0, 3.0)]


def test_people_are_shown_medians_and_the_worst() -> None:
    found = [Found(100, lost, 0, lost, 10.0 * lost) for lost in (1, 2, 9)]
    both = {event: Series(found, [100.0, 200.0, 900.0]) for event in EVENTS}
    alone = {event: Series(found) for event in EVENTS}
    text = switches.tables(both, alone, 3)
    rows = [line.split() for line in text.splitlines() if line.startswith("direct to relay")]
    assert [row[-8:] for row in rows] == [
        ["2", "9", "2", "0", "20", "90", "200", "900"],
        ["2", "9", "2", "0", "20", "90", "–", "–"],
    ]
    assert both["cut"].summary()["datagrams"][0]["gap_ms"] == 10.0
