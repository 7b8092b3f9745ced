"""One small file for each contender; one that is not installed says so and is left out."""

from __future__ import annotations

from bench.peers import autotunnel, fastd, hosts, openvpn, raw, strongswan, wireguard
from bench.peers.types import Peer, Tunnel

PEERS: dict[str, Peer] = {
    peer.name: peer
    for peer in (
        raw.Raw(),
        *hosts.VARIANTS,
        *autotunnel.VARIANTS,
        strongswan.StrongSwan(),
        openvpn.OpenVpn(),
        fastd.Fastd(),
        *wireguard.VARIANTS,
    )
}
OURS = tuple(peer.name for peer in (*hosts.VARIANTS[1:], *autotunnel.VARIANTS))
"""Our variants, beside ``autotunnel`` as it comes."""

__all__ = ["OURS", "PEERS", "Peer", "Tunnel"]
