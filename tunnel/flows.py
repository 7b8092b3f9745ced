"""Keeping the engine's tables true to what IKE has made: SAs and flows."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv6Address

from fastpath.types import Endpoint, Mode, SaCounters, SaParams, Suite
from keys.ike.types import EVERYTHING, ChildSa
from tunnel.commands import (
    InstallInbound,
    InstallOutbound,
    RemoveInbound,
    RemoveOutbound,
    SendDummy,
)
from tunnel.core import Core, engine_traffic
from tunnel.journal import What
from tunnel.peers import SIGNALS, Peer


class Flows:
    """SAs and flows of all peers."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._leaving: dict[tuple[bool, int], Peer] = {}  # (inbound, SPI): whose last count is due

    def install_inbound(self, child: ChildSa) -> None:
        """Receives on ``child`` from now on."""
        peer = self._core.peers.named(child.peer)
        if peer is None:
            return
        peer.children[child.spi_in] = child
        self._core.emit(InstallInbound(_params(child, child.spi_in, child.key_in)))

    def install_outbound(self, child: ChildSa, remote: Endpoint) -> Peer | None:
        """Sends on ``child`` from now on; returns the peer whose tunnel stands thereby."""
        core, peer = self._core, self._core.peers.named(child.peer)
        if peer is None:
            return None
        if child.traffic != EVERYTHING:
            self._install_narrow(peer, child)
            return None
        if peer.current is not None and peer.current.peer_id != child.peer_id:
            core.unpoint(peer)  # the peer restarted with another host id
        fresh = peer.current is None or peer.current.spi_out != child.spi_out
        peer.children[child.spi_in] = peer.current = child
        if fresh:
            core.emit(InstallOutbound(_params(child, child.spi_out, child.key_out)))
        # A rekey happens on an IKE SA that may be trying a new endpoint: data waits for the proof.
        unproven = peer.endpoint is not None and remote == peer.candidate
        if not fresh and not unproven and peer.endpoint not in (None, remote):
            facts = {"old": peer.endpoint, "new": remote}
            core.explain(peer, What.MOVED, "IKE has moved there (MOBIKE), and proven it", **facts)
        core.point(peer, peer.endpoint if unproven and peer.endpoint else remote)
        return peer

    def _install_narrow(self, peer: Peer, child: ChildSa) -> None:
        before = peer.narrow.get(child.traffic)
        peer.children[child.spi_in] = peer.narrow[child.traffic] = child
        if before is None or before.spi_out != child.spi_out:
            self._core.emit(InstallOutbound(_params(child, child.spi_out, child.key_out)))
            self._core.set_flow(peer)  # to where the data goes now: the first child says where

    def remove(self, name: str, spi_in: int, spi_out: int) -> None:
        """Both directions of a child are gone. IKE has moved its traffic before, if it could."""
        core, peer = self._core, self._core.peers.named(name)
        core.emit(RemoveInbound(spi_in))
        if peer is not None:
            peer.children.pop(spi_in, None)
            self._leaving[True, spi_in] = self._leaving[False, spi_out] = peer
            if peer.current is not None and peer.current.spi_in == spi_in:
                core.unpoint(peer)
            for traffic in [t for t, one in peer.narrow.items() if one.spi_in == spi_in]:
                del peer.narrow[traffic]
                core.set_flow(peer)
        core.emit(RemoveOutbound(spi_out))

    def removed(self, spi: int, inbound: bool, counters: SaCounters | None) -> None:
        """The engine has forgotten an SA; these are its last counters."""
        peer = self._leaving.pop((inbound, spi), None)
        if peer is None:
            return
        present, gone = (peer.inbound, peer.received) if inbound else (peer.outbound, peer.sent)
        before = present.pop(spi, None)
        gone.add(before if counters is None else counters)

    def drop_all(self, peer: Peer) -> None:
        """Nothing is left with ``peer``."""
        self._core.unpoint(peer)
        for child in list(peer.children.values()):
            self.remove(peer.name, child.spi_in, child.spi_out)

    def announce(self) -> None:
        """We have moved: one dummy packet (RFC 4303 §2.6) to each peer shows it our new source."""
        for peer in self._core.peers:
            if peer.current is not None and peer.endpoint is not None:
                self._core.emit(SendDummy(peer.current.spi_out, peer.endpoint))

    def activity(
        self, inbound: Mapping[int, SaCounters], outbound: Mapping[int, SaCounters]
    ) -> bool:
        """Takes over counters, and tells IKE when something last came and went; whether anything
        did. Mobility messages are no sign that data come and go: they take other ways, too."""
        core = self._core
        natted, moved = core.ike.behind_nat(), False
        for peer in core.peers:
            peer.behind_nat = peer.name in natted
            if not peer.children:
                continue
            fresh = False
            for child in peer.children.values():
                counters = inbound.get(child.spi_in)
                if counters is not None and counters != peer.inbound.get(child.spi_in):
                    fresh = True
                    peer.inbound[child.spi_in] = counters
                    if child.traffic != SIGNALS:
                        peer.last_in = _later(peer.last_in, counters.last_used)
                counters = outbound.get(child.spi_out)
                if counters is not None and counters != peer.outbound.get(child.spi_out):
                    fresh = True
                    peer.outbound[child.spi_out] = counters
                    if child.traffic != SIGNALS:
                        peer.last_out = _later(peer.last_out, counters.last_used)
            if not fresh:
                continue
            moved = True
            core.ike_said(core.ike.traffic(peer.name, peer.last_in, peer.last_out, core.now))
            core.ike_said(core.ike.used(peer.name, _counts(peer), core.now))
        return moved


def _counts(peer: Peer) -> dict[int, tuple[int, int]]:
    both = (*peer.inbound.items(), *peer.outbound.items())
    return {spi: (counters.packets, counters.octets) for spi, counters in both}


def _params(child: ChildSa, spi: int, key: bytes) -> SaParams:
    return SaParams(
        spi=spi,
        suite=Suite(child.suite),
        key=key,
        local_id=_octets(child.local_id),
        peer_id=_octets(child.peer_id),
        esn=child.esn,
        mode=Mode(child.mode),
        traffic=None if child.traffic == EVERYTHING else engine_traffic(child.traffic),
    )


def _octets(address: IPv6Address) -> bytes:
    return address.packed


def _later(first: float | None, second: float | None) -> float | None:
    return second if first is None else first if second is None else max(first, second)
