"""The last step: polls, their manners, and what they notice for the others."""

from __future__ import annotations

import itertools

import dns.message
import dns.name
import dns.rdata

from discovery import llq
from discovery.llq import LlqOption
from discovery.types import Changed
from tests.discovery.subscription.scripted import (
    AAAA,
    DESK,
    DOMAIN,
    SOA,
    Script,
    aaaa,
    llq_of,
    tsig_off,
)
from tests.discovery.subscription.test_llq import TCP, UDP, established


def soa(serial: int) -> dns.rdata.Rdata:
    return dns.rdata.from_text("IN", "SOA", f"ns.{DOMAIN}. h.{DOMAIN}. {serial} 7200 900 9 60")


class Zone:
    """A server that knows no more than questions: one name, and a serial."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.serial, self.records = 1, (aaaa(1),)
        self.long_lived: list[LlqOption] = []
        self.asked: list[tuple[float, int]] = []  # when, and for which type

    def serve(self, seconds: float) -> None:
        """Answer for so long."""
        end = self.script.now + seconds
        while self.script.now < end:
            for wire in self.script.taken():
                question = dns.message.from_wire(tsig_off(wire)).question[0]
                if (option := llq_of(wire)) is not None:
                    self.long_lived.append(option)
                    self.script.reply(wire)  # no option: no long-lived queries here
                    continue
                self.asked.append((self.script.now, int(question.rdtype)))
                answer = (soa(self.serial),) if question.rdtype == SOA else self.records
                self.script.reply(wire, answer=answer)
            self.script.wait(0.1)


def polled() -> tuple[Script, Zone]:
    script = Script(TCP)
    script.subscribe()
    script.up()
    zone = Zone(script)
    zone.serve(5)
    assert script.changes() == [Changed(DESK, AAAA, (aaaa(1),), (), (aaaa(1),))]
    assert script.client.step == "poll"
    return script, zone


def test_the_first_poll_comes_as_soon_as_there_is_no_better_way() -> None:
    script = Script(TCP)
    script.subscribe()
    script.up()
    zone = Zone(script)
    begun = script.now
    while not zone.asked:
        zone.serve(0.1)
    assert zone.asked[0][0] - begun < 0.5


def test_only_the_serial_is_asked_for_while_it_rests_and_ever_more_seldom() -> None:
    _script, zone = polled()
    zone.asked.clear()
    zone.serve(600)
    assert {rdtype for _, rdtype in zone.asked} == {SOA}
    times = [at for at, _ in zone.asked]
    pauses = [b - a for a, b in itertools.pairwise(times)]
    assert pauses[0] < 8 and 45 <= max(pauses) <= 76
    assert len(times) < 20


def test_a_new_serial_brings_the_records_and_short_pauses() -> None:
    script, zone = polled()
    zone.serve(600)
    zone.serial, zone.records = 2, (aaaa(2),)
    zone.serve(80)
    assert script.changes() == [Changed(DESK, AAAA, (aaaa(2),), (aaaa(1),), (aaaa(2),))]
    count = len(zone.asked)
    zone.serve(4)
    assert len(zone.asked) >= count


def test_pauses_grow_to_a_quarter_of_an_hour_where_nobody_answers() -> None:
    script, _zone = polled()
    script.taken()
    sent = []
    for _ in range(4 * 3600):
        script.wait(1.0)
        sent += [script.now for wire in script.taken() if not llq_of(wire)]
    assert max(b - a for a, b in itertools.pairwise(sent)) > 600
    assert len(sent) < 60


def test_on_udp_a_lost_event_is_noticed_and_the_query_is_made_anew() -> None:
    script = established(UDP)
    zone = Zone(script)
    zone.serve(60)
    script.changes()
    zone.serial, zone.records = 2, (aaaa(7),)
    found: list[Changed] = []
    while not found:
        zone.serve(0.5)
        found += script.changes()
    assert found[0].records == (aaaa(7),)
    assert zone.long_lived == [LlqOption(llq.SETUP, lease=7200)]


def test_on_udp_the_way_back_through_a_nat_is_kept_open() -> None:
    script = established(UDP)
    zone = Zone(script)
    zone.serve(120)
    times = [at for at, _ in zone.asked][5:]
    assert max(b - a for a, b in itertools.pairwise(times)) < 30
