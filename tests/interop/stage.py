"""The stage of the interop tests: our host and a stock charon, who play one scenario after the
other on one network.

A scenario is a folder below ``scenarios/`` that holds data only: ``README.md`` says what is shown,
``host.toml`` is our configuration, ``swanctl.conf`` charon's, and ``strongswan.conf``, where it
is, more lines for charon's daemon. ``$words`` in them are filled in by the test. Each scenario
gets a host and a charon of its own, and a capture of all that passes between them, which Wireshark
must understand and open from end to end (:mod:`tests.interop.wireshark`).
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

from tests.interop import wireshark
from tests.interop.wireshark import Seen
from tunnel.cli.keys import write_tables
from tunnel.io.control import ControlError, ask
from tunnel.io.lab import (
    Capture,
    HostMachine,
    Lab,
    LabError,
    Namespace,
    Process,
    Switch,
    wait_until,
)
from tunnel.io.lab.charon import Charon

SCENARIOS = Path(__file__).parent / "scenarios"
OURS, THEIRS = "fd12:3456:789a::1", "fd12:3456:789a::2"
OUR_NAME, THEIR_NAME = "laptop.example", "gateway.example"
OUR_OUTER, THEIR_OUTER = "192.0.2.1", "192.0.2.2"
PSK = bytes(range(32))
PINGS, OCTETS = 5, 1000  # of each direction, and inside each ping
COOKIE = "16390"  # RFC 7296 §3.10.1
PATIENCE = 60.0  # seconds for what should be done at once, on a busy machine


@dataclass(frozen=True, slots=True)
class Papers:
    """Files of each side: ours beside ``host.toml``, charon's below its own folder."""

    ours: dict[str, bytes]
    theirs: dict[str, bytes]


