"""IPv4 endpoints on a network without IPv4: where datagrams go, and who sent what came."""

from __future__ import annotations

import asyncio
from ipaddress import IPv6Network
from typing import Any, cast

import pytest

from fastpath import types as engine
from fastpath.types import Endpoint
from tunnel.io.driver import Driver
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


@pytest.mark.parametrize(
    "event",
    [
        engine.ControlEvent(b"ike", SIX, True),
        engine.NewSourceEvent(0x1001, SIX),
        engine.UnknownSpiEvent(0x1001, SIX),
        engine.MobilityEvent(0x1001, SIX, bytes(8)),
    ],
)
def test_the_node_hears_of_ipv4_whatever_came(event: engine.Event) -> None:
    """A binding update is believed only if it came from the address that it names (I12)."""

    async def heard() -> engine.Event:
        nothing = cast(Any, None)
        driver = Driver(nothing, nothing, nothing, ike_pair=None, send_zone=print, answer=print)
        driver.translation.prefix = IPv6Network("64:ff9b::/96")
        return driver._translated(event)

    translated = cast(Any, asyncio.run(heard()))
    assert translated.source == FOUR
    assert type(translated) is type(event)
