"""What ``status`` and ``doctor`` say of home agents, in plain words."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from tests.cli.test_status import FACTS
from tunnel.cli.checks import State
from tunnel.cli.observe import status_tables, where_pinged
from tunnel.cli.relay_checks import relays

AGENT = {
    "name": "gateway.a.example",
    "registered": True,
    "silent": False,
    "endpoint": "203.0.113.7:4500",
    "carries": 1,
    "reason": None,
}
OURS = {
    "bindings": [{"name": "desk.a.example"}, {"name": "laptop.a.example"}],
    "hosts": 1024,
    "limit_bytes_per_s": 10_000_000,
    "relayed_packets": 1200,
    "relayed_bytes": 3 << 20,
    "refused": {},
    "drops": {},
}
WAITING = AGENT | {"registered": False, "reason": "it refused the binding update"}


def shown(facts: dict[str, Any]) -> str:
    text = io.StringIO()
    Console(width=240, file=text).print(status_tables(facts))
    return " ".join(text.getvalue().split())


def test_a_person_sees_who_relays_and_why() -> None:
    reason = "there is no direct path: both of us are behind NATs"
    peer = {
        "name": "nas.a.example",
        "state": "up",
        "path": "relay",
        "home_agent": "gateway.a.example",
        "relay_reason": reason,
    }
    text = shown(FACTS | {"home_agents": [AGENT], "peers": [peer]})
    assert "home agent gateway.a.example: relays, carries 1 of our peers" in text
    assert f"nas is reached through gateway.a.example: {reason}" in text


def test_a_home_agent_sees_what_it_relays() -> None:
    text = shown(FACTS | {"home_agent": OURS})
    assert "it relays for 2 hosts, 1200 packets and 3.0 MiB so far, at most 80 Mbit/s" in text


def test_messages_that_were_not_heeded_are_counted_by_reason() -> None:
    counted = {"refused": {"care_of": 2, "nonce": 1}, "astray": 1}
    text = shown(FACTS | {"mobility": counted})
    assert "not heeded 4 mobility messages: care_of 2, nonce 1, astray 1" in text
    assert "not heeded" not in shown(FACTS | {"mobility": {"refused": {}, "astray": 0}})


@pytest.mark.parametrize(
    ("facts", "state", "words"),
    [
        ({"home_agents": [AGENT]}, State.OK, "gateway.a.example relays for it"),
        ({"home_agents": [WAITING]}, State.WARNING, "it refused the binding update"),
        ({"nat": {"kind": "symmetric"}}, State.WARNING, "no host of the account is a home agent"),
        ({"home_agent": OURS, "nat": {"kind": "mapped"}}, State.OK, "it relays for 2 hosts"),
        ({"home_agent": OURS, "nat": {"kind": "symmetric"}}, State.WARNING, "cannot come here"),
    ],
)
def test_doctor_says_how_it_is_and_what_to_do(
    facts: dict[str, Any], state: State, words: str
) -> None:
    (finding,) = relays(facts)
    assert finding.state is state
    assert words in finding.found
    assert bool(finding.fix) is (state is State.WARNING)


@pytest.mark.parametrize("facts", [None, {}, {"nat": {"kind": "public"}}])
def test_nothing_is_said_where_nobody_needs_it(facts: dict[str, Any] | None) -> None:
    assert list(relays(facts)) == []


def test_ping_names_the_home_agent_and_not_a_place_that_is_none() -> None:
    facts = {"name": "desk.a.example", "id": "fd00::1", "endpoint": "[fd00::1]:500"}
    relayed = where_pinged({**facts, "path": "relay", "home_agent": "hub.a.example"})
    assert relayed == "desk.a.example (fd00::1), relay path through hub.a.example"
    direct = {"path": "direct", "endpoint": "203.0.113.7:4500", "home_agent": None}
    assert where_pinged({**facts, **direct}).endswith("direct path to 203.0.113.7:4500")
