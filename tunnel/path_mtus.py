"""Path MTUs of all peers: probes and answers on the wire, and what applications are told.

A probe is an ESP dummy packet (next header 59, RFC 4303 §2.6), as large as a data packet of the
size in question, and never fragmented. What it carries begins with 16 octets:

    magic 8 | kind u8 | 0 | octets u16 | number u32      (network byte order)

A host of ours answers a probe with a dummy packet of just these octets: ``number`` is the
probe's, ``octets`` what arrived. A foreign peer discards both silently, as it must; so its path's
MTU stays unknown, and its packets may be fragmented on their way. A lost probe holds up nothing:
it belongs to no IKE exchange. Being sealed, it can be neither forged nor replayed.

A probe of these octets alone is a small question: is it there (:mod:`tunnel.silence`)? Answers
say how long a round trip takes, too.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from fastpath.types import Mode
from tunnel.commands import Deliver, SendDummy
from tunnel.core import Core
from tunnel.icmpv6 import packet_too_big
from tunnel.journal import What
from tunnel.peers import Peer
from tunnel.pending import Bucket

MAGIC = b"AT-PMTU\x01"
PROBE, ANSWER = 1, 2
_HEAD = struct.Struct(">8sBxHI")
_HEADER_LEFT_OUT = 40  # of the inner packet, in transport mode
_KEPT = 0.75  # of what a round trip took before, at least


def question(peer: Peer) -> list[SendDummy]:
    """Asks ``peer`` for a sign of life, where it is."""
    if peer.current is None or peer.endpoint is None:
        return []
    body = _HEAD.pack(MAGIC, PROBE, _HEAD.size, 0)
    return [SendDummy(peer.current.spi_out, peer.endpoint, body)]


class PathMtus:
    """The machines of all peers that have a tunnel, and their way to the network. ``asked`` and
    ``answered`` are told of each probe and each answer."""

    def __init__(
        self,
        core: Core,
        asked: Callable[[Peer], None] = lambda _: None,
        answered: Callable[[Peer], None] = lambda _: None,
    ) -> None:
        self._core, self._asked, self._answered = core, asked, answered
        self._errors = Bucket(core.settings.too_bigs_per_second)

    # --- What comes -------------------------------------------------------------------------

    def dummy(self, spi: int, octets: int, head: bytes) -> None:
        """An authenticated dummy packet of inbound ``spi`` carried ``octets``, ``head`` first."""
        peer = self._core.peers.by_inbound(spi)
        if peer is None or len(head) < _HEAD.size:
            return
        magic, kind, said, number = _HEAD.unpack_from(head)
        if magic != MAGIC:
            return  # the padding of somebody who hides his traffic (RFC 4303 §2.7)
        if kind == PROBE and said == octets:
            self._answer(peer, octets, number)
            self._asked(peer)
        elif kind == ANSWER and peer.pmtu is not None:
            took = peer.pmtu.answered(number, self._core.now)
            if took is not None:
                peer.trip = max(took, _KEPT * (peer.trip or 0.0))
            self._answered(peer)
            self._go_on(peer)

    def _answer(self, peer: Peer, octets: int, number: int) -> None:
        if peer.current is None or peer.endpoint is None:
            return
        body = _HEAD.pack(MAGIC, ANSWER, octets, number)
        self._core.emit(SendDummy(peer.current.spi_out, peer.endpoint, body))
        if peer.pmtu is not None:
            peer.pmtu.spoke(self._core.now)

    def too_big(self, quote: bytes, largest: int) -> None:
        """The engine refused an inner packet for its size: its sender is told."""
        error = packet_too_big(quote, largest)
        if error is not None and self._errors.allows(self._core.now):
            self._core.emit(Deliver(error))

    # --- What becomes of peers --------------------------------------------------------------

    def restart(self) -> None:
        """We are in another network: every path is another one."""
        for peer in self._core.peers:
            if peer.pmtu is not None:
                peer.pmtu.restart(self._core.now, nested=peer.is_relayed)
                self._core.set_flow(peer)

    def activity(self) -> None:
        """The peers' ``last_in`` and ``last_out`` are new."""
        for peer in self._core.peers:
            if peer.pmtu is not None:
                peer.pmtu.activity(peer.last_in, peer.last_out)

    # --- Time -------------------------------------------------------------------------------

    def advance(self) -> None:
        """Sends the probes that are due, and gives up those that were not answered."""
        now = self._core.now
        for peer in self._core.peers:
            due = None if peer.pmtu is None else peer.pmtu.due
            if due is not None and due <= now:
                self._go_on(peer)

    def timers(self) -> list[float]:
        """When something is due."""
        machines = [peer.pmtu for peer in self._core.peers if peer.pmtu is not None]
        return [machine.due for machine in machines if machine.due is not None]

    def _go_on(self, peer: Peer) -> None:
        if peer.pmtu is None or peer.current is None or peer.endpoint is None:
            return
        before = peer.pmtu.mtu, peer.pmtu.largest
        left_out = _HEADER_LEFT_OUT if peer.current.mode == Mode.TRANSPORT else 0
        for probe in peer.pmtu.advance(self._core.now):
            octets = probe.octets - left_out
            body = _HEAD.pack(MAGIC, PROBE, octets, probe.number).ljust(octets, b"\0")
            self._core.emit(SendDummy(peer.current.spi_out, peer.endpoint, body, whole=True))
        if before != (peer.pmtu.mtu, peer.pmtu.largest):
            self._core.explain(
                peer, What.MTU, "so large a packet fits the path", octets=peer.pmtu.mtu
            )
            self._core.set_flow(peer)
