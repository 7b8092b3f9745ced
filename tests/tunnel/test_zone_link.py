"""Finding the rendezvous by the zone's own SRV records (B37)."""

from __future__ import annotations

import random as pseudo
from collections import Counter

import dns.asyncresolver
import dns.rdata
import dns.resolver
import pytest

from discovery import finding
from tunnel.io.zone import find_rendezvous

DOMAIN = "alice.example"


def answers(monkeypatch: pytest.MonkeyPatch, zone: dict[str, list[str]]) -> list[str]:
    """The system's resolver knows these SRV records; returns the names that are asked."""
    asked: list[str] = []

    async def resolve(name: str, *_: object, **__: object) -> list[dns.rdata.Rdata]:
        asked.append(name)
        if name not in zone:
            raise dns.resolver.NXDOMAIN
        return [dns.rdata.from_text("IN", "SRV", text) for text in zone[name]]

    monkeypatch.setattr(dns.asyncresolver, "resolve", resolve)
    return asked


async def test_b37_b43_all_names_are_asked_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    update, push = f"_dns-update-tls._tcp.{DOMAIN}.", f"_dns-push-tls._tcp.{DOMAIN}."
    zone = {
        push: ["0 0 8853 push.alice.example.", "1 0 853 ns.alice.example."],
        update: ["0 0 853 ns.alice.example."],
    }
    asked = answers(monkeypatch, zone)
    assert await find_rendezvous(DOMAIN, "tls") == [
        ("ns.alice.example", 853),
        ("push.alice.example", 8853),
    ]
    assert asked == [f"{name}.{DOMAIN}." for name in finding.TLS_NAMES]


async def test_a_host_that_speaks_tls_never_asks_for_the_names_without(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    zone = {f"_dns-update._udp.{DOMAIN}.": ["0 0 53 ns.alice.example."]}
    answers(monkeypatch, zone)
    assert await find_rendezvous(DOMAIN, "tls") == []
    assert await find_rendezvous(DOMAIN, "udp") == [("ns.alice.example", 53)]


def test_rfc2782_the_lowest_priority_comes_first_and_weights_are_drawn() -> None:
    candidates = [
        finding.Candidate(20, 0, "last", 53),
        finding.Candidate(10, 0, "never", 53),
        finding.Candidate(10, 30, "light", 53),
        finding.Candidate(10, 90, "heavy", 54),
    ]
    first: Counter[str] = Counter()
    generator = pseudo.Random(2782)
    for _ in range(2000):
        order = [host for host, _ in finding.in_order(candidates, generator.randbytes)]
        assert order[3] == "last" and set(order) == {"last", "never", "light", "heavy"}
        first[order[0]] += 1
    assert 0 < first["never"] < 60  # a weight of zero has a very small chance, and a chance
    assert 2.2 < first["heavy"] / first["light"] < 4


def test_rfc2782_a_target_that_is_the_root_means_that_there_is_none() -> None:
    assert finding.in_order([finding.Candidate(0, 0, "", 53)], bytes) == []


async def test_nothing_is_found_where_nothing_is(monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, {})
    assert await find_rendezvous(DOMAIN, "tls") == []
