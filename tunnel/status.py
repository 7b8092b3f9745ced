"""The node's part of ``status --json`` (DESIGN §5): units in the names, absent is ``None``."""

from __future__ import annotations

from typing import Any

from fastpath.types import Endpoint, SaCounters
from keys.ike.selectors import describe_traffic
from keys.ike.types import ChildSa, SaView
from tunnel.peers import Peer, Tally

_HEADER = 40  # octets of an IPv6 header (RFC 8200 §3)


def endpoint_text(endpoint: Endpoint | None) -> str | None:
    """``address:port``, an IPv6 address in brackets; ``None`` stays ``None``."""
    if endpoint is None:
        return None
    host, port = endpoint
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def path_of(peer: Peer) -> str | None:
    """How packets go to it: ``direct``, ``relay`` through a home agent, or ``None``."""
    if not peer.up:
        return None
    return "relay" if peer.is_relayed else "direct"


def peer_status(peer: Peer, view: SaView | None, now: float) -> dict[str, Any]:
    """All that is shown of one peer; ``reason`` says why it is not reached."""
    received, sent = _sum(peer.received, peer.inbound), _sum(peer.sent, peer.outbound)
    child = peer.current
    rtt = peer.rtt if view is None or view.rtt is None else view.rtt
    return {
        "name": peer.name,
        "id": None if peer.host_id is None else str(peer.host_id),
        "state": str(peer.state),
        "path": path_of(peer),
        "home_agent": peer.carrier if peer.is_relayed else None,
        "relay_reason": peer.relay_reason if peer.is_relayed else None,
        "endpoint": endpoint_text(peer.endpoint),
        "suite": None if child is None else child.suite,
        "mode": None if child is None else child.mode,
        "auth": None if view is None else view.authentication,
        "spi_in": None if child is None else f"{child.spi_in:08x}",
        "spi_out": None if child is None else f"{child.spi_out:08x}",
        "rx_bytes": received.octets,
        "tx_bytes": sent.octets,
        "rx_packets": received.packets,
        "tx_packets": sent.packets,
        "saved_bytes": _saved(None if child is None else child.mode, received, sent),
        "mtu": None if peer.pmtu is None else peer.pmtu.mtu,
        "mtu_state": None if peer.pmtu is None else str(peer.pmtu.state),
        "keepalive_s": None if peer.keepalive is None else round(peer.keepalive),
        "rtt_ms": None if rtt is None else round(rtt * 1000, 3),
        "last_handshake_s": None if view is None else round(max(0.0, now - view.established_at), 3),
        "children": [_child_status(one, peer, view, now) for one in peer.children.values()],
        "drops": dict(sorted((received.drops | _more(received.drops, sent.drops)).items())),
        "reason": peer.reason,
        "ike": None if view is None else _ike_status(view, child, now),
    }


def _saved(mode: str | None, received: Tally, sent: Tally) -> int:
    """Octets that transport mode kept off the wire, both ways: a header of each packet."""
    return _HEADER * (received.packets + sent.packets) if mode == "transport" else 0


def _child_status(child: ChildSa, peer: Peer, view: SaView | None, now: float) -> dict[str, Any]:
    """One pair of ESP SAs: what it is for, what it has carried, how long it will live."""
    received, sent = peer.inbound.get(child.spi_in), peer.outbound.get(child.spi_out)
    lives = () if view is None else view.lifetimes
    life = next((one for one in lives if one.spi_in == child.spi_in), None)
    return {
        "traffic": describe_traffic(child.traffic),
        "spi_in": f"{child.spi_in:08x}",
        "spi_out": f"{child.spi_out:08x}",
        "suite": child.suite,
        "esn": child.esn,
        "mode": child.mode,
        "rx_packets": 0 if received is None else received.packets,
        "tx_packets": 0 if sent is None else sent.packets,
        "rx_bytes": 0 if received is None else received.octets,
        "tx_bytes": 0 if sent is None else sent.octets,
        "rekey_s": None if life is None else _left(life.rekey_at, now),
        "expires_s": None if life is None else _left(life.expires_at, now),
    }


def _ike_status(view: SaView, child: ChildSa | None, now: float) -> dict[str, Any]:
    """What protects the IKE SA, what was agreed on, and what is left of its keys' lives."""
    spi_in = None if child is None else child.spi_in
    life = next((one for one in view.lifetimes if one.spi_in == spi_in), None)
    return {
        "encryption": view.encryption,
        "prf": view.prf,
        "key_exchange": view.key_exchange,
        "ppk": view.ppk,
        "initiator": view.initiator,
        "fragmentation": view.fragmentation,
        "mobike": view.mobike,
        "rekey_s": _left(view.rekey_at, now),
        "expires_s": _left(view.expires_at, now),
        "child_rekey_s": None if life is None else _left(life.rekey_at, now),
        "child_expires_s": None if life is None else _left(life.expires_at, now),
        "child_packets_left": None if life is None else life.packets_left,
        "child_bytes_left": None if life is None else life.octets_left,
    }


def _left(at: float | None, now: float) -> float | None:
    return None if at is None or at == float("inf") else round(max(0.0, at - now), 3)


def _sum(gone: Tally, present: dict[int, SaCounters]) -> Tally:
    total = Tally(gone.packets, gone.octets, dict(gone.drops))
    for counters in present.values():
        total.add(counters)
    return total


def _more(first: dict[str, int], second: dict[str, int]) -> dict[str, int]:
    return {name: first.get(name, 0) + count for name, count in second.items()}
