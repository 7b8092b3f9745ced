"""What the outside sees of this host when no router tells: STUN, over the tunnel's own socket.

The rendezvous answers at two ports. If both see the same endpoint, the NAT maps ours to that one
whoever is at the other end (RFC 4787 §4.1), and it is worth publishing: a peer can be met there
once both have sent something. If they see two, the NAT takes another port for every destination,
and what the rendezvous sees is of no use to a peer. The question is repeated while nobody maps the
port for us, which keeps the NAT's entry alive and notices when it changes; one server is enough for
that, and all are asked again when it sees something new. ``interval`` tells how long the NAT
remembers, ``forgotten`` is told when that was too long; while ``is_trying`` the others are left
alone.

On the wire the question is STUN behind the non-ESP marker of RFC 3948, as IKE is: no ESP packet can
be mistaken for it, nor it for one.
"""

from __future__ import annotations

from collections.abc import Callable

from discovery.nat import stun
from discovery.nat.types import SendNat
from fastpath.types import Endpoint
from tunnel.commands import AskRouter, OutsideSeen, SendIke
from tunnel.core import Core
from tunnel.journal import What
from tunnel.keepalives import Keepalives
from tunnel.network_kind import DEPENDENT as DEPENDENT
from tunnel.network_kind import INDEPENDENT as INDEPENDENT

_HURRY = 1.0  # seconds at least between a question and one that a silent peer brings about
_ALL = 10  # rounds, in the last of which all servers are asked


class Outside:
    """Asks ``servers``, two ports of one or more addresses, as long as there are any."""

    def __init__(
        self,
        core: Core,
        random: Callable[[int], bytes],
        publish: Callable[[], None],
        keepalives: Keepalives,
    ) -> None:
        self._core, self._random, self._publish = core, random, publish
        self._keepalives = keepalives
        self._rounds = 0
        self._servers: tuple[Endpoint, ...] = ()
        self._questions: dict[Endpoint, stun.Binding] = {}
        self._seen: dict[Endpoint, Endpoint] = {}
        self._said: tuple[Endpoint | None, str] = (None, "")
        self._again: float | None = None
        self._asked_at = float("-inf")

    def ask(self, servers: tuple[Endpoint, ...]) -> None:
        """Ask these from now on, or nobody; what was seen before is forgotten."""
        self._servers, self._questions, self._seen = servers, {}, {}
        self._said, self._again = (None, ""), None
        self._core.mapping = ""
        self._begin()

    def hurry(self) -> None:
        """A peer that we talked with is silent: perhaps it is our NAT that has changed."""
        if self._core.now < self._asked_at + _HURRY:
            return
        if self._servers:
            self._begin(all_of_them=False)
        else:
            self._asked_at = self._core.now
            self._core.emit(AskRouter())

    @property
    def servers(self) -> tuple[Endpoint, ...]:
        """Those that answer."""
        return tuple(server for server in self._servers if server in self._seen)

    def received(self, data: bytes, source: Endpoint) -> None:
        """A STUN message came to the tunnel's socket."""
        question = self._questions.get(source)
        if question is not None:
            self._heard(question.receive(data, source, self._core.now))

    def advance(self) -> None:
        """Repeats what is not answered, and asks again from time to time."""
        if self._again is not None and self._again <= self._core.now:
            self._rounds += 1
            self._begin(all_of_them=self._rounds % _ALL == 0 and not self._keepalives.is_trying)
        for question in self._questions.values():
            self._heard(question.advance(self._core.now))

    def timers(self) -> list[float]:
        """When something is due."""
        due = [question.next_timer() for question in self._questions.values()]
        return [at for at in (*due, self._again) if at is not None]

    # --- Inside -----------------------------------------------------------------------------

    def _begin(self, *, all_of_them: bool = True) -> None:
        settings, self._asked_at = self._core.settings, self._core.now
        wait = min(self._keepalives.patience.interval, settings.outside_longest)
        self._again = self._core.now + wait if self._servers else None
        known = [server for server in self._servers if server in self._seen]
        complete = len(known) == len(self._servers)  # else nothing is said: one alone tells no kind
        for server in known[:1] if complete and not all_of_them else self._servers:
            self._question(server)

    def _question(self, server: Endpoint) -> None:
        if server in self._questions and self._questions[server].next_timer() is not None:
            return  # the last one is still on its way
        self._questions[server] = stun.Binding(server, self._random)
        self._heard(self._questions[server].start(self._core.now))

    def _answered(self, server: Endpoint, endpoint: Endpoint) -> None:
        """Something new makes what the others said stale: they are asked again."""
        before, self._seen[server] = self._seen.get(server), endpoint
        if before is None or before == endpoint:
            return
        if before[0] == endpoint[0] and self._core.mapping == INDEPENDENT:
            self._keepalives.forgotten()
        for other in self._servers:
            if other != server:
                self._seen.pop(other, None)
                self._question(other)

    def _heard(self, words: list[SendNat | stun.Seen | stun.NotSeen]) -> None:
        for word in words:
            match word:
                case SendNat(data, server):
                    self._core.emit(SendIke(data, server))
                case stun.Seen(server, endpoint):
                    self._answered(server, endpoint)
                case stun.NotSeen(server, reason):
                    self._seen.pop(server, None)
                    self._core.explain(None, What.OUTSIDE, reason, server=server)
        self._judge()

    def _judge(self) -> None:
        """What all answers together say; said again only when it changes."""
        found = set(self._seen.values())
        kind = "" if len(self._seen) < 2 else INDEPENDENT if len(found) == 1 else DEPENDENT
        endpoint = next((self._seen[one] for one in self._servers if one in self._seen), None)
        if (endpoint, kind) != self._said and (kind or endpoint is None):
            changed = kind != self._core.mapping
            self._said, self._core.mapping = (endpoint, kind), kind
            said = [f"{_words(one)} sees {_words(self._seen[one])}" for one in self._seen]
            why = "where the outside sees us" if self._seen else "nobody outside sees us"
            self._core.explain(None, What.OUTSIDE, why, seen="; ".join(said), mapping=kind)
            if changed:
                self._publish()
            self._core.emit(OutsideSeen(endpoint, kind))


def _words(endpoint: Endpoint) -> str:
    return f"{endpoint[0]}:{endpoint[1]}"
