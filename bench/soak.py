"""Ten minutes of everything, with rekeys every few seconds: what is lost, what grows.

Two real hosts on the demo's network, each behind a router: TCP and paced, numbered UDP both ways,
ping, lookups by name. Packets that did not arrive are set against those that the kernel or the
engine says it has dropped; resident memory and open files of both hosts are sampled.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import linear_regression
from typing import Any

from bench import machine, report
from tunnel.cli.demo.scenes import DESK, DOMAIN, LAPTOP, find_token
from tunnel.io.lab import HostMachine, Lab, LabError, Process, RendezvousMachine, wait_until
from tunnel.io.lab.two_homes import RENDEZVOUS, STUB, build

DESK_NAME = f"{DESK}.{DOMAIN}"
LIFETIMES = {"child_lifetime": 6.0, "ike_lifetime": 25.0}  # seconds
UDP_RATE, UDP_PORT = 2000, 7000  # packets a second each way; the port is no one's
TCP_RATE = "100M"  # each way: this is about endurance
PING_INTERVAL, LOOKUP_INTERVAL, SAMPLE_INTERVAL = 0.1, 1.0, 2.0  # seconds
WARM = 0.25  # of the time: until then memory may grow
FLAT = 100.0  # KiB a minute: more is a leak
FILES = 2  # open files more at the end than when warm
BY_DESIGN = ("dummy", "keepalive")  # drops that carried nothing of an application
FILL_SECONDS = 10
LAST_PACKETS = 3.0  # seconds until what is under way has arrived


@dataclass
class Watch:
    """One host of ours over time."""

    host: HostMachine
    times: list[float] = field(default_factory=list)
    resident_kib: list[float] = field(default_factory=list)
    files: list[int] = field(default_factory=list)
    spis: set[int] = field(default_factory=set)

    @property
    def folder(self) -> Path:
        assert self.host.process is not None
        return Path(f"/proc/{self.host.process.pid}")

    def sample(self, now: float) -> None:
        """Takes one sample; a host that has ended is an error."""
        try:
            status = (self.folder / "status").read_text()
            files = len(list((self.folder / "fd").iterdir()))
        except FileNotFoundError:
            raise LabError(f"{self.host.machine.role} has ended:\n{self.host.log()}") from None
        resident = next(line for line in status.splitlines() if line.startswith("VmRSS"))
        self.times.append(now)
        self.resident_kib.append(float(resident.split()[1]))
        self.files.append(files)
        for peer in self.host.status()["peers"]:
            self.spis |= {peer["spi_out"]} if peer["spi_out"] else set()

    def summary(self) -> dict[str, Any]:
        """Slopes are those after the warm-up."""
        start = int(len(self.times) * WARM)
        minutes = [at / 60 for at in self.times[start:]]
        slope = linear_regression(minutes, self.resident_kib[start:]).slope
        return {
            "resident_first_kib": self.resident_kib[0],
            "resident_warm_kib": self.resident_kib[start],
            "resident_last_kib": self.resident_kib[-1],
            "resident_most_kib": max(self.resident_kib),
            "slope_kib_per_minute": round(slope, 2),
            "files_warm": self.files[start],
            "files_last": self.files[-1],
            "files_most": max(self.files),
            "rekeys": len(self.spis) - 1,
            "drops": self.drops(),
        }

    def drops(self) -> dict[str, int]:
        """What its engine has dropped, by name."""
        found: dict[str, int] = {}
        for peer in self.host.status()["peers"]:
            for name, count in peer["drops"].items():
                found[name] = found.get(name, 0) + count
        return found


def run(*, minutes: float, as_json: bool, save: bool) -> int:
    """Exit code 0 when no packet is missing unexplained, and nothing grows."""
    with Lab() as lab:
        hosts = desk, laptop = _account(lab)
        watches = [Watch(host) for host in hosts]
        found = _load(desk, laptop, watches, minutes * 60)
        hosts_found = {w.host.machine.role: w.summary() for w in watches}
        for host in hosts:
            host.down()
    problems = verdict(found, hosts_found)
    body = {
        "minutes": minutes,
        "lifetimes_s": LIFETIMES,
        "traffic": found,
        "hosts": hosts_found,
        "problems": problems,
    }
    report.finish("soak", body, render(found, hosts_found, problems), as_json=as_json, save=save)
    return int(bool(problems))


def _account(lab: Lab) -> tuple[HostMachine, HostMachine]:
    """Two hosts of one account, up, the tunnel between them made."""
    stage = build(lab)
    rendezvous = RendezvousMachine(stage.rendezvous)
    desk, laptop = HostMachine(stage.desk), HostMachine(stage.laptop)
    where = ("--rendezvous", RENDEZVOUS, "--name", DESK, "-c", str(desk.config))
    desk.cli("init", DOMAIN, *where)
    rendezvous.adopt(desk)
    rendezvous.serve()
    _begin(desk)  # it is the one who lets the other in
    token = find_token(desk.cli("invite", "--json", "-c", str(desk.config)).stdout)
    laptop.cli("join", token, "--name", LAPTOP, "-c", str(laptop.config))
    _begin(laptop)

    def reached() -> bool:
        done = laptop.machine.run("ping", "-6", "-c", "1", "-W", "1", DESK_NAME, check=False)
        return done.returncode == 0

    wait_until(reached, 30.0, "desk answers laptop by its name")
    _fill(desk, laptop)
    return desk, laptop


def _fill(desk: HostMachine, laptop: HostMachine) -> None:
    """All that TCP can do, both ways: so that every page of the batches' buffers has been used
    once, and what grows from now on grows for another reason."""
    server = desk.machine.start("iperf3", "-s", "-1", "-p", "5202", "--forceflush", name="filler")
    server.wait_for("Server listening", 10.0)
    address = str(desk.status()["host"]["id"])
    options = ("-p", "5202", "-t", str(FILL_SECONDS), "-P", "4", "--bidir")
    laptop.machine.run("iperf3", "-6", "-c", address, *options, timeout=FILL_SECONDS + 30.0)


def _begin(host: HostMachine) -> None:
    host.settle(STUB)
    host.change("ike", LIFETIMES)
    host.up()


def _load(
    desk: HostMachine, laptop: HostMachine, watches: list[Watch], seconds: float
) -> dict[str, Any]:
    """All traffic for so long; what became of it."""
    before = {watch.host.machine.role: _kernel_drops(watch.host) for watch in watches}
    pairs = ((desk, laptop), (laptop, desk))
    receivers = [_flow(to, "receive", "--port", str(UDP_PORT)) for _, to in pairs]
    for receiver in receivers:
        receiver.wait_for("ready", 10.0)
    options = ("--rate", str(UDP_RATE), "--seconds", str(seconds), "--port", str(UDP_PORT))
    address = {host.machine.role: str(host.status()["host"]["id"]) for host in (desk, laptop)}
    server = desk.machine.start(
        *("iperf3", "-s", "-1", "-p", "5201", "--forceflush"), name="tcp-server"
    )
    server.wait_for("Server listening", 10.0)
    tcp = laptop.machine.start(
        *("iperf3", "-6", "-c", address["desk"], "-p", "5201", "--bidir", "-J"),
        *("-b", TCP_RATE, "-t", str(int(seconds))),
        name="tcp",
    )
    count = str(int(seconds / PING_INTERVAL))
    ping = laptop.machine.start(
        *("ping", "-6", "-q", "-i", str(PING_INTERVAL), "-c", count, address["desk"]), name="ping"
    )
    senders = [
        _flow(source, "send", "--address", address[to.machine.role], *options)
        for source, to in pairs
    ]
    lookups = _sample(laptop, watches, seconds)
    for process in (*senders, ping, tcp):
        process.wait(60.0)
    _settle(receivers)
    after = {watch.host.machine.role: _kernel_drops(watch.host) for watch in watches}
    return {
        "udp": [_udp(*ends) for ends in zip(pairs, senders, receivers, strict=True)],
        "ping": _ping(ping),
        "lookups": lookups,
        "tcp": _tcp(tcp),
        "kernel_drops": {
            role: {name: after[role][name] - before[role][name] for name in after[role]}
            for role in after
        },
    }


def _flow(host: HostMachine, what: str, *options: str) -> Process:
    command = ("python3", "-m", "bench.soak_flow", what, *options)
    env = {"PYTHONPATH": str(Path(__file__).parents[1])}
    return host.machine.start(*command, name=f"udp-{what}", env=env)


def _settle(receivers: list[Process]) -> None:
    deadline = time.monotonic() + LAST_PACKETS
    while time.monotonic() < deadline:
        time.sleep(0.1)
    for receiver in receivers:
        receiver.stop()


def _sample(laptop: HostMachine, watches: list[Watch], seconds: float) -> dict[str, Any]:
    """Looks at the hosts and asks for names, until the time is over."""
    lookups, failed, started = 0, [], time.monotonic()
    sample_at = lookup_at = 0.0
    while (passed := time.monotonic() - started) < seconds:
        if passed >= lookup_at:
            lookup_at = passed + LOOKUP_INTERVAL
            lookups += 1
            done = laptop.machine.run("getent", "ahostsv6", DESK_NAME, check=False)
            if done.returncode:
                failed.append(round(passed, 1))
        if passed >= sample_at:
            sample_at = passed + SAMPLE_INTERVAL
            for watch in watches:
                watch.sample(passed)
        time.sleep(0.05)
    return {"asked": lookups, "failed_at_s": failed}


def _udp(
    ends: tuple[HostMachine, HostMachine], sender: Process, receiver: Process
) -> dict[str, Any]:
    sent = json.loads(sender.output().splitlines()[-1])["sent"]
    got: dict[str, Any] = json.loads(receiver.output().splitlines()[-1])
    del got["next"]
    source, to = (host.machine.role for host in ends)
    return {"from": source, "to": to, "sent": sent, "lost": sent - got["received"]} | got


def _ping(ping: Process) -> dict[str, Any]:
    line = next(line for line in ping.output().splitlines() if "packets transmitted" in line)
    words = line.split()
    sent, received = int(words[0]), int(words[3])
    return {"sent": sent, "lost": sent - received}


def _tcp(tcp: Process) -> dict[str, Any]:
    end = json.loads(tcp.output())["end"]
    return {
        "to_desk_gbit_s": round(end["sum_received"]["bits_per_second"] / 1e9, 4),
        "to_laptop_gbit_s": round(end["sum_received_bidir_reverse"]["bits_per_second"] / 1e9, 4),
        "retransmits": end["sum_sent"].get("retransmits", 0)
        + end["sum_sent_bidir_reverse"].get("retransmits", 0),
    }


def _kernel_drops(host: HostMachine) -> dict[str, int]:
    """What this machine's kernel has dropped: datagrams without room, packets of each device."""
    lines = host.machine.run("cat", "/proc/net/snmp", "/proc/net/snmp6").stdout.splitlines()
    names, values = (line.split()[1:] for line in lines if line.startswith("Udp: "))
    udp = dict(zip(names, values, strict=True))
    found = {f"udp_{name}": int(udp[name]) for name in ("RcvbufErrors", "SndbufErrors")}
    found["udp6_RcvbufErrors"] = sum(
        int(line.split()[1]) for line in lines if line.startswith("Udp6RcvbufErrors")
    )
    for link in host.machine.ip_json("-s", "link", "show"):
        for way in ("rx", "tx"):
            found[f"{link['ifname']}_{way}"] = int(link["stats64"][way]["dropped"])
    return found


