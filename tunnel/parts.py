"""The parts of a node: each made once, and told of those that it needs."""

from __future__ import annotations

from collections.abc import Callable

from discovery import types as zone_types
from discovery.types import Service
from fastpath.types import Endpoint
from keys.issuer import Issuer
from tunnel.asks import Asks
from tunnel.attempts import Attempts
from tunnel.calls import Calls
from tunnel.core import Core
from tunnel.credentials import Credentials
from tunnel.directory import Directory
from tunnel.farewell import Farewell
from tunnel.flows import Flows
from tunnel.following import Following
from tunnel.keepalives import Keepalives
from tunnel.outside import DEPENDENT, Outside
from tunnel.path_mtus import PathMtus
from tunnel.peers import Peer
from tunnel.pings import Pings
from tunnel.relaying import Relaying
from tunnel.services import Services
from tunnel.signing import Signing
from tunnel.silence import Silence


class Parts:
    """All of them, over one ``core``; the other arguments are those of :class:`tunnel.node.Node`.

    A part gets those made before it as they are. What two of them want of each other goes through a
    method here, which is called when both are there.
    """

    def __init__(
        self,
        core: Core,
        random: Callable[[int], bytes],
        *,
        credentials: Credentials | None,
        issuer: Issuer | None,
        services: tuple[Service, ...],
        withdrawn: tuple[Service, ...],
        remembered: tuple[zone_types.HostRecords, ...],
        proofs: bytes,
    ) -> None:
        self._core = core
        self.farewell = Farewell(core)
        self.flows = Flows(core)
        self.asks = Asks(core)
        self.following = Following(core)
        self.pings = Pings(core)
        self.signing = Signing(core, credentials, issuer, random)
        self.calls = Calls(core, random, self._called)
        self.attempts = Attempts(core, self.pings, self.calls, self._relay_wanted)
        self.directory = Directory(core, self.attempts, self.asks, self.following, remembered)
        publish = self.directory.publish
        self.services = Services(core, publish, services, withdrawn)
        self.relaying = Relaying(core, random, self.attempts, self.following, publish, proofs)
        self.keepalives = Keepalives(core, random, self._stun_servers)
        self.outside = Outside(core, random, publish, self.keepalives)
        self.silence = Silence(core, self.calls, self.relaying, self.outside)
        self.path_mtus = PathMtus(core, self.silence.questioned, self.silence.answered_small)
        self.timed = (
            *(self.attempts, self.asks, self.following, self.keepalives, self.directory),
            *(self.path_mtus, self.services, self.calls, self.outside),
            *(self.relaying, self.signing, self.pings),
        )
        """Those with timers, in the order in which they are asked for what is due."""

    def _called(self, label: str, endpoint: Endpoint) -> None:
        """A host wants to be met. Where nobody can know our port before we have sent something from
        it, that has to be our own beginning of a tunnel."""
        peer = self._core.peers.labelled(label)
        if peer is not None and peer.up:
            self.following.called(peer, endpoint)
        elif self._core.mapping == DEPENDENT and (peer := self._core.peers.ensure(label)):
            self.attempts.forgive(peer)
            self.attempts.begin(peer, "it called us, and cannot come to us itself")

    def _relay_wanted(self, peer: Peer) -> None:
        self.relaying.agents.wanted(peer)

    def _stun_servers(self) -> tuple[Endpoint, ...]:
        return self.outside.servers
