"""What a node is made from: the same for ``up``, and for whoever plays a recording of it.

A recording holds what stood in files when the node was made, but no secret: those are read from
where they are, so that it can be played by whoever has them (decision 0052).
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv6Address
from pathlib import Path
from typing import Final

import msgspec

from discovery.client import ZoneClient
from discovery.types import Service
from keys.account import Account
from keys.ike import groups
from keys.store import random_bytes
from tunnel.config import HostConfig
from tunnel.io import identity as who
from tunnel.io.papers import LEDGER, PROOFS, RECORDS, REVOCATIONS, Papers
from tunnel.io.recording import Begin, RecordingFile, secret_for
from tunnel.io.services import FILE as SERVICES
from tunnel.io.services import ServicesFile
from tunnel.node import Node
from tunnel.peers import StaticPeer
from tunnel.recording import Recorder

CERTIFICATE: Final = "certificate"
IN_STATE_DIR: Final = (SERVICES, RECORDS, PROOFS, REVOCATIONS)
"""The files that a recording holds: these of the state folder, the host's certificate, the ledger
of an issuer. None of them is secret."""


@dataclass(frozen=True, slots=True)
class Chance:
    """Where a node's random octets come from."""

    random: Callable[[int], bytes] = random_bytes
    encapsulate: groups.Encapsulate = groups.encapsulate


@dataclass(frozen=True, slots=True)
class Ingredients:
    """All that a node is made from, read from its files."""

    config: HostConfig
    account: Account | None
    static: tuple[StaticPeer, ...]
    papers: Papers
    services: tuple[Service, ...]
    withdrawn: tuple[Service, ...]

    @classmethod
    def read(cls, config: HostConfig, random: Callable[[int], bytes]) -> Ingredients:
        """Reads the files, secret ones too. Raises ``keys.store.SecretFileError`` and
        :class:`tunnel.io.services.ServicesFileError`."""
        account, static = who.account_of(config), who.static_peers_of(config)
        offered = ServicesFile(config.state_dir).load()
        return cls(config, account, static, Papers(config, random), *offered)


def node_of(
    what: Ingredients, host_id: IPv6Address, client: ZoneClient | None, mtu: int, chance: Chance
) -> Node:
    """The node of a host with this id, on a device with this MTU. ``client`` draws from ``chance``,
    too."""
    return Node(
        who.identity_of(what.config, what.account, host_id),
        zone=client,
        static=what.static,
        random=chance.random,
        settings=dataclasses.replace(who.settings_of(what.config), mtu=mtu),
        credentials=what.papers.credentials,
        issuer=what.papers.issuer,
        services=what.services,
        withdrawn=what.withdrawn,
        remembered=what.papers.remembered(),
        proofs=what.papers.proofs(),
        encapsulate=chance.encapsulate,
    )


# --- Recording ----------------------------------------------------------------------------------


class Recording:
    """A host that is being recorded into ``path``. Raises :class:`RecordingError`."""

    def __init__(self, path: Path, config: HostConfig) -> None:
        secret = secret_for(who.account_of(config), who.static_peers_of(config))
        self._config, self._files = config, _files_of(config)
        self._file = RecordingFile(path, secret)
        self.recorder = Recorder(random_bytes, self._file.write)
        self.chance = Chance(self.recorder.random, self.recorder.encapsulate)

    def begin(self, host_id: IPv6Address, mtu: int) -> None:
        """Call it before the node is made, and the recorder's ``made`` right after."""
        text = self._config.path.read_bytes()
        begin = Begin(_version(), text, host_id.packed, mtu, self._files)
        self._file.write(msgspec.msgpack.encode(begin))

    def end(self) -> None:
        """The host ends."""
        self._file.end("the host ended")


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version  # for this alone

    try:
        ours = version("autotunnel")
    except PackageNotFoundError:
        ours = "from its source"
    return f"autotunnel {ours}, Python {sys.version.split()[0]}"


def _files_of(config: HostConfig) -> dict[str, bytes]:
    account = config.account
    where = {name: config.state_dir / name for name in IN_STATE_DIR}
    if account is not None:
        where[CERTIFICATE] = config.beside(account.certificate_file)
        where[LEDGER] = config.beside(account.ca_key_file).parent / LEDGER
    found = {}
    for name, path in where.items():
        with suppress(OSError):
            found[name] = path.read_bytes()
    return found
