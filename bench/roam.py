"""What a move costs: no data for how long, when hosts and routers change (issue 6's aims).

The demo's network (:mod:`tunnel.cli.demo.stage`), with lines that take their time. A TCP stream and
100 pings a second go on while, in each round, the laptop changes its network, the desk changes its
own, the desk's router gets another address, and it restarts with yet another one; then the desk is
where no router opens a port, and the laptop's router gets another address and tells nobody.
The outage is the longest gap around an event: between answers to pings (both directions), and
between segments of the stream as they come out of the tunnel.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import delay, machine, report
from tunnel.cli.demo import stage as place
from tunnel.cli.demo.scenes import DESK, DOMAIN, LAPTOP, find_token
from tunnel.cli.demo.stage import Place
from tunnel.io.lab import (
    Arrivals,
    HostMachine,
    Lab,
    LabError,
    Namespace,
    RendezvousMachine,
    Switch,
    connect,
    wait_until,
)
from tunnel.io.lab.nat import OUTSIDE

ROUNDS = 20
LINE_MS = 10.0  # each way, of each line: 20 ms from any machine to any other
LINE = ("rate", "20mbit", "burst", "32kb", "latency", "50ms")
PING_SECONDS = 0.01
QUIET_SECONDS, PAUSE = 1.0, 0.3  # it goes on again when data came so long without such a pause
PATIENCE = 60.0
MOST_MS = 5000.0  # of any run
ADDRESSES = [f"192.0.1.{number}" for number in range(30, 250)]

EVENTS = {
    "laptop moves": ("a host changes its network; its peer's router opens ports", 300.0),
    "desk moves": ("its peer's router lets in only whom was sent to: the zone tells", 1500.0),
    "new address": ("the router before the peer gets another address", 1500.0),
    "router restarts": ("that router loses its memory, and gets another address", 1500.0),
    "silent router": ("neither router opens a port; ours gets another address, untold", 1500.0),
}
"""Each with what it is, and the median that we aim at, in milliseconds."""


@dataclass
class Series:
    """Outages of one kind of event, in milliseconds; ``took``: how long the event itself took."""

    ping: list[float] = field(default_factory=list)
    tcp: list[float] = field(default_factory=list)
    took: list[float] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        """As it is saved."""
        every = {"ping_ms": self.ping, "tcp_ms": self.tcp, "took_ms": self.took}
        return {
            name: {
                "median": round(statistics.median(values), 1),
                "least": round(min(values), 1),
                "most": round(max(values), 1),
                "all": [round(value, 1) for value in values],
            }
            for name, values in every.items()
        }


def run(*, rounds: int, as_json: bool, save: bool) -> int:
    """Measures, prints; 1 if an aim was missed."""
    with Lab() as lab:
        series = Roam(lab).measure(rounds)
    body: dict[str, Any] = {
        "rounds": rounds,
        "line_ms": LINE_MS,
        "line": " ".join(LINE),
        "aims_ms": {name: aim for name, (_, aim) in EVENTS.items()} | {"any run": MOST_MS},
        "events": {name: one.summary() for name, one in series.items()},
    }
    report.finish("roam", body, _table(series, rounds), as_json=as_json, save=save)
    return 0 if all(_holds(name, one) for name, one in series.items()) else 1


def _holds(name: str, series: Series) -> bool:
    return statistics.median(series.ping) <= EVENTS[name][1] and max(series.ping) <= MOST_MS


def _table(series: dict[str, Series], rounds: int) -> str:
    rows = [
        [
            EVENTS[name][0],
            *(f"{figure:.0f}" for figure in (statistics.median(one.ping), *_range(one.ping))),
            *(f"{figure:.0f}" for figure in (statistics.median(one.tcp), max(one.tcp))),
            f"{statistics.median(one.took):.0f}",
            f"{EVENTS[name][1]:.0f}" + ("" if _holds(name, one) else " missed"),
        ]
        for name, one in series.items()
    ]
    head = ["event", "ping: median", "least", "most", "TCP: median", "most", "event took", "aim"]
    title = f"No data for how long, ms, {rounds} rounds; {2 * LINE_MS:.0f} ms each way"
    return f"{machine.summary()}\n\n" + report.table(title, head, rows)


def _range(values: list[float]) -> tuple[float, float]:
    return min(values), max(values)


def join_slowly(lab: Lab) -> Callable[..., str]:
    """How machines are plugged into the internet: with a line between that takes its time."""

    def join(internet: Switch, node: Namespace, device: str, *addresses: str) -> str:
        line = lab.namespace(f"line-{node.role}")
        connect(node, device, line, delay.DEVICES[0])
        port = internet.plug(line, delay.DEVICES[1])
        # The line carries frames as they are: whole ones, with their checksums.
        for end, name in ((node, device), (internet.namespace, port)):
            end.run(*("ethtool", "-K", name, "tx", "off", "gso", "off", "tso", "off"))
        node.address(device, *addresses)
        environment = {"PYTHONPATH": str(Path(__file__).parents[1])}
        command = (sys.executable, "-m", "bench.delay", str(LINE_MS))
        line.start(*command, name="delay", env=environment).wait_for("carrying", 20.0)
        return port

    return join


class Roam:
    """Two hosts that talk all the time."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._stage = stage = place.build(lab, join_slowly(lab))
        self._desk, self._laptop = HostMachine(stage.desk), HostMachine(stage.laptop)
        self._account(RendezvousMachine(stage.rendezvous))
        self._addresses = iter(ADDRESSES)
        self._laptop_at, self._desk_at = stage.home, stage.study

    def _account(self, rendezvous: RendezvousMachine) -> None:
        desk, laptop = self._desk, self._laptop
        where = ("--rendezvous", place.RENDEZVOUS, "--name", DESK, "-c", str(desk.config))
        desk.cli("init", DOMAIN, "--auth", "psk", *where)
        rendezvous.adopt(desk)
        rendezvous.serve()
        token = find_token(desk.cli("invite", "--json", "-c", str(desk.config)).stdout)
        laptop.cli("join", token, "--name", LAPTOP, "-c", str(laptop.config))
        for host in (desk, laptop):
            host.settle(place.STUB)
            host.up()

    def measure(self, rounds: int) -> dict[str, Series]:
        """All events, ``rounds`` times, in turns."""
        series = {name: Series() for name in EVENTS}
        events: dict[str, Callable[[], None]] = {
            "laptop moves": self._move_laptop,
            "desk moves": self._move_desk,
            "new address": lambda: self._desk_at.renumber(next(self._addresses)),
            "router restarts": lambda: self._desk_at.reboot(next(self._addresses)),
            "silent router": lambda: self._laptop_at.renumber(next(self._addresses)),
        }
        with self._traffic() as (pings, stream):
            for number in range(rounds):
                for name, event in events.items():
                    if name == "silent router":
                        self._one(Series(), self._move_desk_inside, pings, stream)
                    self._one(series[name], event, pings, stream)
                    last = series[name]
                    report.say(
                        f"round {number + 1}: {name}: {last.ping[-1]:.0f} ms without a ping's "
                        f"answer, {last.tcp[-1]:.0f} ms without TCP data"
                    )
        return series

    def _one(
        self, series: Series, event: Callable[[], None], pings: Arrivals, stream: Arrivals
    ) -> None:
        begun = time.time()
        event()
        done = time.time()
        self._wait_until_all_flows(done, pings, stream)
        wait_until(self._settled, PATIENCE, "both hosts know where they are")
        series.took.append((done - begun) * 1000)
        series.ping.append(pings.longest_gap(begun) * 1000)
        series.tcp.append(stream.longest_gap(begun) * 1000)

    @contextmanager
    def _traffic(self) -> Iterator[tuple[Arrivals, Arrivals]]:
        desk_id = str(self._desk.status()["host"]["id"])
        laptop, device = self._laptop.machine, str(self._laptop.status()["host"]["device"])
        laptop.run("ping", "-c", "1", "-W", "10", f"{DESK}.{DOMAIN}")
        server = self._desk.machine.start(
            "iperf3", "-s", "-1", "--forceflush", "-B", desk_id, name="iperf3"
        )
        server.wait_for("Server listening", 10.0)
        answers = "icmp6 and ip6[40] == 129"
        pings = Arrivals(self._lab.capture(laptop, device, "pings", answers, octets=64))
        data = "tcp src port 5201 and greater 200"
        stream = Arrivals(self._lab.capture(laptop, device, "stream", data, octets=64))
        for each in self._stage.places:
            each.router.run("tc", "qdisc", "add", "dev", OUTSIDE, "root", "tbf", *LINE)
        begun = time.time()
        laptop.start("ping", "-q", "-i", str(PING_SECONDS), desk_id, name="pings")
        laptop.start("iperf3", "-c", desk_id, "-R", "-t", "86400", name="stream")
        self._wait_until_all_flows(begun, pings, stream)
        yield pings, stream

    def _settled(self) -> bool:
        """Whether nothing of the last event is left to do: events are rarer than these."""
        for host, where in ((self._desk, self._desk_at), (self._laptop, self._laptop_at)):
            nat = host.status()["nat"]
            known, other = ("external", "seen") if where.mapper else ("seen", "external")
            if not str(nat[known]).startswith(f"{where.outside}:") or nat[other] is not None:
                return False
        return True

    def _wait_until_all_flows(self, since: float, *kinds: Arrivals) -> None:
        def flowing() -> bool:
            return all(one.flow_since(since, QUIET_SECONDS, PAUSE) for one in kinds)

        try:
            wait_until(flowing, PATIENCE, "data flows again")
        except LabError as error:
            said = "\n".join(host.log() for host in (self._desk, self._laptop))
            raise LabError(f"{error}; the hosts said last:\n{said}") from error

    def _move_laptop(self) -> None:
        stage, leaving = self._stage, self._laptop_at
        self._laptop_at = _other(leaving, stage.home, stage.cafe)
        place.enter(stage.laptop, self._laptop_at, leaving)

    def _move_desk(self) -> None:
        stage = self._stage
        self._bring_desk(_other(self._desk_at, stage.study, stage.office))

    def _move_desk_inside(self) -> None:
        self._bring_desk(self._stage.cabin)

    def _bring_desk(self, target: Place) -> None:
        leaving, self._desk_at = self._desk_at, target
        place.enter(self._stage.desk, target, leaving)


def _other(one: Place, first: Place, second: Place) -> Place:
    return second if one is first else first
