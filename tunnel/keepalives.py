"""Keepalives (RFC 3948 §4), as seldom as the NAT before us allows, and none where it needs none.

How long a NAT remembers a flow that nobody uses is found out with a peer that is idle, too::

    we ──ASK: speak in T seconds, number n──>  the peer
       <────────────────────────HEARD n──────
               neither of us sends to the other for T seconds
       <────────────────────────ECHO n───────  arrives: T is survived, and the next T is longer

The three are ESP dummy packets (RFC 4303 §2.6) that carry 16 octets; being sealed they can be
neither forged nor replayed, and peers that do not know them discard them:

    magic 8 | kind u8 | 0 | seconds u16 | number u32      (network byte order)

Nothing is concluded from a T in which anything else went or came; dummy packets are not counted as
traffic. A NAT keeps its habits, so what
was learnt holds for all peers, for as long as we are in that network, and when we come back to it.
Where both of us are behind NATs both ask; the one with the lower host id goes first. While a T is
tried that is too long, the peer cannot reach us for the rest of it: then it calls
(:mod:`tunnel.silence`). There are few of those, one peer at a time.
"""

from __future__ import annotations

import itertools
import struct
from collections import OrderedDict
from dataclasses import dataclass

from fastpath.types import Endpoint
from tunnel.candidates import is_private
from tunnel.commands import SendDummy, SendKeepalive
from tunnel.core import Core
from tunnel.journal import What
from tunnel.patience import Patience
from tunnel.peers import Peer

MAGIC = b"AT-IDLE\x01"
ASK, HEARD, ECHO = 1, 2, 3
_HEAD = struct.Struct(">8sBxHI")
_LONGEST = 900  # seconds for which a peer may ask
_IDLE = 5.0  # seconds without a packet, before a trial begins
_ROUND_TRIP = 3.0  # seconds, for an answer
_TIMES = 3  # without an answer: it does not know what is asked
_DEAF = 3600.0  # seconds until it is asked again
_NETWORKS = 16  # whose NATs are remembered

Counts = tuple[int, int]


@dataclass(slots=True)
class _Trial:
    """One T that is being waited for. ``before`` are packets in and out, when it began."""

    peer: str
    endpoint: Endpoint
    seconds: int
    number: int
    began: float
    before: Counts
    heard: bool = False
    echoed: bool = False
    disturbed: bool = False  # something else came

    @property
    def until(self) -> float:
        """When nothing more is waited for."""
        return self.began + _ROUND_TRIP + (self.seconds if self.heard else 0)


