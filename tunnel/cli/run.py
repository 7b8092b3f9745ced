"""``serve``, ``up`` and ``demo``: the commands that stay until they are ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Protocol

import typer

from tunnel.cli.files import config_path, serve_path
from tunnel.cli.talk import (
    ConfigOption,
    Failure,
    JsonOption,
    command,
    emit,
    log_to_stderr,
    say,
)
from tunnel.config import HostConfig, load_host, load_serve

LOG_FILE = "up.log"
_READY_PATIENCE = 60.0  # seconds that `up --detach` waits for its child to be ready
_LOG_TAIL = 2000  # octets of the log that are shown when it was not


def register(app: typer.Typer) -> None:
    """Adds the commands of this module."""
    command(app, "demo")(demo)
    command(app, "serve")(serve)
    command(app, "up")(up)


class Service(Protocol):
    """What stays: it runs until it is stopped."""

    async def run(self, on_ready: Callable[[], None]) -> None:
        """Returns after :meth:`stop`, when all is taken down."""

    async def stop(self) -> None:
        """Asks for the end."""


def demo(as_json: JsonOption = False) -> None:
    """Build a network of namespaces, run real hosts in it, and move a real file by name."""
    from tunnel.cli import demo as story  # slow to load, and Linux only

    raise typer.Exit(story.run(as_json))


def up(
    config: ConfigOption = None,
    detach: Annotated[bool, typer.Option("--detach", help="Go on in the background.")] = False,
    as_json: JsonOption = False,
    ready_fd: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Run this host: make its device, publish it, and answer its peers."""
    path = config_path(config)
    settings = load_host(path)
    make_state_dir(settings)
    if detach:
        pid = _detach(settings)
        if as_json:
            emit("up", {"pid": pid, "name": settings.fqdn})
        else:
            say(f"{settings.fqdn} is up (process {pid}); end it with `autotunnel down`")
        return

    from tunnel.io.host import Host  # the whole engine: slow to load

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


def make_state_dir(settings: HostConfig) -> None:
    """Makes the state folder, mode 0700. Raises :class:`Failure`."""
    try:
        settings.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as problem:
        cause = f"{settings.state_dir} cannot be made ({problem.strerror})"
        raise Failure(f"{cause}; make it for this user, or set host.state_dir") from None
    if not os.access(settings.state_dir, os.W_OK | os.X_OK):
        cause = f"{settings.state_dir} is not writable for this user"
        raise Failure(f"{cause}; change its owner, or set host.state_dir")


def stay(make: Callable[[], Service], on_ready: Callable[[], None]) -> None:
    """Runs a service on uvloop until SIGTERM or SIGINT, then waits for its clean end."""
    import uvloop

    async def run() -> None:
        service = make()
        loop = asyncio.get_running_loop()
        ends: set[asyncio.Future[Any]] = set()

        def end() -> None:
            ends.add(asyncio.ensure_future(service.stop()))

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, end)
        await service.run(on_ready)
        await asyncio.gather(*ends)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


def _detach(settings: HostConfig) -> int:
    """Starts ``up`` in a session of its own, waits until it is ready, and gives its process id."""
    log = settings.state_dir / LOG_FILE
    ours, theirs = os.pipe()
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    program = [sys.executable, "-m", "tunnel", "up", "-c", str(settings.path)]
    with os.fdopen(descriptor, "wb") as file:
        child = subprocess.Popen(
            [*program, "--ready-fd", str(theirs)],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            pass_fds=[theirs],
            start_new_session=True,
        )
    os.close(theirs)
    with os.fdopen(ours, "rb") as pipe:
        ready = _wait_ready(pipe.fileno())
    if ready:
        return child.pid
    with contextlib.suppress(ProcessLookupError):
        child.terminate()
    raise Failure(f"the host did not start; {log} ends with:\n{_tail(log)}")


def _wait_ready(descriptor: int) -> bool:
    """Whether the child said that it is ready; its end closes the pipe."""
    import select

    readable, _, _ = select.select([descriptor], [], [], _READY_PATIENCE)
    return bool(readable) and os.read(descriptor, 1) == b"\n"


def _tail(log: Path) -> str:
    return log.read_bytes()[-_LOG_TAIL:].decode(errors="replace").strip()


def serve(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Run the rendezvous: the server that holds the account's zone."""
    settings = load_serve(serve_path(config))

    from tunnel.cli.rendezvous import Rendezvous  # the whole server: slow to load

    log_to_stderr()
    rendezvous = Rendezvous(settings)

    def on_ready() -> None:
        server, domains = rendezvous.server, [account.domain for account in settings.accounts]
        pin = server.pin.hex() if server.pin else None
        if as_json:
            emit("serve", {"pid": os.getpid(), "domains": domains, "pin": pin, **server.listening})
            return
        for transport, endpoints in server.listening.items():
            for host, port in endpoints:
                say(f"listening on {host} port {port} ({transport})")
        say(f"the rendezvous serves {', '.join(domains)}" + (f"; its pin is {pin}" if pin else ""))

    stay(lambda: rendezvous, on_ready)