def verdict(traffic: dict[str, Any], hosts: dict[str, Any]) -> list[str]:
    """What is wrong, in sentences."""
    kernel = sum(sum(drops.values()) for drops in traffic["kernel_drops"].values())
    engine = sum(
        count
        for host in hosts.values()
        for name, count in host["drops"].items()
        if name not in BY_DESIGN
    )
    lost = sum(flow["lost"] for flow in traffic["udp"]) + traffic["ping"]["lost"]
    problems = []
    if lost > kernel + engine:
        problems.append(f"{lost} packets lost, {kernel} dropped by the kernel, {engine} by us")
    if doubled := sum(flow["doubled"] for flow in traffic["udp"]):
        problems.append(f"{doubled} packets came twice")
    if traffic["lookups"]["failed_at_s"]:
        problems.append(f"lookups failed at {traffic['lookups']['failed_at_s']} s")
    for role, host in hosts.items():
        if host["slope_kib_per_minute"] > FLAT:
            problems.append(f"{role} grows by {host['slope_kib_per_minute']} KiB a minute")
        if host["files_last"] > host["files_warm"] + FILES:
            problems.append(f"{role} had {host['files_warm']} files, now {host['files_last']}")
        if host["rekeys"] < 2:
            problems.append(f"{role} has rekeyed {host['rekeys']} times only")
    return problems


