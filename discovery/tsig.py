"""TSIG (RFC 8945): a MAC and a time on every request and response of a zone (B58, B59).

Both sides use this file: the client signs a request, remembers its MAC and demands it in the
response; the server verifies the request and signs what it answers. The time is an argument
(dnspython's own TSIG reads the clock by itself), so that a whole zone runs on a virtual clock.

:func:`verify` returns a verdict and never raises: :class:`Verified`, :class:`NoTsig`, or
:class:`TsigFailure`, which knows the RCODE and TSIG error to answer with.
"""

from __future__ import annotations

import hmac
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, TypeAlias

import dns.exception
import dns.name
import dns.wire

from discovery.rcodes import FORMERR, NOTAUTH
from discovery.types import TsigKey

TSIG_TYPE: Final = 250
CLASS_ANY: Final = 255
DEFAULT_FUDGE: Final = 300  # seconds, RFC 8945 §10

BADSIG: Final = 16
BADKEY: Final = 17
BADTIME: Final = 18
BADTRUNC: Final = 22

MINIMUM_MAC: Final = 16
"""Shortest MAC that our policy takes, octets; a shorter lawful one is answered BADTRUNC."""

HMAC_MD5: Final = "hmac-md5.sig-alg.reg.int"

_ALGORITHMS: Final[dict[str, tuple[str, int]]] = {  # name -> (hash, MAC octets), RFC 8945 §6
    HMAC_MD5: ("md5", 16),
    "hmac-sha1": ("sha1", 20),
    "hmac-sha224": ("sha224", 28),
    "hmac-sha256": ("sha256", 32),
    "hmac-sha256-128": ("sha256", 16),
    "hmac-sha384": ("sha384", 48),
    "hmac-sha384-192": ("sha384", 24),
    "hmac-sha512": ("sha512", 64),
    "hmac-sha512-256": ("sha512", 32),
}


@dataclass(frozen=True, slots=True)
class TsigRecord:
    """The fields of a TSIG record as it stood on the wire (RFC 8945 §4.2).

    ``key_name`` is lower case with a trailing dot, ``algorithm`` lower case without one;
    ``time_signed`` is unix seconds (48 bits), ``fudge`` seconds.
    """

    key_name: str
    algorithm: str
    time_signed: int
    fudge: int
    mac: bytes
    original_id: int
    error: int
    other: bytes


@dataclass(frozen=True, slots=True)
class Verified:
    """The MAC is right, the time is within the fudge, and the policy accepts its length.

    ``message`` is the message without its TSIG record. A *response* may still carry an error in
    ``record.error``: BADTIME, with the server's clock in :attr:`server_time`.
    """

    key: TsigKey
    record: TsigRecord
    message: bytes

    @property
    def mac(self) -> bytes:
        """The MAC as it was received (truncated if it came so): the response must digest it."""
        return self.record.mac

    @property
    def server_time(self) -> int | None:
        """The server's clock in unix seconds, as a BADTIME response says it (RFC 8945 §5.2.3)."""
        return int.from_bytes(self.record.other) if len(self.record.other) == 6 else None


@dataclass(frozen=True, slots=True)
class NoTsig:
    """The message is well-formed so far and carries no TSIG record."""


@dataclass(frozen=True, slots=True)
class TsigFailure:
    """Why the message is not accepted.

    ``rcode`` is FORMERR or NOTAUTH, ``error`` the TSIG error (0 with FORMERR). ``key`` is set
    where the MAC was valid, so that :func:`attach_error` can sign the answer (BADTIME, BADTRUNC).
    ``from_peer``: this is a response in which the *server* reports ``error`` about our request;
    it is unsigned and proves nothing (RFC 8945 §5.4).
    """

    rcode: int
    error: int
    reason: str
    record: TsigRecord | None = None
    key: TsigKey | None = None
    from_peer: bool = False


Verdict: TypeAlias = Verified | NoTsig | TsigFailure

KeyFinder: TypeAlias = Callable[[str, str], TsigKey | None]
"""(key name: lower case, trailing dot; algorithm: lower case, no trailing dot) -> key."""


class TsigFormatError(Exception):
    """The message or its TSIG record cannot be read, or the record stands in a wrong place."""


def canonical_algorithm(name: str) -> str:
    """Return the algorithm's wire name, lower case without the trailing dot."""
    lowered = name.lower().rstrip(".")
    return HMAC_MD5 if lowered == "hmac-md5" else lowered


def canonical_name(name: str) -> str:
    """Return a key name as :data:`KeyFinder` gets it: lower case, with one trailing dot."""
    return name.lower().rstrip(".") + "."


# --- Signing --------------------------------------------------------------------------------


