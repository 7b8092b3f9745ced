"""``up`` once its command line is read: the process that stays (``run.become_host`` starts it).

Its one argument is JSON: ``path`` of the configuration, ``as_json``, and ``ready_fd``, which gets
a line when the host is up (or null).
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import tunnel.cli.lean  # noqa: F401 - before all that it keeps away
from tunnel.cli.staying import stay
from tunnel.cli.voice import emit, log_to_stderr, say, tell_failure
from tunnel.config import load_host
from tunnel.io.host import Host


def run(path: Path, as_json: bool, ready_fd: int | None) -> None:
    """Runs the host of a configuration until it is ended."""
    settings = load_host(path)
    log_to_stderr()

    def on_ready() -> None:
        if ready_fd is not None:
            os.write(ready_fd, b"\n")
            os.close(ready_fd)
        if as_json:
            emit("up", {"pid": os.getpid(), "name": settings.fqdn})
        else:
            say(f"{settings.fqdn} is up")

    stay(lambda: Host(settings), on_ready)


def main(argument: str) -> int:
    """Runs it, and gives the exit code."""
    what = json.loads(argument)
    as_json, ready_fd = what["as_json"], what["ready_fd"]
    try:
        run(Path(what["path"]), as_json, ready_fd)
    except (Exception, KeyboardInterrupt) as problem:
        tell_failure("up", as_json, problem)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
