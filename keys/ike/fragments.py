"""IKEv2 fragmentation, both ways (RFC 7383).

A protected message that would not fit into one IP datagram is cut before it is sealed; each
fragment is sealed by itself, so that a stranger cannot make us keep anything::

    HDR SK{ SA | KE | … }  =  HDR SKF(1/3){ SA | K}  HDR SKF(2/3){E |  }  HDR SKF(3/3){… }

The receiver joins the pieces of one message in each direction at a time (the window is one),
bounded in number, octets and time. A message cut anew into more pieces starts over (§2.6).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from keys.ike.cipher import (
    FRAGMENT_OVERHEAD,
    OVERHEAD,
    MessageCipher,
    Opened,
    Place,
)
from keys.ike.errors import InvalidSyntaxError
from keys.ike.header import HEADER_OCTETS, Header
from keys.ike.payloads import PayloadType
from keys.ike.settings import IkeSettings
from keys.ike.types import Endpoint

_UDP_OCTETS = 8
_MARKER_OCTETS = 4  # RFC 3948 §2.2
_IPV4_OCTETS, _IPV6_OCTETS = 20, 40


def room(settings: IkeSettings, remote: Endpoint) -> int:
    """Octets that an IKE message towards ``remote`` may have without being cut (§2.5.1)."""
    if ":" in remote[0]:
        datagram, header = settings.fragment_ipv6, _IPV6_OCTETS
    else:
        datagram, header = settings.fragment_ipv4, _IPV4_OCTETS
    return datagram - header - _UDP_OCTETS - _MARKER_OCTETS


def seal(
    cipher: MessageCipher, header: Header, first: int, chain: bytes, limit: int | None
) -> tuple[bytes, ...]:
    """The datagrams of one message: a single one if it fits into ``limit`` octets, or if the
    peer does not join fragments (``None``)."""
    if limit is None or HEADER_OCTETS + OVERHEAD + len(chain) <= limit:
        return (cipher.seal_chain(header, first, chain),)
    size = limit - HEADER_OCTETS - FRAGMENT_OVERHEAD
    pieces = [chain[at : at + size] for at in range(0, len(chain), size)]
    return tuple(
        cipher.seal_fragment(
            header,
            first if number == 1 else PayloadType.NONE,
            piece,
            Place(number, len(pieces)),
        )
        for number, piece in enumerate(pieces, 1)
    )


@dataclass(slots=True)
class _Pieces:
    """What has come of one message."""

    message_id: int
    total: int
    until: float
    octets: int = 0
    parts: dict[int, Opened] = field(default_factory=dict)
    head: bytes = b""  # fragment 1 as it came: by it a repeat is known


@dataclass(frozen=True, slots=True)
class Joined:
    """A whole message, and the datagram by which a repeat of it is known (§2.6.1)."""

    opened: Opened
    head: bytes


class Assembly:
    """Joins the fragments of one direction of one IKE SA; memory is bounded by ``octets``."""

    def __init__(self, settings: IkeSettings) -> None:
        self._settings = settings
        self._pieces: _Pieces | None = None

    @property
    def until(self) -> float | None:
        """When what has come so far is forgotten."""
        return None if self._pieces is None else self._pieces.until

    def forget(self, now: float | None = None) -> None:
        """Forgets what has come: at once, or if its time is over by ``now``."""
        if now is None or (self._pieces is not None and now >= self._pieces.until):
            self._pieces = None

    def wants(self, message_id: int, place: Place, now: float) -> bool:
        """Whether this fragment is worth verifying (the first two tests of §2.6)."""
        if place.total > self._settings.fragments_limit:
            return False
        self.forget(now)
        pieces = self._pieces
        if pieces is None or pieces.message_id != message_id or place.total > pieces.total:
            return True
        return place.total == pieces.total and place.number not in pieces.parts

    def add(
        self,
        message_id: int,
        place: Place,
        opened: Opened,
        data: bytes,
        *,
        octets: int,
        now: float,
    ) -> Joined | None:
        """Takes a verified fragment that is wanted; the message, once it is whole.

        ``octets`` bounds the message; one that grows beyond is forgotten. Raises
        InvalidSyntaxError for a fragment whose padding is wrong.
        """
        chain = opened.chain
        pieces = self._pieces
        if pieces is None or pieces.message_id != message_id or place.total > pieces.total:
            until = now + self._settings.reassembly_timeout
            pieces = self._pieces = _Pieces(message_id, place.total, until)
        pieces.parts[place.number] = Opened(opened.first, opened.flags, chain)
        pieces.octets += len(chain)
        if place.number == 1:
            pieces.head = data
        if pieces.octets > octets:
            self._pieces = None
            raise InvalidSyntaxError("a message in fragments is longer than any that we take")
        if len(pieces.parts) < pieces.total:
            return None
        self._pieces = None
        parts = [pieces.parts[number] for number in range(1, pieces.total + 1)]
        plain = b"".join(part.plain for part in parts) + b"\0"
        return Joined(Opened(parts[0].first, parts[0].flags, plain), pieces.head)
