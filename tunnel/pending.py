"""What waits, bounded: inner packets for a tunnel, and a bucket that limits answers."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from tunnel.settings import NodeSettings


@dataclass(slots=True)
class _Held:
    packet: bytes
    until: float


class PacketQueues:
    """Packets by key (a peer's name), first in, first out; bounded per key and in all.

    A full queue refuses the newest: the oldest is the one whose retransmissions come behind it.
    """

    def __init__(self, settings: NodeSettings) -> None:
        self._settings = settings
        self._queues: dict[str, deque[_Held]] = {}
        self._packets = 0
        self._octets = 0
        self.refused = 0

    def put(self, key: str, packet: bytes, now: float) -> bool:
        """Holds ``packet``; false when there is no room."""
        limits, queue = self._settings, self._queues.get(key, ())
        if (
            len(queue) >= limits.queue_packets
            or sum(len(held.packet) for held in queue) + len(packet) > limits.queue_octets
            or self._packets >= limits.queues_packets
            or self._octets + len(packet) > limits.queues_octets
        ):
            self.refused += 1
            return False
        self._queues.setdefault(key, deque()).append(_Held(packet, now + limits.queue_wait))
        self._packets += 1
        self._octets += len(packet)
        return True

    def take(self, key: str) -> list[bytes]:
        """All packets of ``key``, oldest first; they are not held any more."""
        packets = [held.packet for held in self._queues.pop(key, ())]
        self._packets -= len(packets)
        self._octets -= sum(map(len, packets))
        return packets

    def has(self, key: str) -> bool:
        """Whether packets of ``key`` wait."""
        return key in self._queues

    def expire(self, now: float) -> list[bytes]:
        """The packets that waited too long; they are not held any more."""
        late: list[bytes] = []
        for key, queue in list(self._queues.items()):
            while queue and queue[0].until <= now:
                late.append(queue.popleft().packet)
            if not queue:
                del self._queues[key]
        self._packets -= len(late)
        self._octets -= sum(map(len, late))
        return late

    def next_timer(self) -> float | None:
        """When the next packet has waited too long."""
        return min((queue[0].until for queue in self._queues.values()), default=None)

    def __len__(self) -> int:
        return self._packets


class Bucket:
    """At most ``rate`` a second on average, and as many at once (a token bucket)."""

    def __init__(self, rate: int) -> None:
        self._rate = float(rate)
        self._tokens = float(rate)
        self._at: float | None = None

    def allows(self, now: float) -> bool:
        """Whether one more may happen at ``now``."""
        if self._at is not None:
            self._tokens = min(self._rate, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
