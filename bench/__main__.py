"""``python -m bench [KIND …]``: measurements, side by side, in one run; all if none is named."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial

from bench import (
    crypto,
    flood,
    handshakes,
    idle,
    microcost,
    mobility,
    network,
    plot,
    relay,
    report,
    roam,
    scale,
    soak,
    switches,
    zone,
)
from bench.peers import OURS, PEERS
from tunnel.io.lab import LabError, missing

NETWORK = tuple(network.KINDS)
RELAYED = {"mobility": mobility.run, "relay": relay.run, "switches": switches.run}
ALONE = ("scale", "handshakes", "flood", "micro", "soak", "zone", "roam", *RELAYED, "idle", "plot")
KINDS = ["all", "crypto", *NETWORK, *ALONE]
USUAL = ("crypto", "micro")  # quick, and so part of every whole run
ROUNDS = 3
PROGRAMS = ("iperf3", "ethtool", "ping")


def main(argv: list[str] | None = None) -> int:
    """Exit code 0 ok, 1 failed, 2 usage."""
    arguments = _parser().parse_args(argv)
    kinds = [*USUAL, *NETWORK] if "all" in arguments.kind else arguments.kind
    through = [kind for kind in NETWORK if kind in kinds]
    alone = [kind for kind in kinds if kind not in NETWORK]
    if arguments.json and len(alone) + bool(through) > 1:
        report.say(f"bench: --json gives one document: crypto, scale, or any of {NETWORK}")
        return 2
    steps = [partial(_alone, kind) for kind in alone]
    if through:
        steps.insert(0, partial(_through, through))
    return max(_step(step, arguments) for step in steps)


def _step(step: Callable[[argparse.Namespace], int], arguments: argparse.Namespace) -> int:
    """One step's exit code; the next one is taken all the same."""
    try:
        return step(arguments)
    except LabError as error:
        report.say(f"bench: {error}")
        return 1


def _alone(kind: str, arguments: argparse.Namespace) -> int:
    output = {"as_json": arguments.json, "save": arguments.save}
    rounds = arguments.rounds or (roam.ROUNDS if kind == "roam" else ROUNDS)
    if kind == "plot":
        return plot.run()
    if kind == "crypto":
        crypto.run(rounds=rounds, count=arguments.packets, **output)
        return 0
    if kind == "micro":
        return microcost.run(rounds=rounds, **output)
    if kind == "soak":
        return soak.run(minutes=arguments.minutes, **output)
    if kind == "zone":
        zone.run(rounds=rounds, **output)
        return 0
    if not _able():
        return 1
    if kind == "idle":
        return idle.run(minutes=arguments.idle_minutes, settle=arguments.settle, **output)
    if kind == "roam":
        return roam.run(rounds=rounds, **output)
    if kind in RELAYED:
        return RELAYED[kind](rounds=rounds, seconds=arguments.seconds, **output)
    if kind == "handshakes":
        handshakes.run(rounds=rounds, count=arguments.handshakes, **output)
        return 0
    if kind == "flood":
        flood.run(rate=arguments.rate, seconds=arguments.flood_seconds, **output)
        return 0
    crowds = [int(crowd) for crowd in arguments.crowds.split(",")]
    scale.run(crowds=crowds, rounds=rounds, seconds=arguments.seconds, **output)
    return 0


def _through(kinds: list[str], arguments: argparse.Namespace) -> int:
    """Measures through tunnels, all kinds in the same turns."""
    if not _able():
        return 1
    named = arguments.peers.split(",") if arguments.peers else []
    unknown = [name for name in named if name not in PEERS]
    if unknown:
        report.say(f"bench: no peer {', '.join(unknown)}; there are {', '.join(PEERS)}")
        return 2
    body, tables = network.run(
        peers=[PEERS[name] for name in named or PEERS if name in named or name not in OURS],
        variants=[] if named else [PEERS[name] for name in OURS],
        kinds=kinds,
        links=["offloading", "plain"] if arguments.link == "both" else [arguments.link],
        rounds=arguments.rounds or ROUNDS,
        seconds=arguments.seconds,
    )
    report.finish("network", body, tables, as_json=arguments.json, save=arguments.save)
    return 0


def _able() -> bool:
    reason = missing(PROGRAMS)
    if reason is not None:
        report.say(f"bench: {reason}")
    return reason is None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument(
        "kind", nargs="*", metavar="KIND", choices=KINDS, default="all", help=", ".join(KINDS)
    )
    parser.add_argument("--json", action="store_true", help="JSON on stdout instead of a table")
    parser.add_argument("--save", action="store_true", help="keep the JSON in bench/results/")
    parser.add_argument(
        "--rounds", type=int, help=f"turns of every contender; {ROUNDS}, of roam {roam.ROUNDS}"
    )
    parser.add_argument("--seconds", type=int, default=2, help="of each network measurement")
    parser.add_argument("--packets", type=int, default=2000, help="of each crypto measurement")
    parser.add_argument(
        "--peers",
        help=f"comma-separated, of: {', '.join(PEERS)}; all that can run here if none is named",
    )
    parser.add_argument(
        "--crowds",
        default=",".join(str(crowd) for crowd in scale.CROWDS),
        help="of scale: numbers of peers; default: %(default)s",
    )
    parser.add_argument("--handshakes", type=int, default=100, help="of each handshake measurement")
    parser.add_argument("--rate", type=int, default=flood.RATE, help="of flood: a second")
    parser.add_argument("--flood-seconds", type=float, default=flood.SECONDS, help="of flood")
    parser.add_argument("--idle-minutes", type=float, default=5.0, help="of idle")
    parser.add_argument("--settle", type=float, default=idle.SETTLE, help="of idle: seconds before")
    parser.add_argument("--minutes", type=float, default=10.0, help="of soak")
    parser.add_argument("--link", choices=["both", "offloading", "plain"], default="both")
    return parser


if __name__ == "__main__":
    sys.exit(main())
