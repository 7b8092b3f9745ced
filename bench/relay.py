"""TCP through a home agent, beside the direct path: throughput, and what the agent spends on it.

Three hosts in namespaces, a link between each two: the same pumps and end-to-end SAs, only the
flow's endpoint changes, in turns. All three and iperf3 share this machine's processors, so the home
agent's work shows in the ratio twice: as its own, and as what is left for the hosts.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bench import machine, report
from bench.cost import Cost
from bench.pair import DEVICE, OUTER, Pair, iperf, wait_for_ping
from bench.relay_end import IDS, params
from fastpath.reference import inner, relay
from fastpath.reference.esp import OutboundSa
from fastpath.types import Mode
from tunnel.io.lab import Lab, Process, connect, wait_until

ROOT = str(Path(__file__).parents[1])
PATHS = ("direct", "relay")
LINKS = ("offloading", "plain")
AIM = 0.4  # × the direct path, on two cores
ENOUGH = 20.0  # seconds for a process to get ready
_LINKS = (  # two ends, the device of each, the address of each
    (("left", DEVICE, OUTER[0]), ("right", DEVICE, OUTER[1])),
    (("left", "eth1", "198.51.100.1"), ("agent", DEVICE, "198.51.100.9")),
    (("right", "eth1", "203.0.113.2"), ("agent", "eth1", "203.0.113.9")),
)


@dataclass
class Stage:
    """Three running hosts; :meth:`go` moves the flow between left and right."""

    ends: Pair
    processes: dict[str, Process]
    path: str = "direct"

    def go(self, path: str) -> None:
        """Both directions take this path from now on."""
        if path == self.path:
            return
        self.path = path
        for name in ("left", "right"):
            process, before = self.processes[name], self._said(name, path)
            process.send(signal.SIGUSR1)
            wait_until(
                partial(self._moved, name, path, before), ENOUGH, f"{name} takes the {path} path"
            )

    def pids(self, *names: str) -> tuple[int, ...]:
        """Of the pumps of these hosts."""
        return tuple(self.processes[name].pid for name in names)

    def about(self) -> dict[str, str]:
        """Engine and AEAD."""
        lines = self.processes["agent"].output().splitlines()
        ready = next(line for line in lines if line.startswith("ready "))
        found: dict[str, str] = json.loads(ready.removeprefix("ready "))
        return found

    def _moved(self, name: str, path: str, before: int) -> bool:
        return self._said(name, path) > before

    def _said(self, name: str, word: str) -> int:
        return self.processes[name].output().splitlines().count(word)


@contextmanager
def stage(link: str) -> Iterator[Stage]:
    """Three fresh hosts; ``link`` as :func:`bench.pair.pair` has it."""
    with Lab() as lab:
        machines = dict(zip(IDS, lab.machines_of(*IDS), strict=True))
        places: dict[str, list[str]] = {name: [] for name in IDS}
        for (one, device, address), (two, other, theirs) in _LINKS:
            connect(machines[one], device, machines[two], other)
            for name, interface, mine in ((one, device, address), (two, other, theirs)):
                machines[name].address(interface, f"{mine}/24")
                if link == "plain":
                    command = ("-K", interface, "tx-udp-segmentation", "off")
                    machines[name].run("ethtool", *command)
            places[one].append(f"{two}={theirs}")
            places[two].append(f"{one}={address}")
        processes = {
            name: one.start(
                *(sys.executable, "-m", "bench.relay_end", name, *places[name]),
                name="pump",
                env={"PYTHONPATH": ROOT},
            )
            for name, one in machines.items()
        }
        for process in processes.values():
            process.wait_for("ready", ENOUGH)
        ends = Pair(lab, machines["left"], machines["right"])
        wait_for_ping(ends.left, str(IDS["right"]))
        yield Stage(ends, processes)


def measure(at: Stage, seconds: int) -> dict[str, float]:
    """One stream each way on the path taken now; CPU seconds for 10^9 octets."""
    agent, hosts = Cost(at.pids("agent")), Cost(at.pids("left", "right"))
    octets, figures = 0.0, {}
    for name, options in (("forward", ()), ("reverse", ("-R",))):
        report_ = iperf(at.ends, str(IDS["right"]), seconds, *options)["end"]["sum_received"]
        figures[f"{name}_gbit_s"] = report_["bits_per_second"] / 1e9
        octets += report_["bytes"]
    figures["agent_cpu_s_per_gb"] = agent.per_gb(octets)["cpu_s_per_gb"]
    figures["hosts_cpu_s_per_gb"] = hosts.per_gb(octets)["cpu_s_per_gb"]
    return figures


def compare(link: str, rounds: int, seconds: int) -> dict[str, Any]:
    """Both paths in turns: the figures of each round, medians, and the relay's share of the
    direct path's throughput in the same round (median, least, most)."""
    found: dict[str, list[dict[str, float]]] = {path: [] for path in PATHS}
    with stage(link) as at:
        about = at.about()
        for number in range(rounds):
            for path in PATHS if number % 2 == 0 else reversed(PATHS):
                at.go(path)
                found[path].append(measure(at, seconds))
    ratios = [
        relayed[way] / direct[way]
        for direct, relayed in zip(found["direct"], found["relay"], strict=True)
        for way in ("forward_gbit_s", "reverse_gbit_s")
    ]
    medians = {
        path: {name: report.median([one[name] for one in every]) for name in every[0]}
        for path, every in found.items()
    }
    return {
        "link": link,
        **about,
        "ratio": {"median": report.median(ratios), "least": min(ratios), "most": max(ratios)},
        "median": medians,
        "rounds": found,
    }


