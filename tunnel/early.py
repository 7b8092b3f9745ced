"""Other ways to a peer, proven early (AOTO, I20), so that a planned move costs no round trip.

::

    we, from the second network                the peer
    AOTO ── from there ───────────────────>    we are registered: else it would not heed it (I25)
      <─────────────── AOTC, a nonce, there ──
    AOTR ── from there ───────────────────>    it holds a proof of that endpoint, unused
      <─────────────────── AOTS 1, there ──

If nothing comes back, the peer is told by the home agent where we shall come from, and opens its
NAT with one octet. Where a NAT stands before us there, too, STUN from there tells us what to name
(:mod:`tunnel.elsewhere`).
Other ways are the other address family, and every other network that we could leave by
(:meth:`tunnel.node.Node.set_other_ways`). They are opened one after the other, while we are
registered. At the peer, a proof of an IPv4 endpoint lasts five minutes (decision 0062), and a NAT
of our second network forgets us after two of silence (RFC 4787, REQ-5), so these are opened anew in
time; but only while data goes to the peer or comes from it, since nobody would miss what an idle
connection loses in a move (decision 0067).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from fastpath.types import Endpoint, Source
from tunnel.candidates import in_order, is_private
from tunnel.core import Core
from tunnel.elsewhere import Elsewhere
from tunnel.journal import What
from tunnel.mobility.claims import Claim
from tunnel.mobility.commands import EarlyProof, Unheard
from tunnel.mobility.mobile import Phase
from tunnel.mobility.proofs import NAT_LIFE
from tunnel.peers import OWN, Peer
from tunnel.signals import Signals

MOST = 4  # other networks that are looked at
RENEW = NAT_LIFE / 3
"""Seconds between two openings from behind a NAT: it hears of us, and each third one comes when the
proof has just ended."""

_PAUSE = float(NAT_LIFE)  # seconds after a failure
_BETWEEN = 1.0  # seconds: a verdict that comes twice is not taken for the next one's
_NEVER = float("inf")
_REMEMBERED = 16  # ways to one peer
_OURS = frozenset(child.traffic for child in OWN)

Way: TypeAlias = tuple[Endpoint, Source | None]
"""Where to, and from where if that is not where data leaves."""


@dataclass(slots=True)
class _Opened:
    """The last opening of one way: what came of it, when it is due again, and what data had passed
    by then."""

    valid: bool
    again_at: float
    passed: int


@dataclass(slots=True)
class _Ways:
    """The ways to one peer."""

    now: Way | None = None  # that is being opened
    free_at: float = float("-inf")  # when the next one may be
    opened: dict[Way, _Opened] = field(default_factory=dict)
    known: list[Way] = field(default_factory=list)
    facts: tuple[object, ...] = ()  # that they follow from


class Early:
    """The part of :class:`tunnel.optimising.Optimising` for what is not in use yet."""

    def __init__(
        self,
        core: Core,
        signals: Signals,
        random: Callable[[int], bytes],
        has_relay: Callable[[Peer], bool] = lambda _: False,
    ) -> None:
        self._core, self._signals, self._has_relay = core, signals, has_relay
        self._elsewhere = Elsewhere(core, random)
        self._peers: dict[str, _Ways] = {}

    # --- What happens -------------------------------------------------------------------------

    def registered(self, peer: Peer, fresh: bool) -> None:
        """It knows where we are. What was being opened has ended with the binding update; what
        failed is tried again, and all of it if it did not know us before."""
        ways = self._peers.setdefault(peer.name, _Ways())
        ways.now = None
        ways.opened = {} if fresh else {way: o for way, o in ways.opened.items() if o.valid}
        self.trim()
        self.look(peer)

    def unheard(self, peer: Peer, said: Unheard) -> None:
        """The first AOTO brought nothing. What is not ours alone to say, the outside is asked."""
        if is_private((said.source[0], 0)) and self._has_relay(peer):
            self._elsewhere.ask(said.source)
            self._name(peer, said.source)

    def received(self, data: bytes, server: Endpoint) -> bool:
        """A STUN message came; whether it tells of another network than the one in use."""
        source = self._elsewhere.received(data, server)
        if source is None:
            return False
        for name, ways in self._peers.items():
            peer = self._core.peers.named(name)
            if peer is not None and ways.now is not None and ways.now[1] == source:
                self._name(peer, source)
        return True

    def _name(self, peer: Peer, source: Source) -> None:
        """It hears where we shall come from, if that is known."""
        place = self._elsewhere.place(source)
        if place is not None:
            machine, claim = self._signals.machine, Claim.at(place, source[0])
            self._signals.carry_out(machine.place(peer.name, source, claim, self._core.now))

    def ended(self, peer: Peer, said: EarlyProof) -> None:
        """An opening is over."""
        ways, way = self._peers.setdefault(peer.name, _Ways()), (said.endpoint, said.source)
        before = ways.opened.get(way)
        again = self._life(said.source) if said.valid else _PAUSE
        ways.opened[way] = _Opened(said.valid, self._core.now + again, _passed(peer))
        while len(ways.opened) > _REMEMBERED:
            del ways.opened[next(iter(ways.opened))]
        ways.now, ways.free_at = None, self._core.now + _BETWEEN
        if before is None or before.valid != said.valid:
            words = "it holds a proof of us" if said.valid else "it gave no early proof"
            self._core.explain(peer, What.PROOF, words, towards=said.endpoint, **self._facts(said))
        self.trim()

    def _facts(self, said: EarlyProof) -> dict[str, object]:
        """Of the network that was under test."""
        if said.source is None:
            return {}
        elsewhere = self._elsewhere
        why = None if said.valid else elsewhere.trouble(said.source)
        return {"ours": said.source[0], "seen": elsewhere.place(said.source), "because": why}

    def forget(self, name: str) -> None:
        """There is nothing to prove to this peer any more."""
        self._peers.pop(name, None)
        self.trim()

    def trim(self) -> None:
        """No more is asked than the openings that go on want to know."""
        now = (ways.now for ways in self._peers.values())
        self._elsewhere.keep({one[1] for one in now if one is not None and one[1] is not None})

    # --- What is done -------------------------------------------------------------------------

    def look(self, peer: Peer) -> None:
        """Opens the next way, if one is due."""
        found = self._next(peer)
        if found is None or found[0] > self._core.now:
            return
        ways, (via, source) = self._peers[peer.name], found[1]
        ways.now = via, source
        inviting = self._inviting(peer, source)
        opening = self._signals.machine.open(peer.name, via, self._core.now, source, inviting)
        self._signals.carry_out(opening)

    def _inviting(self, peer: Peer, source: Source | None) -> Claim | None:
        """Where we shall come from, if we know that: from a private address, the NAT before it does
        alone (:meth:`unheard`)."""
        port = next((port for _, port in self._core.local), None)
        if source is None or port is None or is_private((source[0], port)):
            return None
        return Claim.at((source[0], port)) if self._has_relay(peer) else None

    def advance(self) -> None:
        """Does what is due and concerns no single peer."""
        self._elsewhere.advance()

    def timers(self) -> list[float]:
        """When that is."""
        return self._elsewhere.timers()

    def due(self, peer: Peer) -> float | None:
        """When the next way is."""
        found = self._next(peer)
        return None if found is None else found[0]

    def _next(self, peer: Peer) -> tuple[float, Way] | None:
        """When the next opening is due, and of which way."""
        ways = self._peers.get(peer.name)
        known = self._signals.machine.mobile.registrations.get(peer.name)
        if ways is None or ways.now is not None or peer.is_relayed:
            return None
        if known is None or known.phase is not Phase.BOUND:
            return None
        found: list[tuple[float, Way]] = []
        for way in self._known(peer, ways):
            last = ways.opened.get(way)
            if last is None:
                found.append((ways.free_at, way))
            elif last.again_at < _NEVER and last.passed != _passed(peer):
                found.append((max(last.again_at, ways.free_at), way))
        return min(found, key=lambda one: one[0], default=None)

    def _known(self, peer: Peer, ways: _Ways) -> list[Way]:
        """All ways but the one in use. It is asked for with every look for the next timer."""
        core = self._core
        theirs = (peer.endpoint, peer.endpoints, peer.info)
        facts = (*theirs, core.endpoints, core.local, core.others)
        if facts != ways.facts:
            ways.facts, ways.known = facts, self._ways(peer)
        return ways.known

    def _ways(self, peer: Peer) -> list[Way]:
        core = self._core
        places = dict.fromkeys((peer.endpoint, *in_order(core, peer)))
        public = [one for one in places if one is not None and not is_private(one)]
        families = {":" in host for host, _ in core.endpoints}
        ways: list[Way] = [
            (via, None) for via in public if via != peer.endpoint and (":" in via[0]) in families
        ]
        for source in core.others:
            same = (one for one in public if (":" in one[0]) == (":" in source[0]))
            if (via := next(same, None)) is not None:
                ways.append((via, source))
        return ways

    @staticmethod
    def _life(source: Source | None) -> float:
        """For how long the proof of a way is good, and its NAT open."""
        if source is None or ":" in source[0]:
            return _NEVER
        return RENEW if is_private((source[0], 0)) else float(NAT_LIFE)


def _passed(peer: Peer) -> int:
    """Packets of applications that the present SAs have passed, both ways."""
    children = (one for one in peer.children.values() if one.traffic not in _OURS)
    both = ((peer.inbound.get(one.spi_in), peer.outbound.get(one.spi_out)) for one in children)
    return sum(one.packets for pair in both for one in pair if one is not None)