def sign(
    wire: bytes,
    key: TsigKey,
    unix: int,
    *,
    request_mac: bytes = b"",
    fudge: int = DEFAULT_FUDGE,
    original_id: int | None = None,
    error: int = 0,
    other: bytes = b"",
) -> tuple[bytes, bytes]:
    """Append a TSIG record to ``wire``; return the signed message and its MAC.

    ``request_mac``: the MAC of the request that this response answers (RFC 8945 §5.3.1), empty
    for a request. ``original_id``: the ID that is digested, by default the message's own.
    ``unix`` becomes Time Signed. Raises ValueError for an unknown algorithm.
    """
    identity = int.from_bytes(wire[:2]) if original_id is None else original_id
    algorithm = canonical_algorithm(key.algorithm)
    record = TsigRecord(
        canonical_name(key.name), algorithm, unix, fudge, b"", identity, error, other
    )
    mac = _mac(wire, key, record, request_mac)
    return append(wire, record, mac), mac


def attach_error(wire: bytes, failure: TsigFailure, unix: int) -> bytes:
    """Append to the response ``wire`` the TSIG record that reports ``failure`` (RFC 8945 §5.2).

    BADKEY and BADSIG are reported with an empty MAC, BADTIME and BADTRUNC are signed, BADTIME
    with the client's own time and ours in Other Data. FORMERR has no TSIG record.
    """
    seen = failure.record
    if seen is None or not failure.error:
        return wire
    if failure.key is None:
        return append(
            wire,
            TsigRecord(
                seen.key_name,
                seen.algorithm,
                seen.time_signed,
                seen.fudge,
                b"",
                seen.original_id,
                failure.error,
                b"",
            ),
            b"",
        )
    bad_time = failure.error == BADTIME
    signed, _ = sign(
        wire,
        failure.key,
        seen.time_signed if bad_time else unix,
        request_mac=seen.mac,
        fudge=seen.fudge,
        error=failure.error,
        other=unix.to_bytes(6) if bad_time else b"",
    )
    return signed


def overhead(key: TsigKey, other: int = 0) -> int:
    """Return how many octets :func:`sign` adds with this key and ``other`` octets of Other Data."""
    algorithm = canonical_algorithm(key.algorithm)
    names = len(_wire_name(key.name)) + len(_wire_name(algorithm))
    return names + 10 + 16 + _mac_size(algorithm) + other


def digest(key: TsigKey, octets: bytes) -> bytes:
    """Return the MAC of ``octets`` under a key, cut as its algorithm wants it."""
    hash_name, size = _algorithm(canonical_algorithm(key.algorithm))
    return hmac.digest(key.secret, octets, hash_name)[:size]


def append(wire: bytes, record: TsigRecord, mac: bytes) -> bytes:
    """Append a TSIG record with this MAC to a message."""
    rdata = (
        _wire_name(record.algorithm)
        + _time(record.time_signed, record.fudge)
        + struct.pack("!H", len(mac))
        + mac
        + struct.pack("!HHH", record.original_id, record.error, len(record.other))
        + record.other
    )
    head = _wire_name(record.key_name) + struct.pack("!HHIH", TSIG_TYPE, CLASS_ANY, 0, len(rdata))
    count = int.from_bytes(wire[10:12]) + 1
    return wire[:10] + count.to_bytes(2) + wire[12:] + head + rdata


def _mac(wire: bytes, key: TsigKey, record: TsigRecord, request_mac: bytes) -> bytes:
    """RFC 8945 §4.3: request MAC || message as it was before TSIG || TSIG variables."""
    digest, size = _algorithm(record.algorithm)
    context = hmac.new(key.secret, digestmod=digest)
    if request_mac:
        context.update(len(request_mac).to_bytes(2) + request_mac)
    context.update(record.original_id.to_bytes(2) + wire[2:])
    context.update(_wire_name(record.key_name) + struct.pack("!HI", CLASS_ANY, 0))
    context.update(_wire_name(record.algorithm) + _time(record.time_signed, record.fudge))
    context.update(struct.pack("!HH", record.error, len(record.other)) + record.other)
    return context.digest()[:size]


def _algorithm(name: str) -> tuple[str, int]:
    try:
        return _ALGORITHMS[name]
    except KeyError:
        raise ValueError(f"TSIG algorithm {name} is not known") from None


def _mac_size(name: str) -> int:
    return _algorithm(name)[1]


def _time(time_signed: int, fudge: int) -> bytes:
    return time_signed.to_bytes(6) + fudge.to_bytes(2)


@lru_cache(maxsize=256)  # a server meets few key names, and each several times per message
@lru_cache(maxsize=128)
def _wire_name(text: str) -> bytes:
    """Return the canonical form: lower case, uncompressed (RFC 8945 §4.3.3)."""
    return dns.name.from_text(text).to_digestable()


# --- Verifying ------------------------------------------------------------------------------


