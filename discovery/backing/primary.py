"""The conversation with the primary server of one zone, over one TCP connection.

It goes in rounds. UPDATEs that came meanwhile are passed on together, signed with the key that we
have there; when all are answered, one transfer brings what they changed, with the primary's own
serial; and only then are their requestors answered, so that whoever reads after writing reads what
he wrote. Changes that others made come by the same transfer, after a NOTIFY (RFC 1996) or, should
that be lost, when the SOA is asked for from time to time.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import dns.name

from discovery import message, rcodes, tsig
from discovery.backing.reader import Mirrorable, TransferError, TransferReader
from discovery.content import SOA
from discovery.exchange import rcode_name
from discovery.message import IN, Record
from discovery.store import Changes
from discovery.tsig_stream import StreamVerifier
from discovery.types import TsigKey

REFRESH: Final = 60.0  # seconds between transfers that nobody asked for
PATIENCE: Final = 10.0  # seconds for an answer, before the connection is given up
WAITING: Final = 256  # UPDATEs that wait; more are refused
TOGETHER: Final = 32  # UPDATEs of one round


@dataclass(frozen=True, slots=True)
class SendPrimary:
    """Send this message over the connection."""

    wire: bytes


@dataclass(frozen=True, slots=True)
class HangUp:
    """Close the connection, and make another."""

    reason: str


@dataclass(frozen=True, slots=True)
class Mirrored:
    """What the primary changed: make it durable and true. First of all a whole zone comes."""

    changes: Changes


@dataclass(frozen=True, slots=True)
class Passed:
    """The primary's word on an UPDATE; its changes, if any, came before by :class:`Mirrored`."""

    ticket: int
    rcode: int
    reason: str = ""


PrimaryCommand: TypeAlias = SendPrimary | HangUp | Mirrored | Passed


@dataclass(slots=True)
class _Passing:
    """An UPDATE on its way."""

    ticket: int
    wire: bytes
    mac: bytes = b""
    result: Passed | None = None


@dataclass(slots=True)
class _Round:
    """What is outstanding on the connection."""

    updates: dict[int, _Passing] = field(default_factory=dict)  # by message id
    transfer: TransferReader | None = None
    deadline: float = 0.0


