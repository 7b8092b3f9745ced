"""Payload chains and their contents (RFC 7296 §3.2 to §3.12).

::

    next payload 1 | critical bit, 7 reserved | length 2 (with these four octets) | body

``decode_chain`` walks the chain; ``Contents`` is what an exchange reads: each payload once,
typed. Payloads that we do not know are skipped unless they are critical.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TypeVar

from keys.ike.errors import InvalidSyntaxError, UnsupportedCriticalError
from keys.ike.notify import Notify, decode_notify
from keys.ike.proposals import Proposal, decode_sa, encode_sa
from keys.ike.selectors import Selector, decode_selectors, encode_selectors

_T = TypeVar("_T")

GENERIC = struct.Struct(">BBH")
MAX_PAYLOADS = 128
_CRITICAL = 0x80
_KE = struct.Struct(">H2x")
_DELETE = struct.Struct(">BBH")
_TYPED = struct.Struct(">B3x")  # ID and AUTH: one octet says the kind, three are reserved

ID_FQDN = 2
AUTH_SHARED_KEY = 2
AUTH_SIGNATURE = 14  # RFC 7427
CERT_X509 = 4  # "X.509 Certificate - Signature"; other encodings are passed over
NONCE_OCTETS = range(16, 257)


class PayloadType(IntEnum):
    """Payload types (RFC 7296 §3.2) that we know; a critical one of another type is refused."""

    NONE = 0
    SA = 33
    KE = 34
    IDI = 35
    IDR = 36
    CERT = 37
    CERTREQ = 38
    AUTH = 39
    NONCE = 40
    NOTIFY = 41
    DELETE = 42
    VENDOR = 43
    TSI = 44
    TSR = 45
    SK = 46
    CP = 47
    EAP = 48
    SKF = 53


@dataclass(frozen=True, slots=True)
class Payload:
    """One payload as it stands in a message."""

    kind: int
    body: bytes
    critical: bool = False


@dataclass(frozen=True, slots=True)
class KeyExchange:
    """A public key of key exchange method ``group`` (RFC 7296 §3.4)."""

    group: int
    data: bytes

    def encode(self) -> bytes:
        """The payload body."""
        return _KE.pack(self.group) + self.data


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a side says it is (RFC 7296 §3.5); ``body`` is what AUTH signs, octet for octet."""

    kind: int
    data: bytes

    @classmethod
    def fqdn(cls, name: str) -> Identity:
        """ID_FQDN of a host's name, without a trailing dot."""
        return cls(ID_FQDN, name.encode("ascii"))

    @property
    def body(self) -> bytes:
        """The payload body."""
        return _TYPED.pack(self.kind) + self.data

    @property
    def name(self) -> str | None:
        """The name in lower case if this is an ID_FQDN of printable ASCII, else None."""
        if self.kind != ID_FQDN or not 1 <= len(self.data) <= 255:
            return None
        if not all(0x21 <= octet <= 0x7E for octet in self.data):
            return None
        return self.data.decode("ascii").lower()

    def describe(self) -> str:
        """For a sentence; nothing unprintable in it."""
        return self.name or f"an identity of type {self.kind} ({self.data[:32].hex()})"


@dataclass(frozen=True, slots=True)
class Authentication:
    """The AUTH payload (RFC 7296 §3.8)."""

    method: int
    data: bytes

    def encode(self) -> bytes:
        """The payload body."""
        return _TYPED.pack(self.method) + self.data


@dataclass(frozen=True, slots=True)
class Delete:
    """SAs that the sender has closed, by its inbound SPIs (RFC 7296 §3.11); none for IKE."""

    protocol: int
    spis: tuple[bytes, ...] = ()

    def encode(self) -> bytes:
        """The payload body."""
        size = len(self.spis[0]) if self.spis else 0
        return _DELETE.pack(self.protocol, size, len(self.spis)) + b"".join(self.spis)


