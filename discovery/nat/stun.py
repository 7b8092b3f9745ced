"""STUN's Binding (RFC 8489): which endpoint does the outside see this socket use?

The request goes out of the tunnel's own socket, so that the answer is about the endpoint that
peers must use. On that port STUN is told from ESP and IKE by its magic cookie (§5 there).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address

from discovery.nat.types import Endpoint, SendNat

PORT = 3478
COOKIE = 0x2112A442
REQUEST, SUCCESS, ERROR = 0x0001, 0x0101, 0x0111
FIRST_WAIT = 0.5  # seconds: RTO, doubling (§6.2.1)
REQUESTS = 7
LAST_WAIT = 16 * FIRST_WAIT

_HEADER = struct.Struct("!HHI12s")
_MAPPED, _XOR_MAPPED = 0x0001, 0x0020
_CHANGE_REQUEST = 0x0003  # RFC 5780 §7.2
_CHANGE_IP, _CHANGE_PORT = 0x4, 0x2
_RESPONSE_DELAY = 0xC628
"""Of ours, in the range for that (§18.3): the answer shall come so many seconds later (u32).
Servers that do not know it answer at once."""
LONGEST_DELAY = 600  # seconds
_ERROR_CODE, _UNKNOWN = 0x0009, 0x000A
_FINGERPRINT, _FINGERPRINT_XOR = 0x8028, 0x5354554E
_INTEGRITY, _INTEGRITY_SHA256 = 0x0008, 0x001C
_KNOWN = {
    *(_MAPPED, _XOR_MAPPED, _CHANGE_REQUEST, _ERROR_CODE, _UNKNOWN),
    *(_INTEGRITY, _INTEGRITY_SHA256),
}


@dataclass(frozen=True, slots=True)
class Message:
    """A STUN message: its type, its transaction and its attributes in order."""

    kind: int
    transaction: bytes
    attributes: tuple[tuple[int, bytes], ...] = ()

    def pack(self, *, fingerprint: bool = False) -> bytes:
        """Wire format, with a FINGERPRINT at its end if wanted."""
        body = b"".join(_attribute(*one) for one in self.attributes)
        length = len(body) + (8 if fingerprint else 0)
        wire = _HEADER.pack(self.kind, length, COOKIE, self.transaction) + body
        if fingerprint:
            wire += _attribute(_FINGERPRINT, _crc(wire))
        return wire


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("!HH", kind, len(value)) + value + bytes(-len(value) % 4)


def _crc(octets: bytes) -> bytes:
    return (zlib.crc32(octets) ^ _FINGERPRINT_XOR).to_bytes(4, "big")


def is_stun(data: bytes) -> bool:
    """Whether a datagram at a port shared with ESP and IKE is STUN."""
    return len(data) >= 20 and data[0] < 4 and data[4:8] == COOKIE.to_bytes(4, "big")


def read(data: bytes) -> Message | None:
    """A message, or ``None`` for what is not well-formed STUN (§6.3)."""
    if not is_stun(data):
        return None
    kind, length, _, transaction = _HEADER.unpack_from(data)
    if length % 4 or len(data) != 20 + length:
        return None
    attributes: list[tuple[int, bytes]] = []
    at = 20
    while at < len(data):
        name, size = struct.unpack_from("!HH", data, at)
        end = at + 4 + size
        if end > len(data):
            return None
        if name == _FINGERPRINT and data[at + 4 : end] != _crc(data[:at]):
            return None
        attributes.append((name, data[at + 4 : end]))
        at = end + -size % 4
    return Message(kind, transaction, tuple(attributes))


def mapped_address(message: Message) -> Endpoint | None:
    """What the server saw: XOR-MAPPED-ADDRESS, else the old MAPPED-ADDRESS (§14.1, §14.2)."""
    found = dict(reversed(message.attributes))
    for name, key in (
        (_XOR_MAPPED, COOKIE.to_bytes(4, "big") + message.transaction),
        (_MAPPED, bytes(16)),
    ):
        value = found.get(name, b"")
        size = {1: 4, 2: 16}.get(value[1], 0) if len(value) >= 2 else 0
        if size and len(value) == 4 + size:
            octets = bytes(a ^ b for a, b in zip(value[4:], key, strict=False))
            port = int.from_bytes(value[2:4], "big") ^ int.from_bytes(key[:2], "big")
            return (str(ip_address(octets)), port)
    return None


def answer(data: bytes, source: Endpoint, *, changes_port: bool = False) -> bytes | None:
    """A server's answer to a datagram from ``source``; ``None``: it is no Binding request.

    ``changes_port``: the server can answer from another port where :func:`wants_other_port`; a
    server that cannot change what it is asked to change says so (RFC 5780 §6.1).
    """
    request = read(data)
    if request is None or request.kind != REQUEST:
        return None
    strange = [name for name, _ in request.attributes if name < 0x8000 and name not in _KNOWN]
    flags = _change_flags(request)
    if flags & _CHANGE_IP or (flags & _CHANGE_PORT and not changes_port):
        strange.append(_CHANGE_REQUEST)
    if strange:
        names = b"".join(name.to_bytes(2, "big") for name in strange[:16])
        error = (_ERROR_CODE, b"\0\0\x04\x14" + b"Unknown Attribute")
        refusal = Message(ERROR, request.transaction, (error, (_UNKNOWN, names)))
        return refusal.pack(fingerprint=True)
    key = COOKIE.to_bytes(4, "big") + request.transaction
    packed = ip_address(source[0]).packed
    value = struct.pack("!BBH", 0, 1 if len(packed) == 4 else 2, source[1] ^ (COOKIE >> 16))
    value += bytes(a ^ b for a, b in zip(packed, key, strict=False))
    return Message(SUCCESS, request.transaction, ((_XOR_MAPPED, value),)).pack(fingerprint=True)


def delayed(transaction: bytes, seconds: int) -> bytes:
    """A Binding request whose answer shall come ``seconds`` later."""
    delay = (_RESPONSE_DELAY, seconds.to_bytes(4))
    return Message(REQUEST, transaction, (delay,)).pack(fingerprint=True)


def delay_of(data: bytes) -> int:
    """For how many seconds the answer to a Binding request shall wait; none for absurd wishes."""
    request = read(data)
    value = b"" if request is None else dict(reversed(request.attributes)).get(_RESPONSE_DELAY, b"")
    seconds = int.from_bytes(value) if len(value) == 4 else 0
    return seconds if seconds <= LONGEST_DELAY else 0


def wants_other_port(data: bytes) -> bool:
    """Whether a Binding request is to be answered from the server's other port."""
    request = read(data)
    return request is not None and bool(_change_flags(request) & _CHANGE_PORT)


