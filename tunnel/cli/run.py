"""``serve``, ``up`` and ``demo``: the commands that stay until they are ended."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from tunnel.cli.files import config_path, serve_path
from tunnel.cli.staying import program
from tunnel.cli.talk import (
    ConfigOption,
    Failure,
    JsonOption,
    command,
    emit,
    say,
)
from tunnel.config import HostConfig, ServeConfig, load_host, load_serve
from tunnel.config.base import WrongValueError

LOG_FILE = "up.log"
HOST_FILE = "config.toml"  # beside a serve.toml, as `init` writes them
_READY_PATIENCE = 60.0  # seconds that `up --detach` waits for its child to be ready
_LOG_TAIL = 2000  # octets of the log that are shown when it was not


def register(app: typer.Typer) -> None:
    """Adds the commands of this module."""
    command(app, "demo")(demo)
    command(app, "serve", schema=_schema_of_serve)(serve)
    command(app, "up")(up)


def _schema_of_serve(options: Mapping[str, Any]) -> str:
    """What is no serving has its own, whether it succeeds or fails."""
    kinds = {"status": "status", "check": "check", "export": "export", "put_in": "import"}
    wanted = [kind for option, kind in kinds.items() if options.get(option) not in (None, False)]
    return f"serve-{wanted[0]}" if wanted else "serve"


def go_on_as(
    module: str,
    path: Path,
    as_json: bool,
    ready_fd: int | None = None,
    more: Mapping[str, object] | None = None,
) -> NoReturn:
    """Goes on as ``module`` in this very process: the libraries by which a command line is read
    take ten megabytes, and what goes on stays for weeks. A Ctrl-C waits until it has begun to."""
    root = str(Path(__file__).parents[2])
    around = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = f"{root}{os.pathsep}{around}" if around else root
    line = program(module, path, as_json, ready_fd, more or {})
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    os.execv(line[0], line)  # noqa: S606 - our own interpreter, and no text of a shell


def demo(
    quick: Annotated[
        bool, typer.Option("--quick", help="Kill the rendezvous for seconds, not a minute.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Build a network of namespaces, run real hosts in it, and move a real file by name."""
    from tunnel.cli import demo as story  # slow to load, and Linux only

    raise typer.Exit(story.run(as_json, quick))


def up(
    config: ConfigOption = None,
    detach: Annotated[bool, typer.Option("--detach", help="Go on in the background.")] = False,
    as_json: JsonOption = False,
    record: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Record it for `explain --replay`: keep FILE secret."),
    ] = None,
    ready_fd: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Run this host: make its device, publish it, and answer its peers."""
    path = config_path(config)
    settings = load_host(path)
    make_state_dir(settings)
    record = None if record is None else str(Path(record).absolute())
    if detach:
        pid = _detach(settings, () if record is None else ("--record", record))
        if as_json:
            emit("up", {"pid": pid, "name": settings.fqdn})
        else:
            say(f"{settings.fqdn} is up (process {pid}); end it with `autotunnel down`")
        return

    more = {} if record is None else {"record": record}
    go_on_as("tunnel.cli.host", path, as_json, ready_fd, more)


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


def _detach(settings: HostConfig, more: tuple[str, ...] = ()) -> int:
    """Starts ``up`` in a session of its own, waits until it is ready, and gives its process id."""
    log = settings.state_dir / LOG_FILE
    ours, theirs = os.pipe()
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    line = [sys.executable, "-m", "tunnel", "up", "-c", str(settings.path), *more]
    with os.fdopen(descriptor, "wb") as file:
        child = subprocess.Popen(
            [*line, "--ready-fd", str(theirs)],
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
    if not (said := _tail(log)):
        fix = "see that there is room on its disk, or try `autotunnel up` without --detach"
        raise Failure(f"the host did not start, and nothing stands in {log}; {fix}")
    raise Failure(f"the host did not start; {log} ends with:\n{said}")


def _wait_ready(descriptor: int) -> bool:
    """Whether the child said that it is ready; its end closes the pipe."""
    import select

    readable, _, _ = select.select([descriptor], [], [], _READY_PATIENCE)
    return bool(readable) and os.read(descriptor, 1) == b"\n"


def _tail(log: Path) -> str:
    return log.read_bytes()[-_LOG_TAIL:].decode(errors="replace").strip()


def serve(
    config: ConfigOption = None,
    as_json: JsonOption = False,
    status: Annotated[
        bool, typer.Option("--status", help="Show how the one that runs is, and its zones.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Verify the zone store, and serve nothing.")
    ] = False,
    export: Annotated[
        str | None,
        typer.Option(
            "--export", metavar="FILE", help="Write the zone as a zone file; - is stdout."
        ),
    ] = None,
    put_in: Annotated[
        str | None,
        typer.Option("--import", metavar="FILE", help="Replace the zone by a zone file."),
    ] = None,
    domain: Annotated[
        str | None, typer.Option(help="The account that --export and --import mean.")
    ] = None,
    backing: Annotated[
        str | None,
        typer.Option(
            metavar="HOST[:PORT]",
            help="The zone is on this server (BIND, Knot, …); add leases and events to it.",
        ),
    ] = None,
    home_agent: Annotated[
        bool,
        typer.Option(
            "--home-agent",
            help="Run this machine's host, too (serve.home_agent, else config.toml beside the "
            "file), as the account's home agent.",
        ),
    ] = False,
) -> None:
    """Run the rendezvous: the server that holds the account's zone."""
    settings = load_serve(serve_path(config))
    try:
        settings = settings.backed_by(backing) if backing else settings
    except WrongValueError as problem:
        raise typer.BadParameter(f"--backing: {problem}; {problem.fix}") from None
    wanted = [check, export is not None, put_in is not None]
    if sum(wanted) + status > 1:
        raise typer.BadParameter("use one of --status, --check, --export and --import at a time")
    if status:
        from tunnel.cli import serving

        serving.show_status(settings, as_json)
        return
    if any(wanted):
        from tunnel.cli import upkeep  # the store: slow to load

        if check:
            upkeep.check(settings, as_json)
        elif export is not None:
            upkeep.export(settings, export, domain, as_json)
        elif put_in is not None:
            upkeep.put_in(settings, put_in, domain, as_json)
        return

    more: dict[str, object] = {"backing": backing} if backing else {}
    if home_agent or settings.home_agent is not None:
        host = _home_agent_of(settings)
        more |= {"host": str(host.path), "name": host.fqdn}
        go_on_as("tunnel.cli.together", settings.path, as_json, more=more)
    go_on_as("tunnel.cli.server", settings.path, as_json, more=more)


def _home_agent_of(settings: ServeConfig) -> HostConfig:
    """The host that a rendezvous runs as home agent. Raises :class:`Failure`."""
    path = settings.home_agent or settings.path.parent / HOST_FILE
    if not path.exists():
        cause = f"there is no host to run as home agent ({path})"
        fix = "make it with `autotunnel join`, or `init`; or name its file in serve.home_agent"
        raise Failure(f"{cause}; {fix}")
    host = load_host(path)
    domain = None if host.account is None else host.account.domain
    served = [account.domain for account in settings.accounts]
    if domain not in served:
        cause = f"the host of {path} is of {domain or 'no account'}"
        fix = "a home agent is a host of an account that is served: name another serve.home_agent"
        raise Failure(f"{cause}, and {settings.path} serves {', '.join(served)}; {fix}")
    make_state_dir(host)
    return host
