"""What kind of network this host stands in, judged from all that is known of it.

The order is that of what matters most to a person: a network that is not there, that wants a login
or swallows UDP explains everything else. The words go into ``status``; ``doctor`` has cause and fix
(:mod:`tunnel.cli.nat_checks`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from discovery.nat.survey import Filtering

INDEPENDENT, DEPENDENT = "independent", "dependent"
"""Of the destination: how a NAT maps (RFC 4787 §4.1). The second is called symmetric, too."""


class Kind(StrEnum):
    """The kinds of networks."""

    OFFLINE = "offline"  # no address that leads anywhere
    CAPTIVE_PORTAL = "captive-portal"
    UDP_BLOCKED = "udp-blocked"
    IPV6_ONLY = "ipv6-only"
    DOUBLE_NAT = "double-nat"  # what the router opens is itself behind a NAT
    MAPPED = "mapped"  # a router opens a port for us
    INDEPENDENT = "independent"  # a NAT with one port for all destinations: hosts can meet
    SYMMETRIC = "symmetric"  # a NAT with another port for every destination
    UNKNOWN_NAT = "unknown-nat"
    FIREWALLED = "firewalled"  # our own address, and only answers are let in
    PUBLIC = "public"


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known now. ``udp``: whether the rendezvous' STUN answers, ``None`` where nobody has
    asked yet; ``mapping`` is one of the words above, or empty; ``portal``: one was found."""

    ipv4: bool
    ipv6: bool
    private: bool = False  # the IPv4 address is one that NATs hand out
    mapped: bool = False
    double_nat: bool = False
    mapping: str = ""
    udp: bool | None = None
    filtering: Filtering = ""
    zone_up: bool = False
    portal: bool = False


def kind_of(facts: Facts) -> Kind | None:
    """The kind; ``None`` while too little is known."""
    if not facts.ipv4 and not facts.ipv6:
        return Kind.OFFLINE
    if facts.portal and not facts.zone_up:
        return Kind.CAPTIVE_PORTAL
    if facts.udp is False and facts.zone_up and not facts.mapping:
        return Kind.UDP_BLOCKED
    if not facts.ipv4:
        return Kind.IPV6_ONLY
    return _behind(facts) if facts.private else _own(facts)


def _behind(facts: Facts) -> Kind | None:
    if facts.double_nat:
        return Kind.DOUBLE_NAT
    if facts.mapped:
        return Kind.MAPPED
    kinds = {INDEPENDENT: Kind.INDEPENDENT, DEPENDENT: Kind.SYMMETRIC}
    if facts.mapping in kinds:
        return kinds[facts.mapping]
    return None if facts.udp is None else Kind.UNKNOWN_NAT


def _own(facts: Facts) -> Kind:
    return Kind.FIREWALLED if facts.filtering == "port" else Kind.PUBLIC
