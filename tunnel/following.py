"""Following a peer that moves, and never to an endpoint that was not proven (DESIGN "Never").

The pump reports an authenticated packet, the newest of its SA, from another source than before.
That alone proves little: somebody on the path can send a peer's packet on from an address of its
own choice (RFC 7296 §2.23). So the IKE SA is moved there first and a liveness exchange is run with
that address; only its answer moves the data. Without an answer in time the IKE SA goes back to
where the data still flows, and the new address is tried again a few times. A move costs one
round trip; one per second and peer is followed.
"""

from __future__ import annotations

from fastpath.types import Endpoint
from tunnel.candidates import lan_of, on_our_lan, share_a_nat
from tunnel.commands import SendDummy
from tunnel.core import Core
from tunnel.journal import What
from tunnel.peers import Peer
from tunnel.status import endpoint_text


class Following:
    """Moves that are being proven."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def new_source(self, spi: int, source: Endpoint) -> None:
        """Inbound ``spi`` brought an authenticated, newest packet from ``source``."""
        peer = self._core.peers.by_inbound(spi)
        if peer is None or peer.current is None or not peer.carries(spi):
            return  # an SA that is being replaced does not say where its peer is
        if source == peer.endpoint:
            self._forget(peer)  # it never left
        else:
            peer.seen = source
            self._hint(peer, source, "its packets come from there")

    def hinted(self, peer: Peer, endpoint: Endpoint) -> None:
        """It says itself, in a sealed message, that it is there."""
        if peer.current is not None and endpoint != peer.endpoint:
            self._hint(peer, endpoint, "it says so")

    def told(self, peer: Peer, before: tuple[Endpoint, ...] = ()) -> None:
        """The zone has new endpoints for ``peer``, which had those of ``before``.

        If data goes to where the peer was published, it has left that place, and a NAT before us
        may let none of its packets in before we have sent some there: it is followed at once.
        Where its packets show it elsewhere than it publishes, they are newer than the zone's
        word, which is followed only where nothing has come from the peer lately."""
        now, quiet = self._core.now, self._core.settings.quiet
        if peer.current is None or peer.endpoint in peer.endpoints or not peer.endpoints:
            return
        if peer.hint is not None and peer.hint == peer.seen:
            return  # its own packets are being followed
        if self.nearer(peer) or peer.endpoint in lan_of(peer):
            return
        new = _of_family(peer.endpoint, peer.endpoints)
        if peer.endpoint in before:
            self._hint(peer, new, "the zone says that it has left")
        elif peer.last_in is None or now - peer.last_in >= quiet:
            self._hint(peer, new, "the zone says so, and it is silent")

    def called(self, peer: Peer, endpoint: Endpoint) -> None:
        """It asks through the zone to be met at this endpoint: it does not hear us where it was."""
        if peer.current is None:
            return
        if endpoint == peer.endpoint:
            self._core.emit(SendDummy(peer.current.spi_out, endpoint))
        elif peer.candidate is None:
            self._hint(peer, endpoint, "it calls us from there")

    def nearer(self, peer: Peer) -> bool:
        """Both of us may be behind one NAT now: if data goes another way than over our local
        network, it is tried there, once. Whether it is."""
        core = self._core
        if peer.current is None or not share_a_nat(core, peer):
            return False
        inside = on_our_lan(core, peer)
        if not inside or peer.endpoint in inside or peer.hint in inside:
            return False
        self._hint(peer, inside[0], "it is behind the same NAT as we are")
        peer.hint_tries = core.settings.proof_tries - 1
        return True

    def answered(self, peer: Peer, remote: Endpoint | None) -> None:
        """An exchange came back. If it was held with the new endpoint alone, the data follows; one
        that was under way to the old one before proves nothing of the new."""
        if peer.candidate is None or peer.current is None:
            return
        if remote is None or remote not in (peer.candidate, peer.hint):
            self._core.ike_said(self._core.ike.probe(peer.name, self._core.now))
            return
        endpoint, peer.candidate, peer.hint, peer.seen = remote, None, None, None
        old, new = endpoint_text(peer.endpoint), endpoint_text(endpoint)
        self._core.log("info", f"{peer.name} moved", old=old, new=new)
        self._core.explain(peer, What.MOVED, "it answered from there", old=old, new=new)
        self._core.point(peer, endpoint)

    def _hint(self, peer: Peer, endpoint: Endpoint, why: str) -> None:
        if endpoint == peer.hint or self._core.is_host(endpoint[0]):
            return
        self._core.explain(peer, What.PROOF, f"it may be elsewhere: {why}", at=endpoint)
        now, interval = self._core.now, self._core.settings.follow_interval
        peer.hint, peer.hint_tries = endpoint, 0
        peer.hint_at = max(now, peer.endpoint_at + interval)
        if peer.candidate is None and peer.hint_at <= now:
            self._prove(peer)

    def _prove(self, peer: Peer) -> None:
        core, endpoint = self._core, peer.hint
        assert endpoint is not None
        peer.candidate, peer.candidate_until = endpoint, core.now + core.settings.proof_wait
        core.explain(peer, What.PROOF, "it is asked there; data waits for its answer", at=endpoint)
        core.ike_said(core.ike.moved(peer.name, endpoint, core.now))
        core.ike_said(core.ike.probe(peer.name, core.now))

    def _give_back(self, peer: Peer) -> None:
        """IKE goes back to where the data flows."""
        core, peer.candidate = self._core, None
        if peer.endpoint is not None:
            core.ike_said(core.ike.moved(peer.name, peer.endpoint, core.now))

    def _elsewhere(self, peer: Peer) -> None:
        """It is not where it seemed to be: what else is said of where it is? Its packets are
        reported only once from a place, so that what they said last is kept for this."""
        failed, peer.hint = peer.hint, None
        if peer.seen not in (None, failed, peer.endpoint):
            assert peer.seen is not None
            self._hint(peer, peer.seen, "its packets come from there")
        elif peer.seen and peer.endpoints and not {failed, peer.endpoint} & {*peer.endpoints}:
            new = _of_family(peer.endpoint, peer.endpoints)
            self._hint(peer, new, "the zone says so, and where its packets come from it is not")

    def _forget(self, peer: Peer) -> None:
        peer.hint = peer.seen = None
        if peer.candidate is not None:
            self._give_back(peer)

    def advance(self) -> None:
        """Goes back where the proof did not come in time, and tries again where that is due."""
        now, settings = self._core.now, self._core.settings
        for peer in self._core.peers:
            if peer.candidate is not None and peer.candidate_until <= now:
                tries = f"{peer.hint_tries + 1} of {settings.proof_tries}"
                why = "it did not answer there; data goes on as before"
                self._core.explain(peer, What.FAILED, why, at=peer.candidate, tried=tries)
                if peer.candidate == peer.hint:
                    peer.hint_tries += 1
                    peer.hint_at = now + settings.proof_wait * 2 ** (peer.hint_tries - 1)
                self._give_back(peer)
                if peer.hint_tries >= settings.proof_tries:
                    self._elsewhere(peer)
            elif self._may_prove(peer) and peer.hint_at <= now:
                self._prove(peer)

    @staticmethod
    def _may_prove(peer: Peer) -> bool:
        return peer.hint is not None and peer.candidate is None and peer.current is not None

    def timers(self) -> list[float]:
        """When something is due."""
        peers = list(self._core.peers)
        due = [peer.candidate_until for peer in peers if peer.candidate is not None]
        return due + [peer.hint_at for peer in peers if self._may_prove(peer)]


def _of_family(present: Endpoint | None, endpoints: tuple[Endpoint, ...]) -> Endpoint:
    """The first endpoint of the family that is in use, since that one works; else the first."""
    ours = [one for one in endpoints if present and (":" in one[0]) == (":" in present[0])]
    return (ours or endpoints)[0]
