"""What keeps mobility signalling small: RFC 6275's times and rates (§12), and bounds of ours."""

from __future__ import annotations

import heapq
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

MAX_UPDATE_RATE: Final = 3  # messages of one type a second to one correspondent
INITIAL_BINDACK_TIMEOUT: Final = 1.0  # seconds
FIRST_REGISTRATION_TIMEOUT: Final = 1.5  # of the first one with a home agent (§11.8)
MAX_BINDACK_TIMEOUT: Final = 32.0
NATKATIMEOUT: Final = 110  # seconds between keepalives (RFC 5555 §4.3)

SEQUENCES: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class MobilitySettings:
    """What an owner may set. Times in seconds."""

    lifetime: int = 600  # of a binding that we ask a correspondent for
    home_lifetime: int = 3600  # and a home agent
    longest: int = 3600  # that we grant
    refresh_at: float = 0.75  # of a binding's life
    refused_pause: float = 60.0  # before a binding update after a refusal
    answers: int = 3  # AOTRs for one challenge, before the next binding update
    farewells: int = 3  # binding updates that take a binding back
    opens: int = 3  # AOTOs for one early proof
    home_asks: int = 3  # AOTCs to a home address, 1 and 2 seconds apart, until it is silent
    nonce_life: float = 60.0  # that a test stays open, over its success too (I17)
    tests: int = 4  # open at once for one peer
    tests_per_second: int = 100  # for all peers
    bindings: int = 1024
    early: bool = True  # whether AOTOs are welcome (I20)


def is_old(sequence: int, last: int) -> bool:
    """Whether ``sequence`` is ``last`` or one of the 32,768 values before it (RFC 6275 §9.5.1)."""
    return (last - sequence) % SEQUENCES <= SEQUENCES // 2


def following(sequence: int) -> int:
    """The next greater sequence number."""
    return (sequence + 1) % SEQUENCES


class Rate:
    """At most :data:`MAX_UPDATE_RATE` in any second."""

    __slots__ = ("_times",)

    def __init__(self) -> None:
        self._times: tuple[float, ...] = ()

    def allows(self, now: float) -> bool:
        """Whether one more may be at ``now``; if so, it is."""
        times = tuple(at for at in self._times if at + 1.0 > now)
        if len(times) >= MAX_UPDATE_RATE:
            return False
        self._times = (*times, now)
        return True

    def free_at(self, now: float) -> float:
        """When the next one may be; it is allowed then, whatever the sum was rounded to."""
        times = [at for at in self._times if at + 1.0 > now]
        return now if len(times) < MAX_UPDATE_RATE else times[-MAX_UPDATE_RATE] + 1.0


_Key = TypeVar("_Key", bound=Hashable)


class Deadlines(Generic[_Key]):
    """One deadline a key; to look for the next one costs nothing with any number of keys."""

    def __init__(self) -> None:
        self._at: dict[_Key, float] = {}
        self._heap: list[tuple[float, int, _Key]] = []
        self._order = 0

    def set(self, key: _Key, at: float) -> None:
        """Due at ``at``, and not when it was due before."""
        if self._at.get(key) == at:
            return
        self._at[key] = at
        self._order += 1
        heapq.heappush(self._heap, (at, self._order, key))
        if len(self._heap) > 2 * len(self._at) + 64:
            self._heap = [(due, n, one) for n, (one, due) in enumerate(self._at.items())]
            heapq.heapify(self._heap)

    def clear(self, key: _Key) -> None:
        """Never due."""
        self._at.pop(key, None)

    def next(self) -> float | None:
        """When the first is due."""
        while self._heap and self._at.get(self._heap[0][2]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def due(self, now: float) -> list[_Key]:
        """Those that are due, each once, the first first."""
        keys: list[_Key] = []
        while (at := self.next()) is not None and at <= now:
            key = heapq.heappop(self._heap)[2]
            del self._at[key]
            keys.append(key)
        return keys
