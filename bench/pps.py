"""Small UDP packets (64 octets of payload): how many arrive, at overload and at paced rates."""

from __future__ import annotations

from collections.abc import Sequence

from bench import report, turns
from bench.pair import Pair, iperf
from bench.peers.types import Peer, Tunnel

PAYLOAD = 64
PACED = (50_000, 100_000, 150_000, 250_000)  # packets a second


def measure(ends: Pair, tunnel: Tunnel, seconds: int) -> dict[str, float]:
    """``overload``: as fast as the sender can; the paced runs give the percentage lost."""
    figures: dict[str, float] = {}
    octets = 0.0
    for rate in (0, *PACED):
        bits = str(rate * PAYLOAD * 8)
        done = iperf(ends, tunnel.right, seconds, "-u", "-l", str(PAYLOAD), "-b", bits)
        total = done["end"]["sum"]
        arrived = total["packets"] - total["lost_packets"]
        octets += arrived * PAYLOAD
        if rate:
            figures[f"paced_{rate // 1000}k_lost_percent"] = total["lost_percent"]
            figures[f"paced_{rate // 1000}k_sent_pps"] = total["packets"] / total["seconds"]
        else:
            figures["overload_delivered_pps"] = arrived / total["seconds"]
            figures["overload_sent_pps"] = total["packets"] / total["seconds"]
    return figures | {"octets": octets}


def run(
    *,
    peers: Sequence[Peer],
    links: Sequence[str],
    rounds: int,
    seconds: int,
    as_json: bool,
    save: bool,
) -> None:
    """Every contender in turns, on each kind of link."""
    series = turns.run(peers, links, rounds, seconds, measure)
    columns = [
        turns.Column("overload pps", "overload_delivered_pps", "{:.0f}", ratio=True),
        *(
            turns.Column(
                f"lost at {rate // 1000}k", f"paced_{rate // 1000}k_lost_percent", "{:.2f} %"
            )
            for rate in PACED
        ),
        turns.Column("MiB", "memory_mib", "{:.0f}"),
    ]
    body = turns.body(series, rounds, seconds, ["overload_delivered_pps"])
    table = turns.table(f"UDP, {PAYLOAD} octets", series, columns)
    report.finish("pps", body, table, as_json=as_json, save=save)