class Keepalives:
    """To all peers that a NAT before us would forget."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._numbers = itertools.count(1)
        self._networks: OrderedDict[tuple[str, ...], Patience] = OrderedDict()
        self._trial: _Trial | None = None
        self._excused_until = float("-inf")
        self._echoes: dict[str, tuple[float, int]] = {}  # by peer: when, and the number
        self._deaf: dict[str, tuple[int, float]] = {}  # how often not answered; not asked until

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
    def quiet_until(self) -> float:
        """Until then nothing shall refresh what the NAT remembers, if it can wait."""
        return float("-inf") if self._trial is None else self._trial.until

    def forgotten(self) -> None:
        """The NAT before us gave us another endpoint, though we are where we were; which a trial
        says better."""
        if self._core.now < self._excused_until:
            return
        self._core.explain(None, What.KEEPALIVE, "the NAT has forgotten us: more often from now on")
        self.patience.failed(self._core.now)

    # --- What comes -------------------------------------------------------------------------

    def dummy(self, spi: int, head: bytes) -> None:
        """An authenticated dummy packet of inbound ``spi``."""
        peer = self._core.peers.by_inbound(spi)
        if peer is None or peer.static or len(head) < _HEAD.size:
            return
        trial = self._trial
        magic, kind, seconds, number = _HEAD.unpack_from(head)
        if magic != MAGIC:
            if trial is not None and trial.peer == peer.name:
                trial.disturbed = True
        elif kind == ASK:
            self._asked(peer, seconds, number)
        elif trial is not None and (trial.peer, trial.number) == (peer.name, number):
            trial.heard = trial.heard or kind == HEARD
            trial.echoed = trial.echoed or kind == ECHO

    def datagram(self, source: Endpoint) -> None:
        """An IKE message came from there."""
        if self._trial is not None and self._trial.endpoint == source:
            self._trial.disturbed = True

    def _asked(self, peer: Peer, seconds: int, number: int) -> None:
        ours = self._trial is not None and self._trial.peer == peer.name
        if not 0 < seconds <= _LONGEST or peer.host_id is None:
            return
        if ours and self._core.identity.host_id < peer.host_id:
            return  # it serves us first
        if ours:
            self._trial = None
        self._echoes[peer.name] = (self._core.now + seconds, number)
        self._say(peer, HEARD, 0, number)

    # --- What is due ------------------------------------------------------------------------

    def advance(self) -> None:
        """Sends what is due."""
        now = self._core.now
        for name, (at, number) in list(self._echoes.items()):
            if at <= now:
                del self._echoes[name]
                if (peer := self._core.peers.named(name)) is not None:
                    peer.kept_alive_at = now
                    self._say(peer, ECHO, 0, number)
        for peer in self._core.peers:
            due = self._due(peer)
            if due is not None and due <= now and peer.endpoint is not None:
                peer.kept_alive_at = now
                if not self._try(peer):
                    why = "a NAT before us would forget the way"
                    self._core.explain(peer, What.KEEPALIVE, why, to=peer.endpoint)
                    self._core.emit(SendKeepalive(peer.endpoint))

    def timers(self) -> list[float]:
        """When something is due."""
        due = [at for peer in self._core.peers if (at := self._due(peer)) is not None]
        return due + [at for at, _ in self._echoes.values()]

    def _due(self, peer: Peer) -> float | None:
        if not self._needed(peer):
            peer.keepalive = None
            return None
        peer.keepalive = self.patience.interval
        if peer.name in self._echoes or (self._trial and self._trial.peer == peer.name):
            return None
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

    def _try(self, peer: Peer) -> bool:
        """Instead of a keepalive, asks ``peer`` to speak after a while; whether it did."""
        now, seconds = self._core.now, self.patience.trial(self._core.now)
        quiet = max(peer.last_in or 0.0, peer.last_out or 0.0) <= now - _IDLE
        able = not peer.static and self._deaf.get(peer.name, (0, 0.0))[1] <= now
        if seconds is None or self._trial is not None or not quiet or not able:
            return False
        assert peer.endpoint is not None
        number = next(self._numbers)
        self._trial = _Trial(peer.name, peer.endpoint, seconds, number, now, _packets(peer))
        self._excused_until = now + seconds + 2 * self._core.settings.outside_longest
        why = "is silence of that length survived? It is asked to break it"
        self._core.explain(peer, What.KEEPALIVE, why, seconds=seconds)
        self._say(peer, ASK, seconds, number)
        return True

    def activity(self) -> None:
        """The peers' counters are new: a trial that has ended is judged."""
        core, trial = self._core, self._trial
        if trial is None or not (trial.echoed or trial.until <= core.now):
            return
        self._trial = None
        peer = core.peers.named(trial.peer)
        if peer is None or not peer.up or peer.endpoint != trial.endpoint:
            return
        if not trial.heard:
            times = self._deaf.get(peer.name, (0, 0.0))[0] + 1
            self._deaf[peer.name] = times, core.now + (_DEAF if times >= _TIMES else 0.0)
            return
        self._deaf.pop(peer.name, None)
        if trial.disturbed or _packets(peer) != trial.before:
            pass  # it was no silence: nothing follows
        elif trial.echoed:
            self.patience.survived(trial.seconds, core.now)
            self._explain(peer, "that silence was survived", trial.seconds)
            peer.kept_alive_at = trial.began  # nothing has gone since
        else:
            self.patience.lost(trial.seconds, core.now)
            self._explain(peer, "after that silence it was not heard", trial.seconds)
            peer.kept_alive_at = core.now
            if peer.current is not None:  # it sees from where we come now
                core.emit(SendDummy(peer.current.spi_out, trial.endpoint))

    def _explain(self, peer: Peer, why: str, seconds: int) -> None:
        facts = {"seconds": seconds, "interval": f"{self.patience.interval:.0f} s"}
        self._core.explain(peer, What.KEEPALIVE, why, **facts)

    def _say(self, peer: Peer, kind: int, seconds: int, number: int) -> None:
        if peer.current is not None and peer.endpoint is not None:
            body = _HEAD.pack(MAGIC, kind, seconds, number)
            self._core.emit(SendDummy(peer.current.spi_out, peer.endpoint, body))


def _packets(peer: Peer) -> Counts:
    """In and out, on all SAs of ``peer`` that stand."""
    inbound = sum(counters.packets for counters in peer.inbound.values())
    return inbound, sum(counters.packets for counters in peer.outbound.values())
