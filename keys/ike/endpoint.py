"""IkeEndpoint: all IKE SAs of this host behind one door (RFC 7296)."""

from __future__ import annotations

from collections.abc import Callable

from keys.ike.settings import IkeSettings
from keys.ike.types import Command, Endpoint, PeerPolicy, SaView

__all__ = ["IkeEndpoint", "IkeSettings"]


class IkeEndpoint:
    """A pure IKEv2 endpoint, initiator and responder; every method returns commands."""

    def __init__(
        self,
        *,
        local_name: str,
        secret_for: Callable[[str], bytes | None],
        random: Callable[[int], bytes],
        settings: IkeSettings | None = None,
    ) -> None:
        self._local_name = local_name
        self._secret_for = secret_for
        self._random = random
        self._settings = settings or IkeSettings()

    def connect(
        self, name: str, policy: PeerPolicy, remote: Endpoint, now: float
    ) -> list[Command]:
        """Begins an IKE SA with ``name``; ends in ``PeerUp`` or ``IkeFailed``."""
        return []

    def receive(self, data: bytes, remote: Endpoint, now: float) -> list[Command]:
        """Takes one datagram, its non-ESP marker already stripped."""
        return []

    def authorise(self, ticket: int, policy: PeerPolicy, now: float) -> list[Command]:
        """Answers ``AskPeer``: the peer may have what ``policy`` says."""
        return []

    def refuse(self, ticket: int, reason: str, now: float) -> list[Command]:
        """Answers ``AskPeer``: no."""
        return []

    def traffic(
        self, name: str, last_in: float | None, last_out: float | None, now: float
    ) -> list[Command]:
        """Says when ESP last came from and went to ``name``."""
        return []

    def moved(self, name: str, remote: Endpoint, now: float) -> list[Command]:
        """An authenticated packet of ``name`` came from ``remote``."""
        return []

    def probe(self, name: str, now: float) -> list[Command]:
        """Asks ``name`` for a sign of life; ends in ``ProbeAnswered`` or ``PeerDown``."""
        return []

    def rekey(self, name: str, now: float) -> list[Command]:
        """Rekeys the CHILD_SA with ``name`` now."""
        return []

    def close(self, name: str, now: float) -> list[Command]:
        """Deletes all SAs with ``name``; ``PeerDown`` follows when the peer knows, or gave up."""
        return []

    def close_all(self, now: float) -> list[Command]:
        """Closes every SA."""
        return []

    def advance(self, now: float) -> list[Command]:
        """Does what is due at ``now``."""
        return []

    def next_timer(self) -> float | None:
        """When ``advance`` should be called next, or None."""
        return None

    def views(self) -> list[SaView]:
        """What ``status`` shows."""
        return []
