"""How long a NAT remembers: the search, for NATs of every patience."""

from __future__ import annotations

import random

import pytest

from tunnel.patience import SHORTEST, Patience


def search(patience: Patience, remembers: float, rng: random.Random, loss: float = 0.0) -> int:
    """Trials until it knows enough; ``loss`` of those that a NAT would let through fail, too."""
    now, count = 1000.0, 0
    while (seconds := patience.trial(now)) is not None and count < 200:
        now, count = now + seconds, count + 1
        if seconds < remembers and rng.random() >= loss:
            patience.survived(seconds, now)
        else:
            patience.lost(seconds, now)
    return count


@pytest.mark.parametrize("remembers", [17, 21, 25, 30, 35, 60, 90, 120, 180, 240, 300, 600, 7200])
def test_it_ends_close_below_what_the_nat_remembers(remembers: float) -> None:
    patience = Patience(20.0, 290.0)
    trials = search(patience, remembers, random.Random(remembers))
    assert trials < 25
    if remembers > SHORTEST:
        assert patience.interval < remembers
    assert patience.interval >= min(290, remembers) * 0.75 - 2 or remembers < 25


@pytest.mark.parametrize("seed", range(50))
def test_lost_packets_make_it_careful_and_never_careless(seed: int) -> None:
    rng = random.Random(seed)
    remembers = rng.uniform(30, 400)
    patience = Patience(20.0, 290.0)
    search(patience, remembers, rng, loss=0.2)
    assert SHORTEST <= patience.interval < remembers


def test_one_loss_proves_nothing_two_do() -> None:
    patience = Patience(20.0, 290.0)
    patience.survived(20, 0.0)
    patience.lost(30, 1.0)
    assert patience.trial(2.0) == 30
    patience.lost(30, 3.0)
    assert patience.trial(4.0) == 25


def test_it_is_looked_at_again_after_an_hour_and_may_shrink() -> None:
    patience = Patience(20.0, 290.0)
    search(patience, 120.0, random.Random(1))
    known = patience.interval
    assert patience.trial(3000.0) is None
    assert patience.trial(10_000.0) == round(known + 1)
    patience.lost(round(known + 1), 10_000.0)
    patience.lost(round(known + 1), 10_001.0)
    assert patience.interval <= 20.0


def test_a_nat_that_forgot_us_though_a_trial_was_survived_is_trusted_no_more() -> None:
    patience = Patience(20.0, 290.0)
    search(patience, 600.0, random.Random(1))
    assert patience.interval > 250
    patience.failed(9000.0)
    assert patience.interval == 20.0
    search(patience, 600.0, random.Random(1))
    assert patience.interval == 20.0
    patience.failed(9001.0)
    assert patience.interval == SHORTEST


def test_where_the_limit_is_the_start_nothing_longer_is_tried() -> None:
    patience = Patience(20.0, 5.0)
    assert patience.trial(0.0) == 20
    patience.survived(20, 0.0)
    assert patience.trial(1.0) is None
