"""What a contender offers to the harness."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from bench.pair import Pair


@dataclass(frozen=True)
class Tunnel:
    """A tunnel that stands: addresses inside it, what it runs on, and whose CPU time it is."""

    left: str
    right: str
    engine: str
    aead: str
    pids: tuple[int, ...] = ()
    setup_seconds: float = 0.0


class Peer(Protocol):
    """A contender by name."""

    name: str

    def missing(self) -> str | None:
        """Why it cannot run here, in a sentence; ``None`` if it can."""

    def tunnel(self, pair: Pair) -> AbstractContextManager[Tunnel]:
        """Builds the tunnel between the ends of ``pair``; taken away at the end of the block."""