# --- Chains -----------------------------------------------------------------------------------


def encode_chain(payloads: Sequence[Payload]) -> tuple[int, bytes]:
    """The type of the first payload, and the chain."""
    parts: list[bytes] = []
    for index, payload in enumerate(payloads):
        following = payloads[index + 1].kind if index + 1 < len(payloads) else PayloadType.NONE
        length = GENERIC.size + len(payload.body)
        parts.append(GENERIC.pack(following, _CRITICAL if payload.critical else 0, length))
        parts.append(payload.body)
    return (payloads[0].kind if payloads else PayloadType.NONE), b"".join(parts)


def decode_chain(first: int, data: bytes) -> list[Payload]:
    """Walks a chain to its end; raises InvalidSyntaxError. SK and SKF end it (§3.14)."""
    payloads: list[Payload] = []
    kind = first
    while kind != PayloadType.NONE:
        if len(data) < GENERIC.size:
            raise InvalidSyntaxError("a payload is shorter than its header")
        following, flags, length = GENERIC.unpack_from(data)
        if not GENERIC.size <= length <= len(data):
            raise InvalidSyntaxError("a payload's length is not inside the message")
        payloads.append(Payload(kind, data[GENERIC.size : length], bool(flags & _CRITICAL)))
        if len(payloads) > MAX_PAYLOADS:
            raise InvalidSyntaxError(f"a message holds more than {MAX_PAYLOADS} payloads")
        data = data[length:]
        kind = PayloadType.NONE if kind in (PayloadType.SK, PayloadType.SKF) else following
    if data:
        raise InvalidSyntaxError("octets follow the last payload")
    return payloads


# --- Contents ---------------------------------------------------------------------------------


@dataclass(slots=True)
class Contents:
    """All payloads of one message that we understand, each at most once but for N and D."""

    sa: tuple[Proposal, ...] | None = None
    ke: KeyExchange | None = None
    idi: Identity | None = None
    idr: Identity | None = None
    certs: list[bytes] = field(default_factory=list)  # X.509 in DER, the sender's own first
    certreq: bytes | None = None  # SHA-1 of the keys of the CAs that the sender trusts
    auth: Authentication | None = None
    nonce: bytes | None = None
    tsi: tuple[Selector, ...] | None = None
    tsr: tuple[Selector, ...] | None = None
    notifies: list[Notify] = field(default_factory=list)
    deletes: list[Delete] = field(default_factory=list)

    def notify(self, kind: int) -> Notify | None:
        """The first notification of this type."""
        return next((n for n in self.notifies if n.kind == kind), None)

    def error(self) -> Notify | None:
        """The first error notification: the request has failed."""
        return next((n for n in self.notifies if n.is_error), None)

    def encode(self) -> list[Payload]:
        """The payloads in the order in which the RFC draws them (§1.2, §1.3)."""
        return [Payload(kind, body) for kind, body in self._bodies()]

    def _proof(self) -> Iterable[tuple[PayloadType, bytes]]:
        own, asked = (self.idi, self.idr) if self.idi else (self.idr, None)
        if own:
            yield (PayloadType.IDI if self.idi else PayloadType.IDR), own.body
        for cert in self.certs:
            yield PayloadType.CERT, bytes((CERT_X509,)) + cert
        if self.certreq is not None:
            yield PayloadType.CERTREQ, bytes((CERT_X509,)) + self.certreq
        if asked:
            yield PayloadType.IDR, asked.body
        if self.auth:
            yield PayloadType.AUTH, self.auth.encode()

    def _bodies(self) -> Iterable[tuple[PayloadType, bytes]]:
        yield from self._proof()
        # COOKIE must come first (§2.6), REKEY_SA stands before the SA (§1.3.3), and elsewhere
        # the order of notifications is free.
        for notify in self.notifies:
            yield PayloadType.NOTIFY, notify.encode()
        for delete in self.deletes:
            yield PayloadType.DELETE, delete.encode()
        if self.sa:
            yield PayloadType.SA, encode_sa(self.sa)
        if self.ke:
            yield PayloadType.KE, self.ke.encode()
        if self.nonce:
            yield PayloadType.NONCE, self.nonce
        if self.tsi:
            yield PayloadType.TSI, encode_selectors(self.tsi)
        if self.tsr:
            yield PayloadType.TSR, encode_selectors(self.tsr)


