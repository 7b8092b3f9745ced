"""Ourselves as we ship: two hosts that run ``up``, with each other as static peers, and no zone.

IKE, timers, path probes and the control socket run as they do for a person.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import fastpath
from bench.pair import Pair, wait_for_ping
from bench.peers.types import Tunnel
from fastpath.types import Suite
from tunnel.io.lab import HostMachine, Namespace

INNER = ("fd00:a::1", "fd00:a::2")
CONFIG = """
[host]
name = "{name}.example"
id = "{ours}"
[resolver]
enabled = false
[engine]
name = "{engine}"
threads = {threads}
[[peer]]
name = "{other}.example"
id = "{theirs}"
endpoint = "{remote}:4500"
psk_file = "peer.psk"
suites = ["{suite}"]
"""


class Hosts:
    """Our hosts with one engine and suite, and ``[engine] threads``."""

    def __init__(
        self,
        name: str,
        *,
        engine: str = "native",
        suite: Suite = Suite.AES128GCM16,
        threads: int = 1,
    ) -> None:
        self.name = name
        self._engine = engine
        self._suite = suite
        self._threads = threads

    def missing(self) -> str | None:
        info = fastpath.engines()[self._engine]
        return None if info.available else info.reason

    @contextmanager
    def tunnel(self, pair: Pair) -> Iterator[Tunnel]:
        hosts = [
            self.host(end, other, remote, inner)
            for (end, _, remote), other, inner in zip(
                pair.ends, (pair.right, pair.left), (INNER, INNER[::-1]), strict=True
            )
        ]
        started = time.monotonic()
        for host in hosts:
            host.begin_up()
        for host in hosts:
            host.wait_until_up()
        wait_for_ping(pair.left, INNER[1])
        lasted = time.monotonic() - started
        about = hosts[0].status()["host"]
        yield Tunnel(
            *INNER,
            engine=about["engine"],
            aead=f"{self._suite}, {about['aead']}",
            pids=tuple(pid for end in (pair.left, pair.right) for pid in end.pids()),
            setup_seconds=lasted,
        )

    def host(
        self, end: Namespace, other: Namespace, remote: str, inner: Sequence[str]
    ) -> HostMachine:
        """A host on ``end``, not up yet, whose only peer is ``other`` at ``remote``."""
        host = HostMachine(end)
        host.config.write_text(
            CONFIG.format(
                name=end.role,
                other=other.role,
                ours=inner[0],
                theirs=inner[1],
                remote=remote,
                engine=self._engine,
                threads=self._threads,
                suite=self._suite,
            )
        )
        secret = host.config.parent / "peer.psk"
        secret.touch(mode=0o600)
        secret.write_bytes(bytes(range(32)))  # never leaves the namespaces of a measurement
        host.settle()
        return host


VARIANTS = (
    Hosts("autotunnel"),
    Hosts("autotunnel-aes256", suite=Suite.AES256GCM16),
    Hosts("autotunnel-chacha20", suite=Suite.CHACHA20POLY1305),
    Hosts("autotunnel-2-threads", threads=2),
    Hosts("autotunnel-reference", engine="reference"),
)
