"""What kind of network is it? Asked of the rendezvous' STUN from two sockets of our own (RFC 5780).

::

    first   Binding ────────────────────────> port P1    does UDP get out, and where are we seen?
    first   Binding, change-port ───────────> port P1
            <──────────────────────────────── port P2    a stranger to our NAT: is it let in?
    second  Binding ──> where the first one is seen      does the NAT lead back to the inside?

The sockets are not the tunnel's: nothing was ever sent from them to P2, which the question needs
(RFC 5780 §4.4 calls these tests sensitive to prior state). The rendezvous has one address, so
that a NAT which lets in everybody cannot be told from one that lets in an address it knows. The
answers are hints, as that RFC says, and nothing is decided by them but what is said to people.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from discovery.nat import stun
from discovery.nat.types import Endpoint

Which: TypeAlias = Literal["first", "second"]
Filtering: TypeAlias = Literal["", "address", "port"]
"""Whom the network lets in: an address that we sent to (or everybody), only its port that we sent
to; empty where nobody could tell."""

WAITS = (0.5, 1.0, 2.0, 2.0)  # seconds after each of the questions, the last one's end
_REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class SendFrom:
    """Send this datagram from one of the two sockets."""

    which: Which
    data: bytes
    to: Endpoint


@dataclass(frozen=True, slots=True)
class Surveyed:
    """What was found. ``udp``: the rendezvous answers over UDP. ``seen``: where it sees the first
    socket. ``hairpin``: a datagram from inside to where the outside sees us comes back to us;
    ``None`` where there is no NAT, or no answer."""

    udp: bool
    seen: Endpoint | None = None
    filtering: Filtering = ""
    hairpin: bool | None = None


@dataclass(slots=True)
class _Question:
    """One datagram that is repeated until it is answered, or not."""

    which: Which
    data: bytes
    to: Endpoint
    sent: int = 0
    due: float | None = None
    answer: str = ""  # empty: none yet, or none at all once it is over

    @property
    def over(self) -> bool:
        return self.due is None

    def begin(self, now: float) -> list[SendFrom]:
        self.due = now
        return self.advance(now)

    def advance(self, now: float) -> list[SendFrom]:
        if self.due is None or now < self.due:
            return []
        if self.sent == len(WAITS):
            self.due = None
            return []
        self.due = now + WAITS[self.sent]
        self.sent += 1
        return [SendFrom(self.which, self.data, self.to)]

    def end(self, answer: str) -> None:
        self.due, self.answer = None, answer


class Survey:
    """One survey; ``inside`` is where the first socket itself says it is, ``ports`` are P1, P2."""

    def __init__(
        self,
        server: str,
        ports: tuple[int, int],
        inside: Endpoint,
        random: Callable[[int], bytes],
    ) -> None:
        self._near, self._far = (server, ports[0]), (server, ports[1])
        self._inside = inside
        self._random = random
        self._reach = _Question("first", stun.ask(random(12)), self._near)
        change = stun.ask(random(12), change_port=True)
        self._change = _Question("first", change, self._near)
        self._back: _Question | None = None
        self._seen: Endpoint | None = None
        self._begun = False

    def start(self, now: float) -> list[SendFrom]:
        """Ask."""
        return self._reach.begin(now)

    def received(self, which: Which, data: bytes, source: Endpoint, now: float) -> list[SendFrom]:
        """A datagram came to one of the sockets."""
        back = self._back
        if back is not None and not back.over and which == "first" and data == back.data:
            back.end("back")
            return []
        message = stun.read(data) if which == "first" else None
        if message is None or message.kind not in (stun.SUCCESS, stun.ERROR):
            return []
        if message.transaction == self._reach.data[8:20] and source == self._near:
            return self._reached(message, now)
        if message.transaction == self._change.data[8:20] and not self._change.over:
            if message.kind == stun.SUCCESS and source == self._far:
                self._change.end("far")
            elif message.kind == stun.ERROR and source == self._near:
                self._change.end(_REFUSED)
        return []

    def _reached(self, message: stun.Message, now: float) -> list[SendFrom]:
        seen = stun.mapped_address(message) if message.kind == stun.SUCCESS else None
        if self._begun or seen is None:
            return []
        self._begun, self._seen = True, seen
        self._reach.end("near")
        commands = self._change.begin(now)
        if seen != self._inside:
            self._back = _Question("second", stun.ask(self._random(12)), seen)
            commands += self._back.begin(now)
        return commands

    def advance(self, now: float) -> list[SendFrom]:
        """Repeats what is not answered."""
        return [command for one in self._questions() for command in one.advance(now)]

    def next_timer(self) -> float | None:
        """When :meth:`advance` has something to do; ``None`` when all is known."""
        return min((one.due for one in self._questions() if one.due is not None), default=None)

    def result(self) -> Surveyed | None:
        """What was found; ``None`` while something is still asked."""
        if self.next_timer() is not None:
            return None
        if self._seen is None:
            return Surveyed(udp=False)
        hairpin = None if self._back is None else self._back.answer == "back"
        filtering: Filtering = "address" if self._change.answer == "far" else "port"
        if self._change.answer == _REFUSED:
            filtering = ""
        return Surveyed(True, self._seen, filtering, hairpin)

    def _questions(self) -> list[_Question]:
        return [self._reach, self._change, *([] if self._back is None else [self._back])]
