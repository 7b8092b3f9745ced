"""Home agents, from the node's side: its part for all that goes through one, or that one does.

Four ideas behind one door: :mod:`tunnel.relays` is the engine's table of ways,
:mod:`tunnel.signals` the mobility messages, :mod:`tunnel.home_agents` the choice,
:mod:`tunnel.optimising` the direct path instead.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Any

from fastpath.types import Endpoint
from tunnel.attempts import Attempts
from tunnel.core import Core
from tunnel.following import Following
from tunnel.home_agents import HomeAgents
from tunnel.optimising import Optimising
from tunnel.peers import RELAYED, Peer
from tunnel.relays import Relays
from tunnel.signals import Signals

_UNKNOWN = 64
"""Host ids without a peer that have a way by relay; the zone is asked about each."""


@dataclass(frozen=True, slots=True)
class Detour:
    """How a host was reached ``before`` a message of it came by relay, and when it was last heard
    with something that it had sealed (``None``: there is no IKE SA with it)."""

    host_id: IPv6Address
    before: Peer | None
    heard_at: float | None


class Relaying:
    """The part. ``publish`` puts our records into the zone anew; ``proofs`` is their file."""

    def __init__(
        self,
        core: Core,
        random: Callable[[int], bytes],
        attempts: Attempts,
        following: Following,
        publish: Callable[[], None],
        proofs: bytes = b"",
    ) -> None:
        self._core = core
        self._unknown: dict[IPv6Address, None] = {}  # the newest last
        self.relays = Relays(core)
        self.signals = Signals(core, random, self.relays, following)
        register = self.signals.register
        self.agents = HomeAgents(core, attempts, self.relays, register, publish)
        self.signals.agents = self.agents
        self.optimising = Optimising(core, self.signals, self.agents, self.relays, random, proofs)

    def start(self) -> None:
        """Begins."""
        self.signals.start()
        self.optimising.start()

    # --- What happens ---------------------------------------------------------------------------

    def settle(self) -> None:
        """Follows what has changed about peers in this turn."""
        names, self._core.stirred = self._core.stirred, set()
        if names:
            self.relays.follow(names)
            self.signals.stirred(names)
            self.agents.stirred(names)
        self.optimising.settle(names)
        gone, self._core.ownerless = self._core.ownerless, set()
        for host_id in gone:
            if self._core.peers.owner(host_id) is None:
                self.relays.clear(host_id)

    def nested(self, relay: int, source: Endpoint) -> Detour | None:
        """IKE of ``source``, a relay endpoint, came in this inbound relay SA: what we answer goes
        back that way. :meth:`answered` wants to know of it afterwards.

        ``None``, and it is not heeded, where no home agent of ours brings it: any other host would
        so have what is meant for a third one."""
        core, carrier = self._core, self._core.peers.by_inbound(relay)
        if carrier is None or carrier.children[relay].traffic != RELAYED:
            return None
        if not self.agents.is_one(carrier.name):
            self.signals.astray += 1
            return None
        host_id = IPv6Address(source[0])
        peer = core.peers.owner(host_id)
        heard_at = None if peer is None else core.ike.heard_at(peer.name)
        detour = Detour(host_id, self.relays.carrier(host_id), heard_at)
        if peer is None:
            self._unknown.pop(host_id, None)
            self._unknown[host_id] = None
        while len(self._unknown) > _UNKNOWN:
            oldest = next(iter(self._unknown))
            del self._unknown[oldest]
            if core.peers.owner(oldest) is None:
                self.relays.clear(oldest)
        self.relays.use(host_id, carrier)
        return detour

    def answered(self, detour: Detour) -> None:
        """That message is answered. Of a peer with which an IKE SA stands, another home agent than
        before has its way for good only with a message that the peer has sealed: it could make up
        any other."""
        peer, before = self._core.peers.owner(detour.host_id), detour.before
        if peer is None or before is None or detour.heard_at is None:
            return
        heard = self._core.ike.heard_at(peer.name)
        if heard == detour.heard_at != self._core.now and self.agents.relays_now(before):
            self.relays.use(detour.host_id, before)

    def new_source(self, spi: int, source: Endpoint) -> bool:
        """The newest packet of inbound ``spi`` came from ``source``; true if it came by relay: then
        there is nothing to be proven, since only the host itself is at its relay endpoint."""
        peer = self._core.peers.by_inbound(spi)
        if peer is None or source != peer.relay_endpoint:
            return False
        if peer.carries(spi):
            self.agents.fall_back(peer, "its packets come that way")
        return True

    def silent(self, peer: Peer) -> bool:
        """We send to ``peer`` and hear nothing; true if there is another way to it at once."""
        return self.agents.silent(peer)

    def heard(self, name: str) -> None:
        """A peer has answered."""
        self.agents.heard(name)

    def lost(self, peer: Peer) -> None:
        """There is no IKE SA with ``peer`` any more."""
        self.agents.lost(peer)

    def carriers(self) -> set[str]:
        """The names of the home agents through which peers are reached now."""
        relayed = [peer for peer in self._core.peers if peer.is_relayed]
        found = (self.relays.carrier(peer.host_id) for peer in relayed)
        return {carrier.name for carrier in found if carrier is not None}

    def moved(self) -> None:
        """We are in another network."""
        self.signals.moved()
        self.agents.moved()
        self.optimising.moved()

    def activity(self) -> None:
        """The counters are new."""
        self.agents.activity()
        if self._core.others:
            self.optimising.other_ways()

    # --- Time and status ------------------------------------------------------------------------

    def advance(self) -> None:
        """Does what is due."""
        self.signals.advance()
        self.agents.advance()
        self.optimising.advance()

    def timers(self) -> list[float]:
        """When something is due."""
        return self.signals.timers() + self.agents.timers() + self.optimising.timers()

    def status(self) -> dict[str, Any]:
        """``home_agents`` that relay for us, ``home_agent``, what we are ourselves, and
        ``mobility``, what was said and not heeded."""
        return {
            "home_agents": self.agents.status(),
            "home_agent": self.signals.status(),
            "mobility": self.signals.mobility(),
        }
