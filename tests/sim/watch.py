"""Who sent what where, seen from above: data goes to nobody who has not proven to be there.

An endpoint is *proven* to a host, for one peer, when that peer itself (not somebody who sends its
packets on) has answered an exchange from there, or has sent its half of the first exchanges from
there, whose keys nobody else has (DESIGN "Never").
"""

from __future__ import annotations

from fastpath.types import Endpoint
from tests.sim.nat import MARKER
from tests.sim.world import SimHost, World

_INIT, _AUTH, _INTERMEDIATE = 34, 35, 43  # RFC 7296 §3.1, RFC 9242
_RESPONSE = 0x20
FORGER: Endpoint = ("198.51.100.66", 666)


class Proofs:
    """Watches a world. ``forged``: the part of all datagrams that somebody on the path sends on,
    from an address of its own, before they arrive; until ``forged_until``."""

    def __init__(self, world: World, *, forged: float = 0.0) -> None:
        self._world = world
        self._proven: dict[SimHost, set[tuple[str, Endpoint]]] = {}
        self.forged, self.copies, self.data = forged, 0, 0
        world.watch = self

    def sent(self, host: SimHost, data: bytes, target: Endpoint) -> None:
        """A host sends; if these are data, ``target`` is where their reader has proven to be."""
        world = self._world
        if len(data) > 1 and data[:4] != MARKER:
            self.data += 1
            peer = _peer(host, int.from_bytes(data[:4]))
            known = self._proven.get(host, set())
            good = {at for label, at in known if peer is None or label == peer}
            assert target in good, (
                f"seed {world.seed}: at {world.now:.3f} {host.config.label} sends data for {peer} "
                f"to {target}, which is not proven; proven: {sorted(good)}"
            )
        if self.forged and world.watch_random.random() < self.forged:
            self.copies += 1
            soon = world.now + world.weather.latency / 4
            world.at(soon, lambda: world.arrive(data, FORGER, target, None))

    def came(self, host: SimHost, data: bytes, source: Endpoint, origin: SimHost | None) -> None:
        """A datagram comes to a host; ``origin`` sent it itself, unless that is ``None``."""
        if origin is None or data[:4] != MARKER or len(data) < len(MARKER) + 28:
            return
        exchange, flags = data[len(MARKER) + 18], data[len(MARKER) + 19]
        first = exchange in (_AUTH, _INTERMEDIATE)
        if first or (exchange != _INIT and flags & _RESPONSE):
            self._proven.setdefault(host, set()).add((origin.config.label, source))


def _peer(host: SimHost, spi: int) -> str | None:
    """For whom packets with this SPI are; ``None`` of an SA that is gone."""
    peer = host.node._core.peers.by_outbound(spi)
    return None if peer is None else peer.label
