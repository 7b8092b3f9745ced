"""``status``, ``ping``, ``lookup`` and ``down``: questions to a running host."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.live import Live
from rich.table import Table

from tunnel.cli import relay_checks
from tunnel.cli.files import config_path
from tunnel.cli.keys_shown import keys_table
from tunnel.cli.talk import ConfigOption, Failure, JsonOption, command, emit, put, say, show
from tunnel.config import load_host
from tunnel.io.control import ControlError, NotRunningError, ask, converse

_DOWN_PATIENCE = 30.0  # seconds for withdrawal from the zone and farewell to the peers
_POLL = 0.05
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="A host label, or a full name.")]


def register(app: typer.Typer) -> None:
    """Adds the commands of this module."""
    command(app, "status")(status)
    command(app, "ping")(ping)
    command(app, "lookup")(lookup)
    command(app, "down")(down)


def _socket(config: str | None) -> Path:
    return load_host(config_path(config)).control_socket


def status(
    config: ConfigOption = None,
    as_json: JsonOption = False,
    watch: Annotated[bool, typer.Option("--watch", help="Show it again and again.")] = False,
    interval: Annotated[
        float, typer.Option(min=0.1, max=3600, metavar="SECONDS", help="Of --watch.")
    ] = 1.0,
) -> None:
    """Show this host, its zone and its peers."""
    path = _socket(config)
    if watch:
        with contextlib.suppress(KeyboardInterrupt):  # that is how a person ends it
            asyncio.run(_watch(path, interval, as_json))
        return
    facts = asyncio.run(ask(path, {"command": "status"}))
    if as_json:
        emit("status", facts)
    else:
        show(status_tables(facts))


async def _watch(path: Path, interval: float, as_json: bool) -> None:
    """Until the host ends or the person interrupts; with JSON one line per interval."""
    request = {"command": "watch", "interval_s": interval}
    if as_json:
        async for facts in converse(path, request):
            emit("status", facts)
        return
    with Live(auto_refresh=False) as live:
        async for facts in converse(path, request):
            live.update(status_tables(facts), refresh=True)


def status_tables(facts: Mapping[str, Any]) -> Group:
    """The status of DESIGN §5 for a person: the host's facts, then a table of peers."""
    about = Table.grid(padding=(0, 2))
    for key, value in _about(facts):
        about.add_row(key, value)
    peers = Table(box=None, pad_edge=False, header_style="bold")
    for heading in (
        "peer",
        "state",
        "path",
        "endpoint",
        "suite",
        "auth",
        "received",
        "sent",
        "rtt",
        "mtu",
        "id",
    ):
        peers.add_column(heading, no_wrap=True)
    domain = (facts.get("host") or {}).get("name", "").partition(".")[2]
    reasons = []
    for peer in facts.get("peers") or ():
        label = str(peer.get("name")).removesuffix(f".{domain}")
        peers.add_row(
            label,
            *(_cell(peer.get(key)) for key in ("state", "path", "endpoint", "suite", "auth")),
            _octets(peer.get("rx_bytes")),
            _octets(peer.get("tx_bytes")),
            _milliseconds(peer.get("rtt_ms")),
            _cell(peer.get("mtu")),
            _cell(peer.get("id")),
        )
        if peer.get("reason"):
            reasons.append(f"{label}: {peer['reason']}")
        if (relayed := relay_checks.of_peer(label, peer)) is not None:
            reasons.append(relayed)
    rest = ["", peers] if peers.row_count else ["", "no peers yet"]
    keys = keys_table(facts.get("peers") or (), domain)
    if keys is not None:
        rest += ["", keys]
    return Group(about, *rest, *reasons)


