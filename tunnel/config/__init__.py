"""Configuration files as typed values (DESIGN §5), and what to say when one is wrong.

A file is TOML. Every complaint is a :class:`ConfigError` whose text names the file, the key, the
cause and the fix. Secrets never stand in the TOML: it names files, which
:func:`keys.store.read_secret` reads only when nobody else may.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tunnel.config.base import DEFAULT_DNS_PORT as DEFAULT_DNS_PORT
from tunnel.config.base import DEFAULT_TLS_PORT as DEFAULT_TLS_PORT
from tunnel.config.base import ConfigError as ConfigError
from tunnel.config.host import AccountSection as AccountSection
from tunnel.config.host import EngineSection as EngineSection
from tunnel.config.host import HomeAgentSection as HomeAgentSection
from tunnel.config.host import HostConfig as HostConfig
from tunnel.config.host import HostFile
from tunnel.config.host import HostSection as HostSection
from tunnel.config.host import IkeSection as IkeSection
from tunnel.config.host import NatSection as NatSection
from tunnel.config.host import PeerSection as PeerSection
from tunnel.config.host import RendezvousSection as RendezvousSection
from tunnel.config.host import ResolverSection as ResolverSection
from tunnel.config.places import default_path as default_path
from tunnel.config.places import user_folder as user_folder
from tunnel.config.reading import convert, read
from tunnel.config.reading import parse_toml as parse_toml
from tunnel.config.serve import ServeAccount as ServeAccount
from tunnel.config.serve import ServeConfig as ServeConfig
from tunnel.config.serve import ServeFile
from tunnel.spelling import Endpoint as Endpoint
from tunnel.spelling import is_label, parse_address_endpoint


def load_host(path: Path) -> HostConfig:
    """Reads and checks the configuration of ``up``. Raises :class:`ConfigError`."""
    return host_from_tables(path, read(path))


def host_from_tables(path: Path, tables: dict[str, Any]) -> HostConfig:
    """The configuration of ``up`` from parsed TOML; ``path`` is where it stood.

    Raises :class:`ConfigError`.
    """
    text = convert(path, tables, HostFile)
    names: set[str] = set()
    for index, name in enumerate(peer.name for peer in text.peer):
        if name in names:
            cause = f"the peer {name!r} stands there twice"
            raise ConfigError(path, f"peer[{index}].name", cause, "remove one of the two tables")
        names.add(name)
    if text.account is not None and not is_label(text.host.name):
        cause = f"{text.host.name!r} is more than one label"
        fix = f'use "{text.host.name.split(".")[0]}": the domain is account.domain'
        raise ConfigError(path, "host.name", cause, fix)
    if text.account is None and not text.peer:
        fix = "run `autotunnel init` or `autotunnel join`, or add a [[peer]] table"
        raise ConfigError(path, "", "it has neither an [account] nor a [[peer]]", fix)
    if text.account is None and text.home_agent is not None:
        fix = "run `autotunnel init` or `autotunnel join`, or take the table out"
        raise ConfigError(path, "home_agent", "only a host of an account can be one", fix)
    return HostConfig(
        path=path.absolute(),
        host=text.host,
        account=text.account,
        rendezvous=text.rendezvous,
        nat=text.nat,
        peers=text.peer,
        resolver=text.resolver,
        engine=text.engine,
        ike=text.ike,
        home_agent=text.home_agent,
    )


def load_serve(path: Path) -> ServeConfig:
    """Reads and checks the configuration of ``serve``. Raises :class:`ConfigError`."""
    return serve_from_tables(path, read(path))


def serve_from_tables(path: Path, tables: dict[str, Any]) -> ServeConfig:
    """The configuration of ``serve`` from parsed TOML. Raises :class:`ConfigError`."""
    serve = convert(path, tables, ServeFile).serve
    return ServeConfig(
        path=path.absolute(),
        listen=tuple(parse_address_endpoint(text) for text in serve.listen),
        tls_listen=tuple(parse_address_endpoint(text) for text in serve.tls_listen),
        stun_listen=None
        if serve.stun_listen == "auto"
        else tuple(parse_address_endpoint(text) for text in serve.stun_listen),
        state_dir=path.absolute().parent / serve.state_dir,
        address=serve.address,
        home_agent=None if serve.home_agent is None else path.absolute().parent / serve.home_agent,
        accounts=serve.account,
        connections=serve.connections,
        connections_per_source=serve.connections_per_source,
        idle_s=serve.idle_s,
        unsigned_per_s=serve.unsigned_per_s,
        subscriptions_per_account=serve.subscriptions_per_account,
    )
