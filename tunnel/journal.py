"""What this host was told about its peers and what it decided, so that it can be explained.

Every part of the node adds an entry where it learns something or decides about a path
(:meth:`tunnel.core.Core.explain`); ``autotunnel explain`` prints them (:mod:`tunnel.explaining`).
There is a ring for each peer and one for the host itself. All of it is bounded: only peers of the
table have a ring, each ring is short, what repeats is counted instead of kept again, texts are cut,
and when there are too many entries, the peer of whom nothing was heard for longest is forgotten.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass
from enum import StrEnum

PER_PEER = 64  # entries
SMALL = 16  # of them, for what goes on all the time and would drive out how the path was chosen
TOGETHER = 2048  # entries of all peers: 2 MiB
_TEXT = 240  # characters of a sentence
_VALUE = 120  # characters of a field's value
_FIELDS = 8
_NEAR = 6  # entries back that are looked at for the same thing


class What(StrEnum):
    """What an entry is about."""

    RECORDS = "records"  # the zone, a neighbour or an earlier run said where the peer is
    WANTED = "wanted"  # somebody wants the tunnel
    CANDIDATE = "candidate"  # an endpoint is tried, or left out
    FAILED = "failed"  # an endpoint, or the attempt
    CALL = "call"  # between NATs: ours to it, or its to us
    PATH = "path"  # how data goes to it from now on
    PROOF = "proof"  # an exchange with an endpoint that nothing has proven yet
    MOVED = "moved"  # it, or we
    KEEPALIVE = "keepalive"
    MTU = "mtu"
    RELAY = "relay"  # through a home agent
    NETWORK = "network"  # our addresses, our routers, what we publish
    MAPPING = "mapping"  # what a router answered
    OUTSIDE = "outside"  # what the outside sees of us
    ZONE = "zone"  # whether the rendezvous can be asked


_SMALL = frozenset((What.KEEPALIVE, What.MTU))


@dataclass(slots=True)
class Entry:
    """One thing that happened ``times`` times, first ``at`` and last ``last_at`` (node's seconds).

    ``why`` is one sentence for people, ``fields`` its facts.
    """

    at: float
    what: What
    why: str
    fields: tuple[tuple[str, str], ...]
    times: int = 1
    last_at: float = 0.0

    def is_same(self, other: Entry) -> bool:
        """Whether both say the same of two moments."""
        return (self.what, self.why, self.fields) == (other.what, other.why, other.fields)


class Ring:
    """The last entries of one peer; ``forgotten`` tells how many there were before them."""

    __slots__ = ("entries", "forgotten")

    def __init__(self) -> None:
        self.entries: deque[Entry] = deque()
        self.forgotten = 0

    def add(self, entry: Entry) -> int:
        """Keeps or counts it; by how many entries the ring has grown."""
        for back in range(1, min(_NEAR, len(self.entries)) + 1):
            before = self.entries[-back]
            if before.is_same(entry):
                before.times += 1
                before.last_at = entry.at
                return 0
        self.entries.append(entry)
        small = [one for one in self.entries if one.what in _SMALL]
        if len(small) > SMALL:
            self.entries.remove(small[0])
        elif len(self.entries) > PER_PEER:
            self.entries.popleft()
        else:
            return 1
        self.forgotten += 1
        return 0


class Journal:
    """All rings: by the peer's full name, and ``None`` for the host itself."""

    def __init__(self, together: int = TOGETHER) -> None:
        self._together = together
        self._own = Ring()
        self._peers: OrderedDict[str, Ring] = OrderedDict()  # latest heard of last
        self._count = 0

    def add(
        self, name: str | None, at: float, what: What, why: str, fields: dict[str, str]
    ) -> None:
        """Takes an entry about a peer of the table, or about this host."""
        short = tuple((key, text[:_VALUE]) for key, text in list(fields.items())[:_FIELDS])
        entry = Entry(at, what, why[:_TEXT], short, last_at=at)
        if name is None:
            self._own.add(entry)
            return
        ring = self._peers.setdefault(name, Ring())
        self._peers.move_to_end(name)
        self._count += ring.add(entry)
        while self._count > self._together and len(self._peers) > 1:
            _, gone = self._peers.popitem(last=False)
            self._count -= len(gone.entries)

    def of(self, name: str | None) -> Ring:
        """The ring of a peer, empty if nothing is known of it; or the host's own."""
        return self._own if name is None else self._peers.get(name, Ring())

    def __len__(self) -> int:
        return self._count + len(self._own.entries)
