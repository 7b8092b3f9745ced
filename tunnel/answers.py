"""What the IKE endpoint and the zone client answered: which part of the node each answer is for."""

from __future__ import annotations

from collections.abc import Callable

from discovery import types as zone_types
from fastpath.types import Endpoint
from keys.ike import types as ike_types
from tunnel.calls import TICKET
from tunnel.commands import DropZone, SendIke, SendZone
from tunnel.core import Answer, Core
from tunnel.journal import What
from tunnel.parts import Parts
from tunnel.peers import Peer
from tunnel.status import endpoint_text


class Answers:
    """Passes them on. ``look_soon`` is called when a tunnel stands: its counters are wanted now."""

    def __init__(self, core: Core, parts: Parts, look_soon: Callable[[], None]) -> None:
        self._core, self._parts, self._look_soon = core, parts, look_soon

    def handle(self, answer: Answer) -> None:
        """Passes on one answer."""
        core = self._core
        match answer:
            case zone_types.SendZone(wire):
                core.emit(SendZone(wire))
            case zone_types.DropZone(reason, pause):
                core.log("warning", reason)
                core.emit(DropZone(pause))
            case ike_types.SendIke(data, remote):
                core.emit(SendIke(data, remote))
            case ike_types.IkeLog(level, text):
                core.log(level, text)
            case ike_types.AskPeer(ticket, name, claimed, remote):
                self._parts.asks.ask(ticket, name, claimed, remote)
            case ike_types.InstallInbound(child):
                self._parts.flows.install_inbound(child)
            case ike_types.InstallOutbound(child, remote):
                if (peer := self._parts.flows.install_outbound(child, remote)) is not None:
                    self._stands(peer)
            case ike_types.RemoveChild(name, spi_in, spi_out):
                self._parts.flows.remove(name, spi_in, spi_out)
            case _:
                self._news(answer)

    def _news(self, answer: Answer) -> None:
        core = self._core
        match answer:
            case ike_types.PeerUp(name, remote, initiator):
                self._peer_up(name, remote, initiator)
            case ike_types.PeerDown(name, reason):
                self._peer_down(name, reason)
            case ike_types.IkeFailed(name, reason, remote, others):
                if (peer := core.peers.named(name)) is not None:
                    self._parts.attempts.ike_failed(peer, reason, remote, others=others)
            case ike_types.ProbeAnswered(name, rtt, remote):
                self._probe_answered(name, rtt, remote)
            case zone_types.TextsChanged(ticket, reason) if ticket == TICKET:
                if reason:
                    core.log("debug", f"a call could not be left or removed: {reason}")
            case zone_types.Changed() if self._parts.calls.heard(answer):
                pass
            case zone_types.Changed() | zone_types.RecordsFound() | zone_types.ServicesFound():
                self._parts.services.handle(answer)
            case zone_types.TextsFound() | zone_types.TextsChanged():
                self._parts.signing.handle(answer)
            case zone_types.Published(_, records):
                self._parts.directory.handle(answer)
                self._parts.services.published(records)
            case _:
                self._parts.directory.handle(answer)

    def _stands(self, peer: Peer) -> None:
        self._parts.attempts.succeeded(peer)
        self._parts.directory.in_use(peer)
        self._look_soon()

    def _peer_up(self, name: str, remote: Endpoint, initiator: bool) -> None:
        core, at = self._core, endpoint_text(remote)
        core.log("info", f"IKE SA with {name}", remote=at, initiator=initiator)
        if (peer := core.peers.named(name)) is not None:
            core.explain(peer, What.PATH, f"IKE stands; {'we' if initiator else 'it'} began", at=at)

    def _peer_down(self, name: str, reason: str) -> None:
        self._parts.farewell.untold.discard(name)
        peer = self._core.peers.named(name)
        if peer is None:
            return
        self._parts.flows.drop_all(peer)
        self._parts.pings.lost(peer.name, reason)
        peer.reason = reason
        self._core.log("info", f"no IKE SA with {peer.name} any more: {reason}")
        self._core.explain(peer, What.FAILED, f"no IKE SA with it any more: {reason}")
        self._parts.relaying.lost(peer)
        self._parts.directory.tidy(peer)

    def _probe_answered(self, name: str, rtt: float, remote: Endpoint | None) -> None:
        self._parts.pings.answered(name, rtt)
        self._parts.relaying.heard(name)
        if (peer := self._core.peers.named(name)) is not None:
            peer.rtt = rtt
            self._parts.silence.answered(peer)
            self._parts.following.answered(peer, remote)
