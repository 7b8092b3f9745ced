"""What the rendezvous keeps: the words of the durable store, and one in memory.

The zone machine (:mod:`discovery.zone`) decides; a :class:`ZoneStore` remembers. Its contract is
short: when :meth:`ZoneStore.commit` returns, the change survives a power cut, all of it or, if it
raises, none of it (RFC 2136 §3.5: on stable storage *before* the response is sent).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

import dns.name
import dns.rdata


class StoreError(Exception):
    """The store could not do what was asked; the requestor gets SERVFAIL and nothing changed."""


@dataclass(frozen=True, slots=True)
class Item:
    """One resource record's data. ``expires``: unix seconds at which its lease ends, ``None`` for
    a permanent one (RFC 9664)."""

    rdata: dns.rdata.Rdata = field(compare=False)
    expires: int | None = None
    canonical: bytes = field(init=False, repr=False)
    """The data in canonical form (RFC 4034 §6.2), by which records are compared."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "canonical", self.rdata.to_digestable())


@dataclass(frozen=True, slots=True)
class RecordSet:
    """All records of one name and type (class IN): they share the TTL (RFC 2181 §5.2)."""

    name: dns.name.Name
    rdtype: int
    ttl: int
    items: tuple[Item, ...]


SetKey: TypeAlias = tuple[dns.name.Name, int]
"""(owner name, record type); names compare without case."""

Changes: TypeAlias = Mapping[SetKey, RecordSet | None]
"""The new content of each set that changed; ``None`` when it is gone."""


class ZoneStore(Protocol):
    """The durable memory of all accounts of one rendezvous."""

    def load(self, zone: dns.name.Name) -> Iterable[RecordSet]:
        """Return every set of the zone. Raises :exc:`StoreError`."""
        ...

    def commit(self, changes: Mapping[dns.name.Name, Changes]) -> None:
        """Write all changes, by zone, durably, or none of them. Raises :exc:`StoreError`. A driver
        may call it from another thread, one call at a time."""
        ...

    def bind_invitation(
        self, zone: dns.name.Name, identity: bytes, nonce: bytes, expires: int
    ) -> bytes:
        """Bind an invitation to ``nonce`` unless it is bound already, durably; return the nonce
        that it is bound to. ``expires`` (unix seconds) says when the entry may be forgotten.
        Raises :exc:`StoreError`."""
        ...

    def forget_invitations(self, before: int) -> None:
        """Forget the bindings of invitations that expired before ``before`` (unix seconds): they
        are refused by their expiry alone. Raises :exc:`StoreError`."""
        ...

    def close(self) -> None:
        """Release the store."""
        ...


class MemoryStore:
    """A :class:`ZoneStore` for tests: it forgets when the process ends.

    ``fail`` makes the next changes raise, as a full disk would.
    """

    def __init__(self) -> None:
        self._sets: dict[dns.name.Name, dict[SetKey, RecordSet]] = {}
        self._invitations: dict[tuple[dns.name.Name, bytes], tuple[bytes, int]] = {}
        self.commits = 0
        self.fail = False

    def load(self, zone: dns.name.Name) -> Iterable[RecordSet]:
        """See :meth:`ZoneStore.load`."""
        return list(self._sets.get(zone, {}).values())

    def commit(self, changes: Mapping[dns.name.Name, Changes]) -> None:
        """See :meth:`ZoneStore.commit`."""
        self._check()
        self.commits += 1
        for zone, of_zone in changes.items():
            sets = self._sets.setdefault(zone, {})
            for key, content in of_zone.items():
                sets.pop(key, None)
                if content is not None:
                    sets[key] = content

    def bind_invitation(
        self, zone: dns.name.Name, identity: bytes, nonce: bytes, expires: int
    ) -> bytes:
        """See :meth:`ZoneStore.bind_invitation`."""
        self._check()
        return self._invitations.setdefault((zone, identity), (nonce, expires))[0]

    def forget_invitations(self, before: int) -> None:
        """See :meth:`ZoneStore.forget_invitations`."""
        self._check()
        kept = {k: v for k, v in self._invitations.items() if v[1] >= before}
        self._invitations = kept

    def close(self) -> None:
        """See :meth:`ZoneStore.close`."""

    def _check(self) -> None:
        if self.fail:
            raise StoreError("the store was told to fail")
