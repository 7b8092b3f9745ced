"""The veth link itself: what the others are divided by."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from bench.pair import OUTER, Pair, wait_for_ping
from bench.peers.types import Tunnel


class Raw:
    """No tunnel at all."""

    name = "raw"

    def missing(self) -> str | None:
        return None

    @contextmanager
    def tunnel(self, pair: Pair) -> Iterator[Tunnel]:
        wait_for_ping(pair.left, OUTER[1])
        yield Tunnel(*OUTER, engine="kernel", aead="none")
