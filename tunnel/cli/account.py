"""``init``, ``invite``, ``join`` and ``tsig``: who belongs to the account, and its keys."""

from __future__ import annotations

import asyncio
import re
import sys
import time
from base64 import b64encode
from typing import Annotated

import segno
import typer

from keys import invitation, store
from keys.account import Account, new_secret
from tunnel.cli.files import (
    KEY_FILE,
    config_path,
    default_label,
    host_toml,
    refuse_overwrite,
    serve_toml,
    write_new,
)
from tunnel.cli.talk import ConfigOption, Failure, JsonOption, command, emit, put, say
from tunnel.config import DEFAULT_DNS_PORT, DEFAULT_TLS_PORT, HostConfig, load_host
from tunnel.spelling import is_domain, is_label, parse_endpoint

NameOption = Annotated[
    str | None,
    typer.Option("--name", metavar="LABEL", help="This host's label; else its host name."),
]
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_LONGEST = 365 * 86400
_PIN_PATIENCE = 3.0  # seconds; `invite` works without a network, and must not seem to hang


def register(app: typer.Typer) -> None:
    """Adds the commands of this module."""
    command(app, "init")(init)
    command(app, "invite")(invite)
    command(app, "join")(join)
    command(app, "tsig")(tsig)


def init(
    domain: Annotated[str, typer.Argument(metavar="DOMAIN", help="Whose zone you own.")],
    rendezvous: Annotated[
        str, typer.Option(metavar="HOST[:PORT]", help="The server that will hold the zone.")
    ],
    name: NameOption = None,
    transport: Annotated[str, typer.Option(help="To the rendezvous: tls, tcp or udp.")] = "tls",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make an account, this host's configuration, and a serve.toml for the rendezvous."""
    domain = domain.lower().rstrip(".")
    _check_arguments(domain, rendezvous, transport)
    label = _label(name)
    path = config_path(config)
    key, serve = path.parent / KEY_FILE, path.parent / "serve.toml"
    refuse_overwrite([path, key, serve])
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    store.save_account_secret(key, new_secret(store.random_bytes))
    text = host_toml(label=label, domain=domain, server=rendezvous, transport=transport)
    write_new(path, text, 0o644)
    write_new(serve, serve_toml(domain=domain, rendezvous=rendezvous, transport=transport), 0o644)
    files = {"config": str(path), "secret_file": str(key), "serve_config": str(serve)}
    if as_json:
        emit("init", {"name": f"{label}.{domain}", **files})
        return
    for file in files.values():
        put(file)
    say(
        f"{label}.{domain} is the first host of its account. Next:\n"
        f"  on {rendezvous}, with {serve.name} and {key.name} brought there over a safe channel:\n"
        f"    autotunnel serve -c {serve.name}\n"
        "  here: autotunnel up, then autotunnel invite for every other host"
    )


def _check_arguments(domain: str, rendezvous: str, transport: str) -> None:
    if not is_domain(domain):
        raise Failure(f'{domain!r} is no domain name; write it like "alice.members.example"')
    try:
        parse_endpoint(rendezvous, DEFAULT_TLS_PORT)
    except ValueError as problem:
        fix = 'write it like "203.0.113.10" or "203.0.113.10:853"'
        raise Failure(f"--rendezvous: {problem}; {fix}") from None
    if transport not in ("tls", "tcp", "udp"):
        raise Failure(f"--transport: {transport!r} is none of tls, tcp and udp; leave it out")


def _label(name: str | None) -> str:
    if name is None:
        return default_label()
    if not is_label(name):
        cause = f"--name: {name!r} is no host label"
        raise Failure(f'{cause}; use lower-case letters, digits and "-", like "desk"')
    return name


def seconds(text: str) -> int:
    """A length of time like ``90s``, ``30m``, ``1h``, ``2d``. Raises :class:`Failure`."""
    found = re.fullmatch(r"([1-9][0-9]{0,8})([smhd])", text)
    length = int(found[1]) * _UNITS[found[2]] if found else 0
    if not 0 < length <= _LONGEST:
        raise Failure(f"--expires: {text!r} is no length of time up to a year; write it like 1h")
    return length


def invite(
    expires: Annotated[str, typer.Option(metavar="TIME", help="Like 30m, 1h, 2d.")] = "1h",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print a token that brings one other host into the account; it needs no network."""
    length = seconds(expires)
    settings = load_host(config_path(config))
    account = load_account(settings)
    until = int(time.time()) + length
    identity = store.random_bytes(invitation.ID_SIZE)
    server, dns_port, tls_port = _rendezvous_of(settings)
    pin = _pin(settings, account)
    token = invitation.encode(
        invitation.Invitation(
            domain=account.domain,
            server=server,
            dns_port=dns_port,
            tls_port=tls_port,
            pin=pin,
            identity=identity,
            expires=until,
            key=account.invitation_key(identity, until),
        )
    )
    if as_json:
        facts = {"token": token, "domain": account.domain, "expires_unix": until}
        emit("invite", {**facts, "expires_s": length, "pin": pin.hex() if pin else None})
        return
    put(token)
    if sys.stderr.isatty():
        segno.make(token.upper(), error="l", micro=False).terminal(sys.stderr, compact=True)
    say(f"on the other host, within {expires}: autotunnel join TOKEN   (it works once)")


def _rendezvous_of(settings: HostConfig) -> tuple[str, int | None, int | None]:
    endpoint = settings.rendezvous.endpoint
    if endpoint is None:
        cause = f"{settings.path}: rendezvous.server is not set, and a token must name it"
        raise Failure(f'{cause}; add server = "HOST" under [rendezvous]')
    server, port = endpoint
    if settings.rendezvous.transport == "tls":
        return server, None, port
    return server, port, None


def _pin(settings: HostConfig, account: Account) -> bytes | None:
    """The pin of the rendezvous: the configuration's, else what the rendezvous itself proves now.

    ``None`` without TLS, or while there is no network: the token works without, but then the
    joining host cannot tell the rendezvous from somebody in the middle before it has joined.
    """
    from tunnel.cli.probe import look

    server = settings.rendezvous.endpoint
    if settings.rendezvous.pin_octets is not None or settings.rendezvous.transport != "tls":
        return settings.rendezvous.pin_octets
    assert server is not None  # _rendezvous_of has seen to it
    seen = asyncio.run(look(settings, server, account, _PIN_PATIENCE))
    if seen.problem is not None:
        say(f"the token carries no pin of the rendezvous: {seen.problem}", style="yellow")
    return seen.pin


def load_account(settings: HostConfig) -> Account:
    """The account of the configuration, with its secret. Raises :class:`Failure` if it has none,
    :class:`keys.store.SecretFileError` if its file is absent, careless or damaged."""
    path = settings.account_secret_path()
    if settings.account is None or path is None:
        cause = f"{settings.path} has no [account]"
        raise Failure(f"{cause}; run `autotunnel init` or `autotunnel join`")
    return store.load_account(settings.account.domain, path)


def join(
    token: Annotated[str, typer.Argument(metavar="TOKEN", help="From `autotunnel invite`.")],
    name: NameOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Bring this host into the account whose host printed TOKEN."""
    invited = invitation.decode(token, int(time.time()))
    label = _label(name)
    path = config_path(config)
    key = path.parent / KEY_FILE
    refuse_overwrite([path, key])  # before the token is used up

    from discovery.io_redeem import redeem  # slow to load

    secret = asyncio.run(
        redeem(
            server=invited.server,
            dns_port=invited.dns_port,
            tls_port=invited.tls_port,
            domain=invited.domain,
            identity=invited.identity,
            expires=invited.expires,
            key=invited.key,
            pin=invited.pin,
        )
    )
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    store.save_account_secret(key, secret)
    server, transport = _rendezvous_for(invited)
    text = host_toml(
        label=label,
        domain=invited.domain,
        server=server,
        transport=transport,
    )
    write_new(path, text, 0o644)
    if as_json:
        files = {"config": str(path), "secret_file": str(key)}
        emit("join", {"name": f"{label}.{invited.domain}", **files})
        return
    put(str(path))
    put(str(key))
    say(f"{label}.{invited.domain} has joined. Next: autotunnel up")


def _rendezvous_for(invited: invitation.Invitation) -> tuple[str, str]:
    """``rendezvous.server`` and ``rendezvous.transport`` of the new configuration."""
    if invited.tls_port is not None:
        return _server_text(invited.server, invited.tls_port, DEFAULT_TLS_PORT), "tls"
    port = invited.dns_port or DEFAULT_DNS_PORT
    return _server_text(invited.server, port, DEFAULT_DNS_PORT), "tcp"


def _server_text(server: str, port: int, usual: int) -> str:
    if port == usual:
        return server
    return f"[{server}]:{port}" if ":" in server else f"{server}:{port}"


def tsig(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Print the account's update key as a BIND key file, for `nsupdate -k` and `dig -k`."""
    account = load_account(load_host(config_path(config)))
    secret = b64encode(account.tsig_secret).decode("ascii")
    if as_json:
        facts = {"name": account.tsig_name, "algorithm": "hmac-sha256", "secret": secret}
        emit("tsig", facts)
        return
    put(f'key "{account.tsig_name}" {{\n\talgorithm hmac-sha256;\n\tsecret "{secret}";\n}};')
