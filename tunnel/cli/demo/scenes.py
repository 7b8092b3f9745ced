"""The scenes of the demo, in their order. Each tells what happened and gives its figure."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from tunnel.cli.demo import stage as place
from tunnel.cli.demo.pushed import measure_push
from tunnel.cli.demo.roaming import PATIENCE, Outage, Transfer, narrow_lines, widen_lines
from tunnel.cli.demo.secrecy import Secrets, make_file
from tunnel.cli.demo.stage import Stage
from tunnel.cli.demo.story import Step, StepFailedError
from tunnel.cli.demo.timing import esp_packets, measure_handshake, measure_question
from tunnel.io.lab import (
    Capture,
    HostMachine,
    Lab,
    LabError,
    Process,
    RendezvousMachine,
    wait_until,
)

_T = TypeVar("_T")
DOMAIN = "alice.members.example"
DESK, LAPTOP = "office-desk", "travel-laptop"
FILE_NAME = "holiday-film.bin"
FILE_OCTETS = 64 * 1024 * 1024
HTTP_PORT = 8080
REKEY_SECONDS = 4.0
ROAMING_MBIT = 6  # so that the file is on its way for as long as the moves take
SLOW_OCTETS_PER_SECOND = 9 * 1024 * 1024
MEBI = 1024 * 1024


class Demo:
    """The running demo: its machines, and what the scenes hand on to each other."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.secrets = Secrets()
        self.web: Process | None = None

    def _take_stage(self, stage: Stage) -> None:
        self.stage = stage
        self.rendezvous = RendezvousMachine(stage.rendezvous)
        self.desk = HostMachine(stage.desk)
        self.laptop = HostMachine(stage.laptop)

    def _capture(self, name: str) -> Capture:
        internet = self.stage.internet
        return self.lab.capture(internet.namespace, internet.device, name)

    def logs(self) -> dict[str, str]:
        """What each daemon said last, for the person who has to find out."""
        if not hasattr(self, "rendezvous"):
            return {}
        machines = (self.rendezvous, self.desk, self.laptop)
        return {machine.machine.role: said for machine in machines if (said := machine.log())}

    # --- Setting up -------------------------------------------------------------------------

    def network(self, step: Step) -> None:
        """Namespaces for two homes, a rendezvous and the internet, which is captured."""
        self._take_stage(place.build(self.lab))
        self.capture = self._capture("internet")
        for machine in (self.stage.desk, self.stage.laptop):
            machine.run("ping", "-c", "1", "-W", "30", place.RENDEZVOUS)
        step.tell(
            "six places behind routers that translate, a rendezvous, and the internet, captured",
            namespaces=len(self.lab.machines),
        )

    def account(self, step: Step) -> None:
        """``init`` makes the account; ``serve`` runs its zone."""
        where = ("--rendezvous", place.RENDEZVOUS, "--name", DESK, "-c", str(self.desk.config))
        self.desk.cli("init", DOMAIN, *where)
        self.desk.settle(place.STUB)
        self.desk.change("ike", {"child_lifetime": REKEY_SECONDS})
        self.rendezvous.adopt(self.desk)
        started = time.monotonic()
        self.rendezvous.serve()
        ready = round(time.monotonic() - started, 3)
        step.tell(
            f"{DESK} made the account {DOMAIN}; the rendezvous served its zone after {ready:.2f} s",
            domain=DOMAIN,
            serve_ready_s=ready,
        )

    def invitation(self, step: Step) -> None:
        """``invite`` and ``join`` bring the second host in; the token works only once.

        The first host is up by then: it signs the certificate of the second.
        """
        self.desk.up()
        told = self.desk.cli("invite", "--json", "-c", str(self.desk.config)).stdout
        token = find_token(told)
        started = time.monotonic()
        self.laptop.cli("join", token, "--name", LAPTOP, "-c", str(self.laptop.config))
        joined_ms = round((time.monotonic() - started) * 1000, 1)
        self.laptop.settle(place.STUB)
        again = self.laptop.machine.folder / "again.toml"
        second = self.laptop.cli("join", token, "--name", "thief", "-c", str(again), check=False)
        if second.returncode == 0:
            raise StepFailedError("the same token let a second machine in")
        step.tell(
            f"{LAPTOP} joined with a token of {len(token)} characters in {joined_ms:.0f} ms, its "
            "key made there and certified here; the same token was refused the second time",
            join_ms=joined_ms,
            token_characters=len(token),
            second_use_refused=True,
        )

    def up(self, step: Step) -> None:
        """Two ``up`` as separate processes publish their records."""
        self.laptop.up()
        status = self.laptop.status()["host"]
        for label, host in ((DESK, self.desk), (LAPTOP, self.laptop)):
            self.secrets.add_host(label, DOMAIN, host.status()["host"]["id"])
        step.tell(
            f"both hosts are in the zone; engine {status['engine']}, AEAD by {status['aead']}",
            engine=status["engine"],
            aead=status["aead"],
            host_ids={DESK: self._id(self.desk), LAPTOP: self._id(self.laptop)},
        )

    def up_both(self) -> None:
        """Start both hosts, and wait until they are up."""
        for host in (self.desk, self.laptop):
            host.begin_up()
        for host in (self.desk, self.laptop):
            host.wait_until_up()

    @staticmethod
    def _id(host: HostMachine) -> str:
        return str(host.status()["host"]["id"])

    # --- The main job -----------------------------------------------------------------------

    def discovery(self, step: Step) -> None:
        """A name makes the tunnel: zone, endpoint, IKE, SA; then the answer."""
        name, desk_id = f"{DESK}.{DOMAIN}", self._id(self.desk)
        begun = time.time()
        self.laptop.cli("lookup", DESK, "-c", str(self.laptop.config))
        discovery_ms = self._wait_for(
            lambda: measure_question(self.capture.file, place.HOME, place.RENDEZVOUS, begun)
        )
        begun, started = time.time(), time.monotonic()
        answer = self.stage.laptop.run("getent", "ahostsv6", name).stdout
        lookup_ms = round((time.monotonic() - started) * 1000, 1)
        if desk_id not in answer.split():
            raise StepFailedError(f"{name} resolved to {answer.strip()!r}, not to {desk_id}")
        handshake = self._wait_for(lambda: measure_handshake(self.capture.file, begun))
        peer = self.peer(self.laptop, DESK)
        step.tell(
            f"{name} is {desk_id}: the zone answered in {discovery_ms:.1f} ms, keys were agreed "
            f"in {handshake.milliseconds:.1f} ms, the application was answered after "
            f"{lookup_ms:.0f} ms",
            discovery_ms=discovery_ms,
            handshake_ms=handshake.milliseconds,
            ike_messages=handshake.messages,
            lookup_ms=lookup_ms,
            path=peer["path"],
            suite=peer["suite"],
        )

    @staticmethod
    def _wait_for(measured: Callable[[], _T | None]) -> _T:
        return wait_until(measured, PATIENCE, "the capture shows it")

    @staticmethod
    def peer(host: HostMachine, name: str) -> dict[str, Any]:
        """What ``status`` says of a peer on one of the hosts."""
        peer = host.peer(name)
        if peer is None:
            raise StepFailedError(f"status on {host.machine.role} does not know {name}")
        return peer

    def file(self, step: Step) -> None:
        """A file of 64 MiB over HTTP by name, with unmodified programs."""
        folder = self.stage.desk.folder / "web"
        folder.mkdir()
        self.secrets.file = make_file(folder / FILE_NAME, FILE_OCTETS)
        self.web = self._serve_files(folder)
        arrived = self.stage.laptop.folder / FILE_NAME
        seconds = self._fetch(arrived)
        digest = sha256_of(arrived)
        if digest != sha256_of(folder / FILE_NAME):
            raise StepFailedError("the file that arrived is another one")
        rate = FILE_OCTETS / MEBI / seconds
        step.tell(
            f"curl fetched {FILE_OCTETS // MEBI} MiB by name in {seconds:.2f} s, {rate:.1f} MiB/s; "
            f"SHA-256 {digest[:16]}… is right",
            octets=FILE_OCTETS,
            transfer_s=round(seconds, 3),
            mib_per_s=round(rate, 2),
            sha256=digest,
        )

    def _serve_files(self, folder: Path) -> Process:
        web = self.stage.desk.start(
            *("python3", "-u", "-m", "http.server", str(HTTP_PORT), "--bind", self._id(self.desk)),
            *("--directory", str(folder)),
            name="http.server",
        )
        web.wait_for("Serving HTTP", PATIENCE)
        return web

    def _fetch(self, target: Path, *options: str) -> float:
        done = self.stage.laptop.run(
            *("curl", "-sS", "--fail", "--noproxy", "*", "-o", str(target)),
            *("-w", "%{time_total}", *options),
            f"http://{DESK}.{DOMAIN}:{HTTP_PORT}/{FILE_NAME}",
            timeout=400.0,
        )
        return float(done.stdout)

    def rekey(self, step: Step) -> None:
        """Fresh keys in the middle of a transfer, and nothing is lost."""
        before = self._spis()
        arrived = self.stage.laptop.folder / "again.bin"
        seconds = self._fetch(arrived, "--limit-rate", str(SLOW_OCTETS_PER_SECOND))
        after = self._spis()
        if before == after:
            raise StepFailedError(f"no new keys during a transfer of {seconds:.1f} s")
        if sha256_of(arrived) != sha256_of(self.stage.desk.folder / "web" / FILE_NAME):
            raise StepFailedError("the file that arrived across a rekey is another one")
        step.tell(
            f"the keys were replaced during a slower transfer of {seconds:.1f} s, "
            "which did not notice",
            transfer_s=round(seconds, 3),
            spis_before=before,
            spis_after=after,
        )

    def _spis(self) -> list[Any]:
        peer = self.peer(self.laptop, DESK)
        return [peer["spi_in"], peer["spi_out"]]

    def ping(self, step: Step) -> None:
        """The system's ping, by name."""
        said = self.stage.laptop.run(
            *("ping", "-6", "-c", "10", "-i", "0.2", "-W", "5", f"{DESK}.{DOMAIN}")
        ).stdout
        figures = re.search(r"= [\d.]+/([\d.]+)/", said)
        received = re.search(r"(\d+) received", said)
        if figures is None or received is None:
            raise StepFailedError(f"ping said {said.strip()!r}")
        average = float(figures[1])
        step.tell(
            f"{received[1]} of 10 pings came back, {average:.2f} ms on average",
            rtt_ms=average,
            received=int(received[1]),
        )

    def push(self, step: Step) -> None:
        """The provider gives the desk's router another address; the router announces that, and the
        laptop is told by the zone."""
        how = str(self.laptop.status()["zone"]["llq"])
        if how != "push":
            raise StepFailedError(f"{LAPTOP} hears of changes by {how}")
        other, begun = place.STUDY_AGAIN, time.time()
        self.stage.study.renumber(other)
        assert self.desk.process is not None and self.laptop.process is not None
        changed, told = self.desk.process, self.laptop.process
        pushed = wait_until(
            lambda: measure_push(changed.output(), told.output(), other),
            PATIENCE,
            f"{LAPTOP} is told where {DESK} is now",
        )
        desk_id = self._id(self.desk)
        wait_until(lambda: self._answers(desk_id), PATIENCE, f"{DESK} answers {LAPTOP} from there")
        step.tell(
            f"{DESK}'s router got another address, and the zone pushed it: {LAPTOP}'s node knew "
            f"{pushed.words} to {DESK}, {pushed.told - begun:.3f} s after the change",
            push_ms=pushed.milliseconds,
            changed_to_told_s=round(pushed.told - begun, 3),
            by=how,
        )

    def _answers(self, address: str) -> bool:
        """Whether a ping from the laptop comes back."""
        ping = ("ping", "-6", "-c", "1", "-W", "2", address)
        return self.stage.laptop.run(*ping, check=False).returncode == 0

    # --- Roaming ----------------------------------------------------------------------------

    def punch(self, step: Step) -> None:
        """The desk wants the laptop, whose router lets in only whom the inside sent to."""
        self.laptop.down()
        self.laptop.up()
        nat = self.laptop.status()["nat"]
        started = time.monotonic()
        self.desk.cli("ping", LAPTOP, "-n", "1", "-c", str(self.desk.config))
        met_ms = round((time.monotonic() - started) * 1000, 1)
        assert self.laptop.process is not None
        peer = self.peer(self.desk, LAPTOP)
        if nat["method"] is not None or f"{DESK} calls" not in self.laptop.process.output():
            raise StepFailedError(f"{LAPTOP} was not called: {peer['endpoint']}, {nat}")
        step.tell(
            f"{DESK} reached {LAPTOP}, whose router opens nothing, after {met_ms:.0f} ms: called "
            "through the zone, both sent at once",
            met_ms=met_ms,
            nat={DESK: self.desk.status()["nat"]["method"], LAPTOP: nat["mapping"]},
            path=peer["path"],
        )

    def move(self, step: Step) -> None:
        """In mid-transfer the laptop goes from its home to a cafe."""
        narrow_lines(self.stage, ROAMING_MBIT)
        self.roaming = self.stage.laptop.folder / "roaming.bin"
        url = f"http://{DESK}.{DOMAIN}:{HTTP_PORT}/{FILE_NAME}"
        self.transfer = Transfer(self.lab, self.laptop, url, HTTP_PORT, self.roaming)
        stage = self.stage
        outage = self.transfer.through(lambda: place.enter(stage.laptop, stage.cafe, stage.home))
        self._tell_outage(step, f"{LAPTOP} went from its home to a cafe", outage)

    def move_desk(self, step: Step) -> None:
        """Then the desk is taken to the office."""
        stage = self.stage
        outage = self.transfer.through(lambda: place.enter(stage.desk, stage.office, stage.study))
        self._tell_outage(step, f"{DESK} went from the study to the office", outage)

    def reboot(self, step: Step) -> None:
        """Then the office's router is started anew, and gets another address."""
        outage = self.transfer.through(lambda: self.stage.office.reboot(place.OFFICE_AGAIN))
        widen_lines(self.stage)
        seconds = self.transfer.finish()
        digest = sha256_of(self.roaming)
        if digest != sha256_of(self.stage.desk.folder / "web" / FILE_NAME):
            raise StepFailedError("the file that arrived across all this is another one")
        what = (
            f"the office's router lost its memory and its address, {outage.event:.2f} s long; the "
            f"one TCP connection lived through all three for {seconds:.1f} s, SHA-256 "
            f"{digest[:16]}… is right"
        )
        self._tell_outage(step, what, outage)
        step.tell(step.said, away_ms=round(outage.event * 1000, 1), sha256=digest)

    @staticmethod
    def _tell_outage(step: Step, what: str, outage: Outage) -> None:
        step.tell(
            f"{what}; nothing arrived for {outage.milliseconds:.0f} ms",
            outage_ms=outage.milliseconds,
        )

    # --- Trouble ----------------------------------------------------------------------------

    def recovery(self, step: Step) -> None:
        """One host is killed and started again; the other finds it by itself."""
        victim = self.desk.process
        assert victim is not None
        desk_id = self._id(self.desk)
        pings = self.stage.laptop.start("ping", "-D", "-i", "0.1", desk_id, name="ping-recovery")
        pings.wait_for("icmp_seq=5 ", PATIENCE)
        victim.kill()
        killed = time.time()
        self.desk.up()
        running = time.time()
        back = wait_until(
            lambda: _first_reply(pings.output(), killed), PATIENCE, f"{DESK} answers {LAPTOP} again"
        )
        pings.stop()
        if self._id(self.desk) != desk_id:
            raise StepFailedError("the host id changed within one boot")
        self._fetch(self.stage.laptop.folder / "after.bin")
        step.tell(
            f"{DESK} was killed with SIGKILL; it was up again after {running - killed:.2f} s, and "
            f"{LAPTOP} heard it after {back - killed:.2f} s, under the same host id",
            restart_s=round(running - killed, 3),
            recovery_s=round(back - killed, 3),
        )

    # --- What others see --------------------------------------------------------------------

    def shutdown(self, step: Step) -> None:
        """``down`` leaves nothing behind: device, routes, records, the peer's SAs."""
        self.desk.down()
        gone = self.laptop.cli("lookup", DESK, "-c", str(self.laptop.config), check=False)
        if gone.returncode == 0:
            raise StepFailedError(f"the zone still knows {DESK}")
        wait_until(lambda: not self._has_sas(DESK), PATIENCE, f"{LAPTOP} has no SA left")
        self.laptop.down()
        for machine in (self.stage.desk, self.stage.laptop):
            devices = {device["ifname"] for device in machine.ip_json("link", "show")}
            routes = {route["dst"] for route in machine.ip_json("-6", "route", "show")}
            if devices != {"lo", "eth0", "wlan0", "wwan0"} or any(
                target.startswith("fd") for target in routes
            ):
                raise StepFailedError(f"{machine.role} was left with {devices} and {routes}")
        step.tell(
            f"{DESK} went down: its records are out of the zone, {LAPTOP} has dropped its SAs; "
            "after both no device and no route is left",
        )

    def _has_sas(self, name: str) -> bool:
        peer = self.laptop.peer(name)
        return peer is not None and peer["spi_in"] is not None

    def secrecy(self, step: Step) -> None:
        """The capture of all of it shows neither file, nor host ids, nor names."""
        self.capture.stop()
        packets, sealed = self.capture.packets(), esp_packets(self.capture.file)
        seen = self.secrets.look(self.capture.file)
        if seen:
            raise StepFailedError(
                "visible on the internet: "
                + "; ".join(f"{sighting.what} ({sighting.times} times)" for sighting in seen)
            )
        carried = self.capture.octets
        if sealed == 0 or carried < FILE_OCTETS:
            raise StepFailedError(f"the capture misses the transfer: {carried} octets")
        kinds = (self.secrets.file, self.secrets.host_ids, self.secrets.names)
        step.tell(
            f"{packets} packets ({carried // MEBI} MiB, {sealed} of ESP) crossed the internet; "
            f"no trace of the file, the host ids or the names ({sum(map(len, kinds))} looked for)",
            packets=packets,
            esp_packets=sealed,
            capture_octets=carried,
            packets_lost_by_capture=self.capture.lost(),
            needles={"file": len(kinds[0]), "host_ids": len(kinds[1]), "names": len(kinds[2])},
            seen=[],
        )

    def eavesdropper(self, step: Step) -> None:
        """The same look finds host ids and names if the zone is asked in the clear."""
        capture = self._capture("in-the-clear")
        for host in (self.desk, self.laptop):
            host.change("rendezvous", {"transport": "udp"})
        self.up_both()
        self.stage.laptop.run("ping", "-6", "-c", "1", "-W", "5", f"{DESK}.{DOMAIN}")
        for host in (self.laptop, self.desk):
            host.down()
        capture.stop()
        seen = {sighting.what for sighting in self.secrets.look(capture.file)}
        ids, names = seen & set(self.secrets.host_ids), seen & set(self.secrets.names)
        if not ids or not names:
            raise StepFailedError(
                "the look found no host id or no name where both were sent in the clear"
            )
        step.tell(
            f'with transport = "udp" the same look finds {len(ids)} host ids and {len(names)} '
            "names: it can fail",
            host_ids_seen=sorted(ids),
            names_seen=sorted(names),
            file_seen=sorted(seen & set(self.secrets.file)),
        )


def find_token(text: str) -> str:
    """The token in what ``invite --json`` printed."""
    found = re.search(r'"token":\s*"([^"]+)"', text)
    if found is None:
        raise LabError("invite printed no token")
    return found[1]


def _first_reply(output: str, after: float) -> float | None:
    """When ``ping -D`` heard its first reply after ``after`` (wall clock, seconds)."""
    times = (float(found[1]) for found in re.finditer(r"\[([\d.]+)\] \d+ bytes from", output))
    return next((moment for moment in times if moment > after), None)


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
