"""ESP as a function of bytes (RFC 4303): one SA seals, one SA opens.

Wire form: ``SPI u32 | sequence u32 | IV 8 | AEAD(payload | 1, 2, 3, … | pad length | next
header) | ICV 16``. The associated data is SPI | sequence, with all 64 bits of the sequence
number when ESN is on (RFC 4106 §5, RFC 7634 §2.1). The IV is the 64-bit sequence counter:
unique as long as the key lives, since a counter never wraps and a new SA has a new key.
"""

from __future__ import annotations

import struct

from fastpath.reference.aead import Aead
from fastpath.reference.replay import ReplayWindow
from fastpath.types import (
    ESP_HEADER_OCTETS,
    IV_OCTETS,
    TAG_OCTETS,
    Drop,
    Opened,
    SaParams,
    SequenceExhausted,
)

NEXT_HEADER_IPV6 = 41
NEXT_HEADER_DUMMY = 59  # RFC 4303 §2.6
MIN_SPI = 256  # 0 means IKE (RFC 3948), 1..255 are reserved (RFC 4303 §2.1)
TRAILER_OCTETS = 2
MIN_PACKET_OCTETS = ESP_HEADER_OCTETS + IV_OCTETS + TRAILER_OCTETS + TAG_OCTETS
_PADDING = bytes(range(1, 256))


class OutboundSa:
    """Seals. ``sequence`` is the number of the last packet, 0 before the first.

    Raises :class:`ValueError` when ``params`` are not those of an SA.
    """

    def __init__(self, params: SaParams, sequence: int = 0) -> None:
        check_params(params)
        self.params = params
        self.sequence = sequence
        self._last = 2**64 - 1 if params.esn else 2**32 - 1
        self._aead = Aead(params.suite, params.key)

    def seal(self, payload: bytes, next_header: int = NEXT_HEADER_IPV6) -> bytes:
        """Returns a whole ESP packet around ``payload``.

        Raises :class:`SequenceExhausted` rather than to use a number twice (RFC 4303 §3.3.3).
        """
        if self.sequence >= self._last:
            raise SequenceExhausted(f"SA {self.params.spi:08x} has sent its last packet")
        self.sequence += 1
        pad = -(len(payload) + TRAILER_OCTETS) % 4
        plaintext = payload + _PADDING[:pad] + bytes((pad, next_header))
        header = struct.pack(">II", self.params.spi, self.sequence & 0xFFFF_FFFF)
        iv = struct.pack(">Q", self.sequence)
        associated = _associated(self.params, self.sequence)
        return header + iv + self._aead.seal(iv, plaintext, associated)


class InboundSa:
    """Opens. Raises :class:`ValueError` when ``params`` are not those of an SA."""

    def __init__(self, params: SaParams) -> None:
        check_params(params)
        self.params = params
        self.window = ReplayWindow(params.replay_window, params.esn)
        self._aead = Aead(params.suite, params.key)

    @property
    def sequence(self) -> int:
        """The highest authenticated sequence number so far, 0 before the first packet."""
        return self.window.top

    def open(self, packet: bytes) -> Opened | Drop:
        """As :meth:`open_all`; a dummy packet is :attr:`Drop.DUMMY`, whatever it carries."""
        opened = self.open_all(packet)
        if isinstance(opened, Opened) and opened.next_header == NEXT_HEADER_DUMMY:
            return Drop.DUMMY
        return opened

    def open_all(self, packet: bytes) -> Opened | Drop:
        """Verifies one ESP packet: window check, ICV, window mark, padding, in this order.

        Never raises, whatever ``packet`` holds. A dummy packet is opened like any other.
        Inner addresses are not looked at; see ``inner.unwrap``.
        """
        if len(packet) < MIN_PACKET_OCTETS:
            return Drop.MALFORMED
        spi, low = struct.unpack_from(">II", packet)
        if spi != self.params.spi:
            return Drop.UNKNOWN_SPI
        sequence = self.window.infer(low)
        if sequence is None or not self.window.check(sequence):
            return Drop.REPLAY
        start = ESP_HEADER_OCTETS + IV_OCTETS
        plaintext = self._aead.open(
            packet[ESP_HEADER_OCTETS:start], packet[start:], _associated(self.params, sequence)
        )
        if plaintext is None:
            return Drop.AUTHENTICATION
        self.window.mark(sequence)
        return _strip_trailer(plaintext, sequence)


def check_params(params: SaParams) -> None:
    """Raises :class:`ValueError` for what the type of a field does not rule out.

    The key's length is :class:`Aead`'s to check, the window's :class:`ReplayWindow`'s.
    """
    if not MIN_SPI <= params.spi <= 0xFFFF_FFFF:
        raise ValueError(f"SPI {params.spi} is not within {MIN_SPI}..2^32-1 (RFC 4303 §2.1)")
    if len(params.local_id) != 16 or len(params.peer_id) != 16:
        raise ValueError("a host id is 16 octets")


def _associated(params: SaParams, sequence: int) -> bytes:
    if params.esn:
        return struct.pack(">IQ", params.spi, sequence)
    return struct.pack(">II", params.spi, sequence)


def _strip_trailer(plaintext: bytes, sequence: int) -> Opened | Drop:
    pad, next_header = plaintext[-2], plaintext[-1]
    end = len(plaintext) - TRAILER_OCTETS - pad
    if end < 0 or plaintext[end:-TRAILER_OCTETS] != _PADDING[:pad]:
        return Drop.PADDING
    return Opened(plaintext[:end], next_header, sequence)
