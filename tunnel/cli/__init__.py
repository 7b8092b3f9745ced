"""The command line (DESIGN §5): one module for each family of commands, one voice for all.

``talk.py`` with its ``voice.py`` is how they speak: what goes to stdout, what to stderr, how an
error sounds, which exit code. ``files.py`` knows where files are, ``documents.py`` writes
configuration, ``mailbox.py`` reads and writes the zone.

The rest are commands, a module for each of ``FAMILIES``, and what some of them have besides:

- ``run.py``: its ``demo/``, and the processes that stay (``staying.py``), ``host.py``,
  ``server.py`` over ``rendezvous.py``, and ``together.py``, which runs both; ``lean.py`` keeps
  from them what they have no use for. What ``serve`` does without serving: ``upkeep.py`` and
  ``serving.py``;
- ``doctor.py``: ``checks.py`` with ``nat_checks.py``, ``way_checks.py``, ``relay_checks.py`` and
  ``probe.py``; ``observe.py``: ``keys_shown.py``.
"""

from __future__ import annotations

import io
import os
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import typer

PROGRAM = "autotunnel"
# Each family's module, and its commands. Only the one that is asked for is loaded: the others hold
# libraries that a process which stays for weeks, or one that answers in a moment, has no use for.
FAMILIES = {
    "run": ("demo", "serve", "up"),
    "account": ("init", "invite", "revoke", "tsig"),
    "joining": ("join",),
    "observe": ("status", "ping", "lookup", "down"),
    "explain": ("explain",),
    "rules": ("rules",),
    "services": ("advertise", "browse"),
    "keys": ("keys",),
    "doctor": ("doctor",),
    "device": ("device",),
    "lab": ("lab",),
    "service": ("service",),
    "completion": ("completion",),
}


def application(command: str | None = None) -> typer.Typer:
    """The command line as a typer application: all of it, or as much as ``command`` needs."""
    import typer  # not above: the process that stays is in this package, too

    from tunnel.cli.talk import before_all

    app = typer.Typer(
        name=PROGRAM,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    app.callback()(before_all)  # else typer would take a family of one command for that command
    family = next((name for name, commands in FAMILIES.items() if command in commands), None)
    for name in FAMILIES if family is None else (family,):
        import_module(f"tunnel.cli.{name}").register(app)
    return app


def hold_standard_files() -> None:
    """Opens /dev/null as stdin, stdout and stderr where whoever started us has closed them: else
    our next file or socket would get their numbers, and what is meant for them. What a terminal's
    encoding lacks is written as an escape, and is no error."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    sys.stdin = sys.stdin or os.fdopen(0, closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


def leave_stdout() -> None:
    """Nothing is written there any more; what waits to be is dropped, not tried when we end."""
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


def main(arguments: list[str] | None = None) -> int:
    """Runs one command and gives its exit code: 0 ok, 1 failed, 2 usage."""
    hold_standard_files()
    words = sys.argv[1:] if arguments is None else arguments
    try:
        application(words[0] if words else None)(args=words, prog_name=PROGRAM)
    except SystemExit as end:
        if isinstance(end.code, int):
            return end.code if end.code in (0, 1, 2) else 1  # as after a signal to a lab
        return int(end.code is not None)
    except KeyboardInterrupt:  # before the command itself could tell
        print("autotunnel: interrupted", file=sys.stderr)
        return 1
    except BrokenPipeError:  # the reader of our data has gone, like `| head`
        sys.stderr.close()
        return 1
    except OSError as problem:  # our help, or the like, could not be written
        leave_stdout()
        print(f"autotunnel: stdout: {problem.strerror}", file=sys.stderr)
        return 1
    return 0
