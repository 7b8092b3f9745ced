"""All that is measured through a tunnel, in the same turns; the bounds; what is saved."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench import latency, machine, pps, tcp, turns, verdict
from bench.peers import Peer

KINDS = {"tcp": tcp.measure, "pps": pps.measure, "latency": latency.measure}
TITLES = {
    "tcp": ("TCP", tcp.COLUMNS),
    "pps": ("UDP, 64 octets", pps.COLUMNS),
    "latency": ("Round trip of ping", latency.COLUMNS),
}


def plan(
    peers: Sequence[Peer], variants: Sequence[Peer], kinds: Sequence[str], links: Sequence[str]
) -> list[turns.Turn]:
    """Everything for ``peers`` on the offloading link. So that a whole run stays short, a plain
    link beside it, which matters to those who send bursts, gets TCP alone; our ``variants`` get
    TCP on the first link."""
    whole = tuple(KINDS[kind] for kind in kinds)
    short = (tcp.measure,) if tcp.measure in whole else whole
    able, able_variants = turns.able(peers), turns.able(variants)
    found = []
    for link in links:
        on_link = whole if link == "offloading" or len(links) == 1 else short
        found += [turns.Turn(one, link, on_link) for one in able]
        if link == links[0]:
            found += [turns.Turn(one, link, short) for one in able_variants]
    return found


def run(
    *,
    peers: Sequence[Peer],
    variants: Sequence[Peer],
    kinds: Sequence[str],
    links: Sequence[str],
    rounds: int,
    seconds: int,
) -> tuple[dict[str, Any], str]:
    """What is to be saved, and the tables for people."""
    series = turns.run_turns(plan(peers, variants, kinds, links), rounds, seconds)
    lines = verdict.judge(series)
    columns = [column for kind in kinds for column in TITLES[kind][1]]
    with_ratio = list(dict.fromkeys(column.figure for column in columns if column.ratio))
    body = {
        "rounds": rounds,
        "seconds": seconds,
        "results": turns.body(series, with_ratio),
        "verdict": [line.summary() for line in lines],
    }
    tables = [
        turns.table(title, series, shown) for title, shown in (TITLES[kind] for kind in kinds)
    ]
    if lines:
        tables.append(verdict.table(lines))
    return body, f"{machine.summary()}\n\n" + "\n\n".join(tables)
