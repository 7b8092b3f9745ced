"""What ``doctor`` makes of the network that ``status`` shows."""

from __future__ import annotations

from typing import Any

import pytest

from tunnel.cli.checks import State
from tunnel.cli.nat_checks import nat
from tunnel.network_kind import Facts, Kind, kind_of

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
    "kind": None,
    "udp": None,
    "lets_in": None,
    "hairpin": None,
    "portal": None,
    "nat64": None,
}
REFUSED = [{"gateway": "192.168.1.1", "method": "pcp", "says": "it refuses mappings"}]
MAPPED = {
    "kind": "mapped",
    "method": "pcp",
    "gateway": "192.168.1.1",
    "external": "203.0.113.9:4500",
}
MEETS = {"kind": "independent", "mapping": "independent", "seen": "203.0.113.9:4500"}


@pytest.mark.parametrize("facts", [None, {}, NOTHING, NOTHING | {"kind": "public"}])
def test_nothing_is_said_of_a_public_host_and_of_what_is_not_known(
    facts: dict[str, Any] | None,
) -> None:
    assert nat(facts) == []


@pytest.mark.parametrize(
    ("facts", "state", "words"),
    [
        (MAPPED, State.OK, "203.0.113.9:4500 leads here"),
        (MAPPED | {"hairpin": False}, State.OK, "no hairpin"),
        ({"kind": "double-nat", "method": "upnp"}, State.WARNING, "another NAT"),
        (MEETS, State.OK, "both at once"),
        (MEETS | {"hairpin": False}, State.OK, "no hairpin"),
        ({"kind": "symmetric", "seen": "203.0.113.9:61000"}, State.WARNING, "symmetric"),
        ({"kind": "unknown-nat"}, State.WARNING, "UDP may be blocked"),
        ({"kind": "unknown-nat", "tried": REFUSED}, State.WARNING, "(pcp): it refuses mappings"),
        ({"kind": "udp-blocked"}, State.WARNING, "over TLS and not over UDP"),
        ({"kind": "captive-portal", "portal": "http://p.example"}, State.WARNING, "p.example"),
        ({"kind": "ipv6-only", "nat64": "64:ff9b::/96"}, State.OK, "NAT64 64:ff9b::/96"),
        ({"kind": "ipv6-only"}, State.WARNING, "no NAT64"),
        ({"kind": "firewalled"}, State.WARNING, "a firewall before it"),
        ({"kind": "offline"}, State.WARNING, "no address that leads anywhere"),
    ],
)
def test_each_case_has_its_words(facts: dict[str, Any], state: State, words: str) -> None:
    (found,) = nat(NOTHING | facts)
    assert found.state is state
    assert words in found.found
    assert (not found.fix) is (state is State.OK)


def test_every_kind_but_public_has_words() -> None:
    for kind in set(Kind) - {Kind.PUBLIC}:
        assert nat(NOTHING | {"kind": str(kind)}), kind


BEHIND = Facts(ipv4=True, ipv6=False, private=True, zone_up=True, udp=True)
OWN = Facts(ipv4=True, ipv6=True, zone_up=True, udp=True)


@pytest.mark.parametrize(
    ("facts", "kind"),
    [
        (Facts(ipv4=False, ipv6=False, portal=True), Kind.OFFLINE),
        (Facts(ipv4=True, ipv6=False, portal=True, udp=False), Kind.CAPTIVE_PORTAL),
        (Facts(ipv4=True, ipv6=False, portal=True, zone_up=True), Kind.PUBLIC),
        (Facts(ipv4=True, ipv6=False, udp=False, zone_up=True), Kind.UDP_BLOCKED),
        (Facts(ipv4=True, ipv6=False, udp=False, zone_up=False), Kind.PUBLIC),
        (Facts(ipv4=True, ipv6=False, private=True, udp=False), Kind.UNKNOWN_NAT),
        (Facts(ipv4=False, ipv6=True), Kind.IPV6_ONLY),
        (BEHIND, Kind.UNKNOWN_NAT),
        (Facts(ipv4=True, ipv6=False, private=True), None),
        (Facts(ipv4=True, ipv6=False, private=True, mapped=True), Kind.MAPPED),
        (Facts(True, False, private=True, mapped=True, double_nat=True), Kind.DOUBLE_NAT),
        (Facts(True, False, private=True, mapping="independent"), Kind.INDEPENDENT),
        (Facts(True, False, private=True, mapping="dependent", udp=False), Kind.SYMMETRIC),
        (OWN, Kind.PUBLIC),
        (Facts(True, True, udp=True, filtering="address"), Kind.PUBLIC),
        (Facts(True, True, udp=True, filtering="port"), Kind.FIREWALLED),
    ],
)
def test_the_kind_is_judged_from_the_facts(facts: Facts, kind: Kind | None) -> None:
    assert kind_of(facts) is kind
