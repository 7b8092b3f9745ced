"""Strangers: thousands of IKE_SA_INIT a second from invented addresses, and one honest peer.

``python -m bench flood``: a host of ours with a static peer, each in a namespace of its own, and a
third one that floods it. In a flood the peer makes a tunnel (a ping through it, which waits for the
tunnel), then sends data over it. All of it is measured once without the flood, too.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import machine, report
from bench.cost import Cost, resident_mib
from bench.pair import wait_for_ping
from bench.peers.hosts import INNER, Hosts
from tunnel.io.lab import HostMachine, Lab, Namespace, Process, connect, wait_until

RATE, SECONDS = 20_000, 10.0  # issue 4
OUTER = ("192.0.2.1", "192.0.2.2")
STREETS = ("198.51.100.1", "198.51.100.2")  # between the host and those who flood it
DATA_PORT, DATA_RATE = 9000, 2000  # packets a second
_ENVIRONMENT = {"PYTHONPATH": str(Path(__file__).parents[1])}


@dataclass
class Scene:
    """``host`` is flooded by ``crowd``; ``peer`` is the honest one."""

    host: HostMachine
    peer: HostMachine
    crowd: Namespace

    @property
    def pid(self) -> int:
        """Of the flooded host."""
        assert self.host.process is not None
        return self.host.process.pid

    def demanded(self) -> int:
        """How many strangers the host has asked for a cookie."""
        return int(self.host.status()["strangers"]["counters"].get("cookie_demanded", 0))

    def resident_mib(self) -> float:
        """Of the flooded host."""
        return resident_mib((self.pid,))

    def connect(self) -> float:
        """The peer makes a tunnel anew; seconds until a ping has come back through it."""
        self.peer.down()
        self.peer.up()
        return wait_for_ping(self.peer.machine, INNER[1])

    def data(self, seconds: float) -> dict[str, Any]:
        """Paced datagrams from the peer to the host, by number."""
        program = (sys.executable, "-m", "bench.soak_flow")
        end = self.host.machine
        name = f"receive-{time.monotonic_ns()}"
        options = ("receive", "--port", str(DATA_PORT))
        receiver = end.start(*program, *options, env=_ENVIRONMENT, name=name)
        receiver.wait_for("ready", 60.0)
        target = ("--address", INNER[1], "--port", str(DATA_PORT))
        paced = ("--rate", str(DATA_RATE), "--seconds", str(seconds))
        command = (*program, "send", *target, *paced)
        done = self.peer.machine.run(*command, env=_ENVIRONMENT, timeout=seconds + 30)
        receiver.stop()
        sent = json.loads(done.stdout)["sent"]
        received = json.loads(receiver.output().strip().splitlines()[-1])["received"]
        return {"sent": sent, "received": received}

    def flood(self, rate: int, seconds: float) -> Process:
        """Begins a flood; it is made ready before it is let go."""
        command = ("bench.flood_end", STREETS[0], "--rate", str(rate), "--seconds", str(seconds))
        name = f"flood-{time.monotonic_ns()}"
        process = self.crowd.start(sys.executable, "-m", *command, env=_ENVIRONMENT, name=name)
        process.wait_for("ready", 60.0)
        return process


@contextmanager
def scene(engine: str = "native") -> Iterator[Scene]:
    """Both hosts are up and know of each other; no tunnel stands."""
    with Lab() as lab:
        left, right, crowd = lab.machines_of("left", "right", "crowd")
        connect(left, "eth0", right, "eth0")
        connect(crowd, "eth0", right, "eth1")
        left.address("eth0", f"{OUTER[0]}/24")
        right.address("eth0", f"{OUTER[1]}/24")
        right.address("eth1", f"{STREETS[0]}/24")
        crowd.address("eth0", f"{STREETS[1]}/24")
        right.gateway(STREETS[1])  # the way of all answers
        make = Hosts("autotunnel", engine=engine).host
        peer = make(left, right, OUTER[1], INNER)
        host = make(right, left, OUTER[0], INNER[::-1])
        host.up()
        peer.up()
        yield Scene(host, peer, crowd)


@dataclass
class Watch:
    """Looks at the resident memory of a process, ten times a second."""

    pid: int
    sizes: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.sizes.append(self.now())
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def now(self) -> float:
        """MiB."""
        return resident_mib((self.pid,))

    def _look(self) -> None:
        while not self._ended.wait(0.1):
            self.sizes.append(self.now())

    def end(self) -> None:
        """Stops looking."""
        self._ended.set()
        self._thread.join()


def measure(rate: int, seconds: float, engine: str = "native") -> dict[str, Any]:
    """One flood; see :func:`run` for what is told."""
    with scene(engine) as place:
        quiet = place.connect()
        data_before = place.data(seconds / 4)
        before = place.host.status()
        watch, cost = Watch(place.pid), Cost((place.pid,))
        process = place.flood(rate, seconds)
        wait_until(lambda: place.demanded() > 0, 20.0, "the host asks for cookies")
        flooded = place.connect()
        data_meanwhile = place.data(seconds / 4)
        held = process.running
        process.wait(seconds + 30)
        busy, _ = cost.seconds()
        offered = json.loads(process.output().strip().splitlines()[-1])
        after = place.host.status()
        watch.end()
        dropped = _queue_full(after) - _queue_full(before), after["strangers"]["unheard"]
        cookies = place.demanded()
        return {
            "engine": after["host"]["engine"],
            "offered_per_second": round(offered["sent"] / offered["seconds"]),
            "seconds": offered["seconds"],
            "offered": offered["sent"],
            "received": cookies + sum(dropped),
            "cookies": cookies,
            "dropped": sum(dropped),
            "half_open": after["strangers"]["half_open"],
            "rss_before_mib": round(watch.sizes[0], 1),
            "rss_max_mib": round(max(watch.sizes), 1),
            "rss_after_mib": round(watch.now(), 1),
            "cpu_share": round(busy / offered["seconds"], 2),
            "handshake_quiet_ms": round(1000 * quiet, 1),
            "handshake_flood_ms": round(1000 * flooded, 1),
            "flood_outlasted_the_peer": held,
            "data_quiet": data_before,
            "data_flood": data_meanwhile,
        }


def _queue_full(status: dict[str, Any]) -> int:
    return int(status["host"]["drops"].get("queue_full", 0))


def run(*, rate: int, seconds: float, as_json: bool, save: bool) -> None:
    """Offered and answered requests, what was dropped, memory, and how the honest peer fared."""
    result = measure(rate, seconds)
    rows = [[name, str(value)] for name, value in result.items()]
    text = report.table(machine.summary(), ["flood", "measured"], rows)
    report.finish("flood", {"results": [result]}, text, as_json=as_json, save=save)
