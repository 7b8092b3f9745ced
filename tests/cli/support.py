"""The command line as a person runs it: a process, its stdout, its stderr and its exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

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
            timeout=60,
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