def render(traffic: dict[str, Any], hosts: dict[str, Any], problems: list[str]) -> str:
    """Two tables and the verdict."""
    rows = [
        [f"UDP {flow['from']} to {flow['to']}", str(flow["sent"]), str(flow["lost"])]
        for flow in traffic["udp"]
    ]
    rows.append(["ping", str(traffic["ping"]["sent"]), str(traffic["ping"]["lost"])])
    asked, failed = traffic["lookups"]["asked"], len(traffic["lookups"]["failed_at_s"])
    rows.append(["lookups", str(asked), str(failed)])
    first = report.table(f"Soak; {machine.summary()}", ["traffic", "sent", "lost"], rows)
    rows = [
        [
            role,
            str(host["rekeys"]),
            f"{host['resident_warm_kib']:.0f}",
            f"{host['resident_last_kib']:.0f}",
            f"{host['slope_kib_per_minute']:.1f}",
            f"{host['files_warm']} → {host['files_last']}",
            ", ".join(f"{name} {count}" for name, count in host["drops"].items()) or "–",
        ]
        for role, host in hosts.items()
    ]
    head = ["host", "rekeys", "KiB warm", "KiB last", "KiB/min", "files", "drops"]
    second = report.table("Hosts", head, rows)
    return "\n\n".join((first, second, "\n".join(problems) or "nothing lost, nothing grows"))
