"""What ``doctor`` says of the NATs before a running host, with cause and fix."""

from __future__ import annotations

from typing import Any

from tunnel.cli.checks import Finding, State
from tunnel.outside import DEPENDENT, INDEPENDENT

_OPEN = "switch on PCP, NAT-PMP or UPnP in your router, or forward a UDP port there"


def nat(facts: dict[str, Any] | None) -> list[Finding]:
    """How others reach this host; ``facts`` is the ``nat`` part of its status, ``None`` where it
    does not run. Nothing is said of a host with a public address."""
    if not facts or not facts.get("private_address"):
        return []
    if facts.get("method") and not facts.get("double_nat"):
        where = f"{facts['external']} leads here, by {facts['method']} of {facts['gateway']}"
        return [Finding("nat", State.OK, where)]
    said = "; ".join(f"{one['gateway']} ({one['method']}): {one['says']}" for one in facts["tried"])
    why = f" ({said})" if said else ""
    if facts.get("double_nat"):
        found = "your router stands behind another NAT, so that what it opens leads nowhere"
        fix = "ask your provider for a public address, or let the outer router forward a UDP port"
        return [Finding("nat", State.WARNING, found + why, fix)]
    kind = facts.get("mapping")
    if kind == INDEPENDENT:
        found = f"no router opens a port; hosts meet at {facts['seen']} by sending both at once"
        return [Finding("nat", State.OK, found + why)]
    if kind == DEPENDENT:
        found = (
            "no router opens a port, and your NAT takes another one for every destination "
            "(symmetric): only hosts with a port of their own can be reached"
        )
        return [Finding("nat", State.WARNING, found + why, _OPEN)]
    found = (
        "this address is private and nobody told where the outside sees it: UDP may be blocked, or "
        "the rendezvous answers no STUN (UDP 3478 and 3479)"
    )
    return [Finding("nat", State.WARNING, found + why, _OPEN)]
