"""The sections of the file that ``serve`` reads (DESIGN §5)."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from tunnel.config.base import (
    DEFAULT_DNS_PORT,
    Seconds,
    Section,
    WrongValueError,
    domain_or_refuse,
    endpoint_or_refuse,
)
from tunnel.spelling import Endpoint, parse_address_endpoint

Count = Annotated[int, msgspec.Meta(ge=1)]


class ServeAccount(Section, frozen=True, kw_only=True):
    """``[[serve.account]]``: one account whose zone this rendezvous holds.

    ``names`` and ``records`` bound its zone, ``updates_per_s`` and ``queries_per_s`` what it may
    ask (each with ten seconds' worth at once). ``backing``: another server holds the zone, at this
    address, and knows us by the key in ``backing_key_file``; left out, by the account's own."""

    domain: str
    secret_file: str
    legacy_md5: bool = False
    names: Count = 2000
    records: Count = 10_000
    updates_per_s: Count = 500
    queries_per_s: Count = 2000
    backing: str | None = None
    backing_key_file: str | None = None

    def __post_init__(self) -> None:
        domain_or_refuse(self.domain)
        if self.backing is not None:
            endpoint_or_refuse("backing", self.backing, "192.0.2.1:53", DEFAULT_DNS_PORT)

    @property
    def backing_endpoint(self) -> Endpoint | None:
        """Where the server is that holds the zone, if it is not this one."""
        if self.backing is None:
            return None
        return parse_address_endpoint(self.backing, DEFAULT_DNS_PORT)


class _ServeSection(Section, frozen=True, kw_only=True):
    listen: tuple[str, ...] = ("0.0.0.0:53", "[::]:53")
    tls_listen: tuple[str, ...] = ("0.0.0.0:853", "[::]:853")
    state_dir: str = "/var/lib/autotunnel"
    stun_listen: tuple[str, ...] | Literal["auto"] = "auto"
    address: tuple[str, ...] = ()
    home_agent: str | None = None
    account: tuple[ServeAccount, ...] = ()
    connections: Count = 512
    connections_per_source: Count = 64
    idle_s: Seconds = 300.0
    unsigned_per_s: Count = 20
    subscriptions_per_account: Count = 20_000

    def __post_init__(self) -> None:
        stun = () if self.stun_listen == "auto" else self.stun_listen
        listening = (("listen", self.listen), ("tls_listen", self.tls_listen))
        for key, texts in (*listening, ("stun_listen", stun)):
            for text in texts:
                endpoint_or_refuse(key, text, "0.0.0.0:53")
        for text in self.address:
            try:
                ip_address(text)
            except ValueError:
                fix = "give this server's public addresses, without ports"
                raise WrongValueError("address", f"{text!r} is not an address", fix) from None
        if not (self.listen or self.tls_listen):
            raise WrongValueError(
                "listen", "the server listens nowhere", 'add one like "0.0.0.0:53"'
            )
        if not self.account:
            raise WrongValueError("account", "there is no account", "add a [[serve.account]] table")
        domains = [account.domain for account in self.account]
        for domain in domains:
            if domains.count(domain) > 1:
                raise WrongValueError(
                    "account", f"{domain} stands there twice", "remove one of them"
                )


class ServeFile(Section, frozen=True, kw_only=True):
    """All tables that a rendezvous' file may hold."""

    serve: _ServeSection


class ServeConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The configuration of ``serve``. ``address``: this server's public addresses, for the zone's
    ns records; empty: those it listens on, unless that is "any". ``connections`` (TCP and TLS, in
    all), ``connections_per_source`` and ``idle_s`` (seconds until a silent one is closed) bound
    connections; ``unsigned_per_s`` what one network gets unsigned over UDP;
    ``subscriptions_per_account`` long-lived queries, and as many by push. ``stun_listen`` are two
    ports at which hosts behind NATs ask where the outside sees them; ``None``: the usual ones at
    the addresses of ``listen``, where they are free. ``home_agent`` is the file of a host that
    ``serve`` runs beside itself, and that relays for the others of its account."""

    path: Path
    listen: tuple[Endpoint, ...]
    tls_listen: tuple[Endpoint, ...]
    stun_listen: tuple[Endpoint, ...] | None
    state_dir: Path
    address: tuple[str, ...]
    home_agent: Path | None
    accounts: tuple[ServeAccount, ...]
    connections: int
    connections_per_source: int
    idle_s: float
    unsigned_per_s: int
    subscriptions_per_account: int

    def account_secret_path(self, account: ServeAccount) -> Path:
        """The file of an account's secret."""
        return self.path.parent / account.secret_file

    def backed_by(self, server: str) -> ServeConfig:
        """This configuration, with the zones on ``server`` ("address[:port]") of all accounts that
        name no other. Raises :class:`WrongValueError`."""
        endpoint_or_refuse("--backing", server, "192.0.2.1:53", DEFAULT_DNS_PORT)
        accounts = tuple(
            one if one.backing else msgspec.structs.replace(one, backing=server)
            for one in self.accounts
        )
        return msgspec.structs.replace(self, accounts=accounts)
