"""Where the outside sees what we send from another network than the one in use: STUN from there.

The question has the socket and the port of data, and the address and the interface under test, so
that the NAT of that network treats it as it will treat data. Both ports of the rendezvous are
asked. The first answer gives the place; if the second names another one, that NAT maps anew for
every destination (RFC 4787 §4.1), and only the peer itself could see where.

Asked is for an opening that has brought nothing (:mod:`tunnel.early`), once, and for a few seconds;
nobody else waits for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from discovery.nat import stun
from discovery.nat.types import SendNat
from fastpath.types import Endpoint, Source
from tunnel.candidates import is_private
from tunnel.commands import SendIke
from tunnel.core import Core

PATIENCE = 5.0  # seconds: four questions, the last of which has 1.5 for its answer

SYMMETRIC = "the NAT there takes another port for every destination (symmetric)"
SILENT = "STUN did not answer from there"


@dataclass(slots=True)
class _Asked:
    """One network: who was asked until when, and what each of them saw."""

    until: float
    questions: tuple[stun.Binding, ...]
    seen: dict[Endpoint, Endpoint] = field(default_factory=dict)


class Elsewhere:
    """Asks :attr:`tunnel.core.Core.other_servers`. ``random(n)`` gives n octets that nobody can
    guess: an answer counts from who was asked alone, and with the question's twelve."""

    def __init__(self, core: Core, random: Callable[[int], bytes]) -> None:
        self._core, self._random = core, random
        self._asked: dict[Source, _Asked] = {}

    def ask(self, source: Source) -> None:
        """Ask from there, unless that was done."""
        core = self._core
        if source in self._asked or source not in core.others:
            return
        questions = tuple(stun.Binding(one, self._random) for one in core.other_servers)
        self._asked[source] = _Asked(core.now + PATIENCE, questions)
        for question in questions:
            self._heard(source, question.start(core.now))

    def keep(self, sources: set[Source]) -> None:
        """Nobody wants to know of other networks than these, which may be gone, too."""
        wanted = sources.intersection(self._core.others)
        self._asked = {one: asked for one, asked in self._asked.items() if one in wanted}

    def place(self, source: Source) -> Endpoint | None:
        """Where what we send from there is seen, if somebody said so."""
        asked = self._asked.get(source)
        return None if asked is None else next(iter(asked.seen.values()), None)

    def trouble(self, source: Source) -> str | None:
        """Why a peer may not see us at :meth:`place`."""
        asked = self._asked.get(source)
        if asked is None or not asked.questions:
            return None
        if not asked.seen:
            return SILENT
        return SYMMETRIC if len(set(asked.seen.values())) > 1 else None

    def received(self, data: bytes, server: Endpoint) -> Source | None:
        """A STUN message came to the tunnel's socket: which network it tells of, if any."""
        for source, asked in self._asked.items():
            for question in asked.questions:
                words = question.receive(data, server, self._core.now)
                if words:
                    self._heard(source, words)
                    return source
        return None

    def advance(self) -> None:
        """Repeats what has no answer."""
        now = self._core.now
        for source, asked in self._asked.items():
            for question in asked.questions if now < asked.until else ():
                self._heard(source, question.advance(now))

    def timers(self) -> list[float]:
        """When something is due."""
        due = (
            (asked, question.next_timer())
            for asked in self._asked.values()
            for question in asked.questions
        )
        return [at for asked, at in due if at is not None and at < asked.until]

    def _heard(self, source: Source, words: list[SendNat | stun.Seen | stun.NotSeen]) -> None:
        for word in words:
            match word:
                case SendNat(data, server):
                    self._core.emit(SendIke(data, server, source))
                case stun.Seen(server, endpoint) if self._leads_here(endpoint):
                    self._asked[source].seen[server] = endpoint

    def _leads_here(self, endpoint: Endpoint) -> bool:
        """Whether it can be where a peer on the internet sees an IPv4 address of ours."""
        host, port = endpoint
        return port > 0 and ":" not in host and not is_private(endpoint)
