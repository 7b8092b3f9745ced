"""Playing a recording again, offline: a fresh node gets the calls of then (decision 0052)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv6Address
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from keys.issuer import Ledger
from tunnel.config import HostConfig, host_from_tables, parse_toml
from tunnel.io import identity as who
from tunnel.io.making import CERTIFICATE, IN_STATE_DIR, Chance, Ingredients, node_of
from tunnel.io.papers import LEDGER
from tunnel.io.recording import Begin, Reading, RecordingError, read, secret_for
from tunnel.io.zone import client_of
from tunnel.node import Node
from tunnel.recording import Played, Player, play


class Replay:
    """Plays a recording with the secrets of ``config``: :meth:`run`, then ``node`` is as it was at
    its end. Raises :class:`RecordingError`, and ``keys.store.SecretFileError``."""

    def __init__(self, path: Path, config: HostConfig) -> None:
        secret = secret_for(who.account_of(config), who.static_peers_of(config))
        self._path, self._config = path, config
        self._reading = Reading(path, read(path), secret)
        self.node: Node | None = None
        self.calls = 0
        self.began = self.ended_at = 0.0
        self.unix = 0
        self.version = ""

    @property
    def end(self) -> str | None:
        """Why the recording ends; ``None`` where it was broken off."""
        return self._reading.ended

    def run(self, until: float | None = None) -> None:
        """Makes the recorded calls, those of the first ``until`` seconds or all. Raises
        :class:`tunnel.recording.ReplayError` if the node does anything else than it did."""
        items = self._reading.items()
        try:
            begin = msgspec.msgpack.decode(next(items, b""), type=Begin)
        except (msgspec.MsgspecError, ValueError):
            raise RecordingError(f"{self._path} does not say what its node was made from") from None
        self.version = begin.version
        with _as_it_was(self._config.path, begin) as config:
            for node, played in play(lambda player: _made_again(config, begin, player), items):
                if not self._take(node, played, until):
                    break

    def _take(self, node: Node, played: Played, until: float | None) -> bool:
        self.node, self.calls = node, self.calls + 1
        call = played.call
        if not call.unix:  # it has no time of its own
            return True
        self.began = self.began or call.now
        self.ended_at, self.unix = call.now, call.unix
        return until is None or call.now - self.began < until


@contextmanager
def _as_it_was(path: Path, begin: Begin) -> Iterator[HostConfig]:
    """The configuration of then, with the files of then; its secrets are those of now."""
    was = host_from_tables(path, parse_toml(path, begin.config))
    with TemporaryDirectory(prefix="autotunnel-replay-") as folder:
        for name, octets in begin.files.items():
            if name in (*IN_STATE_DIR, CERTIFICATE):
                (Path(folder) / name).write_bytes(octets)
        host = msgspec.structs.replace(was.host, state_dir=folder)
        account = was.account
        if account is not None and CERTIFICATE in begin.files:
            certificate = str(Path(folder) / CERTIFICATE)
            account = msgspec.structs.replace(account, certificate_file=certificate)
        yield msgspec.structs.replace(was, host=host, account=account)


def _made_again(config: HostConfig, begin: Begin, player: Player) -> Node:
    what = Ingredients.read(config, player.random)
    issuer = what.papers.issuer
    if issuer is not None and LEDGER in begin.files:
        issuer.ledger = Ledger.from_json(begin.files[LEDGER].decode())
    client = client_of(config, what.account, player.random)
    chance = Chance(player.random, player.encapsulate)
    return node_of(what, IPv6Address(begin.host_id), client, begin.mtu, chance)
