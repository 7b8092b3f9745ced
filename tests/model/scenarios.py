"""Which worlds are explored, how deep in the suite, and how deep for the record."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from tests.model.liar import Liar
from tests.model.registering import Registering
from tests.model.second import Second
from tests.model.worlds import BEHIND_NATS, UNKNOWN, Honest, World

WORLDS: dict[str, tuple[Callable[[], World], int, int]] = {
    "loss": (partial(Honest.begin), 4, 8),
    "repeats": (partial(Honest.begin, repeat=2), 3, 6),
    "moves": (partial(Honest.begin, move=2), 3, 6),
    "changed sources": (partial(Honest.begin, change=2, move=1), 3, 6),
    "nats": (partial(Honest.begin, BEHIND_NATS, move=2), 3, 6),
    "nats that nobody knows of": (partial(Honest.begin, UNKNOWN, move=2), 3, 6),
    "home agent": (partial(Registering.begin, repeat=2, move=2), 4, 6),
    "rekeys": (partial(Honest.begin, rekey=2, renew=1, move=1), 3, 6),
    "a second network": (partial(Second.standing, open=2, move=1, change=1, repeat=1), 4, 7),
    "liar": (Liar.bound, 3, 6),
    "newcomer that lies": (Liar, 3, 6),
    "thief": (partial(Liar, at_home=False), 3, 6),
}
"""By name: how it begins, the depth in the suite, the depth of ``make model``."""
