"""One small file for each contender; one that is not installed says so and is left out."""

from __future__ import annotations

from bench.peers import autotunnel, fastd, openvpn, raw, strongswan, wireguard
from bench.peers.types import Peer, Tunnel

PEERS: dict[str, Peer] = {
    peer.name: peer
    for peer in (
        raw.Raw(),
        *autotunnel.VARIANTS,
        strongswan.StrongSwan(),
        openvpn.OpenVpn(),
        fastd.Fastd(),
        *wireguard.VARIANTS,
    )
}

__all__ = ["PEERS", "Peer", "Tunnel"]
