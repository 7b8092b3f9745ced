"""``python -m bench [KIND …]``: measurements, side by side, in one run; crypto and tcp if none is
named."""

from __future__ import annotations

import argparse
import sys

from bench import crypto, latency, plot, pps, report, scale, tcp
from bench.peers import PEERS
from tunnel.io.lab import LabError, missing

OURS = ("autotunnel", "autotunnel-reference")
# Our suites, modes and AEAD backends beside each other take long; they are there when named.
USUAL = [name for name in PEERS if name.partition("-")[0] != "autotunnel" or name in OURS]
NETWORK = {"tcp": tcp.run, "pps": pps.run, "latency": latency.run}
KINDS = ["all", "crypto", *NETWORK, "scale", "plot"]


def main(argv: list[str] | None = None) -> int:
    """Exit code 0 ok, 1 failed, 2 usage."""
    arguments = _parser().parse_args(argv)
    kinds = arguments.kind or ["crypto", "tcp"]
    if "all" in kinds:
        kinds = ["crypto", *NETWORK]
    if arguments.json and len(kinds) > 1:
        report.say("bench: --json gives one document; name one kind")
        return 2
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
    if kind == "scale":
        crowds = [int(crowd) for crowd in arguments.crowds.split(",")]
        rounds, seconds = arguments.rounds, arguments.seconds
        scale.run(crowds=crowds, rounds=rounds, seconds=seconds, **output)
        return 0
    peers = list(PEERS) if arguments.peers == "all" else arguments.peers.split(",")
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
    parser.add_argument("kind", nargs="*", metavar="KIND", choices=KINDS, help=", ".join(KINDS))
    parser.add_argument("--json", action="store_true", help="JSON on stdout instead of a table")
    parser.add_argument("--save", action="store_true", help="keep the JSON in bench/results/")
    parser.add_argument("--rounds", type=int, default=3, help="turns of every contender")
    parser.add_argument("--seconds", type=int, default=3, help="of each network measurement")
    parser.add_argument("--packets", type=int, default=2000, help="of each crypto measurement")
    parser.add_argument(
        "--peers",
        default=",".join(USUAL),
        help=f"comma-separated, of: {', '.join(PEERS)}; or all; default: all but our variants",
    )
    parser.add_argument(
        "--crowds",
        default=",".join(str(crowd) for crowd in scale.CROWDS),
        help="of scale: numbers of peers; default: %(default)s",
    )
    parser.add_argument("--link", choices=["both", "offloading", "plain"], default="both")
    return parser


if __name__ == "__main__":
    sys.exit(main())
