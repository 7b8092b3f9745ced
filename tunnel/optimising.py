"""The direct path to a peer that is reached by relay, and a short way to tell of moves (I12–I20).

::

    we                                  the home agent                              the peer
    BU, "I am at X" ───── nested ────────────> │ ──────────── nested ───────────────> no binding,
    BU, "I am at X" ── from X ──> its NAT drops it, ours is open                      it sends one
           <──────────────────────────────────── to X ── its own BU, "I am at Y" ──   to X itself
    AOTC ── to Y ──> AOTR ── from Y: it is proven, our data goes to Y
    BU again ── to Y ──> AOTC, AOTR, BA: we are proven, its data comes to X

With the first AOTC goes another one by the home agent, to the home address; without an answer to
it there is no binding (I22, decision 0066). Both do so at once, since each is mobile and
correspondent (:mod:`tunnel.mobility`). Nothing but these small messages goes to an endpoint that is
not proven. Where nothing comes through the relay stays, and it is tried again from time to time. On
a direct path the same messages keep the peer's binding, so that a move costs one message where it
was proven before, or early.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from fastpath.types import Endpoint
from tunnel.calls import why_not_direct
from tunnel.candidates import in_order, is_private
from tunnel.commands import Keep, SendKeepalive
from tunnel.core import Core
from tunnel.early import Early
from tunnel.home_agents import HomeAgents
from tunnel.journal import What
from tunnel.mobility import commands as told
from tunnel.mobility.claims import Claim
from tunnel.mobility.commands import HomeProven, HomeSilent
from tunnel.mobility.mobile import Phase
from tunnel.mobility.proofs import ProofsError
from tunnel.peers import OWN, SIGNALS, Peer
from tunnel.relays import Relays
from tunnel.signals import Signals
from tunnel.status import endpoint_text

_ASK_AGAIN = 10.0  # seconds until a child that did not come is asked for once more
_THEIR_TURN = 3.0  # seconds in which the peer, whose part it is, may ask for it
_TRIES = 8  # binding updates without an answer, two minutes of them, before a rest
_TRIES_MORE = 2  # after a rest on a direct path, where all that is missing is a binding
_REST = 60.0  # seconds; on a direct path more each time, up to 16 minutes
_AT_REST = 20.0  # of these, in which not even the peer's wish ends it: else both went on for ever
_SOON = 0.1  # seconds, in which an answer to what we just said may still come
_LET_IN = 1.0  # seconds between two octets that let a peer in from another place
_WRITE = 5.0  # seconds between two writes of the proofs
_SIGNALS = next(child for child in OWN if child.traffic == SIGNALS)


@dataclass(slots=True)
class _Way:
    """One peer whose direct path is looked for, or kept."""

    ask_at: float  # for the child that the messages need
    places: list[Endpoint] = field(default_factory=list)  # where it may be
    invited: Endpoint | None = None  # where it says that it is, by relay
    turn: int = 0
    begun: bool = False
    again_at: float | None = None  # after a rest
    rests: int = 0  # on a direct path, since it last took a binding
    used: Endpoint | None = None  # proven by the peer's answer, and taken for our data
    let_in_at: float = float("-inf")  # when an octet was last sent to where it will come from
    session: int | None = None  # which IKE_AUTH the messages' SA comes from
    silent_home: bool = False  # it was asked at its home address, and did not answer


class Optimising:
    """The part. It looks at peers that share a home agent with us, and at no others. ``proofs`` is
    what was kept of those of before."""

    def __init__(
        self,
        core: Core,
        signals: Signals,
        agents: HomeAgents,
        relays: Relays,
        random: Callable[[int], bytes],
        proofs: bytes = b"",
    ) -> None:
        self._core, self._signals, self._agents = core, signals, agents
        self._relays = relays
        self._kept = proofs
        self._early = Early(core, signals, random, self._has_relay)
        self._ways: dict[str, _Way] = {}
        self._seen_agents = core.home_agents
        self._write_at: float | None = None
        self._written_at = float("-inf")
        signals.paths, signals.way_home = self.told, self._has_relay

    def start(self) -> None:
        """Takes over what was proven before; what cannot be read is proven anew (I19)."""
        if not self._kept:
            return
        try:
            self._signals.machine.proofs.load(self._kept, self._core.unix)
        except ProofsError as problem:
            self._core.log("warning", f"where the peers proved to be is forgotten: {problem}")

    # --- What changes -------------------------------------------------------------------------

    def settle(self, names: set[str]) -> None:
        """These peers have other SAs, endpoints or records than before."""
        if self._core.home_agents != self._seen_agents:
            self._seen_agents = self._core.home_agents
            names = {peer.name for peer in self._core.peers}
            for known in self._ways.values():
                known.again_at, known.rests = None, 0  # who was silent at home may answer now
        for name in names:
            peer = self._core.peers.named(name)
            if peer is None or not self._concerns(peer):
                self._ways.pop(name, None)
                self._early.forget(name)
                continue
            way = self._ways.get(name)
            if way is None:
                way = self._ways[name] = _Way(self._core.now + self._patience(peer))
            child = peer.narrow.get(SIGNALS)
            if child is None or way.session not in (None, child.session):
                way.begun = False  # and with that SA all that it knew of us is gone
            if child is not None:
                way.session = child.session
                self._look(peer, way)

    def _concerns(self, peer: Peer) -> bool:
        core = self._core
        if peer.static or not peer.up or core.ending or self._signals.speaks_for_home(peer.name):
            return False
        if peer.name in self._ways and SIGNALS in peer.narrow:
            return True  # what was proven by a home agent lasts without it
        return bool(core.home_agents and peer.home_agents)

    def _patience(self, peer: Peer) -> float:
        """Of two hosts the one with the lower host id asks for the child at once."""
        return 0.0 if peer.host_id and self._core.identity.host_id < peer.host_id else _THEIR_TURN

    def _look(self, peer: Peer, way: _Way) -> None:
        if way.used is not None and peer.endpoint != way.used:
            self._leave(peer, way)
        if not way.begun and way.again_at is None:
            self._begin(peer, way)
        elif peer.is_relayed:
            if set(self._places(peer, way)) - set(way.places):
                self._begin(peer, way)
        elif peer.endpoint is not None:
            claim = self._claim(peer.endpoint)
            self._signals.machine.mobile.redirect(peer.name, peer.endpoint, claim)

    def _leave(self, peer: Peer, way: _Way) -> None:
        """Data goes another way than the one that was proven here."""
        used, way.used = way.used, None
        if peer.is_relayed and used is not None:
            self._signals.carry_out(self._signals.machine.left(peer.name, used))
            way.begun = False

    def moved(self) -> None:
        """We are in another network: all who know where we were are told at once."""
        for name, way in self._ways.items():
            peer = self._core.peers.named(name)
            if peer is not None and SIGNALS in peer.narrow:
                way.again_at, way.rests = None, 0
                self._begin(peer, way)

    def other_ways(self) -> None:
        """There are other networks that we could leave by than before, or other traffic."""
        self._early.trim()
        for name in self._ways:
            peer = self._core.peers.named(name)
            if peer is not None:
                self._early.look(peer)

    def received(self, data: bytes, server: Endpoint) -> bool:
        """A STUN message came; whether it was asked for here."""
        return self._early.received(data, server)

    # --- What we say --------------------------------------------------------------------------

    def _places(self, peer: Peer, way: _Way) -> list[Endpoint]:
        """Where it may be: over the direct path, if there is one; else wherever it says, and the
        zone, that it is."""
        places = in_order(self._core, peer) if peer.is_relayed else [peer.endpoint]
        invited = way.invited if peer.is_relayed else None
        known = (one for one in (invited, *places) if one is not None)
        return [one for one in dict.fromkeys(known) if one != peer.relay_endpoint]

    def _begin(self, peer: Peer, way: _Way) -> None:
        """Tell the peer where we are: at all places where it may be, one after the other, and by
        relay."""
        core = self._core
        way.places = self._places(peer, way)
        if not way.places or not core.endpoints:
            return  # set_endpoints or its records bring us back
        way.begun, way.turn, way.again_at = True, 0, None
        via = way.places[0]
        if peer.is_relayed:
            core.explain(peer, What.PROOF, "a direct path is looked for", at=via)
        machine, claim = self._signals.machine, self._claim(via)
        said = machine.register(
            *(peer.name, via, claim, core.now),
            invite=self._has_relay(peer),
            inviting=self._signals.claim_towards(via),
        )
        self._signals.carry_out(said)

    def _has_relay(self, peer: Peer) -> bool:
        """Whether it hears us by a home agent; that way is made ready if need be."""
        if peer.host_id is None:
            return False
        agent = self._agents.agent_for(peer)
        if self._relays.stands(peer.host_id) or agent is None:
            return agent is not None
        return self._relays.use(peer.host_id, agent.peer)

    def _claim(self, via: Endpoint) -> Claim:
        """On a local network we are seen as we are."""
        local = next((one for one in self._core.local if ":" not in one[0]), None)
        if is_private(via) and local is not None and is_private(local):
            return Claim.at(local)
        return self._signals.claim_towards(via)

    def _next(self, peer: Peer, way: _Way, tries: int) -> None:
        """The last binding update got no answer."""
        way.places = self._places(peer, way) or way.places
        if tries < (_TRIES_MORE if way.rests and not peer.is_relayed else _TRIES):
            way.turn += 1
            via = way.places[way.turn % len(way.places)]
            self._signals.machine.mobile.redirect(peer.name, via, self._claim(via))
            return
        self._signals.machine.mobile.rest(peer.name)
        way.begun, way.again_at = False, self._core.now + _REST * 2 ** min(way.rests, 4)
        if not peer.is_relayed:
            way.rests += 1
            words = "it takes no binding; IKE alone tells it where we are"
            self._core.explain(peer, What.PROOF, words, tries=tries)
        else:
            way.rests = 0
            words = f"no direct path was found: {tries} messages to it got no answer"
            peer.relay_reason = why_not_direct(self._core.mapping, peer) or words
            self._core.explain(peer, What.RELAY, "the relay stays", reason=peer.relay_reason)

    # --- What the machines say ------------------------------------------------------------------

    def told(self, command: told.Command) -> None:
        """One of the commands that are not about home registrations."""
        if isinstance(command, told.KeepProofs):
            self._write_at = self._write_at or max(self._core.now, self._written_at + _WRITE)
            return
        name = command.peer
        peer, way = self._core.peers.named(name), self._ways.get(name)
        if peer is None or peer.current is None:
            return
        match command:
            case told.UseEndpoint(_, endpoint):
                self._use(peer, endpoint)
            case told.DropBinding(_, reason, asked):
                self._dropped(peer, reason, asked)
            case told.Accepted(_, endpoint, _) if way is not None:
                self._came(peer, way, endpoint)
            case told.Invited(_, endpoint) if way is not None:
                self._invited(peer, way, endpoint)
            case told.Registered() if way is not None:
                way.rests = 0
                self._core.explain(peer, What.PROOF, "it knows where we are", fresh=command.fresh)
                self._early.registered(peer, command.fresh)
            case told.NotRegistered(_, None, tries, _) if way is not None and way.begun and tries:
                self._next(peer, way, tries)
            case told.EarlyProof():
                self._early.ended(peer, command)
            case told.Unheard():
                self._early.unheard(peer, command)
            case HomeProven() | HomeSilent() if way is not None:
                self._asked_home(peer, way, command)

    def _use(self, peer: Peer, endpoint: Endpoint) -> None:
        """It has answered from there with what it could know only from there (I16)."""
        core, way = self._core, self._ways.get(peer.name)
        if way is not None:
            way.used = endpoint
        if endpoint == peer.endpoint:
            return
        old, new = endpoint_text(peer.endpoint), endpoint_text(endpoint)
        core.log("info", f"{peer.name} is reached at {new}", before=old)
        core.explain(peer, What.PATH, "it proved that it is there", old=old, new=new)
        peer.candidate = peer.hint = None
        core.point(peer, endpoint)
        core.ike_said(core.ike.moved(peer.name, endpoint, core.now, proven=True))

    def _asked_home(self, peer: Peer, way: _Way, answer: HomeProven | HomeSilent) -> None:
        """Its binding takes effect, or not (I22). Silence is told once."""
        again, way.silent_home = way.silent_home, isinstance(answer, HomeSilent)
        if isinstance(answer, HomeProven):
            self._core.explain(peer, What.PROOF, "it answers at its home address")
        elif not again:
            words = "it does not answer at its home address"
            follows = "its binding stays" if answer.before else "it gets no binding"
            self._core.explain(peer, What.PROOF, words, therefore=follows)

    def _dropped(self, peer: Peer, reason: str, asked: bool) -> None:
        """It has no binding any more. As long as its packets come directly, and it did not ask for
        that itself, data goes on."""
        lately = self._core.now - self._core.settings.quiet
        if asked or peer.last_in is None or peer.last_in < lately:
            self._agents.fall_back(peer, reason)

    def _came(self, peer: Peer, way: _Way, endpoint: Endpoint) -> None:
        """Its binding update came from there: its NAT is open for ours now, and may not have been
        before."""
        known = self._signals.machine.mobile.registrations.get(peer.name)
        unheard = known is not None and known.phase is Phase.SAID
        if known is None or known.via != endpoint:
            unheard = peer.is_relayed
        elif self._core.now - known.said_at < _SOON:
            return
        if unheard:
            way.invited = endpoint
            self._begin(peer, way)

    def _invited(self, peer: Peer, way: _Way, endpoint: Endpoint) -> None:
        """It will be there, it says by relay: our own messages open our NAT for its. Of a host id
        that would be those of another host, or nothing that may be seen outside (I50)."""
        if self._core.is_host(endpoint[0]):
            return
        fresh, way.invited = way.invited != endpoint, endpoint
        if not peer.is_relayed:
            self._let_in(way, endpoint)
            return
        if way.begun and not fresh:
            claim = self._claim(endpoint)
            self._signals.machine.mobile.redirect(peer.name, endpoint, claim)
        elif fresh or way.again_at is None or way.again_at - _REST + _AT_REST <= self._core.now:
            self._begin(peer, way)

    def _let_in(self, way: _Way, endpoint: Endpoint) -> None:
        """Data goes directly; it wants to be let in from another place, too, before it moves there
        (I20). One octet opens our NAT."""
        if self._core.now >= way.let_in_at + _LET_IN:
            way.let_in_at = self._core.now
            self._core.emit(SendKeepalive(endpoint))

    # --- Time -----------------------------------------------------------------------------------

    def advance(self) -> None:
        """Does what is due."""
        core = self._core
        for name, way in list(self._ways.items()):
            peer = core.peers.named(name)
            if peer is None or not peer.up:
                del self._ways[name]
            elif SIGNALS not in peer.narrow:
                if way.ask_at <= core.now:
                    way.ask_at = core.now + _ASK_AGAIN
                    core.ike_said(core.ike.add(name, _SIGNALS, core.now))
            elif way.again_at is not None and way.again_at <= core.now:
                way.again_at = None
                self._begin(peer, way)
            else:
                self._early.look(peer)
        self._early.advance()
        if self._write_at is not None and (self._write_at <= core.now or core.ending):
            self._write_at, self._written_at = None, core.now
            core.emit(Keep("proofs", self._signals.machine.proofs.dump(core.unix)))

    def timers(self) -> list[float]:
        """When something is due."""
        due = self._early.timers()
        if self._write_at is not None:
            due.append(self._write_at)
        for name, way in self._ways.items():
            peer = self._core.peers.named(name)
            if peer is not None and SIGNALS not in peer.narrow:
                due.append(way.ask_at)
            elif way.again_at is not None:
                due.append(way.again_at)
            elif peer is not None and (early := self._early.due(peer)) is not None:
                due.append(early)
        return due
