"""Proofs are bounded, end, outlive the process, and a damaged file is said to be one (I19)."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.mutate import mutants
from tunnel.mobility.proofs import (
    LIFE,
    MAX_FILE,
    NAT_LIFE,
    PEERS,
    PER_PEER,
    SCHEMA,
    Proofs,
    ProofsError,
)

UNIX = 1_800_000_000


def loaded(octets: bytes, unix: int = UNIX, per_peer: int = 16, peers: int = 1024) -> Proofs:
    proofs = Proofs(per_peer, peers)
    proofs.load(octets, unix)
    return proofs


HOME, WORK = ("198.51.100.7", 4500), ("2001:db8::7", 4500)


def test_a_proof_is_of_one_peer_at_one_endpoint_for_a_month() -> None:
    proofs = Proofs()
    assert proofs.add("a", HOME, UNIX)
    assert proofs.holds("a", HOME, UNIX + LIFE - 1)
    assert not proofs.holds("a", HOME, UNIX + LIFE)
    assert not proofs.holds("b", HOME, UNIX)
    assert not proofs.holds("a", (HOME[0], 4501), UNIX)


def test_the_disk_is_written_only_when_something_changed() -> None:
    proofs = Proofs()
    assert proofs.add("a", HOME, UNIX)
    assert not proofs.add("a", HOME, UNIX + 60)
    assert proofs.add("a", HOME, UNIX + 60 + LIFE * 2 // 3)
    proofs.add("b", HOME, UNIX)
    assert not proofs.add("b", HOME, UNIX + LIFE // 2), "half of its life is left"
    assert not proofs.add("a", WORK, UNIX, nat=True)
    assert proofs.add("a", WORK, UNIX)  # it is the host's own after all


def test_the_least_recently_used_go_first() -> None:
    proofs = Proofs(per_peer=2, peers=2)
    for port in (1, 2, 1, 3):
        proofs.add("a", ("198.51.100.7", port), UNIX)
    assert [proofs.holds("a", ("198.51.100.7", port), UNIX) for port in (1, 2, 3)] == [
        True,
        False,
        True,
    ]
    proofs.add("b", HOME, UNIX)
    proofs.add("c", HOME, UNIX)
    assert not proofs.holds("a", ("198.51.100.7", 3), UNIX) and len(proofs) == 2


def test_a_forgotten_peer_has_none() -> None:
    proofs = Proofs()
    proofs.add("a", HOME, UNIX)
    assert proofs.forget("a") and not proofs.forget("a")
    assert not proofs.holds("a", HOME, UNIX)


def test_a_place_where_nobody_answers_any_more_is_dropped_alone() -> None:
    """Whether the disk is concerned: not where nothing was proven, nor by what a NAT made."""
    proofs = Proofs()
    proofs.add("a", HOME, UNIX)
    proofs.add("a", WORK, UNIX)
    proofs.add("a", ("198.51.100.7", 61000), UNIX, nat=True)
    assert proofs.drop("a", HOME)
    assert not proofs.holds("a", HOME, UNIX) and proofs.holds("a", WORK, UNIX)
    assert not proofs.drop("a", HOME) and not proofs.drop("b", HOME)
    assert not proofs.drop("a", ("198.51.100.7", 61000))
    assert len(proofs) == 1


def test_they_come_back_from_disk_but_not_those_of_nats_or_of_before() -> None:
    proofs = Proofs()
    proofs.add("a", HOME, UNIX)
    proofs.add("a", ("198.51.100.7", 61000), UNIX, nat=True)
    proofs.add("b", WORK, UNIX - LIFE + 10)
    again = loaded(proofs.dump(UNIX))
    assert again.holds("a", HOME, UNIX) and again.holds("b", WORK, UNIX) and len(again) == 2
    assert NAT_LIFE < 1000 and len(loaded(proofs.dump(UNIX + 10), UNIX + 10)) == 1


def test_what_was_read_is_written_again_until_its_end() -> None:
    proofs = Proofs()
    proofs.add("a", HOME, UNIX)
    again = loaded(proofs.dump(UNIX))
    assert len(loaded(again.dump(UNIX + LIFE - 1), UNIX + LIFE - 1)) == 1
    assert json.loads(again.dump(UNIX + LIFE)) == {"schema": SCHEMA, "peers": {}}
    assert len(loaded(proofs.dump(UNIX), UNIX + LIFE)) == 0
    assert again.drop("a", HOME), "it is none of a NAT's"


def test_the_longest_file_and_the_longest_name_are_read() -> None:
    proofs = Proofs()
    proofs.add("a" * 255, HOME, UNIX)
    assert len(loaded(proofs.dump(UNIX).ljust(MAX_FILE))) == 1
    with pytest.raises(ProofsError, match="larger"):
        loaded(proofs.dump(UNIX).ljust(MAX_FILE + 1))


def test_a_clock_that_was_wrong_makes_no_proof_last_longer() -> None:
    proofs = Proofs()
    proofs.add("a", HOME, UNIX + 10 * LIFE)
    assert not loaded(proofs.dump(UNIX)).holds("a", HOME, UNIX + LIFE)


def test_bounds_hold_for_what_is_read_too() -> None:
    proofs = Proofs()
    for number in range(5):
        for port in range(1, 6):
            proofs.add(f"p{number}", ("198.51.100.7", port), UNIX)
    assert len(loaded(proofs.dump(UNIX), per_peer=2, peers=3)) == 6


@pytest.mark.parametrize(
    "octets",
    [
        b"",
        b"[]",
        b"{}",
        b"[" * 100_000,
        b" " * (1 << 20) + b"1",
        json.dumps({"schema": SCHEMA}).encode(),
        json.dumps({"schema": SCHEMA, "peers": {"a": 7}}).encode(),
        json.dumps({"schema": SCHEMA, "peers": {"a": [[1, 2]]}}).encode(),
        json.dumps({"schema": SCHEMA, "peers": {"a": [["::1", 4500, 2e99]]}}).encode(),
        json.dumps({"schema": SCHEMA, "peers": {"a": [["224.0.0.1", 4500, UNIX]]}}).encode(),
        json.dumps({"schema": SCHEMA, "peers": {"a" * 300: []}}).encode(),
    ],
)
def test_a_damaged_file_is_said_to_be_one(octets: bytes) -> None:
    with pytest.raises(ProofsError):
        loaded(octets)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 1000))
def test_no_file_breaks_it(seed: int) -> None:
    proofs = Proofs()
    proofs.add("a", HOME, UNIX)
    proofs.add("b", WORK, UNIX)
    for octets in mutants([proofs.dump(UNIX)], 100, seed):
        try:
            again = loaded(octets)
        except ProofsError:
            continue
        assert len(again) <= 2 * 16


def test_a_full_table_is_read_again() -> None:
    """Whatever a host remembers of however many peers, it takes back what it wrote."""
    proofs = Proofs()
    for number in range(PEERS):
        name = f"host-{number:04}." + "d" * 240
        for port in range(65_000, 65_000 + PER_PEER):
            proofs.add(name, (f"2001:db8:aaaa:bbbb:cccc:dddd:eeee:{port:x}", port), UNIX)
    octets = proofs.dump(UNIX)
    assert len(octets) < MAX_FILE
    assert len(loaded(octets)) == len(proofs) == PEERS * PER_PEER
