"""DNS Push Notifications (RFC 8765): the TLVs of SUBSCRIBE, PUSH, UNSUBSCRIBE and RECONFIRM.

A client subscribes to a name, type and class on a DSO session (:mod:`discovery.dso`), and the
server pushes what stands there and every later change, until the client unsubscribes or leaves.
Names in PUSH and RECONFIRM may be compressed against the whole DNS message, so these two are read
from the message, not from their TLV alone.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO
from typing import Final

import dns.exception
import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.wire

from discovery import dso, rcodes
from discovery.dso import DsoError, Tlv

SUBSCRIBE: Final = 0x40
PUSH: Final = 0x41
UNSUBSCRIBE: Final = 0x42
RECONFIRM: Final = 0x43

TYPE_ANY: Final = 255
CLASS_ANY: Final = 255
CLASS_IN: Final = 1

MAXIMUM_PUSH: Final = 16_382
"""The longest PUSH message in octets, from its header on (RFC 8765 §6.3.1)."""

MAXIMUM_TTL: Final = 0x7FFFFFFF
REMOVE_ALL: Final = 0xFFFFFFFE
"""The TTL of a collective removal."""
REMOVE_ONE: Final = 0xFFFFFFFF
"""The TTL of the removal of one record."""

SESSION_LABEL: Final = "_push"
"""The label below the domain that introduces a session to the rendezvous: DSO messages carry no
TSIG, so a client first asks for the SOA of ``_push.<domain>``, signed, on the same TLS connection
and *after* it has proven the server's key (decision 0042). No other question introduces it."""

_HOUR_MS: Final = 3_600_000
_DEFAULT_RETRY_MS: Final = 300_000
_RETRY_MS: Final = {rcodes.SERVFAIL: 60_000, rcodes.NOTIMP: _HOUR_MS, rcodes.DSOTYPENI: _HOUR_MS}

_FIRST_RECORD: Final = dso.HEADER_SIZE + 4


def retry_delay_ms(rcode: int) -> int:
    """Return how long a refused SUBSCRIBE should not be tried again, in milliseconds: what RFC 8765
    §6.2.2 recommends for each RCODE, to servers and to clients that were told nothing."""
    return _RETRY_MS.get(rcode, _DEFAULT_RETRY_MS)


@dataclass(frozen=True, slots=True)
class Subscribe:
    """What a client wants to hear of (RFC 8765 §6.2.1); 255 as type or class means all of them."""

    name: dns.name.Name
    rdtype: int
    rdclass: int = CLASS_IN

    def tlv(self) -> Tlv:
        """Return it as a TLV."""
        fixed = struct.pack("!HH", self.rdtype, self.rdclass)
        return Tlv(SUBSCRIBE, _octets(self.name) + fixed)

    @classmethod
    def parse(cls, data: bytes) -> Subscribe:
        """Read a TLV's data; its name is not compressed. Raises :exc:`DsoError`."""
        try:
            parser = dns.wire.Parser(data)
            name = dns.name.from_wire_parser(parser)
            rdtype, rdclass = parser.get_struct("!HH")
        except dns.exception.DNSException as error:
            raise DsoError(f"a SUBSCRIBE TLV cannot be read: {type(error).__name__}") from error
        if parser.remaining() or len(_octets(name)) + 4 != len(data):
            raise DsoError("a SUBSCRIBE TLV holds one name, type and class")
        return cls(name, rdtype, rdclass)


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """The end of the subscription that the request with this message id began (§6.4)."""

    subscribe_id: int

    def tlv(self) -> Tlv:
        """Return it as a TLV."""
        return Tlv(UNSUBSCRIBE, self.subscribe_id.to_bytes(2))

    @classmethod
    def parse(cls, data: bytes) -> Unsubscribe:
        """Read a TLV's data. Raises :exc:`DsoError`."""
        if len(data) != 2:
            raise DsoError("an UNSUBSCRIBE TLV has 2 octets")
        return cls(int.from_bytes(data))


@dataclass(frozen=True, slots=True)
class Reconfirm:
    """A record that a client doubts (§6.5)."""

    name: dns.name.Name
    rdtype: int
    rdclass: int
    rdata: dns.rdata.Rdata

    def tlv(self) -> Tlv:
        """Return it as a TLV."""
        fixed = struct.pack("!HH", self.rdtype, self.rdclass)
        return Tlv(RECONFIRM, _octets(self.name) + fixed + _octets(self.rdata))

    @classmethod
    def parse(cls, wire: bytes) -> Reconfirm:
        """Read the whole message. Raises :exc:`DsoError`."""
        try:
            parser = _parser(wire)
            name = parser.get_name(decompress=True)
            rdtype, rdclass = parser.get_struct("!HH")
            if rdtype == TYPE_ANY or rdclass == CLASS_ANY:
                raise DsoError("RECONFIRM is about one record, not about ANY")
            rdata = _rdata(parser, rdtype, rdclass)
        except dns.exception.DNSException as error:
            raise DsoError(f"a RECONFIRM TLV cannot be read: {type(error).__name__}") from error
        return cls(name, rdtype, rdclass, rdata)


