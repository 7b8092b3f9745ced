"""Round trips to a peer: an IKE exchange, which also proves that it lives."""

from __future__ import annotations

from tunnel.commands import Pong
from tunnel.core import Core
from tunnel.peers import Peer

_LIMIT = 256  # pings under way


class Pings:
    """Pings that wait for their answer."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._open: dict[int, tuple[str, float]] = {}  # ticket: peer's name, end

    def start(self, peer: Peer, ticket: int) -> None:
        """Probes ``peer``; ends in ``Pong``."""
        core = self._core
        if len(self._open) >= _LIMIT:
            core.emit(Pong(ticket, None, "too many pings at once; try again later"))
            return
        self._open[ticket] = peer.name, core.now + core.settings.ping_wait
        core.ike_said(core.ike.probe(peer.name, core.now))

    def answered(self, name: str, rtt: float) -> None:
        """A probe came back: it answers all pings of that peer."""
        for ticket in [ticket for ticket, (peer, _) in self._open.items() if peer == name]:
            del self._open[ticket]
            self._core.emit(Pong(ticket, rtt))

    def lost(self, name: str, reason: str) -> None:
        """The peer is gone."""
        for ticket in [ticket for ticket, (peer, _) in self._open.items() if peer == name]:
            del self._open[ticket]
            self._core.emit(Pong(ticket, None, reason))

    def advance(self) -> None:
        """Gives up pings that waited too long."""
        now, wait = self._core.now, self._core.settings.ping_wait
        late = [(t, name) for t, (name, until) in self._open.items() if until <= now]
        for ticket, name in late:
            del self._open[ticket]
            self._core.emit(Pong(ticket, None, f"{name} did not answer within {wait:.0f} s"))

    def timers(self) -> list[float]:
        """When something is due."""
        return [until for _, until in self._open.values()]