_PASSED_OVER = frozenset(
    {
        PayloadType.VENDOR,
        PayloadType.SK,
        PayloadType.SKF,
        PayloadType.CP,
        PayloadType.EAP,
    }
)


def decode_contents(payloads: Iterable[Payload]) -> Contents:
    """Reads the bodies.

    Raises:
        InvalidSyntaxError: a body that cannot be read, or a payload that stands twice.
        UnsupportedCriticalError: an unknown payload with its critical bit set (RFC 7296 §2.5).
    """
    contents = Contents()
    for payload in payloads:
        try:
            _decode_one(contents, payload)
        except (ValueError, struct.error) as error:
            raise InvalidSyntaxError(str(error)) from error
    return contents


def _decode_one(contents: Contents, payload: Payload) -> None:
    body = payload.body
    match payload.kind:
        case PayloadType.NOTIFY:
            contents.notifies.append(decode_notify(body))
        case PayloadType.DELETE:
            contents.deletes.append(_decode_delete(body))
        case PayloadType.SA:
            contents.sa = _once(contents.sa, decode_sa(body))
        case PayloadType.KE:
            contents.ke = _once(contents.ke, KeyExchange(*_split(_KE, body)))
        case PayloadType.NONCE:
            contents.nonce = _once(contents.nonce, _decode_nonce(body))
        case PayloadType.TSI:
            contents.tsi = _once(contents.tsi, decode_selectors(body))
        case PayloadType.TSR:
            contents.tsr = _once(contents.tsr, decode_selectors(body))
        case _:
            _decode_proof(contents, payload)


def _decode_proof(contents: Contents, payload: Payload) -> None:
    body = payload.body
    match payload.kind:
        case PayloadType.IDI:
            contents.idi = _once(contents.idi, Identity(*_split(_TYPED, body)))
        case PayloadType.IDR:
            contents.idr = _once(contents.idr, Identity(*_split(_TYPED, body)))
        case PayloadType.CERT:
            contents.certs += [body[1:]] if body[:1] == bytes((CERT_X509,)) else []
        case PayloadType.CERTREQ:
            if body[:1] == bytes((CERT_X509,)):
                contents.certreq = (contents.certreq or b"") + body[1:]
        case PayloadType.AUTH:
            contents.auth = _once(contents.auth, Authentication(*_split(_TYPED, body)))
        case _:
            if payload.critical and payload.kind not in _PASSED_OVER:
                raise UnsupportedCriticalError(payload.kind)


def _once(present: _T | None, value: _T) -> _T:
    if present is not None:
        raise InvalidSyntaxError(f"a {type(value).__name__} payload stands twice in a message")
    return value


def _split(fixed: struct.Struct, body: bytes) -> tuple[int, bytes]:
    (kind,) = fixed.unpack_from(body)
    return int(kind), body[fixed.size :]


def _decode_nonce(body: bytes) -> bytes:
    if len(body) not in NONCE_OCTETS:
        raise InvalidSyntaxError(
            f"a nonce of {len(body)} octets; 16 to 256 are allowed (RFC 7296 §3.9)"
        )
    return body


def _decode_delete(body: bytes) -> Delete:
    protocol, size, count = _DELETE.unpack_from(body)
    spis = body[_DELETE.size :]
    if len(spis) != size * count or (size == 0 and count):
        raise InvalidSyntaxError("a Delete payload's length is not that of its SPIs")
    return Delete(protocol, tuple(spis[i * size : (i + 1) * size] for i in range(count)))