def _about(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The host's own facts in a few lines; what is absent takes none."""
    host, nat, zone = (facts.get(part) or {} for part in ("host", "nat", "zone"))
    own = {key: _cell(host.get(key)) for key in ("name", "id", "device", "mtu", "engine", "aead")}
    rows = [
        ("host", own["name"]),
        ("id", own["id"]),
        ("device", f"{own['device']}, MTU {own['mtu']}"),
        ("engine", f"{own['engine']}, AEAD by {own['aead']}"),
        *_offload_rows(host.get("offloads") or {}),
        ("endpoint", f"{_cell(host.get('endpoint'))}, UDP port {_cell(host.get('listen'))}"),
    ]
    if host.get("drops"):
        rows.append(("drops", _cell(host["drops"])))
    rows += _network_rows(nat)
    rows += relay_checks.rows(facts)
    if zone.get("server"):
        known = "published" if zone.get("published") else "not published"
        lease = f", lease {zone['lease_s']} s" if zone.get("lease_s") else ""
        rows.append(
            ("zone", f"{zone['server']} over {_cell(zone.get('transport'))}, {known}{lease}")
        )
    if facts.get("certificate"):
        rows.append(("certificate", _certificate(facts["certificate"])))
    if zone.get("problem"):
        rows.append(("problem", str(zone["problem"])))
    return rows


def _network_rows(nat: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What kind of network it is, and how others find a way in."""
    words = [str(nat["kind"])] if nat.get("kind") else []
    if nat.get("method"):
        words.append(f"{nat['external']} by {nat['method']} of {nat['gateway']}")
        words += [f"for {nat['lifetime_s']} s more"] if nat.get("lifetime_s") else []
    elif nat.get("seen"):
        words.append(f"seen from outside as {nat['seen']}")
    words += [f"NAT64 {nat['nat64']}"] if nat.get("nat64") else []
    return [("network", ", ".join(words))] if words else []


def _offload_rows(offloads: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Those in use in one line, the others in one line for each reason."""
    on = [name for name, one in offloads.items() if one["on"]]
    rows = [("offloads", ", ".join(on) or "none")] if offloads else []
    missing: dict[str, list[str]] = {}
    for name, one in offloads.items():
        if not one["on"]:
            missing.setdefault(one["reason"], []).append(name)
    return rows + [("", f"not {', '.join(names)}: {why}") for why, names in missing.items()]


def _certificate(facts: Mapping[str, Any]) -> str:
    until = datetime.fromtimestamp(facts["expires_unix"], UTC)
    issuer = ", issuer" if facts.get("issuer") else ""
    problem = f"; {facts['problem']}" if facts.get("problem") else ""
    return f"until {until:%Y-%m-%d}, renewed by itself{issuer}{problem}"


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {inner}" for key, inner in value.items()) or "–"
    if isinstance(value, (list, tuple)):
        return ", ".join(str(inner) for inner in value) or "–"
    return str(value)


def _octets(value: float | None) -> str:
    if value is None:
        return "–"
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def _milliseconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f} ms"


def ping(
    name: NameArgument,
    config: ConfigOption = None,
    as_json: JsonOption = False,
    count: Annotated[int, typer.Option("--count", "-n", min=1, max=1000)] = 3,
) -> None:
    """Measure the round trip through the tunnel to NAME; the tunnel is made if it is not there."""
    request = {"command": "ping", "name": name, "count": count}
    facts = asyncio.run(ask(_socket(config), request))
    rounds: list[float | None] = facts["rtt_ms"]
    came = [one for one in rounds if one is not None]
    if not came:
        raise Failure(
            f"{name} did not answer ({len(rounds)} sent); see `autotunnel status`", **facts
        )
    if as_json:
        emit("ping", facts)
        return
    put(where_pinged(facts))
    for number, one in enumerate(rounds, 1):
        put(f"{number}: {'lost' if one is None else f'{one:.2f} ms'}")
    mean = sum(came) / len(came)
    put(f"{len(rounds)} sent, {len(came)} came back, {mean:.2f} ms on average")


def where_pinged(facts: Mapping[str, Any]) -> str:
    """Who answers a ping, and by which path; a relayed one leads to no endpoint of the network."""
    relayed = facts["path"] == "relay"
    way = f"through {facts['home_agent']}" if relayed else f"to {facts['endpoint']}"
    return f"{facts['name']} ({facts['id']}), {facts['path']} path {way}"


def lookup(name: NameArgument, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Show what the zone says of NAME now."""
    facts = asyncio.run(ask(_socket(config), {"command": "lookup", "name": name}))
    if as_json:
        emit("lookup", facts)
        return
    table = Table.grid(padding=(0, 2))
    for key, value in facts.items():
        table.add_row(key, _cell(value))
    show(table)


def down(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """End the running host: its records, SAs, routes and device go with it."""
    path = _socket(config)
    facts = asyncio.run(_down(path))
    if as_json:
        emit("down", facts)
    else:
        say("the host has ended")


async def _down(path: Path) -> dict[str, Any]:
    """Asks, and waits until the control socket is gone, which is the last thing that goes."""
    facts: dict[str, Any] = await ask(path, {"command": "down"})
    loop = asyncio.get_running_loop()
    end = loop.time() + _DOWN_PATIENCE
    while loop.time() < end:
        try:
            await ask(path, {"command": "status"})
        except NotRunningError:
            return facts
        except ControlError:
            pass  # it is ending just now
        await asyncio.sleep(_POLL)
    cause = f"the host (process {facts['pid']}) did not end within {_DOWN_PATIENCE:.0f} s"
    raise Failure(f"{cause}; its log says what it waits for", **facts)
