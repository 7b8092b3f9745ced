"""``autotunnel explain``: how the path to a peer was chosen, from the journal and the tables."""

from __future__ import annotations

from typing import Any

from keys.ike.types import SaView
from tunnel.core import Core
from tunnel.journal import Entry, What
from tunnel.peers import Peer
from tunnel.status import endpoint_text, peer_status


def explanation(core: Core, name: str, view: SaView | None, now: float) -> dict[str, Any] | None:
    """What ``explain --json`` prints of the peer with this full name; ``None`` for one that neither
    the table nor the journal knows. Times are seconds before ``now``, ``at_unix`` on the wall."""
    peer, ring = core.peers.named(name), core.journal.of(name)
    if peer is None and not ring.entries:
        return None
    own = core.journal.of(None)
    events = [_event(entry, "peer", core, now) for entry in ring.entries]
    events += [_event(entry, "host", core, now) for entry in own.entries]
    status = None if peer is None else peer_status(peer, view, now)
    return {
        "name": name,
        "state": "forgotten" if status is None else status["state"],
        "reason": None if status is None else status["reason"],
        "path": None if peer is None or status is None else _path(peer, status, now),
        "records": None if peer is None else _records(peer, now),
        "ours": {
            "endpoints": [endpoint_text(one) for one in core.endpoints],
            "mapping": core.mapping or None,
        },
        "counts": _counts(list(ring.entries)),
        "events": sorted(events, key=lambda event: -event["ago_s"]),
        "forgotten_events": ring.forgotten,
    }


def _path(peer: Peer, status: dict[str, Any], now: float) -> dict[str, Any] | None:
    """How packets go to it now; ``None`` while they cannot."""
    if not peer.up:
        return None
    return {
        "kind": status["path"],
        "home_agent": status["home_agent"],
        "relay_reason": status["relay_reason"],
        "endpoint": status["endpoint"],
        "since_s": _ago(peer.endpoint_at, now),
        "rtt_ms": status["rtt_ms"],
        "mtu": status["mtu"],
        "suite": status["suite"],
        "behind_nat": peer.behind_nat,
        "last_in_s": _ago(peer.last_in, now),
        "last_out_s": _ago(peer.last_out, now),
        "being_proven": endpoint_text(peer.candidate),
    }


def _records(peer: Peer, now: float) -> dict[str, Any]:
    """What is known of where it is, whoever said so."""
    return {
        "source": "configuration" if peer.static else "zone",
        "id": None if peer.host_id is None else str(peer.host_id),
        "endpoints": [endpoint_text(one) for one in peer.endpoints],
        "target": peer.target or None,
        "info": list(peer.info),
        "age_s": _ago(peer.records_at, now),
    }


def _counts(entries: list[Entry]) -> dict[str, int]:
    """How often each kind of thing happened, as far as the ring remembers."""
    kinds = {kind: sum(one.times for one in entries if one.what is kind) for kind in What}
    return {str(kind): count for kind, count in kinds.items() if count}


def _event(entry: Entry, about: str, core: Core, now: float) -> dict[str, Any]:
    return {
        "about": about,
        "at_unix": round(core.unix - (now - entry.at)),
        "ago_s": _ago(entry.at, now),
        "what": str(entry.what),
        "why": entry.why,
        "fields": dict(entry.fields),
        "times": entry.times,
        "last_ago_s": _ago(entry.last_at, now),
    }


def _ago(at: float | None, now: float) -> float | None:
    return None if at is None or at == float("-inf") else round(max(0.0, now - at), 3)
