"""The files that ``init`` and ``join`` write: commented TOML, and secrets of mode 0600."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable
from ipaddress import ip_address
from pathlib import Path

import tomlkit
from tomlkit.items import Table

from tunnel.cli.talk import Failure
from tunnel.config import DEFAULT_DNS_PORT, DEFAULT_TLS_PORT, default_path
from tunnel.spelling import is_label, parse_endpoint

KEY_FILE = "account.key"
HOST_KEY_FILE, CERTIFICATE_FILE = "host.key", "host.crt"
CA_FILE, CA_KEY_FILE = "ca.crt", "ca.key"


def default_label() -> str:
    """This machine's host name as a label. Raises :class:`Failure` if it cannot be one."""
    label = socket.gethostname().split(".")[0].lower()
    if not is_label(label):
        cause = f"this machine's name {label!r} is no host label"
        raise Failure(f"{cause}; name the host with --name LABEL")
    return label


def default_state_dir() -> Path:
    """Root: /var/lib/autotunnel; else $XDG_STATE_HOME/autotunnel, by its specification."""
    if os.geteuid() == 0:
        return Path("/var/lib/autotunnel")
    base = os.environ.get("XDG_STATE_HOME") or ""
    return (Path(base) if base.startswith("/") else Path("~/.local/state").expanduser()) / (
        "autotunnel"
    )


def config_path(given: str | None) -> Path:
    """The file that ``-c`` names, else the default one; absolute."""
    return Path(given).absolute() if given else default_path().absolute()


def serve_path(given: str | None) -> Path:
    """As :func:`config_path`, for ``serve.toml``."""
    return Path(given).absolute() if given else default_path("serve.toml").absolute()


def refuse_overwrite(paths: Iterable[Path]) -> None:
    """Raises :class:`Failure` if one of the files is there already."""
    for path in paths:
        if path.exists() or path.is_symlink():
            fix = "move it away, or write elsewhere with -c FILE"
            raise Failure(f"{path} exists and is not overwritten; {fix}")


def write_new(path: Path, text: str, mode: int) -> None:
    """Writes a file that must not exist yet, with ``mode`` from its first moment."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def host_toml(*, label: str, domain: str, server: str, transport: str, auth: str = "cert") -> str:
    """The text of a host's config.toml.

    No pin is written: the account's signed record proves the rendezvous' key at every connection
    (decision 0003), and goes on to do so when that key is replaced.
    """
    document = tomlkit.document()
    document.add(tomlkit.comment("autotunnel: this host. `autotunnel doctor` checks this file."))
    document.add(tomlkit.nl())
    host = _table(document, "host")
    _entry(host, "name", label, f"label below {domain}")
    _entry(host, "id", "auto", "or a fixed IPv6 ULA, like fd12:3456::1")
    _entry(host, "listen", 4500, "UDP")
    _entry(host, "device", "at0", "the TUN device")
    _entry(host, "mtu", 1400, 'of the device; or "auto": what this machine\'s link takes whole')
    _entry(host, "state_dir", str(default_state_dir()))
    account = _table(document, "account")
    _entry(account, "domain", domain)
    _entry(account, "secret_file", KEY_FILE, "relative to this file; mode 0600")
    _entry(
        account,
        "auth",
        auth,
        '"cert": hosts show certificates of the account\'s CA; "psk": they share one key',
    )
    rendezvous = _table(document, "rendezvous")
    _entry(rendezvous, "server", server)
    _entry(
        rendezvous,
        "transport",
        transport,
        '"tls", "tcp" or "udp"; only tls hides names from eavesdroppers',
    )
    resolver = _table(document, "resolver")
    _entry(resolver, "listen", "127.0.0.1:4553", "`autotunnel doctor` says how names get here")
    return tomlkit.dumps(document)


def serve_toml(*, domain: str, rendezvous: str, transport: str) -> str:
    """The text of serve.toml for the rendezvous of one account."""
    usual = {"tls": DEFAULT_TLS_PORT}.get(transport, DEFAULT_DNS_PORT)
    host, port = parse_endpoint(rendezvous, usual)
    dns = DEFAULT_DNS_PORT if transport == "tls" else port
    tls = port if transport == "tls" else DEFAULT_TLS_PORT
    document = tomlkit.document()
    document.add(tomlkit.comment("autotunnel: the rendezvous. Copy it there with the key file,"))
    document.add(tomlkit.comment("then: autotunnel serve -c serve.toml"))
    document.add(tomlkit.nl())
    serve = _table(document, "serve")
    _entry(serve, "listen", [f"0.0.0.0:{dns}", f"[::]:{dns}"], "UDP and TCP, signed but readable")
    _entry(serve, "tls_listen", [f"0.0.0.0:{tls}", f"[::]:{tls}"], "what hosts use")
    try:
        _entry(serve, "address", [str(ip_address(host))], "this server's public addresses")
    except ValueError:
        serve.add(tomlkit.comment(f'address = ["…"]  # the public addresses of {host}'))
    _entry(serve, "state_dir", "/var/lib/autotunnel")
    accounts = tomlkit.aot()
    account = tomlkit.table()
    _entry(account, "domain", domain)
    _entry(account, "secret_file", KEY_FILE, "relative to this file; mode 0600")
    accounts.append(account)
    serve.append("account", accounts)
    return tomlkit.dumps(document)


def _table(document: tomlkit.TOMLDocument, name: str) -> Table:
    table = tomlkit.table()
    document.add(name, table)
    return table


def _entry(table: Table, key: str, value: str | int | list[str], comment: str = "") -> None:
    item = tomlkit.item(value)
    if comment:
        item.comment(comment)
    table.add(key, item)
