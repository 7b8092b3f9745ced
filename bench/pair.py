"""Two namespaces with one veth link between them, and iperf3 from one to the other."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tunnel.io.lab import Lab, LabError, Namespace, connect, wait_until

DEVICE = "eth0"
OUTER = ("192.0.2.1", "192.0.2.2")
IPERF_PORT = 5201
READY_SECONDS = 20.0
_numbers = itertools.count(1)


@dataclass
class Pair:
    """``left`` and ``right`` see each other over :data:`OUTER`; nothing else is there."""

    lab: Lab
    left: Namespace
    right: Namespace

    @property
    def ends(self) -> tuple[tuple[Namespace, str, str], tuple[Namespace, str, str]]:
        """Each end with its own and the other's outer address."""
        return (self.left, *OUTER), (self.right, OUTER[1], OUTER[0])


@contextmanager
def pair(link: str) -> Iterator[Pair]:
    """A fresh pair. ``link`` is "offloading" (a veth as it comes, which carries GSO bursts
    unsplit and so flatters senders that use them) or "plain" (bursts are cut at the sender)."""
    with Lab() as lab:
        left, right = lab.machines_of("left", "right")
        connect(left, DEVICE, right, DEVICE)
        for end, address in ((left, OUTER[0]), (right, OUTER[1])):
            end.address(DEVICE, f"{address}/24")
            if link == "plain":
                end.run("ethtool", "-K", DEVICE, "tx-udp-segmentation", "off")
        yield Pair(lab, left, right)


def wait_for_ping(end: Namespace, address: str) -> float:
    """Waits until ``address`` answers ``end``; seconds that it took."""
    started = time.monotonic()

    def answers() -> bool:
        family = "-6" if ":" in address else "-4"
        done = end.run("ping", family, "-c", "1", "-W", "1", address, check=False)
        return done.returncode == 0

    wait_until(answers, READY_SECONDS, f"{address} answers through the tunnel")
    return time.monotonic() - started


@contextmanager
def iperf_server(end: Namespace) -> Iterator[None]:
    """An iperf3 server in ``end`` for one test: it resets who comes while it makes ready for
    a second one."""
    command = ("iperf3", "-s", "-1", "-p", str(IPERF_PORT), "--forceflush")
    server = end.start(*command, name=f"iperf3-{next(_numbers)}")  # each with a log of its own
    try:
        server.wait_for("Server listening", 10.0)
        yield
    finally:
        server.stop()


def iperf(ends: Pair, address: str, seconds: int, *options: str) -> dict[str, Any]:
    """Runs iperf3 from ``left`` against ``address`` of ``right``; the client's JSON."""
    family = "-6" if ":" in address else "-4"
    command = ["iperf3", family, "-c", address, "-p", str(IPERF_PORT), "-J"]
    command += ["-t", str(seconds), *options]
    with iperf_server(ends.right):
        done = ends.left.run(*command, timeout=seconds + 30, check=False)
    try:
        report: dict[str, Any] = json.loads(done.stdout)
    except json.JSONDecodeError:
        raise LabError(f"iperf3 said no JSON: {done.stdout[-300:]} {done.stderr[-300:]}") from None
    if "error" in report:
        raise LabError(f"iperf3 to {address}: {report['error']}")
    return report
