"""The configuration that ``init`` and ``join`` write: TOML with comments."""

from __future__ import annotations

from ipaddress import ip_address

import tomlkit
from tomlkit.items import Table

from tunnel.cli.files import KEY_FILE, default_state_dir
from tunnel.config import DEFAULT_DNS_PORT, DEFAULT_TLS_PORT
from tunnel.spelling import parse_endpoint


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
    _entry(resolver, "listen", "127.0.0.1:4553", "systemd-resolved is told; else see `doctor`")
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
    beside = "this machine's host, run beside it as home agent"
    serve.add(tomlkit.comment(f'home_agent = "config.toml"  # {beside}: serve --home-agent'))
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