def _change_flags(request: Message) -> int:
    value = dict(reversed(request.attributes)).get(_CHANGE_REQUEST, b"")
    return int.from_bytes(value) if len(value) == 4 else 0


def ask(transaction: bytes, *, change_port: bool = False) -> bytes:
    """A Binding request with these 12 octets; ``change_port``: to be answered from another port."""
    flags = ((_CHANGE_REQUEST, _CHANGE_PORT.to_bytes(4)),) if change_port else ()
    return Message(REQUEST, transaction, flags).pack(fingerprint=True)


@dataclass(frozen=True, slots=True)
class Seen:
    """``server`` sees our socket as ``endpoint``; ``rtt`` in seconds."""

    server: Endpoint
    endpoint: Endpoint
    rtt: float


@dataclass(frozen=True, slots=True)
class NotSeen:
    """``server`` did not say; ``reason`` why."""

    server: Endpoint
    reason: str


class Binding:
    """One question to one server."""

    def __init__(self, server: Endpoint, random: Callable[[int], bytes]) -> None:
        self.server = server
        self._wire = ask(random(12))
        self._sent, self._began = 0, 0.0
        self._due: float | None = None

    def next_timer(self) -> float | None:
        """When :meth:`advance` has something to do."""
        return self._due

    def start(self, now: float) -> list[SendNat | Seen | NotSeen]:
        """Ask."""
        self._sent, self._began, self._due = 0, now, now
        return self.advance(now)

    def advance(self, now: float) -> list[SendNat | Seen | NotSeen]:
        """At 0, 500, 1500, … 31500 ms; the end is at 39500 ms (§6.2.1)."""
        if self._due is None or now < self._due:
            return []
        if self._sent == REQUESTS:
            self._due = None
            return [NotSeen(self.server, "it does not answer STUN; UDP may be blocked")]
        wait = FIRST_WAIT * 2**self._sent if self._sent < REQUESTS - 1 else LAST_WAIT
        self._sent, self._due = self._sent + 1, now + wait
        return [SendNat(self._wire, self.server)]

    def receive(self, data: bytes, source: Endpoint, now: float) -> list[SendNat | Seen | NotSeen]:
        """A STUN message; it counts if server and transaction are those of the question."""
        message = read(data) if source == self.server and self._due is not None else None
        if message is None or message.transaction != self._wire[8:20]:
            return []
        if message.kind not in (SUCCESS, ERROR):
            return []
        self._due = None
        strange = any(name < 0x8000 and name not in _KNOWN for name, _ in message.attributes)
        endpoint = mapped_address(message) if message.kind == SUCCESS and not strange else None
        if endpoint is None:
            return [NotSeen(self.server, "it answered STUN without an address")]
        return [Seen(self.server, endpoint, now - self._began)]
