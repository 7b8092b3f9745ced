"""TSIG on one answer in many messages, as zone transfers are (RFC 8945 §5.3.1).

The first message is signed as any answer is. Each later one digests the MAC before it, whatever
unsigned messages came since, itself, and of the TSIG variables only the timers: so no message can
be taken out, put in, or moved. We sign every message; from others up to 99 in a row may be
unsigned, but not the last.
"""

from __future__ import annotations

import hmac
from typing import Final

import dns.exception

from discovery import rcodes, tsig
from discovery.tsig import TsigFailure, TsigRecord
from discovery.types import TsigKey

MAX_UNSIGNED: Final = 99


class StreamSigner:
    """Signs the messages of one answer, one after the other. ``request_mac``: the request's."""

    def __init__(self, key: TsigKey, request_mac: bytes) -> None:
        self._key = key
        self._mac = request_mac
        self._is_first = True

    def sign(self, wire: bytes, unix: int) -> bytes:
        """Return the next message with its TSIG record."""
        if self._is_first:
            self._is_first = False
            wire, self._mac = tsig.sign(wire, self._key, unix, request_mac=self._mac)
            return wire
        self._mac = tsig.digest(self._key, _digested(self._mac, wire, unix, tsig.DEFAULT_FUDGE))
        record = TsigRecord(
            tsig.canonical_name(self._key.name),
            tsig.canonical_algorithm(self._key.algorithm),
            unix,
            tsig.DEFAULT_FUDGE,
            self._mac,
            int.from_bytes(wire[:2]),
            0,
            b"",
        )
        return tsig.append(wire, record, self._mac)


class StreamVerifier:
    """Judges the messages of one answer, one after the other. After any :class:`TsigFailure` the
    connection is to be closed (RFC 8945 §5.3.1) and nothing of the answer to be believed."""

    def __init__(self, key: TsigKey, request_mac: bytes) -> None:
        self._key = key
        self._mac = request_mac
        self._is_first = True
        self._unsigned: list[bytes] = []

    def take(self, wire: bytes, unix: int) -> bytes | TsigFailure:
        """Return the message without its TSIG record, or why it is not accepted. A message that
        carries none is proven only by a later one: see :meth:`end`."""
        try:
            located = tsig.locate(wire)
        except (tsig.TsigFormatError, dns.exception.DNSException) as error:
            return TsigFailure(rcodes.FORMERR, 0, f"a message of the answer is malformed: {error}")
        if self._is_first:
            return self._first(wire, unix)
        if located is not None:
            return self._later(wire, *located, unix)
        if len(self._unsigned) == MAX_UNSIGNED:
            return _bad("a hundred messages in a row carry no signature")
        self._unsigned.append(wire)
        return wire

    def end(self) -> TsigFailure | None:
        """Say why the answer as a whole is not accepted, now that its last message came."""
        if self._is_first or self._unsigned:
            return _bad("the last message of the answer carries no signature")
        return None

    def _first(self, wire: bytes, unix: int) -> bytes | TsigFailure:
        verdict = tsig.verify(wire, self._find_key, unix, request_mac=self._mac)
        if isinstance(verdict, tsig.NoTsig):
            return _bad("the first message of the answer carries no signature")
        if isinstance(verdict, TsigFailure):
            return verdict
        self._is_first = False
        self._mac = verdict.mac
        return verdict.message

    def _later(self, wire: bytes, record: TsigRecord, start: int, unix: int) -> bytes | TsigFailure:
        if self._find_key(record.key_name, record.algorithm) is None:
            return TsigFailure(rcodes.NOTAUTH, tsig.BADKEY, "the key changed in the answer", record)
        bare = tsig.without_tsig(wire, start)
        message = record.original_id.to_bytes(2) + bare[2:]
        octets = b"".join(self._unsigned) + message
        expected = tsig.digest(
            self._key, _digested(self._mac, octets, record.time_signed, record.fudge)
        )
        # Who cuts MACs cuts all of them alike, and the first was long enough (RFC 8945 §5.2.2.1).
        cut = expected[: len(self._mac)]
        if not hmac.compare_digest(cut, record.mac):
            return TsigFailure(rcodes.NOTAUTH, tsig.BADSIG, "the MAC is wrong", record)
        if abs(unix - record.time_signed) > record.fudge:
            return TsigFailure(
                rcodes.NOTAUTH, tsig.BADTIME, "it was signed at another time", record
            )
        self._mac, self._unsigned = record.mac, []
        return bare

    def _find_key(self, key_name: str, algorithm: str) -> TsigKey | None:
        is_ours = key_name == tsig.canonical_name(self._key.name)
        return self._key if is_ours and algorithm == _algorithm(self._key) else None


def _algorithm(key: TsigKey) -> str:
    return tsig.canonical_algorithm(key.algorithm)


def _digested(prior_mac: bytes, octets: bytes, unix: int, fudge: int) -> bytes:
    timers = unix.to_bytes(6) + fudge.to_bytes(2)
    return len(prior_mac).to_bytes(2) + prior_mac + octets + timers


def _bad(reason: str) -> TsigFailure:
    return TsigFailure(rcodes.NOTAUTH, tsig.BADSIG, reason)
