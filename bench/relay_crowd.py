"""A home agent's engine with many hosts: what each takes, and what a packet costs among them.

``python -m bench.relay_crowd --hosts 10000`` measures in a process of its own and prints JSON.
Packets are sealed beforehand and come in runs, as from a fast link: of all hosts by turns, then of
one host alone, then of that one marked as path MTU probes, all of them. Each is for another host
than the one before, and leaves for an endpoint of its own. All of it is on loopback, and nobody
reads what leaves. The processor time is that of the engine's threads alone.
"""

from __future__ import annotations

import argparse
import importlib
import json
import socket
import struct
import subprocess
import sys
import time
from dataclasses import dataclass
from ipaddress import IPv6Address
from pathlib import Path

from bench import report
from bench.crowd import resident_octets
from fastpath._esp import OutboundSa
from fastpath.reference import relay
from fastpath.types import Endpoint, Mode, Pump, SaParams, Suite, Traffic
from tunnel.io.lab import LabError

SIZES = (10, 1000, 10_000)
ROOT = Path(__file__).parents[1]
AGENT = IPv6Address("fd00:c::1").packed
FIRST_SPI = 0x10_0000
BODY = 500  # octets of the ESP packets that are carried
RUN = 60  # packets of one send
BUFFER = 256 * 2**20
PATIENCE = 120.0  # seconds
UDP_SEGMENT = 103  # Linux; not in socket before Python 3.14
SO_RCVBUFFORCE = 33
THREADS = ("autotunnel-in", "autotunnel-out")


def host_id(number: int) -> bytes:
    """Of host ``number``."""
    return (0xFD00_000C_0000_0000 << 64 | 0x1_0000 + number).to_bytes(16, "big")


def relay_sa(number: int, ours: bytes, theirs: bytes) -> SaParams:
    """The relay SA of a host, in either direction; the key is fixed, and worth nothing."""
    key = number.to_bytes(Suite.AES128GCM16.key_octets + 4, "big")
    return SaParams(
        FIRST_SPI + number,
        Suite.AES128GCM16,
        key,
        ours,
        theirs,
        mode=Mode.TRANSPORT,
        traffic=Traffic(protocol=41),
    )


def endpoint(number: int, port: int) -> Endpoint:
    """Where a host is: an address of its own on loopback."""
    return f"127.{1 + (number >> 16)}.{number >> 8 & 0xFF}.{number & 0xFF}", port


def register(pump: Pump, number: int, port: int) -> None:
    """What the control plane of a home agent tells the engine of one more host, or of a rekey."""
    theirs = host_id(number)
    pump.install_inbound(relay_sa(number, AGENT, theirs))
    pump.install_outbound(relay_sa(number, AGENT, theirs))
    pump.set_relay(theirs, FIRST_SPI + number, endpoint(number, port), True)


@dataclass(frozen=True)
class Load:
    """``packets`` of ``senders`` by turns, each to somebody else than the one before."""

    hosts: int
    senders: int
    packets: int
    first: int = 0  # so many of each sender went before
    probes: bool = False

    def runs(self) -> tuple[int, list[bytes]]:
        """Octets of a sealed packet, and all of them, joined to runs."""
        sealing = [
            OutboundSa(relay_sa(number, host_id(number), AGENT), self.first)
            for number in range(self.senders)
        ]
        sealed = []
        for number in range(self.packets):
            source = number % self.senders
            target = (source + 1 + number % (self.hosts - 1)) % self.hosts
            packet = relay.around_esp(host_id(source), host_id(target), bytes(BODY), self.probes)
            sealed.append(sealing[source].seal(packet))
        joined = [b"".join(sealed[n : n + RUN]) for n in range(0, self.packets, RUN)]
        return len(sealed[0]), joined


def threads_seconds() -> float:
    """Processor time of the engine's threads so far."""
    spent = 0
    for task in Path("/proc/self/task").iterdir():
        if (task / "comm").read_text().strip() in THREADS:
            spent += int((task / "schedstat").read_text().split()[0])
    return spent / 1e9


def forward(pump: Pump, near: socket.socket, load: Load) -> dict[str, float]:
    """Microseconds of processor for a packet that came, and how many are done a second."""
    octets, runs = load.runs()
    done = _settled(pump) + load.packets
    before, began = threads_seconds(), time.perf_counter()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as far:
        size = [(socket.IPPROTO_UDP, UDP_SEGMENT, struct.pack("H", octets))]
        for run in runs:
            far.sendmsg([run], size, 0, near.getsockname())
        while _settled(pump) < done:
            if time.perf_counter() - began > PATIENCE:
                raise SystemExit(f"{done - _settled(pump)} packets are missing: {pump.counters()}")
            time.sleep(0.002)
    seconds = time.perf_counter() - began
    return {
        "cpu_us": (threads_seconds() - before) / load.packets * 1e6,
        "packets_per_s": load.packets / seconds,
    }


