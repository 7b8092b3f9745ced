"""Mobility messages between this host and its peers: the machines of :mod:`tunnel.mobility`, wired.

They travel in a child of their own with each peer (:data:`tunnel.peers.SIGNALS`), from host id to
host id, to exactly the endpoint that they are about; what comes in any other SA is not heeded. Here
are home registrations: ours with home agents, and, on a home agent, those of the other hosts, whose
nested packets are then forwarded. A registered host's endpoint is the one that IKE has proven; what
its binding update came from is a hint, followed like any other (decision 0062). What is about the
direct path to a correspondent goes on to ``paths``.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv6Address
from typing import Any, TypeAlias

from fastpath.types import Endpoint, Source
from keys.ike.types import ChildSa
from tunnel.candidates import is_private
from tunnel.commands import SendInner, SetRelayLimit
from tunnel.core import Core
from tunnel.following import Following
from tunnel.home_agents import HomeAgents
from tunnel.journal import What
from tunnel.mobility import commands as told
from tunnel.mobility import header
from tunnel.mobility.claims import Claim
from tunnel.mobility.home import HomeAgent
from tunnel.mobility.machine import Mobility
from tunnel.mobility.mobile import Phase
from tunnel.peers import RELAYED, SIGNALS, Peer
from tunnel.pending import Bucket
from tunnel.relays import Relays
from tunnel.status import endpoint_text

Told: TypeAlias = told.Command

COMPLAINTS_PER_SECOND = 5
"""Lines of the log about messages that are not heeded; they are all counted."""

_UNSURE = 5.0  # seconds after a move, in which what the outside saw of us before is not said


class Signals:
    """The machine, and its way to the network and to the tables."""

    def __init__(
        self,
        core: Core,
        random: Callable[[int], bytes],
        relays: Relays,
        following: Following,
    ) -> None:
        self._core, self._relays, self._following = core, relays, following
        ours = core.settings.home_agent
        self.machine = Mobility(
            core.identity.host_id,
            random,
            home_agent=None if ours is None else HomeAgent(ours.hosts),
        )
        self.agents: HomeAgents | None = None
        self.paths: Callable[[Told], None] = lambda _: None
        self.way_home: Callable[[Peer], object] = lambda _: None  # makes it ready, if it can
        self._known: dict[str, ChildSa] = {}  # the mobility SAs, by name
        self._outer: tuple[Endpoint, ...] = ()
        self._unsure_until = float("-inf")
        self._complaints = Bucket(COMPLAINTS_PER_SECOND)
        self.astray = 0  # messages that came in an SA that is not for them

    def start(self) -> None:
        """The engine learns how much we relay at most."""
        if self._core.settings.home_agent is not None:
            limit = self._core.settings.home_agent.octets_per_second
            self._core.emit(SetRelayLimit(limit))

    # --- What comes -----------------------------------------------------------------------------

    def received(self, spi: int, source: Endpoint, message: bytes) -> None:
        """A Mobility Header came in inbound ``spi``, from ``source``."""
        core, peer = self._core, self._core.peers.by_inbound(spi)
        ours = None if peer is None else peer.narrow.get(SIGNALS)
        child = None if peer is None else peer.children[spi]
        if peer is None or child is None or child.traffic != SIGNALS:
            self.astray += 1
            return
        if ours is not None and ours.session != child.session:
            self.astray += 1  # whoever was authenticated before is not who is asked at home now
            return
        self.carry_out(self.machine.received(peer.name, source, message, core.now, core.unix))

    def stirred(self, names: set[str]) -> None:
        """These peers have other SAs, or other endpoints, than before."""
        for name in names:
            peer = self._core.peers.named(name)
            child = None if peer is None else peer.narrow.get(SIGNALS)
            if peer is not None and child is not None and peer.host_id is not None:
                self._stands(peer, child, peer.host_id)
            elif self._known.pop(name, None) is not None:
                self.carry_out(self.machine.forget(name))
            if peer is not None and self._is_bound(name) and RELAYED in peer.narrow:
                self._forward_to(peer)

    def _stands(self, peer: Peer, child: ChildSa, host_id: IPv6Address) -> None:
        before, self._known[peer.name] = self._known.get(peer.name), child
        self.machine.know(peer.name, host_id)
        if before is None or before.spi_in == child.spi_in:
            return
        if before.session == child.session:
            self.carry_out(self.machine.rekeyed(peer.name, self._core.now))
        else:
            self.carry_out(self.machine.renewed(peer.name))

    # --- What goes ------------------------------------------------------------------------------

    def register(self, peer: Peer) -> None:
        """Tell this home agent where we are."""
        core = self._core
        if peer.endpoint is None:
            return
        claim = self.claim_towards(peer.endpoint)
        self.carry_out(self.machine.register(peer.name, peer.endpoint, claim, core.now, home=True))

    def moved(self) -> None:
        """We are in another network, or the outside sees us elsewhere; in the first case nobody has
        said yet where that is."""
        core, before = self._core, self._outer
        self._outer = core.endpoints
        self._unsure_until = core.now + _UNSURE if before == core.endpoints else float("-inf")

    def claim_towards(self, endpoint: Endpoint) -> Claim:
        """Where we say that we are to one at ``endpoint``. An address of our own that is a public
        one says it all; else it is where the outside sees us, as far as that is known."""
        core, six = self._core, ":" in endpoint[0]
        own = next((one for one in core.local if (":" in one[0]) == six), None)
        if own is not None and not is_private(own):
            return Claim.at(own)
        inner = None if own is None or six else own[0]
        outer = next((one for one in core.endpoints if (":" in one[0]) == six), None)
        if outer is None or core.now < self._unsure_until:
            return Claim(local=inner)
        return Claim.at(outer, inner)

    def carry_out(self, commands: list[Told]) -> None:
        """Does what the machine says."""
        for command in commands:
            match command:
                case told.SendMobility(name, endpoint, message, source):
                    self._send(name, endpoint, message, source)
                case told.Refused(name, _, reason):
                    if self._complaints.allows(self._core.now):
                        words = f"a mobility message of {name} was not heeded: {reason}"
                        self._core.log("debug", words)
                case _:
                    if not self._home(command):
                        self.paths(command)

    def _home(self, command: Told) -> bool:
        """What is about home registrations; false for all else."""
        core = self._core
        match command:
            case told.Registered(name, _, lifetime) if self._is_agent(name):
                assert self.agents is not None
                self.agents.registered(name, lifetime)
            case told.NotRegistered(name, _, _, reason) if self._is_agent(name):
                assert self.agents is not None
                self.agents.refused(name, reason)
            case told.HomeBound(name, endpoint):
                peer = core.peers.named(name)
                if peer is not None:
                    core.log("info", f"{name} is registered here", at=endpoint_text(endpoint))
                    core.explain(peer, What.RELAY, "it is registered here", at=endpoint)
                    self._forward_to(peer)
                    self._following.hinted(peer, endpoint)
            case told.HomeUnbound(name, reason):
                core.log("info", f"{name} is not registered here any more: {reason}")
                peer = core.peers.named(name)
                if peer is not None:
                    core.explain(peer, What.RELAY, f"it is not registered here any more: {reason}")
                self._relays.withdraw(name)
            case _:
                return False
        return True

    def _send(self, name: str, endpoint: Endpoint, message: bytes, source: Source | None) -> None:
        peer = self._core.peers.named(name)
        child = None if peer is None else peer.narrow.get(SIGNALS)
        if peer is not None and child is not None:
            if endpoint == peer.relay_endpoint:
                self.way_home(peer)
            packet = header.packet(message, child.local_id, child.peer_id)
            self._core.emit(SendInner(child.spi_out, endpoint, packet, source))

    def _forward_to(self, peer: Peer) -> None:
        if peer.host_id is not None and peer.label is not None:
            self._relays.withdraw(peer.name, peer.host_id)
            self._relays.use(peer.host_id, peer, forward=True)

    def speaks_for_home(self, name: str) -> bool:
        """Whether bindings with this peer are home registrations, ours or its own."""
        return self._is_agent(name) or self._is_bound(name)

    def _is_agent(self, name: str) -> bool:
        return self.agents is not None and self.agents.is_one(name)

    def _is_bound(self, name: str) -> bool:
        ours = self.machine.home_agent
        return ours is not None and name in ours.bindings

    # --- Time and status ------------------------------------------------------------------------

    def advance(self) -> None:
        """Does what is due."""
        due = self.machine.next_timer()
        if due is not None and due <= self._core.now:
            self.carry_out(self.machine.advance(self._core.now))

    def timers(self) -> list[float]:
        """When something is due."""
        due = self.machine.next_timer()
        return [] if due is None else [due]

    def mobility(self) -> dict[str, Any]:
        """Of every host: how many peers said where they are, how many know where we are, and which
        of their messages were not heeded (:data:`tunnel.mobility.commands.REASONS`)."""
        machine = self.machine
        known = machine.mobile.registrations.values()
        bindings = machine.correspondent.bindings.values()
        return {
            "bindings": sum(one.care_of is not None for one in bindings),
            "registrations": sum(one.phase is Phase.BOUND for one in known),
            "proofs": len(machine.proofs),
            "astray": self.astray,
            "refused": dict(sorted(machine.refused.items())),
        }

    def status(self) -> dict[str, Any] | None:
        """Of a home agent: who is registered; the octets are the engine's to fill in."""
        ours, settings = self.machine.home_agent, self._core.settings.home_agent
        if ours is None or settings is None:
            return None
        return {
            "bindings": [
                {
                    "name": name,
                    "endpoint": endpoint_text(binding.endpoint),
                    "nat": binding.nat,
                    "expires_s": round(max(0.0, binding.until - self._core.now), 3),
                }
                for name, binding in sorted(ours.bindings.items())
            ],
            "hosts": settings.hosts,
            "limit_bytes_per_s": settings.octets_per_second or None,
            "refused": dict(sorted(self.machine.refused.items())),
        }
