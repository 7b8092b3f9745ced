"""An account of two real hosts and a real rendezvous on the demo's network, for tests."""

from __future__ import annotations

import hashlib
import os
import re
import time
from pathlib import Path

from tunnel.cli.demo.scenes import DESK, DOMAIN, LAPTOP, find_token
from tunnel.io.lab import HostMachine, Lab, Process, RendezvousMachine, wait_until
from tunnel.io.lab.two_homes import RENDEZVOUS, STUB, build

DESK_NAME, LAPTOP_NAME = f"{DESK}.{DOMAIN}", f"{LAPTOP}.{DOMAIN}"


class Account:
    """``desk`` and ``laptop`` have joined, by pre-shared key; ``up()`` starts both."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.stage = build(lab)
        self.rendezvous = RendezvousMachine(self.stage.rendezvous)
        self.desk = HostMachine(self.stage.desk)
        self.laptop = HostMachine(self.stage.laptop)
        where = ("--rendezvous", RENDEZVOUS, "--name", DESK, "-c", str(self.desk.config))
        self.desk.cli("init", DOMAIN, "--auth", "psk", *where)
        self.rendezvous.adopt(self.desk)
        self.rendezvous.serve()
        token = find_token(self.desk.cli("invite", "--json", "-c", str(self.desk.config)).stdout)
        self.laptop.cli("join", token, "--name", LAPTOP, "-c", str(self.laptop.config))
        for host in (self.desk, self.laptop):
            host.settle(STUB)
            # So that a dead peer is found within a test's patience (the default is 30 s).
            host.change("ike", {"liveness": 3.0})

    def up(self) -> Account:
        """Start both hosts."""
        self.desk.up()
        self.laptop.up()
        return self

    def host_id(self, host: HostMachine) -> str:
        """The host id that ``status`` shows."""
        return str(host.status()["host"]["id"])

    def ping(self, source: HostMachine, target: str, timeout: float = 60.0) -> None:
        """Ping until an answer comes, at most ``timeout`` seconds."""
        command = ("ping", "-6", "-c", "1", "-W", "1", target)
        wait_until(
            lambda: source.machine.run(*command, check=False).returncode == 0,
            timeout,
            f"{target} answers {source.machine.role}",
        )

    def know(self, host: HostMachine, *labels: str) -> None:
        """Let ``host`` learn the host ids of others now (it lists them once a minute)."""
        for label in labels:
            host.cli("lookup", label, "-c", str(host.config))

    def serve_file(self, host: HostMachine, octets: int) -> tuple[str, str]:
        """Serve a random file on ``host`` over HTTP on its host id: (port and path, SHA-256)."""
        folder = host.machine.folder / f"web-{time.monotonic_ns()}"
        folder.mkdir()
        content = os.urandom(octets)
        (folder / "file.bin").write_bytes(content)
        web: Process = host.machine.start(
            *("python3", "-u", "-m", "http.server", "0"),
            *("--bind", self.host_id(host), "--directory", str(folder)),
            name=f"http-{folder.name}",
        )
        web.wait_for("Serving HTTP", 60)
        port = re.search(r"port (\d+)", web.output())
        assert port is not None
        return f":{port[1]}/file.bin", hashlib.sha256(content).hexdigest()

    def fetch(self, host: HostMachine, url: str) -> str:
        """Fetch ``url`` with curl on ``host``: the SHA-256 of what arrived."""
        target: Path = host.machine.folder / f"fetched-{time.monotonic_ns()}"
        host.machine.run(
            *("curl", "-sS", "--fail", "--noproxy", "*", "-o", str(target), url), timeout=120
        )
        return hashlib.sha256(target.read_bytes()).hexdigest()
