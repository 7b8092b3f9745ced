"""A peer that was talked with and says nothing any more: noticed in seconds, and looked for.

::

    we send ──────> nothing comes back for a moment ─> a sign of life is asked for, where it was
                                                          │ none within 0.6 s
                 fresh records, a call by the zone <──────┴──> asked at all its endpoints at once
                                                                   the one that it answers from is
                                                                   proven, and data goes there

An answer counts as much as a packet: traffic that flows one way only, as UDP may, costs a question
now and then, each after twice the time of the one before, and moves nothing. IKE's own check takes
half a minute before it begins (RFC 7296 §2.4); it goes on beside this and decides when a peer is
gone for good.

Where a home agent stands ready to carry on what went directly, nothing is lost by being quick: many
packets were coming, and none has for a fifth of a second or two round trips, so a few small
questions go, and without an answer to any of them for as long again data goes by relay (decision
0068). One that turns out to be reached directly all the same is given more time from then on.

It may be ourselves who have moved, without a word of our router: so the outside is asked where it
sees us, too. What it says is published, and the zone tells the peer.

The other way round: packets were coming, many of them, and then none. Perhaps they are sent to
where we were, because the NAT before us has changed what it maps. So one empty packet goes to the
peer, which sees from where it comes; or those questions, where a home agent stands ready: it sees
then that we are reached by relay now.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import exp

from fastpath.types import Endpoint
from tunnel.calls import Calls
from tunnel.candidates import in_order, is_private
from tunnel.commands import SendDummy
from tunnel.core import Core
from tunnel.journal import What
from tunnel.outside import Outside
from tunnel.path_mtus import question
from tunnel.peers import SIGNALS, Peer
from tunnel.relaying import Relaying

_LIVELY = 20.0  # packets a second
_LATELY = 0.5  # seconds over which these are counted
_STOPPED = 0.4  # seconds without one, after which a lively peer counts as silent

LOOK_READY, LOOK_LIVELY, LOOK, LOOK_QUIET = 0.1, 0.25, 1.0, 3.0
"""Seconds between two looks: where many packets come and a home agent stands ready, where many
come, where some do, where nothing moves."""

_SOONEST = 0.01  # seconds, however much is due
_MISSED = 8  # packets that have not come, of those that came one after the other
_QUESTIONS = 10  # of which all, or all their answers, would have to be lost
_SPREAD = 2 / 3  # of the wait: so that an answer to the last of them has its time, too
_LAST_WAIT = 1 / 4  # of it, for that one, also where our own process paused in between
_ASK_IKE = 4  # of them are small ones only: most doubts end there
_ANSWERING = 0.05  # seconds, in which what goes is our answer to the peer's question
_REGRET = 3.0  # seconds: a direct path found again so soon was there all the time
_MOST_CAUTION = 8.0
_HOLLOW = 2  # answers of IKE by relay, and no packet of an SA meanwhile


@dataclass(slots=True)
class _Watch:
    """What is known of one peer. ``patience`` is in seconds, as is ``wait``, for an answer;
    ``since`` is when the first packet went that nothing has answered, ``asked`` when a sign of life
    was asked for."""

    patience: float
    wait: float
    heard: float = float("-inf")  # an answer
    since: float | None = None
    asked: float | None = None
    searched: float | None = None
    received: dict[int, int] = field(default_factory=dict)  # packets so far, by inbound SPI
    looked: float = float("-inf")  # when they were counted
    rate: float = 0.0  # of them a second, lately
    lively: bool = False  # many of them came, until now
    ready: bool = False  # a home agent is, to carry it on
    small: bool = False  # it answers small questions: it has answered probes on this path
    questions: int = 0  # small ones, since it is silent
    question_at: float = float("-inf")
    expected: int = 0  # answers to these that may come yet
    left: tuple[Endpoint, float] | None = None  # the direct path that was given up, and when
    caution: float = 1.0  # times as long is waited: it was given up for nothing
    hollow: int = 0  # answers of IKE by relay since anything else came
    hollow_in: float | None = None  # when that was

    def count(self, received: dict[int, int], now: float) -> int:
        """Takes over how many packets came so far; how many are new, answers left out."""
        came = sum(packets - self.received.get(spi, 0) for spi, packets in received.items())
        self.received = received
        answers = min(came, self.expected)
        self.expected -= answers
        elapsed, self.looked = max(now - self.looked, _SOONEST), now
        kept = exp(-elapsed / _LATELY)
        self.rate = kept * self.rate + (1 - kept) * (came - answers) / elapsed
        return came - answers

    def due(self, again: float) -> float | None:
        """When something is to be done about it; ``again``: seconds between two searches."""
        if self.since is None:
            return None
        if self.asked is None:
            return self.since + self.patience
        if self.small and self.questions < _QUESTIONS:
            return self.question_at + self.wait * _SPREAD / _QUESTIONS
        if self.searched is None:
            return max(self.asked + self.wait, self.question_at + self.wait * _LAST_WAIT)
        return self.searched + again


class Silence:
    """All peers with a tunnel."""

    def __init__(self, core: Core, calls: Calls, relaying: Relaying, outside: Outside) -> None:
        self._core, self._calls = core, calls
        self._relaying, self._outside = relaying, outside
        self._watches: dict[str, _Watch] = {}

    # --- What is seen -----------------------------------------------------------------------

    def activity(self) -> None:
        """The peers' ``last_in`` and ``last_out`` are new. What is due is done here and nowhere
        else: with older ones a busy host would take its own pause for the peer's."""
        up = {peer.name: peer for peer in self._core.peers if peer.up}
        for name in [name for name in self._watches if name not in up]:
            del self._watches[name]
        for peer in up.values():
            watch = self._watches.get(peer.name)
            if watch is None:
                settings = self._core.settings
                watch = self._watches[peer.name] = _Watch(settings.silence, settings.no_answer)
            self._look(peer, watch)
            due = watch.due(self._core.settings.search_again)
            if due is not None and due <= self._core.now:
                self._act(peer, watch)

    def _look(self, peer: Peer, watch: _Watch) -> None:
        now, settings = self._core.now, self._core.settings
        if watch.count(_received(peer), now) > 0:
            watch.patience, watch.lively = settings.silence, watch.rate >= _LIVELY
        watch.small = peer.trip is not None
        watch.ready = watch.small and self._relaying.agents.stands_ready(peer)
        if watch.left is not None:
            self._regret(peer, watch, *watch.left)
        heard = max(watch.heard, peer.last_in or float("-inf"))
        if peer.last_out is None or peer.last_out <= heard:
            watch.since = None
            self._calm(peer, watch)
            if watch.lively and now - heard >= _STOPPED:
                self._stopped(peer, watch)
        elif watch.since is None or watch.since <= heard:
            watch.since, watch.expected = peer.last_out, 0
            self._calm(peer, watch)
            self._set_patience(peer, watch)

    def _stopped(self, peer: Peer, watch: _Watch) -> None:
        """Its packets stopped all at once, and we had nothing to send."""
        if watch.ready:
            watch.since = self._core.now
            self._set_patience(peer, watch)
            watch.patience = 0.0
        else:
            self._show_ourselves(peer)
        watch.lively = False

    def _set_patience(self, peer: Peer, watch: _Watch) -> None:
        """For how long it may be silent now, and may owe us an answer then."""
        settings, trip = self._core.settings, peer.trip
        watch.wait = max(settings.no_answer, 3 * (trip or 0.0))
        if watch.lively:
            watch.patience = settings.abrupt
        if watch.lively and watch.ready and trip is not None:
            missed = _MISSED / max(watch.rate, _LIVELY)
            watch.patience = watch.caution * max(settings.hasty, 2 * trip, missed)
            watch.wait = watch.caution * max(settings.hasty, 3 * trip)

    def _regret(self, peer: Peer, watch: _Watch, left: Endpoint, at: float) -> None:
        """Whether the direct path was given up for nothing."""
        if peer.endpoint == left:
            watch.left, watch.caution = None, min(2 * watch.caution, _MOST_CAUTION)
        elif self._core.now - at >= _REGRET:
            watch.left, watch.caution = None, 1.0

    def answered(self, peer: Peer) -> None:
        """It gave a sign of life."""
        watch = self._watches.get(peer.name)
        if watch is not None:
            missed = watch.since is not None
            self._answered(peer, watch)
            if missed and peer.is_relayed:
                self._doubt_carrier(peer, watch)

    def _answered(self, peer: Peer, watch: _Watch) -> None:
        watch.heard, watch.since, watch.lively = self._core.now, None, False
        self._calm(peer, watch)
        watch.patience = min(watch.patience * 2, self._core.settings.silence_cap)

    def _doubt_carrier(self, peer: Peer, watch: _Watch) -> None:
        """IKE gets through and back, and has done so before; data do not, small questions neither:
        a home agent may carry what it likes, so another one is tried."""
        watch.hollow = watch.hollow + 1 if watch.hollow_in == peer.last_in else 1
        watch.hollow_in = peer.last_in
        if watch.hollow >= _HOLLOW and self._relaying.silent(peer):
            watch.hollow = 0

    def questioned(self, peer: Peer) -> None:
        """It asked us for a sign of life, and gets one: to that we expect no answer."""
        watch = self._watches.get(peer.name)
        if watch is not None:
            watch.heard = self._core.now + _ANSWERING

    def answered_small(self, peer: Peer) -> None:
        """It answered a small question, or a probe of the path's MTU, which we did not mean."""
        watch = self._watches.get(peer.name)
        if watch is None:
            return
        watch.hollow = 0
        if watch.asked is not None:
            if watch.small and peer.trip is not None:
                peer.trip = max(peer.trip, self._core.now - watch.asked)
            self._answered(peer, watch)

    def _calm(self, peer: Peer, watch: _Watch) -> None:
        if watch.searched is not None:
            self._calls.ended(peer)
        watch.asked = watch.searched = None
        watch.questions = 0

    @property
    def look_after(self) -> float:
        """Seconds until the counters are wanted again: soon while there is something to miss."""
        found = (self._look_after(watch) for watch in self._watches.values())
        return min(found, default=float("inf"))

    def _look_after(self, watch: _Watch) -> float:
        due = watch.due(self._core.settings.search_again)
        if due is None and not watch.lively:
            return LOOK_QUIET
        usual = LOOK_READY if watch.ready and watch.lively else LOOK_LIVELY
        return usual if due is None else min(usual, max(due - self._core.now, _SOONEST))

    def _show_ourselves(self, peer: Peer) -> None:
        """One packet, by which it sees where we are."""
        behind = any(is_private(one) for one in self._core.local)
        if behind and peer.current is not None and peer.endpoint is not None:
            self._core.emit(SendDummy(peer.current.spi_out, peer.endpoint))

    # --- What is done -----------------------------------------------------------------------

    def _act(self, peer: Peer, watch: _Watch) -> None:
        """Asks, or looks further: what is due."""
        if watch.small and watch.questions < _QUESTIONS:
            self._question(peer, watch)
        elif watch.asked is None:
            self._ask(peer, watch)
        else:
            self._search(peer, watch)

    def _question(self, peer: Peer, watch: _Watch) -> None:
        """One packet, which belongs to no exchange: those that are lost hold up nothing. IKE is
        asked besides; where a doubt costs little and comes early, only when it lasts."""
        if watch.asked is None and not watch.ready:
            self._ask(peer, watch)
        watch.asked = self._core.now if watch.asked is None else watch.asked
        watch.questions, watch.question_at = watch.questions + 1, self._core.now
        watch.expected += 1
        self._core.emit(*question(peer))
        if watch.ready and watch.questions == _ASK_IKE + 1:
            self._ask_ike(peer)

    def _ask(self, peer: Peer, watch: _Watch) -> None:
        watch.asked = self._core.now
        self._ask_ike(peer)
        if peer.is_relayed and not watch.small:
            self._core.emit(*question(peer))
        self._outside.hurry()

    def _ask_ike(self, peer: Peer) -> None:
        core = self._core
        core.explain(peer, What.PROOF, "we send, and nothing comes back: is it there?")
        core.ike_said(core.ike.probe(peer.name, core.now))

    def _search(self, peer: Peer, watch: _Watch) -> None:
        """Where it was it does not answer."""
        core = self._core
        first, watch.searched, direct = watch.searched is None, core.now, peer.endpoint
        if first and watch.ready:
            self._outside.hurry()
        if first and self._relaying.silent(peer):
            if direct is not None and watch.ready:
                watch.left = direct, core.now
            return
        if peer.candidate is not None:
            return  # it is being proven somewhere: that comes first
        places = tuple(one for one in in_order(core, peer) if one != peer.endpoint)
        core.explain(peer, What.PROOF, "it is silent, and looked for where it may be", at=places)
        core.ike_said(core.ike.search(peer.name, places, core.now))
        if first and peer.label is not None:
            self._calls.call(peer)
            core.look_up(peer.label)


def _received(peer: Peer) -> dict[int, int]:
    """How many packets came in each SA for data; mobility messages take other ways, too."""
    return {
        child.spi_in: peer.inbound[child.spi_in].packets
        for child in peer.children.values()
        if child.traffic != SIGNALS and child.spi_in in peer.inbound
    }
