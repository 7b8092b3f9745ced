"""One file on its way while both hosts move: what each event costs, seen by the receiver.

The gap is measured where packets come out of the tunnel, by a capture on the receiver's device: no
buffer of an application hides it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tunnel.cli.demo.stage import Stage
from tunnel.cli.demo.story import StepFailedError
from tunnel.io.lab import Arrivals, HostMachine, Lab, Process, wait_until
from tunnel.io.lab.nat import OUTSIDE

LINE = ("burst", "64kb", "latency", "50ms")
"""Of each router towards the internet, besides its rate: a usual home's."""
FLOWING_SECONDS, FLOWING_PAUSE = 1.0, 0.3
"""A transfer goes on again when packets have come for so long without such a pause."""
PATIENCE = 120.0  # seconds; the machine may be busy with other things


@dataclass(frozen=True, slots=True)
class Outage:
    """``gap``: the longest time without data around an event; ``event``: how long the event itself
    took, such as a router's restart. Seconds."""

    gap: float
    event: float

    @property
    def milliseconds(self) -> float:
        """The gap, rounded."""
        return round(self.gap * 1000, 1)


def narrow_lines(stage: Stage, mbit: int) -> None:
    """Give every router a line of so many megabits a second, so that a file is still on its way
    when something happens."""
    for place in stage.places:
        shape = ("tbf", "rate", f"{mbit}mbit", *LINE)
        place.router.run("tc", "qdisc", "replace", "dev", OUTSIDE, "root", *shape)


def widen_lines(stage: Stage) -> None:
    """Take that back."""
    for place in stage.places:
        place.router.run("tc", "qdisc", "del", "dev", OUTSIDE, "root")


class Transfer:
    """A download by ``curl`` on ``host`` that goes on in the background."""

    def __init__(self, lab: Lab, host: HostMachine, url: str, port: int, target: Path) -> None:
        machine = host.machine
        device = str(host.status()["host"]["device"])
        data = f"tcp src port {port} and greater 200"  # not what only acknowledges
        name = f"arrivals-{target.stem}"
        self._capture = lab.capture(machine, device, name, data, octets=64)
        self.arrivals = Arrivals(self._capture)
        self._begun = time.time()
        self._curl: Process = machine.start(
            *("curl", "-sS", "--fail", "--noproxy", "*", "-o", str(target), url),
            name=f"curl-{target.stem}",
        )
        self._wait_until_it_flows(self._begun)

    def through(
        self, event: Callable[[], None], until: Callable[[], bool] = lambda: True
    ) -> Outage:
        """Let something happen, and wait until data flows again, and until something holds."""
        begun = time.time()
        event()
        done = time.time()
        wait_until(until, PATIENCE, "what should follow has followed")
        self._wait_until_it_flows(done)
        return Outage(self.arrivals.longest_gap(begun), done - begun)

    def finish(self) -> float:
        """Wait for the end of the file; seconds since its beginning."""
        if self._curl.wait(300) != 0:
            raise StepFailedError(f"the transfer broke: {self._curl.tail()}")
        self._capture.stop()
        return time.time() - self._begun

    def _wait_until_it_flows(self, since: float) -> None:
        wait_until(
            lambda: self.arrivals.flow_since(since, FLOWING_SECONDS, FLOWING_PAUSE),
            PATIENCE,
            "the file goes on arriving",
        )
