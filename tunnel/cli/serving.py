"""``serve --status``: how the rendezvous that runs here is, and what its zones have."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from rich.console import Group
from rich.table import Table

from tunnel.cli.talk import Failure, emit, show
from tunnel.config import ServeConfig
from tunnel.io.control import NotRunningError, ask
from tunnel.io.showing import SOCKET_NAME


def show_status(settings: ServeConfig, as_json: bool) -> None:
    """Asks the rendezvous of a configuration. Raises :class:`Failure`, and
    :class:`~tunnel.io.control.ControlError`."""
    path = settings.state_dir / SOCKET_NAME
    try:
        facts = asyncio.run(ask(path, {"command": "status"}))
    except NotRunningError:
        fix = f"start it with `autotunnel serve -c {settings.path}`"
        raise Failure(f"no rendezvous runs here ({path}); {fix}") from None
    if as_json:
        emit("serve-status", facts)
    else:
        show(tables(facts))


def tables(facts: Mapping[str, Any]) -> Group:
    """The status for a person: its own facts, then a table of hosts for each zone."""
    about = Table.grid(padding=(0, 2))
    for key, value in _about(facts):
        about.add_row(key, value)
    rest: list[Any] = []
    for zone in facts["zones"]:
        rest += ["", _heading(zone)]
        if zone["hosts"]:
            rest.append(_hosts(zone))
        if (more := zone["hosts_total"] - len(zone["hosts"])) > 0:
            rest.append(f"and {more} more")
    return Group(about, *rest)


def _about(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    listening = [
        f"{host} port {port} ({transport})"
        for transport, endpoints in facts["listening"].items()
        for host, port in endpoints
    ]
    told, counters = facts["subscriptions"], facts["counters"]
    rows = [
        ("rendezvous", f"process {facts['pid']}, up for {_span(facts['uptime_s'])}"),
        ("listening", ", ".join(listening)),
        ("pin", facts["pin"] or "-"),
        ("connections", f"{facts['connections']} of at most {facts['connections_limit']}"),
        ("subscriptions", f"{told['push']} push, {told['llq']} long-lived queries"),
        ("counters", ", ".join(f"{what} {count}" for what, count in counters.items()) or "-"),
    ]
    if facts["home_agent"]:
        rows.append(("home agent", f"{facts['home_agent']}; `autotunnel status` shows it"))
    return rows


def _heading(zone: Mapping[str, Any]) -> str:
    text = f"zone {zone['domain']}: serial {zone['serial']}, {zone['names']} names, "
    text += f"{zone['records']} records, {zone['hosts_total']} hosts"
    backing = zone["backing"]
    if backing is None:
        return text
    away = f", which cannot be reached: {backing['away']}" if backing["away"] else ""
    return f"{text}, on {backing['server']}{away}"


def _hosts(zone: Mapping[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("host", "lease", "id"):
        table.add_column(heading, no_wrap=True)
    for host in zone["hosts"]:
        label = str(host["name"]).removesuffix(f".{zone['domain']}")
        lease = "for good" if host["lease_s"] is None else f"{_span(host['lease_s'])} more"
        table.add_row(label, lease, host["id"] or "-")
    return table


def _span(seconds: int) -> str:
    return str(timedelta(seconds=seconds))
