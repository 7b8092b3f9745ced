"""Real hosts and a real rendezvous on a lab's machines: the command line, run as a person would.

All files of a machine stand in its own folder, so that many hosts fit on one file system.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomlkit

import tunnel
from tunnel.io.lab.namespace import Namespace
from tunnel.io.lab.process import LabError, Process, wait_until

COMMAND = (sys.executable, "-m", "tunnel")
READY_SECONDS = 60.0


class _Machine:
    """A machine with a configuration file ``config`` and programs of ours."""

    def __init__(self, machine: Namespace, config_name: str) -> None:
        self.machine = machine
        self.config = machine.folder / config_name
        self.state_dir = machine.folder / "state"
        self.process: Process | None = None
        # A name below a folder of the lab: nothing of the person's own configuration is read.
        self.env = {
            "PYTHONPATH": str(Path(tunnel.__file__).resolve().parents[1]),
            "XDG_CONFIG_HOME": str(machine.folder / "xdg"),
            "NO_COLOR": "1",
        }

    def cli(
        self, *arguments: str, timeout: float = 60.0, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run one command of ours to its end on this machine; an error quotes what it said."""
        done = self.machine.run(*COMMAND, *arguments, timeout=timeout, check=False, env=self.env)
        if check and done.returncode != 0:
            said = done.stderr.strip() or done.stdout.strip()
            raise LabError(f"{arguments[0]} on {self.machine.role}: {said}")
        return done

    def change(self, section: str, values: Mapping[str, Any]) -> None:
        """Change keys of one table of the configuration file, as a person with an editor would."""
        document = tomlkit.parse(self.config.read_text())
        document.setdefault(section, tomlkit.table()).update(values)
        self.config.write_text(tomlkit.dumps(document))

    def _start(self, command: str, *more: str) -> Process:
        arguments = (*COMMAND, command, "-c", str(self.config), *more)
        self.process = self.machine.start(*arguments, name=command, env=self.env)
        return self.process

    def log(self) -> str:
        """The last lines of what its daemon said."""
        return self.process.tail() if self.process else ""


class RendezvousMachine(_Machine):
    """A machine that runs ``serve``."""

    def __init__(self, machine: Namespace) -> None:
        super().__init__(machine, "serve.toml")

    def adopt(self, host: HostMachine) -> None:
        """Take over the configuration and the secret that ``init`` wrote on ``host``."""
        for file in (self.config.name, "account.key"):
            source, target = host.config.parent / file, self.config.parent / file
            target.touch(mode=0o600)
            target.write_bytes(source.read_bytes())
        self.change("serve", {"state_dir": str(self.state_dir)})

    def serve(self, *more: str) -> None:
        """Start ``serve`` and wait until it listens on the DNS and TLS ports. ``more`` are further
        arguments."""
        process = self._start("serve", *more)

        def listening() -> bool:
            if not process.running:
                raise LabError(f"serve ended with {process.returncode}:\n{process.tail()}")
            said = self.machine.run("ss", "-Hlnt").stdout
            ports = {line.split()[3].rpartition(":")[2] for line in said.splitlines()}
            return {"53", "853"} <= ports

        wait_until(listening, READY_SECONDS, "serve listens")


class HostMachine(_Machine):
    """A machine that runs ``up``."""

    def __init__(self, machine: Namespace) -> None:
        super().__init__(machine, "config.toml")

    def settle(self, stub: str | None = None) -> None:
        """Put the host's state into its own folder; its stub resolver listens at ``stub``:53."""
        self.change("host", {"state_dir": str(self.state_dir)})
        if stub is not None:
            self.change("resolver", {"listen": f"{stub}:53"})

    def up(self, *more: str) -> None:
        """Start ``up`` and wait until it says that it is up: its records stand in the zone.
        ``more`` are further arguments."""
        self.begin_up(*more)
        self.wait_until_up()

    def begin_up(self, *more: str) -> None:
        """Start ``up``, and do not wait."""
        self._start("up", *more)

    def wait_until_up(self) -> None:
        """Wait until the ``up`` that was begun says that it is up."""
        assert self.process is not None
        self.process.wait_for(" is up", READY_SECONDS)

    def down(self, timeout: float = 60.0) -> int:
        """Run ``down`` and wait for the daemon's end; its exit code."""
        self.cli("down", "-c", str(self.config), timeout=timeout)
        assert self.process is not None
        return self.process.wait(timeout)

    def try_status(self) -> dict[str, Any] | None:
        """``status --json``, or ``None`` while nobody answers."""
        done = self.cli("status", "--json", "-c", str(self.config), check=False)
        if done.returncode != 0:
            return None
        status: dict[str, Any] = json.loads(done.stdout)
        return status

    def status(self) -> dict[str, Any]:
        """``status --json``."""
        status = self.try_status()
        if status is None:
            raise LabError(f"{self.machine.role} does not answer; it said:\n{self.log()}")
        return status

    def peer(self, name: str) -> dict[str, Any] | None:
        """What ``status`` says of one peer, by its label or whole name."""
        for peer in self.status()["peers"]:
            if peer["name"] == name or peer["name"].split(".")[0] == name:
                found: dict[str, Any] = peer
                return found
        return None
