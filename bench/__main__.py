"""``python -m bench KIND``: one measurement, side by side, in one run."""

from __future__ import annotations

import argparse
import sys

from bench import crypto, latency, plot, pps, report, tcp
from bench.peers import PEERS
from tunnel.io.lab import LabError, missing

NETWORK = {"tcp": tcp.run, "pps": pps.run, "latency": latency.run}


def main(argv: list[str] | None = None) -> int:
    """Exit code 0 ok, 1 failed, 2 usage."""
    arguments = _parser().parse_args(argv)
    kinds = ["crypto", *NETWORK] if arguments.kind == "all" else [arguments.kind]
    try:
        for kind in kinds:
            code = _one(kind, arguments)
            if code:
                return code
    except LabError as error:
        report.say(f"bench: {error}")
        return 1
    return 0


def _one(kind: str, arguments: argparse.Namespace) -> int:
    output = {"as_json": arguments.json, "save": arguments.save}
    if kind == "plot":
        return plot.run()
    if kind == "crypto":
        crypto.run(rounds=arguments.rounds, count=arguments.packets, **output)
        return 0
    reason = missing(("iperf3", "ethtool", "ping"))
    if reason is not None:
        report.say(f"bench: {reason}")
        return 1
    peers = arguments.peers.split(",") if arguments.peers else list(PEERS)
    unknown = [name for name in peers if name not in PEERS]
    if unknown:
        report.say(f"bench: no peer {', '.join(unknown)}; there are {', '.join(PEERS)}")
        return 2
    links = ["offloading", "plain"] if arguments.link == "both" else [arguments.link]
    NETWORK[kind](
        peers=[PEERS[name] for name in peers],
        links=links,
        rounds=arguments.rounds,
        seconds=arguments.seconds,
        **output,
    )
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    kinds = ["all", "crypto", *NETWORK, "plot"]
    parser.add_argument("kind", nargs="?", default="all", choices=kinds)
    parser.add_argument("--json", action="store_true", help="JSON on stdout instead of a table")
    parser.add_argument("--save", action="store_true", help="keep the JSON in bench/results/")
    parser.add_argument("--rounds", type=int, default=3, help="turns of every contender")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each network measurement")
    parser.add_argument("--packets", type=int, default=2000, help="of each crypto measurement")
    parser.add_argument("--peers", help=f"comma-separated, of: {', '.join(PEERS)}")
    parser.add_argument("--link", choices=["both", "offloading", "plain"], default="both")
    return parser


if __name__ == "__main__":
    sys.exit(main())