class Stage:
    """Two machines on one network, and whoever plays on them."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.net: Switch = lab.switch("net")
        self.ours, self.theirs = lab.machines_of("laptop", "gateway")
        self.net.plug(self.ours, "eth0", f"{OUR_OUTER}/24")
        # A burst that leaves in one piece would be captured in one piece, and no judge opens that.
        self.ours.run("ethtool", "-K", "eth0", "tx-udp-segmentation", "off")
        self.port = self.net.plug(self.theirs, "eth0", f"{THEIR_OUTER}/24")
        self._plays = 0

    @contextmanager
    def play(
        self, scenario: str, *, opens: bool = True, papers: Papers | None = None, **words: str
    ) -> Iterator[Play]:
        """Both are up; at the end, what passed between them is judged.

        ``opens``: whether all of it can be decrypted with the keys that were exported.
        """
        self._plays += 1
        self.move(self.ours, OUR_OUTER)
        self.move(self.theirs, THEIR_OUTER)
        play = Play(self, scenario, f"play{self._plays}", words, papers or Papers({}, {}))
        try:
            play.begin()
            yield play
            play.end()
            play.judge(opens)
        finally:
            play.leave()

    def move(self, machine: Namespace, address: str) -> None:
        """Give a machine this one outer address, and no other."""
        machine.ip("-4", "address", "flush", "dev", "eth0")
        machine.ip("address", "add", f"{address}/24", "dev", "eth0")


class Play:
    """One scenario being played."""

    def __init__(
        self, stage: Stage, scenario: str, title: str, words: dict[str, str], papers: Papers
    ) -> None:
        self.stage = stage
        self.host = HostMachine(stage.ours)
        self.keys = stage.lab.folder / title
        self._texts = {
            file.name: Template(file.read_text()).substitute(psk=PSK.hex(), **words)
            for file in (SCENARIOS / scenario).iterdir()
            if file.name != "README.md"
        }
        self._title, self._papers = title, papers
        self.seen: list[Seen] = []
        self.their_id = THEIRS

    # --- Up and down ------------------------------------------------------------------------

    def begin(self) -> None:
        """Charon first, so that it hears our first message."""
        self.capture: Capture = self.stage.lab.capture(self.stage.ours, "eth0", self._title)
        self.charon = Charon(
            self.stage.theirs,
            self._texts["swanctl.conf"],
            inner=THEIRS,
            settings=self._texts.get("strongswan.conf", ""),
            files=self._papers.theirs,
        )
        self.host.config.write_text(self._texts["host.toml"])
        self.write_secret("gateway.psk", PSK)
        for name, content in self._papers.ours.items():
            self.write_secret(name, content)
        self.host.settle()
        self.host.up()

    def write_secret(self, name: str, content: bytes) -> None:
        """A file of mode 0600 beside our configuration."""
        file = self.host.config.parent / name
        file.touch(mode=0o600)
        file.write_bytes(content + b"\n")

    def end(self) -> None:
        """Our host says good-bye, if it still runs."""
        process = self.host.process
        if process is not None and process.running:
            with suppress(ControlError):  # there may be no SA left
                self.export_keys()
            self.ask({"command": "down"})
            process.wait(PATIENCE)

    def leave(self) -> None:
        """Whatever still runs ends."""
        for process in (self.host.process, getattr(self, "charon", None) and self.charon.process):
            if process is not None:
                process.stop(signal.SIGKILL)

    # --- What our host says -----------------------------------------------------------------

    def ask(self, request: dict[str, Any]) -> Any:
        """One question to our host."""
        return asyncio.run(ask(self.host.state_dir / "control.sock", request))

    def peer(self) -> dict[str, Any]:
        """What our ``status`` says of charon."""
        (found,) = self.ask({"command": "status"})["peers"]
        return dict(found)

    def reach(self) -> None:
        """Make the tunnel from our side."""
        self.ask({"command": "reach", "name": THEIR_NAME})

    def refusal(self) -> str:
        """Why we do not reach charon."""
        try:
            self.reach()
        except ControlError as problem:
            return str(problem)
        raise AssertionError("charon was reached")

    def spis(self) -> tuple[int, int]:
        """Our (spi_in, spi_out); zeros when there is no tunnel."""
        peer = self.peer()
        return int(peer["spi_in"] or "0", 16), int(peer["spi_out"] or "0", 16)

    def export_keys(self) -> None:
        """Keep the keys of the SAs that stand now, for the judge."""
        write_tables(self.keys, self.ask({"command": "keys", "name": THEIR_NAME}))

    # --- Both ends --------------------------------------------------------------------------

    def settle(self) -> tuple[int, int]:
        """Wait until both ends hold the same single child, and keep its keys; our (spi_in,
        spi_out). As long as one before it is not deleted, charon goes on sending in that."""

        def agreed() -> tuple[int, int] | None:
            spi_in, spi_out = self.spis()
            alone = self.charon.children() == [(spi_out, spi_in)] and not self.charon.is_rekeying()
            return (spi_in, spi_out) if alone else None

        spis = wait_until(agreed, PATIENCE, "both ends hold the same child")
        self.export_keys()
        return spis

    def check_both_ways(self) -> None:
        """Data flows both ways, and both ends count it on the same pair of SPIs.

        Counters begin at zero with every child: where lifetimes are short and one was rekeyed
        between the two looks, they say nothing, and the measurement is made again.
        """
        while True:
            spis = self.settle()
            try:
                before, peer = self.charon.octets(spis[1]), self.peer()
                self.ping()
                self.ping_back()
                after, now = self.charon.octets(spis[1]), self.peer()
            except LabError:
                if self.settle() == spis:
                    raise
                continue
            if self.settle() == spis:
                break
        for way in (0, 1):
            assert after[way] - before[way] >= 2 * PINGS * OCTETS
        for count in ("rx_packets", "tx_packets"):
            assert now[count] - peer[count] >= 2 * PINGS
        assert now["path"] == "direct"
        self.export_keys()  # where lifetimes are short, there may be another child by now

    def ping(self, count: int = PINGS, interval: float = 0.01) -> None:
        """Ping charon's host id through the tunnel; every one must come back."""
        self.stage.ours.run(*_ping(count, interval), THEIRS)

    def ping_back(self, count: int = PINGS) -> None:
        """The other way round."""
        self.stage.theirs.run(*_ping(count, 0.01), "-I", THEIRS, OURS)

    def answers(self) -> bool:
        """Whether charon answers one ping through the tunnel."""
        command = ("ping", "-c", "1", "-W", "1", THEIRS)
        return self.stage.ours.run(*command, check=False).returncode == 0

    @contextmanager
    def pings(self, seconds: float) -> Iterator[None]:
        """Pings flow meanwhile at 50 per second, for so long; not one of them may be lost."""
        count = int(seconds * 50)
        command = ("ping", "-c", str(count), "-i", "0.02", "-W", "30", THEIRS)
        pings = self.stage.ours.start(*command, name=f"ping-{self._title}")
        wait_until(lambda: "icmp_seq=10 " in pings.output(), PATIENCE, "pings flow")
        yield
        self.until(lambda: self._ended(pings), "the pings end", seconds + PATIENCE)
        assert pings.returncode == 0
        assert f"{count} packets transmitted, {count} received" in pings.output()

    def _ended(self, process: Process) -> bool:
        """Whether it has ended; SAs that come and go meanwhile leave their keys to the judge."""
        self.export_keys()
        return not process.running

    def until(self, condition: Callable[[], object], what: str, timeout: float = PATIENCE) -> None:
        """Wait for something."""
        wait_until(lambda: condition() or None, timeout, what)

    # --- The judge --------------------------------------------------------------------------

    def cookies(self) -> int:
        """How many messages of the play held a COOKIE (after its end)."""
        return sum(COOKIE in packet["isakmp.notify.msgtype"] for packet in self.seen)

    def judge(self, opens: bool) -> None:
        """Wireshark understands every packet of this play, and opens it."""
        self.capture.stop()
        assert self.capture.lost() == 0
        self.seen = wireshark.judge(self.capture.file, self.keys, opens=opens)


def _ping(count: int, interval: float) -> tuple[str, ...]:
    size = ("-s", str(OCTETS))
    return ("ping", "-c", str(count), "-i", str(interval), "-W", "30", *size)
