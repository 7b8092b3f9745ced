"""Keepalives (RFC 3948 §4), as seldom as the NAT before us allows, and none where it needs none.

How long a NAT remembers a flow that nobody uses is found out with the rendezvous, on a flow that
serves nothing else, so that no peer is ever cut off by it::

    we, from the tunnel's socket                           STUN at the rendezvous' second port
    Binding request, RESPONSE-DELAY T seconds ──────────────>
                     neither side sends on this flow for T seconds
                     <────────────────────────────────────── answer
    it arrives: T is survived, and the next T is longer; it does not: the next is shorter

A NAT keeps its habits, so what was learnt holds for all peers, as long as we are in that network,
and when we come back to it. The one kind of NAT that this cannot measure forgets an endpoint as a
whole; then the outside sees us at another one (:mod:`tunnel.outside`), and keepalives go more often
from then on.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from discovery.nat import stun
from fastpath.types import Endpoint
from tunnel.candidates import is_private
from tunnel.commands import SendIke, SendKeepalive
from tunnel.core import Core
from tunnel.journal import What
from tunnel.patience import Patience
from tunnel.peers import Peer

_ROUND_TRIP = 3.0  # seconds, for the answer
_ASLEEP = 5.0  # seconds too late: we were asleep, and know nothing
_UNABLE = 3600.0  # seconds until a server that answers at once is asked again
_NETWORKS = 16  # whose NATs are remembered


@dataclass(slots=True)
class _Trial:
    """One silence that is being waited for."""

    server: Endpoint
    seconds: int
    transaction: bytes
    began: float

    @property
    def until(self) -> float:
        """When its answer does not come any more."""
        return self.began + self.seconds + _ROUND_TRIP


class Keepalives:
    """To all peers that a NAT before us would forget. ``servers`` gives those of STUN that answer,
    the one that is asked for nothing else last."""

    def __init__(
        self,
        core: Core,
        random: Callable[[int], bytes],
        servers: Callable[[], tuple[Endpoint, ...]],
    ) -> None:
        self._core, self._random, self._servers = core, random, servers
        self._networks: OrderedDict[tuple[str, ...], Patience] = OrderedDict()
        self._trial: _Trial | None = None
        self._not_before = float("-inf")

    @property
    def patience(self) -> Patience:
        """Of the NAT before us, in this network."""
        core = self._core
        here = tuple(sorted({host for host, _ in (*core.local, *core.endpoints)}))
        if here not in self._networks:
            settings = core.settings
            self._networks[here] = Patience(settings.keepalive, settings.keepalive_longest)
            if len(self._networks) > _NETWORKS:
                self._networks.popitem(last=False)
        self._networks.move_to_end(here)
        return self._networks[here]

    @property
    def is_trying(self) -> bool:
        """Whether the flow to the last server must be left alone now."""
        return self._trial is not None

    def forgotten(self) -> None:
        """The NAT before us gave us another endpoint, though we are where we were."""
        self._core.explain(None, What.KEEPALIVE, "the NAT has forgotten us: more often from now on")
        self.patience.failed(self._core.now)

    def moved(self) -> None:
        """We are elsewhere: what is being tried says nothing."""
        self._trial = None

    def received(self, data: bytes, source: Endpoint) -> bool:
        """A STUN message came; whether it was ours."""
        trial, message = self._trial, stun.read(data)
        if trial is None or message is None or source != trial.server:
            return False
        if message.transaction != trial.transaction:
            return False
        self._trial = None
        if self._core.now < trial.began + trial.seconds - 1:
            self._not_before = self._core.now + _UNABLE  # it does not know what we asked
        else:
            self.patience.survived(trial.seconds, self._core.now)
            self._explain("the NAT remembers us for longer than that", trial.seconds)
        return True

    # --- What is due ------------------------------------------------------------------------

    def advance(self) -> None:
        """Sends what is due."""
        now = self._core.now
        needed = False
        for peer in self._core.peers:
            due = self._due(peer)
            needed = needed or due is not None
            if due is not None and due <= now and peer.endpoint is not None:
                peer.kept_alive_at = now
                why = "a NAT before us would forget the way"
                self._core.explain(peer, What.KEEPALIVE, why, to=peer.endpoint)
                self._core.emit(SendKeepalive(peer.endpoint))
        if self._trial is not None and self._trial.until <= now:
            self._end()
        if needed and self._trial is None and self._not_before <= now:
            self._try()

    def timers(self) -> list[float]:
        """When something is due."""
        due = [at for peer in self._core.peers if (at := self._due(peer)) is not None]
        return due if self._trial is None else [*due, self._trial.until]

    def _due(self, peer: Peer) -> float | None:
        if not self._needed(peer):
            peer.keepalive = None
            return None
        peer.keepalive = self.patience.interval
        sent = max(peer.kept_alive_at, peer.endpoint_at, peer.last_out or 0.0)
        return sent + peer.keepalive

    def _needed(self, peer: Peer) -> bool:
        """Whether a NAT stands before us, on the way to it, in which no router keeps our port open.
        On our local network only a NAT that the peer itself has seen counts."""
        if not peer.up or peer.endpoint is None or peer.is_relayed:
            return False
        outside = ":" not in peer.endpoint[0] and not is_private(peer.endpoint)
        return peer.behind_nat or (outside and bool(self._core.mapping))

    # --- Trials -----------------------------------------------------------------------------

    def _try(self) -> None:
        core, servers = self._core, self._servers()
        seconds = self.patience.trial(core.now)
        if seconds is None or len(servers) < 2:
            return
        self._trial = _Trial(servers[-1], seconds, self._random(12), core.now)
        core.emit(SendIke(stun.delayed(self._trial.transaction, seconds), servers[-1]))

    def _end(self) -> None:
        trial, self._trial = self._trial, None
        assert trial is not None
        if self._core.now < trial.until + _ASLEEP:
            self.patience.lost(trial.seconds, self._core.now)
            self._explain("after that silence nothing came through the NAT", trial.seconds)

    def _explain(self, why: str, seconds: int) -> None:
        facts = {"seconds": seconds, "interval": f"{self.patience.interval:.0f} s"}
        self._core.explain(None, What.KEEPALIVE, why, **facts)
