"""What a switch of path costs those who talk: from direct to relay and back, and from one direct
path to another.

The demo's network (:mod:`tunnel.cli.demo.stage`), with lines that take their time, and a home
agent. The laptop stands behind a NAT that lets in only whom was sent to, the desk behind a router
that maps. Two thousand numbered datagrams a second and, beside them, a TCP stream go from the desk
to the laptop. In each round somebody on the way cuts the direct path, lets it through again, and
the laptop changes its network. Counted are the datagrams that were lost, overtaken and doubled
around the switch, the longest time without one, and the longest time without a segment of the
stream. Then all of it once more with the datagrams alone, to which nobody answers anything.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import machine, numbered, report
from bench.numbered import Found
from bench.roam import LINE_MS, join_slowly
from tunnel.cli.demo import stage as place
from tunnel.cli.demo.relayed import AGENT, CUT
from tunnel.cli.demo.scenes import DESK, DOMAIN, LAPTOP, find_token
from tunnel.io.lab import Arrivals, HostMachine, Lab, LabError, RendezvousMachine, wait_until

RATE = 2000  # datagrams a second
TCP_RATE = "8M"
PORT, TCP_PORT = 9000, 5201
PATIENCE = 150.0  # a minute may pass until a direct path is looked for again
BEFORE, AFTER = 2.0, 3.0  # seconds
SWITCHED = 6.0  # after a cut or a move, at the latest
KNOWN = 15.0  # after the switch back, at the latest: a busy machine answers late how it stands

EVENTS = {
    "cut": ("direct to relay: the direct path is cut", "relay", True),
    "mended": ("relay to direct: it is let through again", "direct", False),
    "moved": ("direct to direct: a host changes its network", "direct", True),
}
"""Each with what it is, the path afterwards, and whether it is taken at once, or when the next
attempt is due."""


@dataclass
class Series:
    """All rounds of one event. Milliseconds without a segment of TCP, if there is a stream."""

    found: list[Found] = field(default_factory=list)
    tcp_ms: list[float] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        """As it is saved."""
        return {
            "datagrams": [one.summary() for one in self.found],
            "tcp_ms": [round(one, 1) for one in self.tcp_ms],
        }


def run(*, rounds: int, seconds: int, as_json: bool, save: bool) -> int:
    """Measures, prints, keeps."""
    del seconds  # an event takes as long as it takes
    with Lab() as lab:
        switches = Switches(lab)
        both = switches.measure(rounds, tcp=True)
        alone = switches.measure(rounds, tcp=False)
    body = {
        "rounds": rounds,
        "line_ms": LINE_MS,
        "datagrams_per_s": RATE,
        "tcp": TCP_RATE,
        "with_tcp": {event: one.summary() for event, one in both.items()},
        "alone": {event: one.summary() for event, one in alone.items()},
    }
    report.finish("switches", body, tables(both, alone, rounds), as_json=as_json, save=save)
    return 0


def tables(both: dict[str, Series], alone: dict[str, Series], rounds: int) -> str:
    """For people."""
    head = ["switch", "lost", "most", "overtaken", "doubled", "gap", "most", "TCP gap", "most"]
    about = f"{RATE} datagrams a second, {rounds} rounds, {2 * LINE_MS:.0f} ms each way"
    first = f"{about}, beside TCP of {TCP_RATE}bit/s; medians, gaps in ms"
    second = f"{about}, one way, nothing beside them; medians, gaps in ms"
    return "\n\n".join(
        (
            machine.summary(),
            report.table(first, head, [_row(event, one) for event, one in both.items()]),
            report.table(second, head, [_row(event, one) for event, one in alone.items()]),
        )
    )


def _row(event: str, series: Series) -> list[str]:
    lost, gaps = [one.lost for one in series.found], [one.gap_ms for one in series.found]
    overtaken = report.median([one.reordered for one in series.found])
    doubled = report.median([one.duplicated for one in series.found])
    tcp = ["–", "–"]
    if series.tcp_ms:
        tcp = [f"{report.median(series.tcp_ms):.0f}", f"{max(series.tcp_ms):.0f}"]
    return [
        EVENTS[event][0],
        *(f"{report.median(lost):.0f}", f"{max(lost)}", f"{overtaken:.0f}", f"{doubled:.0f}"),
        *(f"{report.median(gaps):.0f}", f"{max(gaps):.0f}", *tcp),
    ]


class Switches:
    """The hosts, their traffic, and what happens to the path between them."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._stage = stage = place.build(lab, join_slowly(lab))
        self._desk, self._laptop = HostMachine(stage.desk), HostMachine(stage.laptop)
        self._agent = HostMachine(stage.agent)
        self._account(RendezvousMachine(stage.rendezvous))
        self._at = stage.home
        self._runs = 0

    def _account(self, rendezvous: RendezvousMachine) -> None:
        desk = self._desk
        where = ("--rendezvous", place.RENDEZVOUS, "--name", DESK, "-c", str(desk.config))
        desk.cli("init", DOMAIN, "--auth", "psk", *where)
        rendezvous.adopt(desk)
        rendezvous.serve()
        for label, host in ((AGENT, self._agent), (LAPTOP, self._laptop)):
            token = find_token(desk.cli("invite", "--json", "-c", str(desk.config)).stdout)
            host.cli("join", token, "--name", label, "-c", str(host.config))
        for host in (desk, self._agent, self._laptop):
            host.settle(place.STUB)
        self._agent.change("home_agent", {})
        for host in (desk, self._agent, self._laptop):
            host.up()

    def measure(self, rounds: int, *, tcp: bool) -> dict[str, Series]:
        """All events, ``rounds`` times, in turns."""
        series = {event: Series() for event in EVENTS}
        events: dict[str, Callable[[], None]] = {
            "cut": self._cut,
            "mended": self._mend,
            "moved": self._move,
        }
        with self._traffic(tcp=tcp) as (file, segments):
            for number in range(rounds):
                for event, happen in events.items():
                    self._one(series[event], happen, event, file, segments)
                    report.say(f"round {number + 1}: {event}: {_told(series[event])}")
        return series

    def _one(
        self,
        series: Series,
        happen: Callable[[], None],
        event: str,
        file: Path,
        segments: Arrivals | None,
    ) -> None:
        _, path, at_once = EVENTS[event]
        happened = time.time()
        happen()
        try:
            wait_until(lambda: self._both_take(path) or None, PATIENCE, f"both take the {path}")
        except LabError as error:
            said = "\n".join(host.log() for host in (self._desk, self._laptop))
            raise LabError(f"{error}; the hosts said last:\n{said}") from error
        settled = time.time()
        begun = (happened if at_once else max(happened, settled - KNOWN)) - BEFORE
        until = (happened + SWITCHED if at_once else settled) + AFTER
        wait_until(lambda: time.time() > until + 1 or None, PATIENCE, "it is quiet again")
        series.found.append(numbered.judge(numbered.read(file), begun, until))
        if segments is not None:
            series.tcp_ms.append(segments.longest_gap(begun) * 1000)

    def _both_take(self, path: str) -> bool:
        """Whether both do, to where the other is now."""
        outside = self._at.outside
        ways = self._laptop.peer(DESK), self._desk.peer(LAPTOP)
        if any(way is None or way["path"] != path for way in ways):
            return False
        return path != "direct" or str((ways[1] or {})["endpoint"]).startswith(f"{outside}:")

    @contextmanager
    def _traffic(self, *, tcp: bool) -> Iterator[tuple[Path, Arrivals | None]]:
        self._runs += 1
        desk, laptop = self._desk.machine, self._laptop.machine
        host_id = str(self._laptop.status()["host"]["id"])
        wait_until(self._are_registered, PATIENCE, "both are registered with the home agent")
        desk.run("ping", "-c", "1", "-W", "10", f"{LAPTOP}.{DOMAIN}")
        wait_until(lambda: self._both_take("direct") or None, PATIENCE, "both go directly")
        file = laptop.folder / f"datagrams-{self._runs}"
        root = {"PYTHONPATH": str(Path(__file__).parents[1])}
        receiver = laptop.start(
            *numbered.command("receive", host_id, str(PORT), str(file)), name="receiver", env=root
        )
        receiver.wait_for("ready", 20.0)
        segments = self._stream(host_id) if tcp else None
        sender = desk.start(
            *numbered.command("send", host_id, str(PORT), str(RATE)), name="sender", env=root
        )
        steady = time.time() + BEFORE
        wait_until(lambda: time.time() > steady or None, PATIENCE, "all flows")
        try:
            yield file, segments
        finally:
            sender.stop()
            receiver.stop()

    def _stream(self, host_id: str) -> Arrivals:
        desk, laptop = self._desk.machine, self._laptop.machine
        server = laptop.start(
            *("iperf3", "-s", "-1", "--forceflush", "-B", host_id, "-p", str(TCP_PORT)),
            name="iperf3",
        )
        server.wait_for("Server listening", 10.0)
        device = str(self._laptop.status()["host"]["device"])
        data = f"tcp dst port {TCP_PORT} and greater 200"
        segments = Arrivals(self._lab.capture(laptop, device, "stream", data, octets=64))
        client = ("-c", host_id, "-p", str(TCP_PORT), "-b", TCP_RATE, "-t", "86400")
        self._client = desk.start("iperf3", *client, name="stream")
        return segments

    def _are_registered(self) -> bool | None:
        asked = (host.status()["home_agents"] for host in (self._desk, self._laptop))
        return all(any(one["registered"] for one in agents) for agents in asked) or None

    def _cut(self) -> None:
        rules = CUT.format(self._at.outside)
        self._stage.study.router.run("nft", "-f", "-", stdin=rules)

    def _mend(self) -> None:
        self._stage.study.router.run("nft", "delete", "table", "ip", "cut")

    def _move(self) -> None:
        stage, leaving = self._stage, self._at
        self._at = stage.cafe if leaving is stage.home else stage.home
        place.enter(stage.laptop, self._at, leaving)


def _told(series: Series) -> str:
    last = series.found[-1]
    tcp = f", TCP {series.tcp_ms[-1]:.0f} ms" if series.tcp_ms else ""
    return (
        f"{last.lost} of {last.sent} lost, {last.reordered} overtaken, {last.duplicated} doubled, "
        f"{last.gap_ms:.0f} ms without any{tcp}"
    )