class Primary:
    """The primary of the zone ``content.origin``; ``content`` is our mirror, which the owner of
    this machine keeps, and ``key`` what the primary knows us by."""

    def __init__(self, content: Mirrorable, key: TsigKey, random: Callable[[int], bytes]) -> None:
        self._content, self._key, self._random = content, key, random
        self._waiting: deque[_Passing] = deque()
        self._round: _Round | None = None
        self._done: list[_Passing] = []  # answered, and not yet mirrored
        self._due: float | None = None  # the next transfer
        self._whole = True
        self._again = False  # a NOTIFY came while a transfer was on its way
        self.is_up = False
        self.is_mirrored = False
        """Whether the zone came since this process began; before, the last known one is served."""
        self.reason = "it was not reached yet"
        """Why it is not up."""

    def next_timer(self) -> float | None:
        """When :meth:`advance` has something to do."""
        return self._round.deadline if self._round is not None else self._due

    # --- What happens -----------------------------------------------------------------------

    def up(self, now: float, unix: int) -> list[PrimaryCommand]:
        """The connection stands."""
        self._round, self._due = None, now
        return self._next(now, unix)

    def down(self, reason: str) -> list[PrimaryCommand]:
        """It is gone. What an UPDATE on its way did is not known: its requestor must ask again."""
        self.is_up, self.reason, self._due = False, reason, None
        lost = [*self._done, *(self._round.updates.values() if self._round else ())]
        lost += self._waiting
        self._waiting.clear()
        self._round, self._done = None, []
        return [Passed(one.ticket, rcodes.SERVFAIL, self._gone) for one in lost]

    def notified(self, now: float, unix: int) -> list[PrimaryCommand]:
        """A NOTIFY says that the zone changed."""
        if self._due is None:
            return []
        self._again = self._round is not None
        self._due = now
        return self._next(now, unix)

    def update(
        self,
        ticket: int,
        prerequisites: Sequence[Record],
        updates: Sequence[Record],
        now: float,
        unix: int,
    ) -> list[PrimaryCommand]:
        """Pass an UPDATE on, as it was asked for."""
        if not self.is_up:
            return [Passed(ticket, rcodes.SERVFAIL, self._gone)]
        if len(self._waiting) >= WAITING:
            reason = f"{WAITING} updates wait for the primary server; try again"
            return [Passed(ticket, rcodes.SERVFAIL, reason)]
        wire = _update(self._content.origin, prerequisites, updates)
        if len(wire) > message.TCP_PAYLOAD - tsig.overhead(self._key):
            return [Passed(ticket, rcodes.REFUSED, "the update is too large to be passed on")]
        self._waiting.append(_Passing(ticket, wire))
        return self._next(now, unix)

    def receive(self, wire: bytes, now: float, unix: int) -> list[PrimaryCommand]:
        """A message came over the connection."""
        if self._round is None or len(wire) < message.HEADER_SIZE:
            return []
        if self._round.transfer is not None:
            return self._transferred(self._round.transfer, wire, now, unix)
        passing = self._round.updates.pop(int.from_bytes(wire[:2]), None)
        if passing is None:
            return []
        verdict = tsig.verify(wire, self._find_key, unix, request_mac=passing.mac)
        if not isinstance(verdict, tsig.Verified):
            return [HangUp(_distrust(verdict, wire))]
        rcode = wire[3] & 15
        reason = "" if not rcode else f"the primary server answered {rcode_name(rcode)}"
        passing.result = Passed(passing.ticket, rcode, reason)
        self._done.append(passing)
        if self._round.updates:
            return []
        self._round, self._due = None, now  # what they changed is asked for at once
        return self._next(now, unix)

    def advance(self, now: float, unix: int) -> list[PrimaryCommand]:
        """Asks for changes from time to time; gives up on a primary that does not answer."""
        due = self.next_timer()
        if due is None or now < due:
            return []
        if self._round is not None:
            return [HangUp(f"it did not answer within {PATIENCE:.0f} s")]
        return self._next(now, unix)

    # --- Inside -----------------------------------------------------------------------------

    @property
    def away(self) -> str:
        """Why it cannot be asked, in words for a requestor; empty: it can."""
        return "" if self.is_up else self._gone

    @property
    def _gone(self) -> str:
        return f"the primary server cannot be reached ({self.reason}); try again"

    def _find_key(self, name: str, algorithm: str) -> TsigKey | None:
        mine = tsig.canonical_name(self._key.name), tsig.canonical_algorithm(self._key.algorithm)
        return self._key if (name, algorithm) == mine else None

    def _next(self, now: float, unix: int) -> list[PrimaryCommand]:
        """Begin the next round, if none is on its way: a transfer that is due, else UPDATEs."""
        if self._round is not None or self._due is None:
            return []
        if now >= self._due:
            return [self._ask_transfer(now, unix)]
        out: list[PrimaryCommand] = []
        updates: dict[int, _Passing] = {}
        while self._waiting and len(updates) < TOGETHER:
            passing = self._waiting.popleft()
            identity = self._identity(updates)
            wire = identity.to_bytes(2) + passing.wire[2:]
            wire, passing.mac = tsig.sign(wire, self._key, unix)
            updates[identity] = passing
            out.append(SendPrimary(wire))
        if updates:
            self._round = _Round(updates, deadline=now + PATIENCE)
        return out

    def _identity(self, used: dict[int, _Passing]) -> int:
        while True:
            identity = int.from_bytes(self._random(2))
            if identity not in used:
                return identity

    def _ask_transfer(self, now: float, unix: int) -> SendPrimary:
        self._again = False
        identity = int.from_bytes(self._random(2))
        serial = None if self._whole or not self._content.records else self._content.soa.serial
        wire, mac = tsig.sign(self._question(identity, serial), self._key, unix)
        reader = TransferReader(
            self._content.origin, identity, StreamVerifier(self._key, mac), serial
        )
        self._round = _Round(transfer=reader, deadline=now + PATIENCE)
        return SendPrimary(wire)

    def _question(self, identity: int, serial: int | None) -> bytes:
        """AXFR, or IXFR with our SOA in the authority section (RFC 1995 §3)."""
        origin = self._content.origin.to_wire()
        assert origin is not None
        header = struct.pack("!HHHHHH", identity, 0, 1, 0, 0 if serial is None else 1, 0)
        if serial is None:
            return header + origin + struct.pack("!HH", message.TYPE_AXFR, IN)
        soa = self._content.soa.to_wire()
        assert soa is not None
        asked = origin + struct.pack("!HH", message.TYPE_IXFR, IN)
        return header + asked + origin + struct.pack("!HHIH", SOA, IN, 0, len(soa)) + soa

    def _transferred(
        self, reader: TransferReader, wire: bytes, now: float, unix: int
    ) -> list[PrimaryCommand]:
        assert self._round is not None
        try:
            if not reader.take(wire, unix):
                self._round.deadline = now + PATIENCE
                return []
            changes = reader.changes(self._content)
        except TransferError as error:
            self._whole = True  # the next connection begins with all
            return [HangUp(f"its zone transfer cannot be used: {error}")]
        self._round, self._due, self._whole = None, now if self._again else now + REFRESH, False
        self.is_up = self.is_mirrored = True
        self.reason = ""
        out: list[PrimaryCommand] = [Mirrored(changes)] if changes else []
        out += [one.result for one in self._done if one.result is not None]
        self._done = []
        # A further transfer names the serial of the mirror with these changes, which its owner has
        # yet to make: advance asks for it.
        return [*out, *self._next(now, unix)] if self._due > now else out


def _distrust(verdict: object, wire: bytes) -> str:
    if isinstance(verdict, tsig.TsigFailure):
        return f"its answer is not trusted: {verdict.reason}"
    return f"its answer ({rcode_name(wire[3] & 15)}) is not signed; does it know our TSIG key?"


def _update(
    origin: dns.name.Name, prerequisites: Sequence[Record], updates: Sequence[Record]
) -> bytes:
    """An UPDATE without an id (RFC 2136 §2)."""
    zone = origin.to_wire()
    assert zone is not None
    flags = message.OPCODE_UPDATE << 11
    header = struct.pack("!HHHHHH", 0, flags, 1, len(prerequisites), len(updates), 0)
    body = b"".join(map(_record, (*prerequisites, *updates)))
    return header + zone + struct.pack("!HH", SOA, IN) + body


def _record(record: Record) -> bytes:
    name = record.name.to_wire()
    data = record.rdata.to_wire() if record.rdata is not None else b""
    assert name is not None
    assert data is not None
    return name + struct.pack("!HHIH", record.rdtype, record.rdclass, record.ttl, len(data)) + data
