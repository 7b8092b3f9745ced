"""Which home agents relay for us, and how a peer is reached through one (I10, I45–I48).

A host of the account offers to relay by :data:`OFFER` in its TXT strings. Each host registers with
the first two of them that it reaches, those with a public endpoint first, then by name: so the two
ends of a relayed path mostly have the same first one (decision 0064). For each::

    IKE, directly ──> a child for Mobility Headers, one for nested packets ──> BU ──> BA
    registered ──> our ``_autotunnel6`` records name it

A peer that cannot be met is reached through a home agent that relays for it: that one's way is set,
and the relay endpoint of the peer joins the race of IKE. What comes nested is answered the way that
it came (decision 0065). A home agent that goes silent while we send through it is asked, given up
within seconds, and all that it carried goes through another one that both ends have.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

from fastpath.types import Endpoint
from tunnel.attempts import Attempts
from tunnel.calls import is_behind, is_hopeless, why_not_direct
from tunnel.core import Core
from tunnel.journal import What
from tunnel.peers import OWN, RELAYED, SIGNALS, Peer
from tunnel.relays import Relays
from tunnel.status import endpoint_text

OFFER = "home-agent"
"""The TXT string of a host that relays for the others."""

AT_ONCE = 8
"""Home agents that we are registered with at a time, those of our peers included."""

_ASK_AGAIN = 10.0  # seconds until children that did not come are asked for once more
_CHECKED, _AT_REST = 1.0, 15.0  # seconds between two looks: where something is missing, and else
_PATIENCE = 10.0  # seconds for an attempt that goes on by relay


@dataclass(slots=True)
class Agent:
    """A home agent of ours, or of a peer."""

    peer: Peer
    chosen: bool = True  # ours; else only a peer needs it
    asked_at: float = float("-inf")  # for its children
    said: Endpoint | None = None  # where it was told that we are, as it was seen from
    registered: bool = False
    reason: str = ""
    heard_at: float = float("-inf")
    probed: bool = False  # it owes us an answer
    silent: bool = False

    @property
    def ready(self) -> bool:
        """Whether it relays for us now."""
        return self.registered and not self.silent and RELAYED in self.peer.narrow

    def is_due(self, at: float) -> bool:
        """Whether it should be asked, since it was last heard before that moment."""
        return self.peer.up and not self.probed and self.heard_at <= at


@dataclass(slots=True)
class _Wish:
    """An attempt that shall go on by relay, too, from ``at`` on."""

    peer: Peer
    at: float
    joined: set[str] = field(default_factory=set)  # through whom it has been tried


class HomeAgents:
    """Our registrations, and the way by relay to each peer. ``register`` begins or repeats a
    registration, ``publish`` puts our records into the zone anew."""

    def __init__(
        self,
        core: Core,
        attempts: Attempts,
        relays: Relays,
        register: Callable[[Peer], None],
        publish: Callable[[], None],
    ) -> None:
        self._core, self._attempts, self._relays = core, attempts, relays
        self._register, self._publish = register, publish
        self._agents: dict[str, Agent] = {}  # by the peer's name, in order of preference
        self._wishes: dict[str, _Wish] = {}
        self._look_at = float("-inf")

    # --- Who relays for us --------------------------------------------------------------------

    def stirred(self, names: set[str]) -> None:
        """These peers have other records, SAs or endpoints than before."""
        core, ours = self._core, self._core.settings.home_agents or ()
        for peer in (core.peers.named(name) for name in names):
            if peer is None:
                continue
            if peer.name in self._agents or self._offers(peer) or peer.label in ours:
                self.stir()
            if SIGNALS not in peer.narrow and peer.name in self._agents:
                self._agents[peer.name].registered = False
                self._agents[peer.name].said = None
            if peer.name in self._wishes and self._wishes[peer.name].at <= core.now:
                self._join(self._wishes[peer.name])

    def stir(self) -> None:
        """Look soon."""
        self._look_at = min(self._look_at, self._core.now)

    def is_one(self, name: str) -> bool:
        """Whether this peer is a home agent of ours."""
        return name in self._agents

    def relays_now(self, peer: Peer) -> bool:
        """Whether this peer is a home agent that relays for us now."""
        agent = self._agents.get(peer.name)
        return agent is not None and agent.ready

    def _offers(self, peer: Peer) -> bool:
        return not peer.static and OFFER in peer.info and peer.host_id is not None

    def _wanted(self) -> list[Peer]:
        """All home agents that we may use, the best first."""
        core = self._core
        if core.zone is None or core.ending or core.settings.home_agent is not None:
            return []
        named = core.settings.home_agents
        if named is not None:
            peers = [core.peers.labelled(label) for label in named]
            return [peer for peer in peers if peer is not None and peer.host_id is not None]
        found = [peer for peer in core.peers if self._offers(peer)]
        return sorted(found, key=lambda peer: (is_behind(peer), peer.name))

    def _look(self) -> None:
        """Registers with as many as there shall be, and leaves those that are none any more."""
        chosen = self._chosen()
        needed = [agent.peer for agent in self._agents.values() if self._is_needed(agent)]
        agents = {}
        for peer in list({one.name: one for one in (*chosen, *needed)}.values())[:AT_ONCE]:
            agent = self._agents.get(peer.name)
            if agent is None or agent.peer is not peer:
                agent = Agent(peer, heard_at=self._core.now)
            agent.chosen = peer in chosen
            agents[peer.name] = agent
        self._agents = agents
        for agent in list(agents.values()):
            self._go_on(agent)
        self._announce()

    def _chosen(self) -> list[Peer]:
        """The best, as many as there shall be; one that fails is tried on, but does not count."""
        found, count = [], 0
        for peer in self._wanted():
            agent = self._agents.get(peer.name)
            failed = bool(peer.failures) and not peer.up
            count += not (failed or (agent is not None and agent.silent))
            found.append(peer)
            if count >= self._core.settings.registrations:
                break
        return found

    def _is_needed(self, agent: Agent) -> bool:
        """Whether a peer's way leads through it, or shall."""
        wishes = [wish.peer for wish in self._wishes.values()]
        theirs = any(agent.peer.host_id in peer.home_agents for peer in wishes)
        return theirs or bool(self._in_use(agent))

    def _in_use(self, agent: Agent) -> list[Peer]:
        """The peers to which data goes through it."""
        owners = [self._core.peers.owner(one) for one in self._relays.carried(agent.peer)]
        return [peer for peer in owners if peer is not None and peer.is_relayed]

    def _go_on(self, agent: Agent) -> None:
        core, peer = self._core, agent.peer
        if not peer.up:
            agent.registered, agent.asked_at = False, float("-inf")
            if peer.attempt is None:
                self._attempts.begin(peer, "it is a home agent of ours")
            return
        if peer.is_relayed:
            return  # nested packets hold none
        missing = [child for child in OWN if child.traffic not in peer.narrow]
        if missing and core.now - agent.asked_at >= _ASK_AGAIN:
            agent.asked_at = core.now
            for child in missing:
                core.ike_said(core.ike.add(peer.name, child, core.now))
        if SIGNALS in peer.narrow and agent.said != peer.endpoint:
            agent.said = peer.endpoint
            self._register(peer)

    def _announce(self) -> None:
        """The zone shall name those that relay for us."""
        ready = [agent for agent in self._agents.values() if agent.ready and agent.chosen]
        ids = tuple(agent.peer.host_id for agent in ready if agent.peer.host_id is not None)
        if ids != self._core.home_agents:
            self._core.home_agents = ids
            self._publish()

    # --- What the home agents say ---------------------------------------------------------------

    def registered(self, name: str, lifetime: int) -> None:
        """A home agent knows where we are."""
        agent = self._agents.get(name)
        if agent is None:
            return
        fresh = not agent.registered
        agent.registered, agent.reason = True, ""
        agent.heard_at, agent.silent, agent.probed = self._core.now, False, False
        if fresh:
            core = self._core
            core.log("info", f"{name} relays for this host", lifetime_s=lifetime)
            core.explain(None, What.RELAY, f"{name} relays for us", lifetime_s=lifetime)
        self._announce()
        self._grant()

    def refused(self, name: str, reason: str) -> None:
        """A home agent does not know where we are, or not any more."""
        agent = self._agents.get(name)
        if agent is None:
            return
        agent.registered, agent.reason = False, reason
        self._core.log("warning", f"{name} does not relay for this host: {reason}")
        self._core.explain(None, What.RELAY, f"{name} does not relay for us: {reason}")
        self._announce()

    def lost(self, peer: Peer) -> None:
        """There is no IKE SA with ``peer`` any more."""
        agent = self._agents.get(peer.name)
        if agent is not None:
            agent.registered, agent.said = False, None
            agent.asked_at = float("-inf")
            self._leave(agent)
            self.stir()

    def moved(self) -> None:
        """We are in another network: all home agents are told at once."""
        for agent in self._agents.values():
            agent.said = None
        self.stir()

    # --- The way to a peer ----------------------------------------------------------------------

    def wanted(self, peer: Peer) -> None:
        """An attempt to reach ``peer`` directly has begun: by relay, too, a little later, or at
        once where their NATs and ours do not let it come."""
        core = self._core
        if peer.static or peer.host_id is None or not self._wanted() or self._offers(peer):
            return
        hopeless = is_hopeless(core.mapping, peer)
        at = core.now if hopeless else core.now + core.settings.relay_after
        self._wishes[peer.name] = _Wish(peer, at)
        if hopeless:
            self._join(self._wishes[peer.name])

    def agent_for(self, peer: Peer, *, but: Collection[str] = ()) -> Agent | None:
        """The home agent, ours and the peer's, through which it is reached; none of the names
        ``but``, which did not get through to it."""
        ready = [one for one in self._agents.values() if one.ready and one.peer.name not in but]
        return next((one for one in ready if one.peer.host_id in peer.home_agents), None)

    def stands_ready(self, peer: Peer) -> bool:
        """Whether what goes to ``peer`` directly could go through a home agent at once."""
        return peer.up and not peer.is_relayed and self.agent_for(peer) is not None

    def _grant(self) -> None:
        """Those that waited for a home agent may have one now."""
        for wish in list(self._wishes.values()):
            if wish.at <= self._core.now:
                self._join(wish)

    def _join(self, wish: _Wish) -> None:
        """The peer's relay endpoint joins the race; a moment later, what goes there goes through
        another home agent: one that answers us need not forward anything."""
        core, peer = self._core, wish.peer
        attempt, agent = peer.attempt, self.agent_for(peer, but=wish.joined)
        if attempt is None or peer.up:
            self._wishes.pop(peer.name, None)
            return
        if attempt.looking or peer.host_id is None:
            return
        if agent is None:
            if not wish.joined:
                self._need(peer)
            return
        if not self._relays.use(peer.host_id, agent.peer):
            return
        wish.joined.add(agent.peer.name)
        wish.at = core.now + core.settings.relay_after
        attempt.until = max(attempt.until, core.now + _PATIENCE)
        endpoint = peer.relay_endpoint
        assert endpoint is not None
        attempt.tried.append(endpoint)
        peer.relay_reason = (
            why_not_direct(core.mapping, peer) or "it did not answer directly in time"
        )
        core.explain(
            peer, What.RELAY, "IKE begins through a home agent, too", agent=agent.peer.name
        )
        core.ike_said(core.ike.connect(peer.name, core.policy(peer), endpoint, core.now))

    def _need(self, peer: Peer) -> None:
        """We are registered with none of its home agents: with one of them, then."""
        core = self._core
        if not peer.home_agents:
            core.explain(peer, What.RELAY, "no home agent relays for it")
            return
        known = {agent.peer.host_id for agent in self._agents.values()}
        for host_id in peer.home_agents:
            owner = core.peers.owner(host_id)
            if host_id in known or owner is None or len(self._agents) >= AT_ONCE:
                continue
            self._agents[owner.name] = Agent(owner, chosen=False, heard_at=core.now)
            assert peer.attempt is not None
            peer.attempt.until = max(peer.attempt.until, core.now + _PATIENCE)
            core.explain(peer, What.RELAY, "we register with its home agent", agent=owner.name)
            self._go_on(self._agents[owner.name])
            return

    def fall_back(self, peer: Peer, why: str) -> bool:
        """Data goes to ``peer`` through a home agent from now on, without another word: it is there
        by its home address, wherever it is. False where no home agent relays for both of us."""
        core, agent = self._core, self.agent_for(peer)
        if agent is None or peer.host_id is None or peer.current is None or peer.is_relayed:
            return False
        if not self._relays.use(peer.host_id, agent.peer):
            return False
        endpoint = peer.relay_endpoint
        assert endpoint is not None
        peer.relay_reason = why
        core.log("info", f"{peer.name} is reached through {agent.peer.name}: {why}")
        core.explain(peer, What.RELAY, f"back to the home agent: {why}", agent=agent.peer.name)
        peer.candidate = peer.hint = None
        core.point(peer, endpoint)
        core.ike_said(core.ike.moved(peer.name, endpoint, core.now, proven=True))
        return True

    # --- Does it still relay? -------------------------------------------------------------------

    def heard(self, name: str) -> None:
        """A home agent has answered us."""
        agent = self._agents.get(name)
        if agent is None:
            return
        agent.heard_at, agent.probed = self._core.now, False
        if agent.silent:
            agent.silent = False
            self._core.log("info", f"the home agent {name} is heard again")
            self._core.explain(None, What.RELAY, f"{name} is heard again")
            self._announce()
            self._grant()

    def activity(self) -> None:
        """The peers' ``last_in`` and ``last_out`` are new. One that is silent because nobody needs
        it is asked from time to time, so that the zone names none that is gone."""
        core = self._core
        for agent in self._agents.values():
            last_in = agent.peer.last_in or float("-inf")
            if last_in > agent.heard_at:
                self.heard(agent.peer.name)
                agent.heard_at = last_in
            elif agent.probed and core.now - agent.heard_at >= core.settings.agent_gone:
                self._give_up(agent)
            elif agent.is_due(core.now - core.settings.agent_check):
                agent.probed = True
                core.ike_said(core.ike.probe(agent.peer.name, core.now))

    def silent(self, peer: Peer) -> bool:
        """We send to ``peer``, and it does not even answer IKE where it was. Whether there is
        another way to it now, at once."""
        agent = self._agents.get(peer.name)
        if agent is not None:
            self._give_up(agent)
            return False
        if peer.is_relayed:
            carrier = self._relays.carrier(peer.host_id)
            return carrier is not None and self._carry_by_another(peer, carrier)
        return self.fall_back(peer, "it does not answer where it was")

    def _give_up(self, agent: Agent) -> None:
        if agent.silent:
            return
        agent.silent, agent.probed = True, False
        self._core.log("warning", f"the home agent {agent.peer.name} is silent")
        self._core.explain(None, What.RELAY, f"{agent.peer.name} is silent")
        self._leave(agent)
        self._announce()
        self.stir()

    def _leave(self, agent: Agent) -> None:
        """All that it carried goes through others, where there are any."""
        for peer in self._in_use(agent):
            self._carry_by_another(peer, agent.peer)

    def _carry_by_another(self, peer: Peer, before: Peer) -> bool:
        other = self.agent_for(peer, but=(before.name,))
        if other is None or peer.host_id is None:
            return False
        core = self._core
        core.log("info", f"{peer.name} is reached through {other.peer.name} now")
        facts = {"before": before.name, "now": other.peer.name}
        core.explain(peer, What.RELAY, "another home agent carries it", **facts)
        taken = self._relays.use(peer.host_id, other.peer)
        core.ike_said(core.ike.probe(peer.name, core.now))  # by which it learns of that way
        return taken

    # --- Time and status ------------------------------------------------------------------------

    def advance(self) -> None:
        """Does what is due."""
        now = self._core.now
        for wish in list(self._wishes.values()):
            if wish.peer.attempt is None or wish.peer.up:
                del self._wishes[wish.peer.name]
            elif wish.at <= now:
                self._join(wish)
        if self._look_at <= now:
            self._look_at = float("inf")
            self._look()
            self._look_at = min(self._look_at, now + self._pause())

    def _pause(self) -> float:
        """Seconds until the next look, if nothing happens before."""
        if not self._agents:
            return float("inf")
        ready = all(agent.ready for agent in self._agents.values())
        return _AT_REST if ready and not self._wishes else _CHECKED

    def timers(self) -> list[float]:
        """When something is due."""
        due = [wish.at for wish in self._wishes.values() if wish.at > self._core.now]
        return due if self._look_at == float("inf") else [*due, self._look_at]

    def status(self) -> list[dict[str, Any]]:
        """Our home agents, the best first."""
        return [
            {
                "name": agent.peer.name,
                "registered": agent.registered,
                "silent": agent.silent,
                "endpoint": endpoint_text(agent.peer.endpoint),
                "carries": len(self._in_use(agent)),
                "reason": agent.reason or (None if agent.peer.up else agent.peer.reason),
            }
            for agent in self._agents.values()
        ]
