"""Who sent what where, seen from above: data goes to nobody who has not proven to be there.

An endpoint is *proven* to a host, for one peer, when a request of the host that went there has
reached the peer, and its answer has come back; or when the peer itself has sent its half of the
first exchanges from there, whose keys nobody else has (DESIGN "Never").
"""

from __future__ import annotations

from fastpath.types import Endpoint
from tests.sim.nat import MARKER
from tests.sim.world import SimHost, Way, World

_INIT, _AUTH, _INTERMEDIATE = 34, 35, 43  # RFC 7296 §3.1, RFC 9242
_RESPONSE = 0x20
FORGER: Endpoint = ("198.51.100.66", 666)


class Proofs:
    """Watches a world. ``forged``: the part of all datagrams that somebody on the path sends on,
    from an address of its own, before they arrive. It leaves the first exchanges of an IKE SA
    alone: the answer to them goes where their request came from, as in any IKE."""

    def __init__(self, world: World, *, forged: float = 0.0, judges: bool = True) -> None:
        self._world, self._judges = world, judges
        self._proven: dict[SimHost, set[tuple[str, Endpoint]]] = {}
        self._reached: dict[tuple[SimHost, SimHost, tuple[bytes, bytes]], set[Endpoint]] = {}
        self.forged, self.copies, self.data = forged, 0, 0
        world.watch = self

    def sent(self, host: SimHost, data: bytes, target: Endpoint) -> None:
        """A host sends; if these are data, ``target`` is where their reader has proven to be."""
        world = self._world
        if self._judges and len(data) > 1 and data[:4] != MARKER:
            self.data += 1
            peer = _peer(host, int.from_bytes(data[:4]))
            known = self._proven.get(host, set())
            good = {at for label, at in known if peer is None or label == peer}
            assert target in good, (
                f"seed {world.seed}: at {world.now:.3f} {host.config.label} sends data for {peer} "
                f"to {target}, which is not proven; proven: {sorted(good)}"
            )
        if self.forged and not _begins(data) and world.watch_random.random() < self.forged:
            self.copies += 1
            soon = world.now + world.weather.latency / 4
            way = Way(FORGER, target, forged=True)
            world.at(soon, lambda: world.arrive(data, way, host))

    def came(self, host: SimHost, data: bytes, way: Way, author: SimHost | None) -> None:
        """A datagram comes to a host; ``author`` made it, whoever sent it on."""
        if author is None or not _is_ike(data) or _exchange(data) == _INIT:
            return
        exchange = (data[4:20], data[24:28])  # SPIs and message id
        if not data[23] & _RESPONSE:
            self._reached.setdefault((author, host, exchange), set()).add(way.target)
            proven = {way.source} if _begins(data) and not way.forged else set()
        else:
            proven = self._reached.get((host, author, exchange), set())
        known = self._proven.setdefault(host, set())
        known |= {(author.config.label, endpoint) for endpoint in proven}


def _is_ike(data: bytes) -> bool:
    return data[:4] == MARKER and len(data) >= len(MARKER) + 28


def _begins(data: bytes) -> bool:
    """Whether it belongs to the exchanges by which an IKE SA begins."""
    return _is_ike(data) and _exchange(data) in (_INIT, _AUTH, _INTERMEDIATE)


def _exchange(data: bytes) -> int:
    return data[len(MARKER) + 18]


def _peer(host: SimHost, spi: int) -> str | None:
    """For whom packets with this SPI are; ``None`` of an SA that is gone."""
    peer = host.node._core.peers.by_outbound(spi)
    return None if peer is None else peer.label
