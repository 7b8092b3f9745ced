"""What ``doctor`` says of the network before a running host, with cause and fix."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tunnel.cli.checks import Finding, State
from tunnel.network_kind import Kind

_OPEN = "switch on PCP, NAT-PMP or UPnP in your router, or forward a UDP port there"
Verdict = tuple[State, str, str]
"""How it is, what was found, and what to do."""


def nat(facts: dict[str, Any] | None) -> list[Finding]:
    """How others reach this host; ``facts`` is the ``nat`` part of its status, ``None`` where it
    does not run. Nothing is said of a host with a public address."""
    kind = (facts or {}).get("kind")
    if facts is None or kind is None or kind not in _VERDICTS:
        return []
    state, found, fix = _VERDICTS[Kind(kind)](facts)
    return [Finding("nat", state, found, fix)]


def _offline(_: dict[str, Any]) -> Verdict:
    found = "this machine has no address that leads anywhere"
    return State.WARNING, found, "connect it to a network; the host goes on by itself"


def _portal(facts: dict[str, Any]) -> Verdict:
    where = f" ({facts['portal']})" if facts.get("portal") else ""
    found = f"somebody else answers in the place of the rendezvous{where}: a captive portal"
    fix = "open any page in a browser and log in, and the host goes on by itself; if that is your "
    return State.WARNING, found, f"{fix}own web server, start `autotunnel serve` beside it"


def _udp_blocked(_: dict[str, Any]) -> Verdict:
    found = "the rendezvous answers over TLS and not over UDP: this network drops UDP, and tunnels "
    fix = "let UDP out in the firewall (to port 4500 of other hosts, and to 3478 and 3479 of the "
    more = "rendezvous), or use another network; if no network works, let those in at the server"
    return State.WARNING, f"{found}cannot be made without it", fix + more


def _ipv6_only(facts: dict[str, Any]) -> Verdict:
    if facts.get("nat64"):
        found = f"no IPv4 here; hosts with IPv4 alone are reached by the NAT64 {facts['nat64']}"
        return State.OK, found, ""
    found = "no IPv4 here and no NAT64, so that hosts with IPv4 alone cannot be reached"
    return State.WARNING, found, "give them IPv6, or ask the network's owner for NAT64 and DNS64"


def _double(facts: dict[str, Any]) -> Verdict:
    found = "your router stands behind another NAT, so that what it opens leads nowhere"
    fix = "ask your provider for a public address, or let the outer router forward a UDP port"
    return State.WARNING, found + _said(facts), fix


def _mapped(facts: dict[str, Any]) -> Verdict:
    found = f"{facts['external']} leads here, by {facts['method']} of {facts['gateway']}"
    return State.OK, found + _back(facts), ""


def _independent(facts: dict[str, Any]) -> Verdict:
    found = f"no router opens a port; hosts meet at {facts['seen']} by sending both at once"
    return State.OK, found + _said(facts) + _back(facts), ""


def _symmetric(facts: dict[str, Any]) -> Verdict:
    found = (
        "no router opens a port, and your NAT takes another one for every destination "
        "(symmetric): only hosts with a port of their own can be reached"
    )
    return State.WARNING, found + _said(facts), _OPEN


def _unknown(facts: dict[str, Any]) -> Verdict:
    found = (
        "this address is private and nobody told where the outside sees it: UDP may be blocked, or "
        "the rendezvous answers no STUN (UDP 3478 and 3479)"
    )
    return State.WARNING, found + _said(facts), _OPEN


def _firewalled(facts: dict[str, Any]) -> Verdict:
    found = "this address is its own, and a firewall before it lets in nothing but answers: hosts "
    fix = "let this host's UDP port (host.listen) in there, or switch on PCP in that router"
    return State.WARNING, f"{found}that want to come here cannot{_said(facts)}", fix


def _said(facts: dict[str, Any]) -> str:
    """What the routers answered."""
    said = [f"{one['gateway']} ({one['method']}): {one['says']}" for one in facts.get("tried", ())]
    return f" ({'; '.join(said)})" if said else ""


def _back(facts: dict[str, Any]) -> str:
    """Whether two hosts inside can meet at the outside of their router."""
    if facts.get("hairpin") is not False:
        return ""
    return "; it does not lead back inside (no hairpin): hosts behind it meet on their own network"


_VERDICTS: dict[str, Callable[[dict[str, Any]], Verdict]] = {
    Kind.OFFLINE: _offline,
    Kind.CAPTIVE_PORTAL: _portal,
    Kind.UDP_BLOCKED: _udp_blocked,
    Kind.IPV6_ONLY: _ipv6_only,
    Kind.DOUBLE_NAT: _double,
    Kind.MAPPED: _mapped,
    Kind.INDEPENDENT: _independent,
    Kind.SYMMETRIC: _symmetric,
    Kind.UNKNOWN_NAT: _unknown,
    Kind.FIREWALLED: _firewalled,
}
