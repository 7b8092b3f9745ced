"""The one owner of message ids: requests, answers, retransmission (RFC 7296 §2.1 to §2.3).

Both directions have a window of one: we ask one thing at a time, and so may the peer. A
request of ours is sent again, bit for bit the same, until its answer comes or patience ends. A
request of the peer that comes again, bit for bit the same, gets the same answer again and
changes nothing.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from keys.ike.settings import IkeSettings

Datagrams = tuple[bytes, ...]
"""One message as it is sent: one datagram, or its fragments (RFC 7383)."""


def digest(data: bytes) -> bytes:
    """By this a message is known again."""
    return hashlib.sha256(data).digest()


@dataclass(slots=True)
class Outstanding:
    """A request of ours that waits for its answer."""

    message_id: int
    data: Datagrams
    first_sent: float
    due: float
    interval: float
    tries_left: int
    begun: float  # as ``first_sent``, which begins anew when the peer is asked elsewhere
    repeats: int = 0
    hinted: bool = False  # somebody said, without proof, that the peer knows nothing of this SA

    @property
    def repeated(self) -> bool:
        """Whether it was sent more than once."""
        return self.repeats > 0


class Window:
    """Message ids and retransmission of one IKE SA."""

    __slots__ = ("_answer", "_asked", "_settings", "_uniform", "expected", "next_id", "outstanding")

    def __init__(self, settings: IkeSettings, uniform: Callable[[], float]) -> None:
        self._settings = settings
        self._uniform = uniform
        self.next_id = 0  # of our next request
        self.expected = 0  # of the peer's next request
        self.outstanding: Outstanding | None = None
        self._asked: bytes | None = None
        self._answer: Datagrams | None = None

    # --- our requests ---

    def sent(self, data: Datagrams, now: float, tries: int) -> None:
        """Our request ``next_id`` goes out for the first time."""
        assert self.outstanding is None
        first = self._settings.retransmit_first
        due = now + self._jittered(first)
        self.outstanding = Outstanding(self.next_id, data, now, due, first, tries - 1, now)
        self.next_id += 1

    def again(self, data: Datagrams, now: float) -> None:
        """The outstanding request is replaced under the same id (COOKIE, INVALID_KE_PAYLOAD)."""
        assert self.outstanding is not None
        self.outstanding.data = data
        self.outstanding.interval = self._settings.retransmit_first
        self.outstanding.due = now + self._jittered(self.outstanding.interval)

    def answered(self, message_id: int) -> Outstanding | None:
        """Ends the wait for this answer; None if we do not wait for it."""
        if self.outstanding is None or self.outstanding.message_id != message_id:
            return None
        done, self.outstanding = self.outstanding, None
        return done

    def due(self, now: float) -> Datagrams | None:
        """The request to send again at ``now``, if it is time and there are tries left."""
        out = self.outstanding
        if out is None or now < out.due or out.tries_left <= 0:
            return None
        out.tries_left -= 1
        out.repeats += 1
        out.interval = min(
            out.interval * self._settings.retransmit_factor, self._settings.retransmit_cap
        )
        out.due = now + self._jittered(out.interval)
        return out.data

    def hasten(self, now: float) -> None:
        """The outstanding request is due at once: the peer shows that it hears us now."""
        if self.outstanding is not None:
            self.outstanding.due = now
            self.outstanding.tries_left = max(1, self.outstanding.tries_left)

    def gave_up(self, now: float) -> bool:
        """Whether the last try, too, has waited its time."""
        out = self.outstanding
        return out is not None and out.tries_left <= 0 and now >= out.due

    def _jittered(self, seconds: float) -> float:
        spread = self._settings.retransmit_jitter
        return seconds * (1 + spread * (2 * self._uniform() - 1))

    # --- the peer's requests ---

    def is_repeat(self, data: bytes) -> bool:
        """Whether this is, bit for bit, the request that we took last, or its first fragment:
        so the others of a repeated request are not answered (RFC 7383 §2.6.1)."""
        return self._asked is not None and digest(data) == self._asked

    @property
    def answer(self) -> Datagrams | None:
        """Our answer to the last request; None while it is being found."""
        return self._answer

    def accept(self, data: bytes) -> None:
        """The peer's request ``expected`` has come; ``data`` is its first fragment, if cut."""
        self._asked = digest(data)
        self._answer = None
        self.expected += 1

    def responded(self, data: Datagrams) -> None:
        """Our answer to the request that was accepted last."""
        self._answer = data

    @property
    def last(self) -> tuple[bytes, Datagrams] | None:
        """Digest and answer of the last request, for :class:`Echoes`."""
        if self._asked is None or self._answer is None:
            return None
        return self._asked, self._answer


class Echoes:
    """Last answers of SAs that are gone, so that a lost one can be had again.

    No key is kept: a repeated request is known by its digest. Bounded in number and time.
    """

    LIMIT = 256
    SECONDS = 20.0

    def __init__(self) -> None:
        self._answers: OrderedDict[bytes, tuple[Datagrams, float]] = OrderedDict()

    def keep(self, last: tuple[bytes, Datagrams] | None, now: float) -> None:
        """Remembers digest and answer."""
        if last is None:
            return
        self._answers[last[0]] = (last[1], now + self.SECONDS)
        while len(self._answers) > self.LIMIT:
            self._answers.popitem(last=False)

    def find(self, data: bytes, now: float) -> Datagrams | None:
        """The answer that this very request got, if that was not long ago."""
        while self._answers:
            oldest = next(iter(self._answers))
            if self._answers[oldest][1] > now:
                break
            del self._answers[oldest]
        if not self._answers:
            return None
        found = self._answers.get(digest(data))
        return found[0] if found else None
