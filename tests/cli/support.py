"""The command line as a person runs it: a process, its stdout, its stderr and its exit code."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
DOMAIN = "alice.members.example"
NOBODY = "127.0.0.1:9"
"""A rendezvous that is not there: the discard port, where nothing listens."""


class Person:
    """Somebody with a home folder, who runs commands in it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.config = home / "config.toml"
        kept = {key: value for key, value in os.environ.items() if key in ("PATH", "LANG")}
        self.env = {**kept, "HOME": str(home), "PYTHONPATH": str(ROOT), "COLUMNS": "200"}

    def run(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "tunnel", *arguments],
            capture_output=True,
            text=True,
            cwd=self.home,
            env={**self.env, **env},
            timeout=180,
            check=False,
        )

    def ours(self, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A command with our configuration."""
        return self.run(command, *arguments, "-c", str(self.config))

    def json(self, command: str, *arguments: str, code: int = 0) -> dict[str, Any]:
        """A command with our configuration and --json; its one object, with the right schema."""
        done = self.ours(command, *arguments, "--json")
        assert done.returncode == code, done.stderr
        (line,) = done.stdout.splitlines()
        facts: dict[str, Any] = json.loads(line)
        assert facts["schema"] == f"autotunnel/{command}/v1"
        return facts

    def init(self) -> None:
        done = self.ours("init", DOMAIN, "--rendezvous", NOBODY, "--name", "desk")
        assert done.returncode == 0, done.stderr
        state = self.home / "state"
        text = self.config.read_text()
        old = next(line for line in text.splitlines() if line.startswith("state_dir"))
        self.config.write_text(text.replace(old, f'state_dir = "{state}"'))


class Served:
    """``serve`` as a process: ``told`` is what it said when it was ready."""

    def __init__(self, owner: Person, *arguments: str) -> None:
        config = str(owner.home / "serve.toml")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tunnel", "serve", "--json", "-c", config, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=owner.home,
            env=owner.env,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.end()
        self.told: dict[str, Any] = json.loads(line)

    def end(self) -> str:
        """Ends it with SIGTERM, and gives what it said on stderr."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.communicate(timeout=60)[1]


def settle(person: Person, *more: str) -> None:
    """Gives the person an account whose rendezvous is on this machine, on free ports."""
    tls = free_port()
    done = person.ours("init", DOMAIN, "--rendezvous", f"127.0.0.1:{tls}", "--name", "desk", *more)
    assert done.returncode == 0, done.stderr
    dns = free_port()
    serve = person.home / "serve.toml"
    serve.write_text(
        f'[serve]\nlisten = ["127.0.0.1:{dns}"]\ntls_listen = ["127.0.0.1:{tls}"]\n'
        f'state_dir = "zone"\n[[serve.account]]\ndomain = "{DOMAIN}"\n'
        'secret_file = "account.key"\n'
    )
