"""How much an account may ask, and how much a stranger gets (RFC 8906, BCP 140).

An account beyond its rate is refused in words. A stranger is somebody whose datagram nobody signed:
its source address may be a lie, and each answer to it a stone thrown at somebody else. Of those
that one network gets too many of, every other is answered with TC set and nothing in it, which is
no longer than the question: who is real comes again over TCP. The rest is dropped.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

BURST: Final = 10  # seconds' worth that may come at once
MAX_NETWORKS: Final = 20_000

_PREFIX4, _PREFIX6 = 24, 56  # bits; a home or a small company


@dataclass(frozen=True, slots=True)
class RateLimits:
    """UPDATEs and questions per second that one account may send."""

    updates: int = 500
    queries: int = 2000


DEFAULT_LIMITS: Final = RateLimits()


class Bucket:
    """At most ``rate`` per second, and ``BURST`` seconds' worth at once."""

    __slots__ = ("_left", "_rate", "_since")

    def __init__(self, rate: int, now: float) -> None:
        self._rate = rate
        self._left = float(rate * BURST)
        self._since = now

    def take(self, now: float) -> bool:
        """Take one, or say that there is none left."""
        gained = max(0.0, now - self._since) * self._rate
        self._left = min(self._rate * BURST, self._left + gained)
        self._since = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Strangers:
    """What the networks of unsigned datagrams got lately. The longest silent is forgotten first."""

    def __init__(self, per_second: int) -> None:
        self._rate = per_second
        self._buckets: OrderedDict[int, tuple[Bucket, list[int]]] = OrderedDict()

    def verdict(self, address: str, now: float) -> str:
        """Return "answer", "cut" (answer with TC set) or "drop"."""
        network = _network(address)
        if network not in self._buckets:
            self._buckets[network] = Bucket(self._rate, now), [0]
            if len(self._buckets) > MAX_NETWORKS:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(network)
        bucket, beyond = self._buckets[network]
        if bucket.take(now):
            return "answer"
        beyond[0] += 1
        return "cut" if beyond[0] % 2 else "drop"

    def __len__(self) -> int:
        return len(self._buckets)


def _network(address: str) -> int:
    parsed = ip_address(address)
    spare = 32 - _PREFIX4 if parsed.version == 4 else 128 - _PREFIX6
    return int(parsed) >> spare | parsed.version << 128
