"""``init``, ``invite``, ``revoke`` and ``tsig``: who belongs to the account, and its keys."""

from __future__ import annotations

import asyncio
import re
import sys
import time
from base64 import b64encode
from pathlib import Path
from typing import Annotated

import typer

from keys import ca, invitation, store
from keys.account import Account, new_secret
from keys.ca import Authority
from keys.issuer import Issuer, Ledger
from tunnel.cli.documents import host_toml, serve_toml
from tunnel.cli.files import (
    CA_FILE,
    CA_KEY_FILE,
    CERTIFICATE_FILE,
    HOST_KEY_FILE,
    KEY_FILE,
    all_or_nothing,
    config_path,
    default_label,
    refuse_overwrite,
    write_new,
)
from tunnel.cli.mailbox import publish
from tunnel.cli.talk import ConfigOption, Failure, JsonOption, command, emit, put, say
from tunnel.config import DEFAULT_TLS_PORT, HostConfig, load_host
from tunnel.io.papers import LEDGER, issuer_of, keep_ledger, note_invitation
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
    command(app, "revoke")(revoke)
    command(app, "tsig")(tsig)


def init(
    domain: Annotated[str, typer.Argument(metavar="DOMAIN", help="Whose zone you own.")],
    rendezvous: Annotated[
        str, typer.Option(metavar="HOST[:PORT]", help="The server that will hold the zone.")
    ],
    name: NameOption = None,
    transport: Annotated[str, typer.Option(help="To the rendezvous: tls, tcp or udp.")] = "tls",
    auth: Annotated[str, typer.Option(help="How hosts prove themselves: cert or psk.")] = "cert",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make an account with its CA, this host's configuration, and a rendezvous' serve.toml."""
    domain = domain.lower().rstrip(".")
    _check_arguments(domain, rendezvous, transport)
    if auth not in ("cert", "psk"):
        raise Failure(f"--auth: {auth!r} is neither cert nor psk; leave it out")
    label = label_of(name)
    path = config_path(config)
    key, serve = path.parent / KEY_FILE, path.parent / "serve.toml"
    papers = (HOST_KEY_FILE, CERTIFICATE_FILE, CA_FILE, CA_KEY_FILE, LEDGER)
    made = [path, key, serve, *(path.parent / one for one in papers if auth == "cert")]
    refuse_overwrite(made)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    ours = host_toml(label=label, domain=domain, server=rendezvous, transport=transport, auth=auth)
    theirs = serve_toml(domain=domain, rendezvous=rendezvous, transport=transport)
    with all_or_nothing(made):
        store.save_account_secret(key, new_secret(store.random_bytes))
        if auth == "cert":
            _make_authority(path.parent, f"{label}.{domain}", domain)
        write_new(path, ours, 0o644)
        write_new(serve, theirs, 0o644)
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


def _make_authority(folder: Path, name: str, domain: str) -> None:
    """The account's CA, and this first host's key and certificate."""
    unix = int(time.time())
    authority = Authority.new(domain, unix, store.random_bytes)
    issuer = Issuer(authority, Ledger(), store.random_bytes)
    key = ca.new_key(store.random_bytes)
    certificate = issuer.enroll(ca.read_request(ca.request(key, name)), unix)
    store.save_private_key(folder / CA_KEY_FILE, authority.key)
    store.save_certificates(folder / CA_FILE, [authority.certificate])
    store.write_secret(folder / LEDGER, issuer.ledger.to_json().encode())
    store.save_private_key(folder / HOST_KEY_FILE, key)
    store.save_certificates(folder / CERTIFICATE_FILE, [certificate])


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


def label_of(name: str | None) -> str:
    """The label of ``--name``, else this machine's. Raises :class:`Failure`."""
    if name is None:
        return default_label()
    if not is_label(name):
        cause = f"--name: {name!r} is no host label"
        raise Failure(f'{cause}; use lower-case letters, digits and "-", like "desk"')
    return name


def seconds(text: str, option: str = "--expires") -> int:
    """A length of time like ``90s``, ``30m``, ``1h``, ``2d``. Raises :class:`Failure`."""
    found = re.fullmatch(r"([1-9][0-9]{0,8})([smhd])", text)
    length = int(found[1]) * _UNITS[found[2]] if found else 0
    if not 0 < length <= _LONGEST:
        raise Failure(f"{option}: {text!r} is no length of time up to a year; write it like 1h")
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
    join_key = _join_key(settings, identity, until)
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
            join_key=join_key,
        )
    )
    if as_json:
        facts = {"token": token, "domain": account.domain, "expires_unix": until}
        emit("invite", {**facts, "expires_s": length, "pin": pin.hex() if pin else None})
        return
    put(token)
    if sys.stderr.isatty():
        import segno  # 3 MiB that a host which runs for months need not hold

        segno.make(token.upper(), error="l", micro=False).terminal(sys.stderr, compact=True)
    say(f"on the other host, within {expires}: autotunnel join TOKEN   (it works once)")
    if join_key is not None:
        say("this host must be up meanwhile (autotunnel up): it signs the other's certificate")


def _join_key(settings: HostConfig, identity: bytes, until: int) -> bytes | None:
    """The proof behind the newcomer's signing request, where hosts have certificates."""
    if not settings.certified:
        return None
    issuer = _issuer_of(settings, "invite")
    note_invitation(settings, until)
    return issuer.authority.join_key(identity, until)


def _issuer_of(settings: HostConfig, what: str) -> Issuer:
    issuer = issuer_of(settings)
    if issuer is None:
        cause = "this host is no issuer: it does not hold the key of the account's CA"
        fix = f"run `autotunnel {what}` on one, such as the host that made the account"
        raise Failure(f"{cause}; {fix}")
    return issuer


def revoke(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A host label, or a serial number.")],
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let the certificates of host NAME count no more, from now on and everywhere."""
    settings = load_host(config_path(config))
    account, issuer = load_account(settings), _issuer_of(settings, "revoke")
    unix = int(time.time())
    full = name.lower() if "." in name else f"{name.lower()}.{account.domain}"
    serials = issuer.revoke(full, unix) or issuer.revoke(name, unix)
    if not serials:
        known = sorted({entry.name.partition(".")[0] for entry in issuer.ledger.issued})
        cause = f"no valid certificate of {full} was issued here"
        raise Failure(f"{cause}; issued here were those of {', '.join(known) or 'nobody'}")
    keep_ledger(settings, issuer.ledger)
    problem = asyncio.run(publish(settings, account, issuer, unix))
    if as_json:
        emit("revoke", {"name": full, "serials": serials, "published": problem is None})
        return
    for serial in serials:
        put(serial)
    if problem is not None:
        say(f"the zone has not been told: {problem}", style="yellow")
        say("this host tells it when it is up (autotunnel up)")
    else:
        say(f"{full} is out: every host that is up lets go of it within a minute or so")


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


def tsig(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Print the account's update key as a BIND key file, for `nsupdate -k` and `dig -k`."""
    account = load_account(load_host(config_path(config)))
    secret = b64encode(account.tsig_secret).decode("ascii")
    if as_json:
        facts = {"name": account.tsig_name, "algorithm": "hmac-sha256", "secret": secret}
        emit("tsig", facts)
        return
    put(f'key "{account.tsig_name}" {{\n\talgorithm hmac-sha256;\n\tsecret "{secret}";\n}};')