def _settled(pump: Pump) -> int:
    """Packets that were forwarded, or dropped before."""
    counters = pump.counters()
    return counters["relayed_packets"] + counters.get("drop_relay_limit", 0)


def measure(hosts: int, packets: int) -> dict[str, float]:
    """All figures of one size."""
    tun, end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    near = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sink = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with tun, end, near, sink:
        near.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
        near.bind(("127.0.0.1", 0))
        sink.bind(("0.0.0.0", 0))
        near.setblocking(False)
        port = sink.getsockname()[1]
        pump: Pump = importlib.import_module("fastpath._pump").NativePump(
            tun.fileno(), near.fileno(), None, AGENT
        )
        pump.start()
        register(pump, hosts, port)  # what a first one takes is not counted
        before, began = resident_octets(), time.thread_time()
        for number in range(hosts):
            register(pump, number, port)
        seconds = time.thread_time() - began
        octets = (resident_octets() - before) / hosts
        usual = forward(pump, near, Load(hosts, hosts, packets))
        gone = -(-packets // hosts)
        alone = forward(pump, near, Load(hosts, 1, packets, gone))
        gone += packets
        probes = forward(pump, near, Load(hosts, 1, packets, gone, probes=True))
        began = time.thread_time()
        for number in range(hosts):
            register(pump, number, port)
        again = time.thread_time() - began
        pump.stop()
    return {
        "hosts": hosts,
        "octets_per_host": round(octets),
        "install_us": round(seconds / hosts * 1e6, 1),
        "replace_us": round(again / hosts * 1e6, 1),
        "packet_cpu_us": round(usual["cpu_us"], 3),
        "packets_per_s": round(usual["packets_per_s"]),
        "of_one_cpu_us": round(alone["cpu_us"], 3),
        "probes_cpu_us": round(probes["cpu_us"], 3),
    }


def compare(rounds: int) -> list[dict[str, float]]:
    """All sizes by turns, each in a process of its own: medians, and ``ratio``, the processor time
    of a packet by that with the fewest hosts in the same round."""
    found: dict[int, list[dict[str, float]]] = {hosts: [] for hosts in SIZES}
    for _ in range(rounds):
        for hosts, figures in found.items():
            figures.append(_apart(hosts))
    fewest = found[SIZES[0]]
    return [
        {name: report.median([one[name] for one in figures]) for name in figures[0]}
        | {"ratio": round(report.median(_ratios(figures, fewest)), 3)}
        for figures in found.values()
    ]


def _ratios(some: list[dict[str, float]], others: list[dict[str, float]]) -> list[float]:
    pairs = zip(some, others, strict=True)
    return [one["packet_cpu_us"] / other["packet_cpu_us"] for one, other in pairs]


def _apart(hosts: int) -> dict[str, float]:
    command = [sys.executable, "-m", "bench.relay_crowd", "--hosts", str(hosts)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    if done.returncode:
        raise LabError(f"{' '.join(command)}: {done.stderr[-500:]}")
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def render(series: list[dict[str, float]]) -> str:
    """A table."""
    head = ["hosts", "octets each", "µs to install", "µs a packet", "× fewest", "packets/s"]
    rows = [
        [
            f"{one['hosts']:,.0f}",
            f"{one['octets_per_host']:.0f}",
            f"{one['install_us']:.0f}",
            f"{one['packet_cpu_us']:.2f}",
            f"{one['ratio']:.2f}",
            f"{one['packets_per_s']:,.0f}",
            f"{one['of_one_cpu_us']:.2f}",
            f"{one['probes_cpu_us']:.2f}",
        ]
        for one in series
    ]
    title = "The engine of a home agent; processor time of it alone"
    return report.table(title, [*head, "µs, of one host", "µs, all probes"], rows)


def main() -> None:
    """Prints the figures of one size."""
    parser = argparse.ArgumentParser(prog="bench.relay_crowd", description=__doc__)
    parser.add_argument("--hosts", type=int, default=10_000)
    parser.add_argument("--packets", type=int, default=60_000)
    options = parser.parse_args()
    json.dump(measure(options.hosts, options.packets), sys.stdout)


if __name__ == "__main__":
    main()
