"""Finding the rendezvous by the zone's own SRV records (B37, dns.md §1)."""

from __future__ import annotations

import dns.asyncresolver
import dns.rdata
import dns.resolver
import pytest

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


async def test_b37_the_tls_names_are_tried_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    service = f"_dns-update-tls._tcp.{DOMAIN}."
    asked = answers(monkeypatch, {service: ["0 0 853 ns.alice.example."]})
    assert await find_rendezvous(DOMAIN, "tls") == ("ns.alice.example", 853)
    assert asked == [f"_dns-update-tls._udp.{DOMAIN}.", service]


async def test_rfc2782_priority_weight_and_the_target_that_means_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    service = f"_dns-update._udp.{DOMAIN}."
    records = ["20 0 53 last.example.", "10 1 53 light.example.", "10 9 54 heavy.example."]
    answers(monkeypatch, {service: records})
    assert await find_rendezvous(DOMAIN, "udp") == ("heavy.example", 54)
    answers(monkeypatch, {service: ["0 0 0 ."]})
    assert await find_rendezvous(DOMAIN, "tcp") is None


async def test_nothing_is_found_where_nothing_is(monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, {})
    assert await find_rendezvous(DOMAIN, "tls") is None
