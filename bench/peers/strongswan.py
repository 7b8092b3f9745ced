"""strongSwan with its userspace ESP (``kernel-libipsec``), one charon in each namespace."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from bench.pair import Pair, wait_for_ping
from bench.peers.types import Tunnel
from tunnel.io.lab.charon import Charon, charon_missing, psk_connection

INNER = ("fd00:c::1", "fd00:c::2")
SUITE = "aes128gcm16"


class StrongSwan:
    """libipsec: ESP in the charon process."""

    name = "strongswan"

    def missing(self) -> str | None:
        return charon_missing()

    @contextmanager
    def tunnel(self, pair: Pair) -> Iterator[Tunnel]:
        started = time.monotonic()
        daemons = [
            Charon(
                end,
                psk_connection(
                    local=ours,
                    remote=theirs,
                    local_id=end.role,
                    remote_id=other.role,
                    local_inner=inner,
                    remote_inner=other_inner,
                    psk=bytes(32),  # never leaves the namespaces of a measurement
                    esp=SUITE,
                ),
                inner=inner,
            )
            for (end, ours, theirs), other, inner, other_inner in zip(
                pair.ends, (pair.right, pair.left), INNER, INNER[::-1], strict=True
            )
        ]
        daemons[0].initiate()
        wait_for_ping(pair.left, INNER[1])
        yield Tunnel(
            *INNER,
            engine=f"strongSwan {daemons[0].version()} libipsec",
            aead=SUITE,
            pids=tuple(daemon.process.pid for daemon in daemons),
            setup_seconds=time.monotonic() - started,
        )
