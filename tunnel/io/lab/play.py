"""Playing a scenario with real routers and real hosts, and saying what happened."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from tunnel.io.lab.capture import Capture
from tunnel.io.lab.hosts import HostMachine
from tunnel.io.lab.internet import DOMAIN, RENDEZVOUS, Home, Internet
from tunnel.io.lab.lab import Lab
from tunnel.io.lab.process import LabError, Process, wait_until
from tunnel.io.lab.scenario import Event, Network, Scenario, Who

PROGRAMS = ("nft", "miniupnpd", "ping", "ss", "tee")
SETTLED = 30.0  # seconds until a host knows what stands before it
AGAIN = 120.0  # seconds after an event until both hear each other again
_PING_EVERY = 0.1  # seconds


@dataclass(frozen=True, slots=True)
class Happened:
    """What happened at one moment. ``outage_s``: how long nothing came back because of it;
    ``None``: not before the next moment, or nobody could tell since nothing came before."""

    what: str
    outage_s: float | None


@dataclass(slots=True)
class Report:
    """What happened. ``expected``: whether a direct path exists between such networks."""

    expected: bool
    found: bool = False
    path: str | None = None
    rtt_ms: float | None = None
    reason: str | None = None
    hosts: dict[str, dict[str, Any]] = field(default_factory=dict)
    events: list[Happened] = field(default_factory=list)
    captures: list[str] = field(default_factory=list)

    @property
    def as_expected(self) -> bool:
        """Whether what should work does, and what cannot work says so."""
        if self.expected:
            return self.found and self.path == "direct"
        return not self.found or self.path != "direct"

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "as_expected": self.as_expected}


Tell = Callable[[str], None]


class Play:
    """A scenario on a lab. ``tables``: of a configuration, which both hosts take over."""

    def __init__(
        self,
        lab: Lab,
        scenario: Scenario,
        *,
        tell: Tell,
        tables: Mapping[str, Mapping[str, Any]] | None = None,
        pcap: Path | None = None,
        seed: int = 0,
    ) -> None:
        self.scenario, self._lab, self._tell = scenario, lab, tell
        self._tables, self._pcap = tables or {}, pcap
        self.internet = Internet(lab, scenario.links, seed)
        self.homes: dict[Who, Home] = {
            "left": Home(self.internet, "left", self._networks("left")),
            "right": Home(self.internet, "right", self._networks("right")),
        }
        self._captures: list[Capture] = []

    def run(self) -> Report:
        """All of it."""
        report = Report(self.scenario.has_path)
        try:
            self._begin()
            self._meet(report)
            if self.scenario.event:
                self._live(report)
                self._ask(report)
            for who, home in self.homes.items():
                report.hosts[who] = _about(home.host)
        finally:
            report.captures = self._keep_captures()
        return report

    # --- The beginning ------------------------------------------------------------------------

    def _networks(self, who: Who) -> tuple[Network, ...]:
        moves = [one for one in self.scenario.in_order() if one.do == "move" and one.who == who]
        later = [Network(one.kind, one.timeout) for one in moves if one.kind is not None]
        return (self.scenario.network(who), *later)

    def _begin(self) -> None:
        """The account is made, both join, and both run."""
        if self._pcap is not None:
            for home in self.homes.values():
                self._captures += home.capture(self._lab)
            middle = self.internet.middle
            self._captures.append(self._lab.capture(middle.namespace, middle.device, "internet"))
        left, right = (home.host for home in self.homes.values())
        where = ("--rendezvous", RENDEZVOUS, "--name", "left", "-c", str(left.config))
        left.cli("init", DOMAIN, "--auth", "psk", *where)
        self.internet.rendezvous.adopt(left)
        self.internet.rendezvous.serve()
        token = json.loads(left.cli("invite", "--json", "-c", str(left.config)).stdout)["token"]
        right.cli("join", token, "--name", "right", "-c", str(right.config))
        for host in (left, right):
            host.settle()
            host.change("resolver", {"enabled": False})
            for name, values in self._tables.items():
                host.change(name, values)
            host.begin_up()
        for host in (left, right):
            host.wait_until_up()
        for who, home in self.homes.items():
            self._settle(who, home)

    def _settle(self, who: Who, home: Home) -> None:
        """A host knows what stands before it: then what it says of its peer is final."""
        kind = home.access.network.kind

        def settled() -> bool:
            nat = home.host.status()["nat"]
            return bool(nat["method"] or nat["mapping"]) or nat["double_nat"] is True

        if kind not in ("public", "blocked"):
            with suppress(LabError):  # then it tells so itself
                wait_until(settled, SETTLED, f"{who} knows its network")
        self._tell(f"{who} is up: {_words(home.host)}")

    # --- What is asked ------------------------------------------------------------------------

    def _meet(self, report: Report) -> None:
        self._ask(report)
        if report.found:
            self._tell(f"they meet: {report.path} path, {report.rtt_ms} ms there and back")
        else:
            self._tell(f"they do not meet: {report.reason}")

    def _ask(self, report: Report) -> None:
        """``ping`` by name; who waits for a network to be learnt asks again."""
        host = self.homes["left"].host
        end = time.monotonic() + (AGAIN if report.expected and report.events else 0.0)
        while True:
            arguments = ("ping", "right", "-n", "3", "--json", "-c", str(host.config))
            done = host.cli(*arguments, check=False, timeout=60.0)
            said = json.loads(done.stdout) if done.stdout.startswith("{") else {}
            came = [one for one in said.get("rtt_ms", []) if one is not None]
            if came or time.monotonic() >= end:
                break
        report.found, report.path, report.rtt_ms, report.reason = bool(came), None, None, None
        if came:
            peer = host.peer("right") or {}
            report.path, report.rtt_ms = peer.get("path"), round(min(came), 2)
        else:
            report.reason = str(said.get("error") or done.stderr.strip())

    # --- What happens -------------------------------------------------------------------------

    def _live(self, report: Report) -> None:
        """All events, each at its time, while a ping goes through the tunnel."""
        beat = self._beat() if report.found else None
        began, moments = time.time(), self.scenario.moments()
        for number, (at, events) in enumerate(moments):
            _wait_for(began + at)
            now = time.time()
            for event in events:
                self._do(event)
            last = number + 1 == len(moments)
            end = time.time() + AGAIN if last else began + moments[number + 1][0]
            outage = None if beat is None else _outage(beat, now, end)
            what = " and ".join(_deed(event) for event in events)
            report.events.append(Happened(what, outage))
            silence = "nothing came back" if outage is None else f"{outage:.2f} s of silence"
            self._tell(f"{what}: {silence}" if beat is not None else what)
        if beat is not None:
            beat.stop()

    def _do(self, event: Event) -> None:
        if event.do == "away":
            assert self.internet.rendezvous.process is not None
            self.internet.rendezvous.process.stop()
        elif event.do == "back":
            self.internet.rendezvous.serve()
        else:
            assert event.who is not None
            home = self.homes[event.who]
            deeds = {"move": home.move, "reboot": home.access.reboot, "restart": home.restart}
            deeds[event.do]()

    def _beat(self) -> Process:
        """A ping through the tunnel, ten times a second."""
        target = self.homes["right"].host.status()["host"]["id"]
        arguments = ("ping", "-6", "-n", "-D", "-i", str(_PING_EVERY), target)
        beat = self.homes["left"].host.machine.start(*arguments, name=f"ping-{time.monotonic_ns()}")
        with suppress(LabError):
            wait_until(lambda: len(_replies(beat)) > 2, SETTLED, "pings come back")
        return beat

    # --- The end ------------------------------------------------------------------------------

    def _keep_captures(self) -> list[str]:
        if self._pcap is None:
            return []
        self._pcap.mkdir(parents=True, exist_ok=True)
        kept = []
        for capture in self._captures:
            capture.stop()
            if capture.file.exists():
                target = self._pcap / capture.file.name
                shutil.copyfile(capture.file, target)
                kept.append(str(target))
        return kept


def _wait_for(moment: float) -> None:
    left = moment - time.time()
    if left > 0:
        wait_until(lambda: time.time() >= moment, left + 1.0, "it is time")


def _replies(beat: Process) -> list[float]:
    """When pings came back, unix seconds."""
    return [float(one) for one in re.findall(r"\[(\d+\.\d+)\] \d+ bytes from", beat.output())]


def _outage(beat: Process, began: float, end: float) -> float | None:
    """The longest silence from ``began`` until pings come back steadily; ``None`` if they do not
    before ``end`` (unix seconds, as ``began`` is)."""
    if not _replies(beat):
        return None

    def steady() -> bool:
        now, late = time.time(), [one for one in _replies(beat) if one > began]
        return now - began > 1.0 and sum(now - one < 1.0 for one in late) >= 5

    try:
        wait_until(steady, max(0.0, end - time.time()), "pings come back")
    except LabError:
        return None
    times = [one for one in _replies(beat) if one > began - 1.0]
    gaps = [later - earlier for earlier, later in pairwise(times)]
    return round(max(0.0, max(gaps, default=0.0) - _PING_EVERY), 3)


def _deed(event: Event) -> str:
    if event.who is None:
        return f"the rendezvous is {event.do}"
    deeds = {
        "move": f"{event.who} moves to a network of kind {event.kind}",
        "reboot": f"the router of {event.who} comes back with another address",
        "restart": f"the program of {event.who} is killed and started again",
    }
    return deeds[event.do]


def _about(host: HostMachine) -> dict[str, Any]:
    status = host.try_status()
    if status is None:
        return {}
    nat = status["nat"]
    names = ("method", "external", "double_nat", "mapping", "private_address")
    return {"endpoint": status["host"]["endpoint"], **{name: nat.get(name) for name in names}}


def _words(host: HostMachine) -> str:
    about = _about(host)
    told = [f"at {about.get('endpoint')}"]
    if about.get("method"):
        told.append(f"port opened by {about['method']}")
    if about.get("double_nat"):
        told.append("behind two NATs")
    if about.get("mapping"):
        told.append(f"mapping {about['mapping']} of the destination")
    return ", ".join(told)
