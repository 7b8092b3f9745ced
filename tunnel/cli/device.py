"""``device create``: a persistent TUN device that an ordinary user owns, so that ``up`` needs no
capability at all (DESIGN "Privilege")."""

from __future__ import annotations

import pwd
from ipaddress import IPv6Address
from typing import Annotated

import typer

from tunnel.cli.files import config_path
from tunnel.cli.talk import ConfigOption, Failure, JsonOption, command, emit, say
from tunnel.config import HostConfig, load_host
from tunnel.spelling import parse_ula


def register(app: typer.Typer) -> None:
    """Adds ``device create``."""
    group = typer.Typer(help="A persistent TUN device.", no_args_is_help=True)

    @group.callback()
    def _group() -> None:
        """A group even with one command, so that more can follow."""

    command(group, "create", schema="device")(create)
    app.add_typer(group, name="device")


def create(
    user: Annotated[str, typer.Option("--user", metavar="NAME", help="Who may run the host.")],
    peer: Annotated[
        list[str] | None,
        typer.Option("--peer", metavar="ADDRESS", help="A peer's host id to route; repeatable."),
    ] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make the device of the configuration, with this host's id, its MTU, queues and routes.

    The configuration must fix host.id; static peers of it are routed too.
    """
    from tunnel.io.device import create_persistent  # Linux only, and slow to load
    from tunnel.io.outer import device_mtu

    settings = load_host(config_path(config))
    host_id = settings.host.fixed_id
    if host_id is None:
        cause = f'{settings.path}: host.id is "auto", but a device that stays needs one that stays'
        raise Failure(f'{cause}; set host.id to an address like "fd12:3456::1"')
    try:
        owner = pwd.getpwnam(user).pw_uid
    except KeyError:
        raise Failure(f"there is no user {user!r}; see `getent passwd`") from None
    peers = _peers(settings, peer or [])
    mtu = device_mtu(settings)
    several = settings.engine.threads > 1
    create_persistent(settings.host.device, owner, host_id, mtu, peers, several=several)
    if as_json:
        facts = {"device": settings.host.device, "user": user, "id": host_id}
        emit("device", {**facts, "mtu": mtu, "routes": [str(one) for one in peers]})
    else:
        say(
            f"{settings.host.device} is ready for {user}; end it with "
            f"`ip link delete {settings.host.device}`"
        )


def _peers(settings: HostConfig, given: list[str]) -> tuple[IPv6Address, ...]:
    try:
        named = [parse_ula(text) for text in given]
    except ValueError as problem:
        raise Failure(f"--peer: {problem}; give a peer's host id") from None
    return tuple(dict.fromkeys([*(peer.host_id for peer in settings.peers), *named]))
