"""A peer that was talked with and says nothing any more: noticed in seconds, and looked for.

::

    we send ──────> nothing comes back for a moment ─> a sign of life is asked for, where it was
                                                          │ none within half a second
                 fresh records, a call by the zone <──────┴──> asked at all its endpoints at once
                                                                   the one that it answers from is
                                                                   proven, and data goes there

An answer counts as much as a packet: traffic that flows one way only, as UDP may, costs a question
now and then, each after twice the time of the one before, and moves nothing. IKE's own check takes
half a minute before it begins (RFC 7296 §2.4); it goes on beside this and decides when a peer is
gone for good.

It may be ourselves who have moved, without a word of our router: so the outside is asked where it
sees us, too. What it says is published, and the zone tells the peer.

The other way round: packets were coming, many of them, and then none. Perhaps they are sent to
where we were, because the NAT before us has changed what it maps. So one empty packet goes to the
peer, which sees from where it comes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tunnel.calls import Calls
from tunnel.candidates import in_order, is_private
from tunnel.commands import SendDummy
from tunnel.core import Core
from tunnel.journal import What
from tunnel.peers import Peer

_LIVELY = 20  # packets a second
_STOPPED = 0.4  # seconds without one, after which a lively peer counts as silent

LOOK_LIVELY, LOOK, LOOK_QUIET = 0.25, 1.0, 3.0
"""Seconds between two looks: where many packets come, where some do, where nothing moves."""


@dataclass(slots=True)
class _Watch:
    """What is known of one peer. ``patience`` is in seconds; ``since`` is when the first packet
    went that nothing has answered, ``asked`` when a sign of life was asked for."""

    patience: float
    heard: float = float("-inf")  # an answer
    since: float | None = None
    asked: float | None = None
    searched: float | None = None
    received: int = 0  # packets so far
    looked: float = float("-inf")  # when they were counted
    lively: bool = False  # many of them came, until now


class Silence:
    """All peers with a tunnel."""

    def __init__(
        self,
        core: Core,
        calls: Calls,
        by_relay: Callable[[Peer], bool] = lambda _: False,
        look_outside: Callable[[], None] = lambda: None,
    ) -> None:
        self._core, self._calls = core, calls
        self._look_outside = look_outside  # where we are seen may have changed
        self._by_relay = by_relay  # makes data go to a peer through a home agent, if one can
        self._watches: dict[str, _Watch] = {}

    # --- What is seen -----------------------------------------------------------------------

    def activity(self) -> None:
        """The peers' ``last_in`` and ``last_out`` are new."""
        up = {peer.name: peer for peer in self._core.peers if peer.up}
        for name in [name for name in self._watches if name not in up]:
            del self._watches[name]
        for peer in up.values():
            self._look(peer)

    def _look(self, peer: Peer) -> None:
        watch = self._watches.setdefault(peer.name, _Watch(self._core.settings.silence))
        now = self._core.now
        received = sum(counters.packets for counters in peer.inbound.values())
        came, watch.received = received - watch.received, received
        lively, watch.looked = came >= _LIVELY * (now - watch.looked), now
        if came > 0:
            watch.patience, watch.lively = self._core.settings.silence, lively
        heard = max(watch.heard, peer.last_in or float("-inf"))
        if peer.last_out is None or peer.last_out <= heard:
            watch.since = None
            self._calm(peer, watch)
            if watch.lively and now - heard >= _STOPPED:
                watch.lively = False
                self._show_ourselves(peer)
        elif watch.since is None or watch.since <= heard:
            watch.since = peer.last_out
            self._calm(peer, watch)
            if watch.lively:
                watch.patience = self._core.settings.abrupt

    def answered(self, peer: Peer) -> None:
        """It gave a sign of life."""
        watch = self._watches.get(peer.name)
        if watch is not None:
            watch.heard, watch.since, watch.lively = self._core.now, None, False
            self._calm(peer, watch)
            watch.patience = min(watch.patience * 2, self._core.settings.silence_cap)

    def _calm(self, peer: Peer, watch: _Watch) -> None:
        if watch.searched is not None:
            self._calls.ended(peer)
        watch.asked = watch.searched = None

    @property
    def look_after(self) -> float:
        """Seconds until the counters are wanted again: soon while there is something to miss."""
        watches = self._watches.values()
        if any(watch.lively or watch.since is not None for watch in watches):
            return LOOK_LIVELY
        return LOOK_QUIET if watches else float("inf")

    def _show_ourselves(self, peer: Peer) -> None:
        """Its packets stopped all at once, and we had nothing to send."""
        behind = any(is_private(one) for one in self._core.local)
        if behind and peer.current is not None and peer.endpoint is not None:
            self._core.emit(SendDummy(peer.current.spi_out, peer.endpoint))

    # --- What is done -----------------------------------------------------------------------

    def advance(self) -> None:
        """Asks, and looks further, where that is due."""
        now = self._core.now
        for name, watch in self._watches.items():
            peer = self._core.peers.named(name)
            due = self._due(watch)
            if peer is None or not peer.up or due is None or due > now:
                continue
            if watch.asked is None:
                self._ask(peer, watch)
            else:
                self._search(peer, watch)

    def timers(self) -> list[float]:
        """When something is due."""
        up = {peer.name for peer in self._core.peers if peer.up}
        found = (self._due(watch) for name, watch in self._watches.items() if name in up)
        return [at for at in found if at is not None]

    def _due(self, watch: _Watch) -> float | None:
        settings = self._core.settings
        if watch.since is None:
            return None
        if watch.asked is None:
            return watch.since + watch.patience
        if watch.searched is None:
            return watch.asked + settings.no_answer
        return watch.searched + settings.search_again

    def _ask(self, peer: Peer, watch: _Watch) -> None:
        core = self._core
        watch.asked = core.now
        core.explain(peer, What.PROOF, "we send, and nothing comes back: is it there?")
        core.ike_said(core.ike.probe(peer.name, core.now))
        self._look_outside()

    def _search(self, peer: Peer, watch: _Watch) -> None:
        """Where it was it does not answer."""
        core = self._core
        first, watch.searched = watch.searched is None, core.now
        if first and self._by_relay(peer):
            return
        if peer.candidate is not None:
            return  # it is being proven somewhere: that comes first
        places = tuple(one for one in in_order(core, peer) if one != peer.endpoint)
        core.explain(peer, What.PROOF, "it is silent, and looked for where it may be", at=places)
        core.ike_said(core.ike.search(peer.name, places, core.now))
        if first and peer.label is not None:
            self._calls.call(peer)
            core.look_up(peer.label)
