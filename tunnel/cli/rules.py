"""``rules``: the remapping rules of a running host, in the syntax of the IRO draft."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import typer

from tunnel.cli.files import config_path
from tunnel.cli.talk import ConfigOption, JsonOption, command, emit, put, say
from tunnel.config import load_host
from tunnel.io.control import ask
from tunnel.mobility.rules import TrackedSa, rules_of

_SIGNALS = "protocol 135"


def register(app: typer.Typer) -> None:
    """Adds the command."""
    command(app, "rules")(rules)


def rules(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Print which addresses become which on the way out and in, for each SPI."""
    settings = load_host(config_path(config))
    facts = asyncio.run(ask(settings.control_socket, {"command": "status"}))
    found = list(peers_of(facts))
    if as_json:
        emit("rules", {"peers": found})
        return
    for peer in found:
        through = f" through {peer['home_agent']}: no rules" if peer["path"] == "relay" else ""
        put(f"# {peer['name']} ({peer['path']}{through})")
        for sa in peer["sas"]:
            put("\n".join(sa["text"]))
    if not found:
        say("no rules: there is no tunnel to any peer; try `autotunnel ping NAME`")


def peers_of(facts: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The peers with a tunnel, and the rules of each of their SAs; a relayed one has none."""
    host = facts.get("host") or {}
    for peer in facts.get("peers") or ():
        children = peer.get("children") or ()
        if not children or peer.get("path") is None:
            continue
        direct = peer["path"] == "direct"
        yield {
            "name": peer["name"],
            "path": peer["path"],
            "home_agent": peer.get("home_agent"),
            "sas": [_rules(host, peer, child) for child in children] if direct else [],
        }


def _rules(
    host: Mapping[str, Any], peer: Mapping[str, Any], child: Mapping[str, Any]
) -> dict[str, Any]:
    sa = TrackedSa(
        spi_in=int(child["spi_in"], 16),
        spi_out=int(child["spi_out"], 16),
        local=str(host["id"]),
        peer=str(peer["id"]),
        ours=_of_family(host.get("endpoint"), str(peer["endpoint"])),
        theirs=str(peer["endpoint"]),
        signals=child["traffic"] == _SIGNALS,
    )
    found = rules_of(sa)
    return {
        "traffic": child["traffic"],
        "rules": [{**asdict(one), "spi": f"{one.spi:08x}"} for one in found],
        "text": [str(one) for one in found],
    }


def _of_family(ours: str | None, theirs: str) -> str | None:
    """Our endpoint, if it is of the family that is spoken with this peer."""
    if ours is None or ours.startswith("[") != theirs.startswith("["):
        return None
    return ours