def verify(
    wire: bytes,
    keys: KeyFinder,
    unix: int,
    *,
    request_mac: bytes = b"",
    minimum_mac: int = MINIMUM_MAC,
) -> Verdict:
    """Judge a message at the wall clock ``unix``; ``request_mac`` is given for a response.

    The checks come in the order of RFC 8945 §5.2: form, key, MAC, time, truncation policy.
    """
    try:
        located = locate(wire)
    except (TsigFormatError, dns.exception.DNSException) as error:
        return TsigFailure(FORMERR, 0, f"the message or its TSIG record is malformed: {error}")
    if located is None:
        return NoTsig()
    record, start = located
    message = without_tsig(wire, start)
    if request_mac and not record.mac:
        return TsigFailure(
            NOTAUTH,
            record.error or BADSIG,
            "the server refused the signature of the request",
            record,
            from_peer=record.error != 0,
        )
    return _judge(message, record, keys, unix, request_mac, minimum_mac)


def without_tsig(wire: bytes, start: int) -> bytes:
    """Return a message as it was before its TSIG record, which begins at ``start``, was added."""
    return wire[:10] + (int.from_bytes(wire[10:12]) - 1).to_bytes(2) + wire[12:start]


def _judge(
    message: bytes,
    record: TsigRecord,
    keys: KeyFinder,
    unix: int,
    request_mac: bytes,
    minimum_mac: int,
) -> Verdict:
    key = keys(record.key_name, record.algorithm) if record.algorithm in _ALGORITHMS else None
    if key is None or canonical_algorithm(key.algorithm) != record.algorithm:
        return TsigFailure(NOTAUTH, BADKEY, "the key or its algorithm is unknown", record)
    full = _mac_size(record.algorithm)
    half_hash = hmac.new(b"", digestmod=_algorithm(record.algorithm)[0]).digest_size // 2
    if not max(10, half_hash) <= len(record.mac) <= full:
        # §5.2.2.1; an empty MAC in a request is a wrong one, answered so by every other server
        if not record.mac:
            return TsigFailure(NOTAUTH, BADSIG, "the MAC is missing", record)
        return TsigFailure(FORMERR, 0, "the MAC has an unlawful length", record)
    expected = _mac(message, key, record, request_mac)[: len(record.mac)]
    if not hmac.compare_digest(expected, record.mac):
        return TsigFailure(NOTAUTH, BADSIG, "the MAC is wrong", record)
    if abs(unix - record.time_signed) > record.fudge:
        reason = f"it was signed {abs(unix - record.time_signed)} s away from this clock"
        return TsigFailure(NOTAUTH, BADTIME, reason, record, key)
    if len(record.mac) < min(minimum_mac, full):
        return TsigFailure(NOTAUTH, BADTRUNC, "the MAC is cut too short", record, key)
    return Verified(key, record, message)


def locate(wire: bytes) -> tuple[TsigRecord, int] | None:
    """Find the TSIG record and the offset at which it starts. It must be the last record.

    Raises :exc:`TsigFormatError` or a DNSException of dnspython.
    """
    parser = dns.wire.Parser(wire)
    _, _, questions, *counts = parser.get_struct("!HHHHHH")
    for _ in range(questions):
        _skip_name(parser)
        parser.get_bytes(4)
    total = sum(counts)
    found: tuple[TsigRecord, int] | None = None
    for index in range(total):
        start = parser.current
        _skip_name(parser)
        rdtype, rdclass, ttl, length = parser.get_struct("!HHIH")
        if rdtype != TSIG_TYPE:
            parser.get_bytes(length)
            continue
        if index != total - 1 or not counts[2]:
            raise TsigFormatError("TSIG is not the last additional record")
        if rdclass != CLASS_ANY or ttl:
            raise TsigFormatError("TSIG has a wrong class or TTL")
        owner = dns.name.from_wire_parser(dns.wire.Parser(wire, start))
        with parser.restrict_to(length):
            found = _read_record(owner, parser), start
    if parser.remaining():
        raise TsigFormatError("octets after the last record")
    return found


def _skip_name(parser: dns.wire.Parser) -> None:
    """Step over a name without following it: thousands of pointers to one long name would cost a
    stranger one message and us a second of work before any MAC is checked."""
    while size := parser.get_uint8():
        if size >= 0xC0:
            parser.get_uint8()
            return
        if size > 63:
            raise TsigFormatError("a label has an unknown type")
        parser.get_bytes(size)


def _read_record(owner: dns.name.Name, parser: dns.wire.Parser) -> TsigRecord:
    algorithm = dns.name.from_wire_parser(parser)
    high, low, fudge, mac_size = parser.get_struct("!HIHH")
    mac = parser.get_bytes(mac_size)
    original_id, error, other_size = parser.get_struct("!HHH")
    other = parser.get_bytes(other_size)
    return TsigRecord(
        owner.canonicalize().to_text(),
        algorithm.canonicalize().to_text(omit_final_dot=True),
        high << 32 | low,
        fudge,
        mac,
        original_id,
        error,
        other,
    )
