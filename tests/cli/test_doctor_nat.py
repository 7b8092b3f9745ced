"""What ``doctor`` makes of the NATs that ``status`` shows."""

from __future__ import annotations

from typing import Any

import pytest

from tunnel.cli.checks import State
from tunnel.cli.nat_checks import nat

NOTHING: dict[str, Any] = {
    "method": None,
    "gateway": None,
    "external": None,
    "lifetime_s": None,
    "double_nat": None,
    "private_address": True,
    "tried": [],
    "seen": None,
    "mapping": None,
}
REFUSED = [{"gateway": "192.168.1.1", "method": "pcp", "says": "it refuses mappings"}]


@pytest.mark.parametrize("facts", [None, {}, NOTHING | {"private_address": False}])
def test_nothing_is_said_without_a_nat(facts: dict[str, Any] | None) -> None:
    assert nat(facts) == []


@pytest.mark.parametrize(
    ("facts", "state", "words"),
    [
        (
            {"method": "pcp", "gateway": "192.168.1.1", "external": "203.0.113.9:4500"},
            State.OK,
            "203.0.113.9:4500 leads here",
        ),
        ({"method": "upnp", "double_nat": True}, State.WARNING, "another NAT"),
        ({"mapping": "independent", "seen": "203.0.113.9:4500"}, State.OK, "both at once"),
        ({"mapping": "dependent", "seen": "203.0.113.9:61000"}, State.WARNING, "symmetric"),
        ({}, State.WARNING, "UDP may be blocked"),
        ({"tried": REFUSED}, State.WARNING, "192.168.1.1 (pcp): it refuses mappings"),
    ],
)
def test_each_case_has_its_words(facts: dict[str, Any], state: State, words: str) -> None:
    (found,) = nat(NOTHING | facts)
    assert found.state is state
    assert words in found.found
    assert (not found.fix) is (state is State.OK)
