"""What ``status`` and ``doctor`` say of home agents: those of a host, and the one that it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tunnel.cli.checks import Finding, State
from tunnel.network_kind import Kind

_CLOSED_KINDS = (Kind.SYMMETRIC, Kind.DOUBLE_NAT, Kind.UNKNOWN_NAT, Kind.FIREWALLED)
_MIB = 1 << 20


def relays(facts: Mapping[str, Any] | None) -> Iterator[Finding]:
    """Whether this host is relayed for, and whether it relays as it is told to; ``facts`` is its
    status, ``None`` where it does not run."""
    if facts is None:
        return
    ours, kind = facts.get("home_agent"), (facts.get("nat") or {}).get("kind")
    if ours is not None:
        yield _ours(ours, kind)
    elif facts.get("home_agents") or kind in _CLOSED_KINDS:
        yield _theirs(facts.get("home_agents") or (), kind)


def _ours(ours: Mapping[str, Any], kind: str | None) -> Finding:
    found = own_words(ours)
    if kind in _CLOSED_KINDS:
        fix = "let this host's UDP port (host.listen) in at the router, or move [home_agent] to one"
        worse = f"{found}; but hosts cannot come here by themselves ({kind})"
        return Finding("home agent", State.WARNING, worse, f"{fix} with a public address")
    return Finding("home agent", State.OK, found)


def _theirs(agents: Any, kind: str | None) -> Finding:
    registered = [one["name"] for one in agents if one["registered"] and not one["silent"]]
    if registered:
        found = f"{' and '.join(registered)} relay{'s' if len(registered) == 1 else ''} for it"
        return Finding("relay", State.OK, found)
    if agents:
        told = "; ".join(f"{one['name']}: {one['reason'] or 'no answer yet'}" for one in agents)
        fix = "see that those hosts run, and that this one reaches them directly"
        return Finding("relay", State.WARNING, f"no home agent relays for it ({told})", fix)
    found = "no host of the account is a home agent, and this network meets few others directly"
    fix = "add a table [home_agent] to the file of a host that all the others reach, and restart it"
    return Finding("relay", State.WARNING, f"{found} ({kind})", fix)


def rows(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The lines of ``status``."""
    found: list[tuple[str, str]] = []
    for one in facts.get("home_agents") or ():
        state = "silent" if one["silent"] else "relays" if one["registered"] else "not yet"
        words = [f"{one['name']}: {state}"]
        words += [f"carries {one['carries']} of our peers"] if one["carries"] else []
        words += [one["reason"]] if one["reason"] else []
        found.append(("home agent" if not found else "", ", ".join(words)))
    if facts.get("home_agent") is not None:
        found.append(("home agent", own_words(facts["home_agent"])))
    mobility = facts.get("mobility") or {}
    unheeded = dict(mobility.get("refused") or {})
    if mobility.get("astray"):
        unheeded["astray"] = mobility["astray"]
    if unheeded:
        told = ", ".join(f"{reason} {count}" for reason, count in unheeded.items())
        found.append(("not heeded", f"{sum(unheeded.values())} mobility messages: {told}"))
    return found


def own_words(ours: Mapping[str, Any]) -> str:
    """What this host does as a home agent."""
    count = len(ours["bindings"])
    words = f"it relays for {count} host{'' if count == 1 else 's'}"
    words += (
        f", {ours['relayed_packets']} packets and {ours['relayed_bytes'] / _MIB:.1f} MiB so far"
    )
    limit = ours["limit_bytes_per_s"]
    return words + (f", at most {limit * 8 / 1e6:.0f} Mbit/s" if limit else "")


def of_peer(label: str, peer: Mapping[str, Any]) -> str | None:
    """Why a peer's path is relayed, in a sentence; ``None`` if it is not."""
    if peer.get("path") != "relay":
        return None
    why = f": {peer['relay_reason']}" if peer.get("relay_reason") else ""
    return f"{label} is reached through {peer.get('home_agent')}{why}"
