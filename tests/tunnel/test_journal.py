"""The journal: what is kept for ``explain``, and that it is bounded."""

from __future__ import annotations

from tunnel.journal import PER_PEER, SMALL, TOGETHER, Journal, What


def test_what_repeats_is_counted_and_not_kept_again() -> None:
    journal = Journal()
    for at in range(100):
        journal.add("desk", float(at), What.KEEPALIVE, "the NAT forgets", {"to": "192.0.2.1:4500"})
        journal.add("desk", float(at), What.PROOF, "it is asked there", {})
    first, second = journal.of("desk").entries
    assert (first.at, first.times, first.last_at) == (0.0, 100, 99.0)
    assert second.times == 100
    assert len(journal) == 2


def test_another_fact_is_another_entry() -> None:
    journal = Journal()
    for port in (1, 2):
        journal.add("desk", 1.0, What.CANDIDATE, "tried", {"to": f"192.0.2.1:{port}"})
    assert [entry.times for entry in journal.of("desk").entries] == [1, 1]


def test_a_ring_keeps_the_newest_and_tells_of_the_others() -> None:
    journal = Journal()
    for number in range(PER_PEER + 10):
        journal.add("desk", float(number), What.PROOF, f"{number}", {})
    ring = journal.of("desk")
    assert len(ring.entries) == PER_PEER
    assert ring.forgotten == 10
    assert ring.entries[-1].why == f"{PER_PEER + 9}"


def test_what_goes_on_all_the_time_does_not_drive_out_how_the_path_was_chosen() -> None:
    journal = Journal()
    journal.add("desk", 1.0, What.PATH, "data goes there", {})
    for number in range(10 * PER_PEER):
        journal.add("desk", float(number), What.KEEPALIVE, f"{number}", {})
        journal.add("desk", float(number), What.MTU, f"{number}", {})
    ring = journal.of("desk")
    assert ring.entries[0].what is What.PATH
    assert len(ring.entries) == len(journal) == SMALL + 1
    assert ring.entries[-1].why == f"{10 * PER_PEER - 1}"


def test_with_many_peers_the_one_not_heard_of_for_longest_is_forgotten() -> None:
    journal = Journal()
    for peer in range(TOGETHER):
        for number in range(3):
            journal.add(f"host{peer}", float(peer), What.RECORDS, f"{number}", {})
    assert len(journal) <= TOGETHER
    assert not journal.of("host0").entries
    assert len(journal.of(f"host{TOGETHER - 1}").entries) == 3


def test_texts_are_cut() -> None:
    journal = Journal()
    fields = {f"key{number}": "x" * 10_000 for number in range(100)}
    journal.add(None, 1.0, What.NETWORK, "y" * 10_000, fields)
    (entry,) = journal.of(None).entries
    assert len(entry.why) < 300
    assert sum(len(text) for _, text in entry.fields) < 1000
