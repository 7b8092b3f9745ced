"""``advertise`` and ``browse``: the services of an account (RFC 6763, decision 0046)."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from typing import Annotated, Any, Final

import typer
from rich.table import Table

from discovery.services import check_type, checked_service
from discovery.types import Service
from tunnel.cli.files import config_path
from tunnel.cli.talk import ConfigOption, Failure, JsonOption, command, emit, put, say, show
from tunnel.config import HostConfig, load_host
from tunnel.io.control import NotRunningError, ask, converse
from tunnel.io.services import ServicesFile, checked_kind
from tunnel.services import service_json

_LATER: Final = "as soon as the rendezvous answers"
_WHEN_UP: Final = "when the host is up"
_INTERVAL: Final = 30.0  # seconds between two looks of --watch, where the zone does not push

TypeArgument = Annotated[
    str | None, typer.Argument(metavar="TYPE", help='Like "_ssh._tcp" or "_ipp._udp".')
]
PortArgument = Annotated[int | None, typer.Argument(metavar="PORT", min=1, max=65535)]
NameOption = Annotated[
    str | None, typer.Option("--name", help="For people; this host's label if left out.")
]
TextOption = Annotated[
    list[str] | None, typer.Option("--txt", metavar="KEY=VALUE", help="More about it.")
]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask: publish it.")]
ListOption = Annotated[bool, typer.Option("--list", help="Show what this host advertises.")]
WithdrawOption = Annotated[bool, typer.Option("--withdraw", help="Take it back.")]


def register(app: typer.Typer) -> None:
    """Adds the commands of this module."""
    command(app, "advertise")(advertise)
    command(app, "browse")(browse)


def advertise(
    kind: TypeArgument = None,
    port: PortArgument = None,
    name: NameOption = None,
    txt: TextOption = None,
    yes: YesOption = False,
    list_: ListOption = False,
    withdraw: WithdrawOption = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tell all hosts of the account of a service on this one, until it is taken back."""
    settings = load_host(config_path(config))
    if list_ or kind is None:
        if kind is not None or withdraw:
            raise typer.BadParameter("--list goes with nothing else")
        _list(settings, as_json)
        return
    if settings.account is None:
        raise Failure(
            "this host has no account, so there is no zone; make one with `autotunnel init`"
        )
    name = settings.host.name if name is None else name
    if withdraw:
        _withdraw(settings, check_type(kind), name, as_json)
        return
    if port is None:
        raise typer.BadParameter('a port belongs to it, like "_ssh._tcp 22"')
    service = checked_service(kind, port, name, txt or ())
    _consent(service, settings.account.domain, yes)
    request = {"command": "advertise", "service": service_json(service)}
    try:
        facts = asyncio.run(ask(settings.control_socket, request))
        published = bool(facts["published"])
        when = "now" if published else _LATER
    except NotRunningError:
        ServicesFile(settings.state_dir).advertise(service)
        facts, when = {**service_json(service), "published": False}, _WHEN_UP
    if as_json:
        emit("advertise", facts)
    else:
        say(f"{_text(facts)} on {settings.fqdn} is published {when}")


def _consent(service: Service, domain: str, yes: bool) -> None:
    """Only the owner's own word puts a service into the zone."""
    if yes:
        return
    what = f"{_text(service_json(service))} will be seen by every host of {domain}"
    if not sys.stdin.isatty():
        raise Failure(f"{what}; say --yes if that is what you want")
    if not typer.confirm(f"{what}. Publish it?", err=True):
        raise Failure("nothing was published")


def _withdraw(settings: HostConfig, kind: str, name: str, as_json: bool) -> None:
    request = {"command": "withdraw", "type": kind, "name": name}
    try:
        facts = asyncio.run(ask(settings.control_socket, request))
        when = "has gone from the zone" if facts["gone"] else f"goes from the zone {_LATER}"
    except NotRunningError:
        if not ServicesFile(settings.state_dir).withdraw(kind, name):
            raise Failure(f"this host does not advertise {name!r} ({kind})") from None
        facts = {"type": kind, "name": name, "gone": False}
        when = f"is advertised no more; what the zone still has of it goes {_WHEN_UP}"
    if as_json:
        emit("advertise", facts)
    else:
        say(f"{name!r} ({kind}) {when}")


def _list(settings: HostConfig, as_json: bool) -> None:
    try:
        found = asyncio.run(ask(settings.control_socket, {"command": "services"}))
    except NotRunningError:
        offered, _ = ServicesFile(settings.state_dir).load()
        reason = "the host is not running"
        found = [{**service_json(one), "state": "waiting", "reason": reason} for one in offered]
    if as_json:
        emit("advertise", {"services": found})
        return
    if not found:
        say("this host advertises nothing")
        return
    table = _table("type", "name", "port", "texts", "state")
    for one in found:
        state = one["state"] + (f": {one['reason']}" if one["reason"] else "")
        table.add_row(one["type"], one["name"], str(one["port"]), " ".join(one["texts"]), state)
    show(table)


def browse(
    kind: TypeArgument = None,
    watch: Annotated[bool, typer.Option("--watch", help="Go on, and show every change.")] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the services that the hosts of the account advertise."""
    settings = load_host(config_path(config))
    request: dict[str, Any] = {"command": "browse", "type": checked_kind(kind or "")}
    if watch:
        request |= {"command": "browse-watch", "interval_s": _INTERVAL}
        with contextlib.suppress(KeyboardInterrupt):  # that is how a person ends it
            asyncio.run(_watch(settings, request, as_json))
        return
    found = asyncio.run(ask(settings.control_socket, request))
    if as_json:
        emit("browse", {"services": found})
        return
    if not found:
        say("no host of the account advertises " + (kind or "anything"))
        return
    table = _table("type", "name", "host", "port", "texts")
    for one in found:
        row = (one["type"], one["name"], one["host"], str(one["port"]), " ".join(one["texts"]))
        table.add_row(*row)
    show(table)


async def _watch(settings: HostConfig, request: dict[str, Any], as_json: bool) -> None:
    """A line for each service that comes or goes; one that changes goes and comes."""
    known: list[dict[str, Any]] = []
    async for found in converse(settings.control_socket, request):
        for event, some, others in (("remove", known, found), ("add", found, known)):
            for one in (one for one in some if one not in others):
                if as_json:
                    emit("browse", {"event": event, "service": one})
                else:
                    sign = "+" if event == "add" else "-"
                    put(f"{sign} {_text(one)} on {one['host']}")
        known = found


def _text(service: dict[str, Any]) -> str:
    return f"{service['name']!r} ({service['type']}, port {service['port']})"


def _table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(heading, no_wrap=True)
    return table
