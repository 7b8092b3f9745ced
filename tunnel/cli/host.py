"""``up`` once its command line is read: the process that stays (``run.go_on_as`` starts it)."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import tunnel.cli.lean  # noqa: F401 - before all that it keeps away
from tunnel.cli.staying import go_on, stay, tell_ready
from tunnel.cli.voice import emit, log_to_stderr, say
from tunnel.config import load_host
from tunnel.io.host import Host

_RECORDED = (
    "this host is recorded into {}, sealed with its account's secret: whoever has both can read "
    "what was captured of its tunnels meanwhile; delete the file when it is explained"
)


def run(
    path: Path,
    as_json: bool,
    ready_fd: int | None,
    record: str | None = None,
    home_agent: bool = False,
) -> None:
    """Runs the host of a configuration until it is ended; ``ready_fd`` gets a line when it is up.
    ``record`` names the file into which it is recorded; ``home_agent``: it is one, whether its
    file says so or not."""
    settings = load_host(path)
    if home_agent:
        settings = settings.as_home_agent()
    log_to_stderr()

    def on_ready() -> None:
        tell_ready(ready_fd)
        if as_json:
            emit("up", {"pid": os.getpid(), "name": settings.fqdn})
        else:
            say(f"{settings.fqdn} is up")

    if record is not None:
        say(_RECORDED.format(record))
    stay(lambda: Host(settings, Path(record) if record else None), on_ready)


if __name__ == "__main__":
    raise SystemExit(go_on("up", run, sys.argv[1]))
