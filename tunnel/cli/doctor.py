"""``doctor``: looks at everything that can be wrong, and says cause and fix of each."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from rich.table import Table
from rich.text import Text

from tunnel.cli import checks, nat_checks, relay_checks, way_checks
from tunnel.cli.checks import Finding, State
from tunnel.cli.files import config_path
from tunnel.cli.talk import ConfigOption, JsonOption, command, emit, show
from tunnel.config import ConfigError, HostConfig, load_host
from tunnel.io.control import ControlError, ask

_STYLES = {State.OK: "green", State.WARNING: "yellow", State.FAILED: "red"}


def register(app: typer.Typer) -> None:
    """Adds the command."""
    command(app, "doctor")(doctor)


def doctor(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Check everything that can be wrong, with cause and fix; exit code 1 if anything is."""
    path = config_path(config)
    findings = list(examine(path))
    failed = any(finding.state is State.FAILED for finding in findings)
    if as_json:
        emit("doctor", {"ok": not failed, "findings": [one.as_json() for one in findings]})
    else:
        _tell(findings)
    if failed:
        raise typer.Exit(1)


def examine(path: Path) -> Iterator[Finding]:
    """All findings, in the order in which a fix helps; those that need a configuration come only
    if there is a sound one."""
    yield checks.python()
    try:
        config = load_host(path)
    except ConfigError as problem:
        yield checks.engine("auto")
        yield checks.tun()
        where = f"{problem.file}: {problem.key}" if problem.key else str(problem.file)
        yield Finding("config", State.FAILED, f"{where}: {problem.cause}", problem.fix)
        return
    yield checks.engine(config.engine.name, config.engine.threads)
    yield Finding("config", State.OK, str(path))
    yield from _examine_host(config)


def _examine_host(config: HostConfig) -> Iterator[Finding]:
    facts = running_status(config)
    running = facts is not None
    yield checks.offloads(facts["host"] if facts else None)
    yield checks.secrets(config)
    yield checks.tun()
    yield checks.capability(config, running)
    yield checks.port(config.host.listen, running)
    if config.host.ike_port is not None:
        yield checks.port(config.host.ike_port, running, "host.ike_port")
    yield from checks.rendezvous(config)
    yield from nat_checks.nat(facts["nat"] if facts else None)
    yield from way_checks.second_networks(config)
    yield from relay_checks.relays(facts)
    yield checks.resolver(config, facts.get("resolver") if facts else None)
    found = "a host runs with this configuration" if running else "no host runs here"
    yield Finding("host", State.OK, found, "" if running else "start it with `autotunnel up`")


def running_status(config: HostConfig) -> dict[str, Any] | None:
    """What the host says that answers on the control socket; ``None`` if none does."""
    try:
        facts: dict[str, Any] = asyncio.run(ask(config.control_socket, {"command": "status"}))
    except ControlError:
        return None
    return facts


def _tell(findings: list[Finding]) -> None:
    table = Table.grid(padding=(0, 2))
    for _ in range(3):
        table.add_column(overflow="fold")
    for finding in findings:
        said = finding.found + (f"; {finding.fix}" if finding.fix else "")
        table.add_row(finding.check, Text(finding.state.value, _STYLES[finding.state]), said)
    show(table)