@dataclass(frozen=True, slots=True)
class Change:
    """One change notification (§6.3.1). ``ttl`` up to :data:`MAXIMUM_TTL` adds the record,
    :data:`REMOVE_ONE` removes it, and :data:`REMOVE_ALL`, without ``rdata``, removes all that
    type and class cover: a type, with type 255 a class, with class 255 (and type 0) the name."""

    name: dns.name.Name
    rdtype: int
    rdclass: int
    ttl: int
    rdata: dns.rdata.Rdata | None


def push_messages(changes: Iterable[Change]) -> list[bytes]:
    """Return the PUSH messages that tell all changes, in order, as few as hold them (§6.3.1)."""
    messages: list[bytes] = []
    out = _PushWriter()
    for change in changes:
        if not out.write(change):
            messages.append(out.message())
            out = _PushWriter()
            out.write(change)
    if out.has_changes:
        messages.append(out.message())
    return messages


class _PushWriter:
    """One PUSH message under construction."""

    def __init__(self) -> None:
        self._out = BytesIO(bytes(_FIRST_RECORD))
        self._out.seek(_FIRST_RECORD)
        self._compress: dict[dns.name.Name, int] = {}

    @property
    def has_changes(self) -> bool:
        return self._out.tell() > _FIRST_RECORD

    def write(self, change: Change) -> bool:
        """Write one change, or return false: then it belongs into the next message. A record that
        fits no message goes alone, since no server can hold one of this size."""
        start = self._out.tell()
        change.name.to_wire(self._out, self._compress)
        fixed = struct.pack("!HHIH", change.rdtype, change.rdclass, change.ttl, 0)
        self._out.write(fixed)
        data = self._out.tell()
        if change.rdata is not None:
            change.rdata.to_wire(self._out, self._compress)
        end = self._out.tell()
        if end > MAXIMUM_PUSH and start > _FIRST_RECORD:
            self._out.seek(start)
            self._out.truncate()
            return False
        self._out.seek(data - 2)
        self._out.write((end - data).to_bytes(2))
        self._out.seek(end)
        return True

    def message(self) -> bytes:
        wire = self._out.getvalue()
        empty = dso.DsoMessage(0, (Tlv(PUSH),)).pack()
        return empty[:-2] + (len(wire) - _FIRST_RECORD).to_bytes(2) + wire[_FIRST_RECORD:]


def parse_push(wire: bytes) -> tuple[Change, ...]:
    """Read the changes of a PUSH message; those with a TTL that has no meaning are left out.

    Raises :exc:`DsoError` for what a client must answer by aborting the connection (§6.3.1): too
    long, no change at all, an added or removed record of type or class ANY, a collective removal
    with data, or anything malformed.
    """
    if len(wire) > MAXIMUM_PUSH:
        raise DsoError(f"a PUSH message is longer than {MAXIMUM_PUSH} octets")
    changes: list[Change] = []
    try:
        parser = _parser(wire)
        if not parser.remaining():
            raise DsoError("a PUSH message tells nothing")
        while parser.remaining():
            changes += _change(parser)
    except dns.exception.DNSException as error:
        raise DsoError(f"a PUSH TLV cannot be read: {type(error).__name__}") from error
    return tuple(changes)


def _change(parser: dns.wire.Parser) -> list[Change]:
    name = parser.get_name(decompress=True)
    rdtype, rdclass, ttl, length = parser.get_struct("!HHIH")
    if MAXIMUM_TTL < ttl < REMOVE_ALL:
        parser.get_bytes(length)
        return []
    if ttl == REMOVE_ALL:
        if length:
            raise DsoError("a collective removal has data")
        return [Change(name, rdtype, rdclass, ttl, None)]
    if rdtype == TYPE_ANY or rdclass == CLASS_ANY:
        raise DsoError("a record of type or class ANY was added or removed")
    with parser.restrict_to(length):
        rdata = _rdata(parser, rdtype, rdclass)
    return [Change(name, rdtype, rdclass, ttl, rdata)]


def _parser(wire: bytes) -> dns.wire.Parser:
    """Return a parser of the primary TLV's data that can follow pointers into the message."""
    if not dso.is_dso(wire) or len(wire) < _FIRST_RECORD:
        raise DsoError("this is no DSO message with a TLV")
    size = int.from_bytes(wire[_FIRST_RECORD - 2 : _FIRST_RECORD])
    if _FIRST_RECORD + size > len(wire):
        raise DsoError("a TLV is longer than its message")
    return dns.wire.Parser(wire[: _FIRST_RECORD + size], _FIRST_RECORD)


def _octets(part: dns.name.Name | dns.rdata.Rdata) -> bytes:
    out = BytesIO()
    part.to_wire(out)
    return out.getvalue()


def _rdata(parser: dns.wire.Parser, rdtype: int, rdclass: int) -> dns.rdata.Rdata:
    return dns.rdata.from_wire_parser(
        dns.rdataclass.RdataClass.make(rdclass), dns.rdatatype.RdataType.make(rdtype), parser
    )