def run(*, rounds: int, seconds: int, as_json: bool, save: bool) -> int:
    """Measures and prints; exit code 1 if the aim was missed."""
    series = [compare(link, rounds, seconds) for link in LINKS]
    octets = octets_per_packet()
    body = {"seconds": seconds, "aim": AIM, "links": series, "octets_per_packet": octets}
    report.finish("relay", body, render(series, octets), as_json=as_json, save=save)
    return int(any(one["ratio"]["median"] < AIM for one in series))


def octets_per_packet(segment: int = 1280) -> dict[str, int]:
    """UDP payload of one packet that carries so many octets of TCP or UDP, from sealed packets."""
    packets = {
        "tunnel": sealed(bytes(segment), Mode.TUNNEL),
        "transport": sealed(bytes(segment), Mode.TRANSPORT),
    }
    return {
        "segment": segment,
        **{name: len(packet) for name, packet in packets.items()},
        **{f"{name}_nested": len(nested(packet)) for name, packet in packets.items()},
    }


def sealed(segment: bytes, mode: Mode) -> bytes:
    """The first packet of an end-to-end SA."""
    header = bytes((0x60, 0, 0, 0)) + len(segment).to_bytes(2) + bytes((6, 64))
    packet = header + IDS["left"].packed + IDS["right"].packed + segment
    sa = OutboundSa(params("left", "left", "right", mode))
    return sa.seal(*inner.wrap(sa.params, packet))


def nested(packet: bytes) -> bytes:
    """The packet to the home agent that carries it."""
    sa = OutboundSa(params("left", "left", "agent"))
    return sa.seal(relay.around_esp(IDS["left"].packed, IDS["right"].packed, packet))


def render(series: list[dict[str, Any]], octets: dict[str, int]) -> str:
    """Two tables."""
    rows = [
        [
            f"{one['link']} {path}",
            f"{one['median'][path]['forward_gbit_s']:.2f}",
            f"{one['median'][path]['reverse_gbit_s']:.2f}",
            f"{one['median'][path]['hosts_cpu_s_per_gb']:.2f}",
            f"{one['median'][path]['agent_cpu_s_per_gb']:.2f}" if path == "relay" else "–",
            _share(one["ratio"]) if path == "relay" else "1",
        ]
        for one in series
        for path in PATHS
    ]
    head = ["link, path", "Gbit/s", "reverse", "hosts s/GB", "agent s/GB", "× direct"]
    title = f"TCP through a home agent; {machine.summary()}"
    first = report.table(title, head, rows)
    kinds = [name for name in octets if name != "segment"]
    second = report.table(
        f"UDP payload for {octets['segment']} octets of TCP",
        ["form", "octets", "more"],
        [[name, str(octets[name]), str(octets[name] - octets["segment"])] for name in kinds],
    )
    return f"{first}\n\n{second}"


def _share(ratio: dict[str, float]) -> str:
    missed = "" if ratio["median"] >= AIM else f"  below {AIM}"
    return f"{ratio['median']:.2f} ({ratio['least']:.2f}–{ratio['most']:.2f}){missed}"
