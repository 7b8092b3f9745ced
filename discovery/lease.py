"""Update Lease (RFC 9664): how long records stay that nobody refreshes (B38-B41).

A requestor asks for a lease in an EDNS option of its UPDATE, in one of two forms: four octets (one
lease for everything, all that Apple's clients know) or eight (a second lease for KEY records). The
server grants what its limits allow and says so in the same form. A refresh is the same UPDATE
again: it moves the end of the lease and nothing else.

An UPDATE without the option adds records that stay until they are withdrawn. Whoever adds a record
last says how long it stays: a lease makes a permanent record end, and no lease makes it stay.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import dns.rdatatype

OPTION: Final = 2

_KEY = int(dns.rdatatype.KEY)
_ALWAYS_PERMANENT: Final = frozenset((int(dns.rdatatype.SOA), int(dns.rdatatype.NS)))


class LeaseError(Exception):
    """The option has none of its two forms; says which it has."""


@dataclass(frozen=True, slots=True)
class Lease:
    """A lease in seconds, asked for or granted. ``key``: that of KEY records, ``None`` in the form
    of four octets, where they end with the rest."""

    seconds: int
    key: int | None = None

    def octets(self) -> bytes:
        """Return the option's data."""
        if self.key is None:
            return struct.pack("!I", self.seconds)
        return struct.pack("!II", self.seconds, self.key)


@dataclass(frozen=True, slots=True)
class LeaseLimits:
    """The shortest and longest leases that are granted, seconds: B40 for all but KEY records,
    RFC 9664 §8 for these."""

    shortest: int = 1800
    longest: int = 7200
    longest_key: int = 604_800

    def grant(self, asked: Lease) -> Lease:
        """Return the lease that is granted where ``asked`` was asked for, in the same form."""
        seconds = max(self.shortest, min(asked.seconds, self.longest))
        if asked.key is None:
            return Lease(seconds)
        return Lease(seconds, max(self.shortest, min(asked.key, self.longest_key)))


DEFAULT_LIMITS: Final = LeaseLimits()


@dataclass(frozen=True, slots=True)
class LeaseEnds:
    """When the records of one UPDATE leave by themselves, unix seconds; ``None``: they stay."""

    record: int | None = None
    key: int | None = None

    def of(self, rdtype: int) -> int | None:
        """Return the end for a record of this type. The apex' SOA and NS never end: without them
        there is no zone."""
        if rdtype in _ALWAYS_PERMANENT:
            return None
        return self.key if rdtype == _KEY else self.record


PERMANENT: Final = LeaseEnds()


def asked_in(options: Iterable[tuple[int, bytes]]) -> Lease | None:
    """Return the lease that EDNS options ask for. Raises :exc:`LeaseError` (RFC 9664 §4)."""
    found = [data for code, data in options if code == OPTION]
    if not found:
        return None
    if len(found) > 1:
        raise LeaseError("there is more than one Update Lease option")
    if len(found[0]) == 4:
        return Lease(*struct.unpack("!I", found[0]))
    if len(found[0]) == 8:
        return Lease(*struct.unpack("!II", found[0]))
    raise LeaseError(f"an Update Lease option has 4 or 8 octets, not {len(found[0])}")


def ends_of(granted: Lease | None, unix: int) -> LeaseEnds:
    """Return when records leave that are added at ``unix`` under a granted lease."""
    if granted is None:
        return PERMANENT
    key = granted.seconds if granted.key is None else granted.key
    return LeaseEnds(unix + granted.seconds, unix + key)
