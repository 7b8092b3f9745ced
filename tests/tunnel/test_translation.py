"""IPv4 endpoints on a network without IPv4: where datagrams go, and who sent what came."""

from __future__ import annotations

from ipaddress import IPv6Network

import pytest

from fastpath.types import Endpoint
from tunnel.io.translation import Translation

FOUR, SIX = ("192.0.2.33", 4500), ("64:ff9b::c000:221", 4500)
OTHER = ("2001:db8::1", 4500)


def test_without_a_nat64_nothing_is_changed() -> None:
    translation = Translation()
    for endpoint in (FOUR, SIX, OTHER):
        assert translation.out(endpoint) == translation.into(endpoint) == endpoint


@pytest.mark.parametrize("prefix", ["64:ff9b::/96", "2001:db8:1:ffff::/64", "2001:db8::/32"])
def test_there_and_back(prefix: str) -> None:
    translation = Translation()
    translation.prefix = IPv6Network(prefix)
    sent = translation.out(FOUR)
    assert ":" in sent[0]
    assert translation.into(sent) == FOUR


@pytest.mark.parametrize("endpoint", [OTHER, ("fe80::1%eth0", 4500)])
def test_what_is_ipv6_stays(endpoint: Endpoint) -> None:
    translation = Translation()
    translation.prefix = IPv6Network("64:ff9b::/96")
    assert translation.out(FOUR) == SIX
    assert translation.out(endpoint) == translation.into(endpoint) == endpoint


def test_a_name_stays_a_name() -> None:
    translation = Translation()
    translation.prefix = IPv6Network("64:ff9b::/96")
    assert translation.address("rendezvous.example") == "rendezvous.example"
    assert translation.address(FOUR[0]) == SIX[0]
    assert translation.out(("rendezvous.example", 853)) == ("rendezvous.example", 853)
