"""``serve`` once its command line is read: the process that stays (``run.go_on_as`` starts it)."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import tunnel.cli.lean  # noqa: F401 - before all that it keeps away
from tunnel.cli.rendezvous import Rendezvous
from tunnel.cli.staying import go_on, stay, tell_ready
from tunnel.cli.voice import emit, log_to_stderr, say
from tunnel.config import load_serve


def run(
    path: Path,
    as_json: bool,
    ready_fd: int | None,
    backing: str | None = None,
    home_agent: str | None = None,
) -> None:
    """Serves the zones of a configuration until it is ended; ``backing`` as :option:`--backing`.
    ``home_agent`` is the name of the host that our parent runs beside us (:mod:`.together`)."""
    settings = load_serve(path)
    if backing is not None:
        settings = settings.backed_by(backing)
    log_to_stderr()
    rendezvous = Rendezvous(settings, home_agent)

    def on_ready() -> None:
        announce()
        tell_ready(ready_fd)

    def announce() -> None:
        server, domains = rendezvous.server, [account.domain for account in settings.accounts]
        pin = server.pin.hex() if server.pin else None
        if as_json:
            pid = os.getpid() if home_agent is None else os.getppid()
            facts = {"pid": pid, "domains": domains, "pin": pin, "home_agent": home_agent}
            emit("serve", {**facts, **server.listening})
            return
        for transport, endpoints in server.listening.items():
            for host, port in endpoints:
                say(f"listening on {host} port {port} ({transport})")
        say(f"the rendezvous serves {', '.join(domains)}" + (f"; its pin is {pin}" if pin else ""))

    stay(lambda: rendezvous, on_ready, trim=True)


if __name__ == "__main__":
    raise SystemExit(go_on("serve", run, sys.argv[1]))
