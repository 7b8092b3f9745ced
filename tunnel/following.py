"""Following a peer that moves, and never to an endpoint that was not proven (DESIGN "Never").

The pump reports an authenticated packet, the newest of its SA, from another source than before.
That alone proves little: somebody on the path can send a peer's packet on from an address of its
own choice (RFC 7296 §2.23). So the IKE SA is moved there first and a liveness exchange is run with
that address; only its answer moves the data. Without an answer in time the IKE SA goes back to
where the data still flows. A move costs one round trip; one per second and peer is followed.
"""

from __future__ import annotations

from fastpath.types import Endpoint
from tunnel.core import Core
from tunnel.peers import Peer
from tunnel.status import endpoint_text


class Following:
    """Moves that are being proven."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def new_source(self, spi: int, source: Endpoint) -> None:
        """Inbound ``spi`` brought an authenticated, newest packet from ``source``."""
        peer = self._core.peers.by_inbound(spi)
        if peer is None or peer.current is None or peer.current.spi_in != spi:
            return  # an SA that is being replaced does not say where its peer is
        self._try(peer, source)

    def told(self, peer: Peer) -> None:
        """The zone has new endpoints for ``peer``. What its own packets say is newer, so this is
        followed only where nothing has come from it lately."""
        now, quiet = self._core.now, self._core.settings.quiet
        if peer.current is None or peer.endpoint in peer.endpoints or not peer.endpoints:
            return
        if peer.last_in is None or now - peer.last_in >= quiet:
            self._try(peer, peer.endpoints[0])

    def _try(self, peer: Peer, endpoint: Endpoint) -> None:
        core, settings = self._core, self._core.settings
        if endpoint in (peer.endpoint, peer.candidate):
            return
        if peer.candidate is not None or core.now - peer.followed_at < settings.follow_interval:
            return
        peer.candidate, peer.followed_at = endpoint, core.now
        peer.candidate_until = core.now + settings.proof_wait
        core.ike_said(core.ike.moved(peer.name, endpoint, core.now))
        core.ike_said(core.ike.probe(peer.name, core.now))

    def answered(self, peer: Peer) -> None:
        """The exchange with the new endpoint came back: the data follows."""
        if peer.candidate is None or peer.current is None:
            return
        endpoint, peer.candidate = peer.candidate, None
        self._core.log(
            "info",
            f"{peer.name} moved",
            old=endpoint_text(peer.endpoint),
            new=endpoint_text(endpoint),
        )
        self._core.point(peer, endpoint)

    def advance(self) -> None:
        """Goes back where the proof did not come in time."""
        core = self._core
        for peer in core.peers:
            if peer.candidate is not None and peer.candidate_until <= core.now:
                peer.candidate = None
                if peer.endpoint is not None:
                    core.ike_said(core.ike.moved(peer.name, peer.endpoint, core.now))

    def timers(self) -> list[float]:
        """When something is due."""
        return [peer.candidate_until for peer in self._core.peers if peer.candidate is not None]
