"""The command line (DESIGN §5): one module for each family of commands, one voice for all.

``talk.py`` is the voice: what goes to stdout, what to stderr, how an error sounds, which exit
code. ``files.py`` writes configuration, ``mailbox.py`` reads and writes the zone. The rest are
commands: ``account.py`` (init, invite, revoke, tsig), ``joining.py`` (join), ``run.py`` (serve, up,
demo), ``observe.py`` (status, ping, lookup, down), ``keys.py`` (keys export), ``doctor.py`` with
its ``checks.py``, ``service.py``, ``device.py``, ``completion.py``, and ``demo/``.
"""

from __future__ import annotations

import sys

import typer

from tunnel.cli import account, completion, device, doctor, joining, keys, observe, run, service


def application() -> typer.Typer:
    """The whole command line as a typer application."""
    app = typer.Typer(
        name=completion.PROGRAM,
        help="Your machines, reachable from anywhere by name.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    for family in (run, account, joining, observe, keys, doctor, device, service, completion):
        family.register(app)
    return app


def main(arguments: list[str] | None = None) -> int:
    """Runs one command and gives its exit code: 0 ok, 1 failed, 2 usage."""
    try:
        application()(args=arguments, prog_name=completion.PROGRAM)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BrokenPipeError:  # the reader of our data has gone, like `| head`
        sys.stderr.close()
        return 1
    return 0
