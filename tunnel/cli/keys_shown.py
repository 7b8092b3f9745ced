"""What protects the tunnels, for a person: the IKE SA with each peer, and its children."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from rich.table import Table

_HEADINGS = ("keys", "for", "cipher", "key exchange", "proof", "rekeyed in", "end in")
_PROOFS = {"cert": "certificate", "psk": "pre-shared key"}


def keys_table(peers: Iterable[Mapping[str, Any]], domain: str) -> Table | None:
    """One row for each IKE SA and each of its children; ``None`` where there is none."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in _HEADINGS:
        table.add_column(heading, no_wrap=True)
    for peer in peers:
        for row in _rows(peer, str(peer.get("name")).removesuffix(f".{domain}")):
            table.add_row(*row)
    return table if table.row_count else None


def _rows(peer: Mapping[str, Any], label: str) -> Iterator[tuple[str, ...]]:
    ike = peer.get("ike")
    if not ike:
        return
    exchange = str(ike["key_exchange"]) + (", PPK" if ike["ppk"] else "")
    proof = _PROOFS.get(str(peer.get("auth")), str(peer.get("auth")))
    cipher = f"{ike['encryption']}, {ike['prf']}"
    lives = _time(ike["rekey_s"]), _time(ike["expires_s"])
    yield label, "IKE", cipher, exchange, proof, *lives
    for child in peer.get("children") or ():
        numbers = ", ESN" if child["esn"] else ""
        cipher = f"{child['suite']}, {child['mode']}{numbers}"
        lives = _time(child["rekey_s"]), _time(child["expires_s"])
        yield "", child["traffic"], cipher, "", "", *lives


def _time(seconds: float | None) -> str:
    """In the largest unit of which there are at least two."""
    if seconds is None:
        return "–"
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"
