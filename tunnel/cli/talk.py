"""How every command speaks: stdout is data, stderr is talk (DESIGN §5).

A command is a function decorated with :func:`command`; it raises :class:`Failure`, or any of the
errors that our rooms raise with cause and fix, and the decorator turns that into one line on
stderr and exit code 1. With ``--json``, stdout then holds one object with its ``schema`` and, if
the command failed, its ``error``; usage errors are typer's, with exit code 2.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Annotated, Any, ParamSpec

import typer

from tunnel.cli.voice import Failure, emit, log_level, log_to_stderr, put, say, show, tell_failure

__all__ = [
    "ConfigOption",
    "Failure",
    "JsonOption",
    "command",
    "emit",
    "log_level",
    "log_to_stderr",
    "put",
    "say",
    "show",
]
P = ParamSpec("P")

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
ConfigOption = Annotated[
    str | None,
    typer.Option(
        "--config",
        "-c",
        metavar="FILE",
        help="The configuration; else the user's, else /etc/autotunnel/config.toml.",
    ),
]


def _tell_version(wanted: bool) -> None:
    if not wanted:
        return
    from importlib.metadata import PackageNotFoundError, version  # slow to load

    try:
        put(f"autotunnel {version('autotunnel')}")
    except PackageNotFoundError:
        put("autotunnel, not installed: run from its sources")
    raise typer.Exit


def before_all(
    _: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_tell_version, help="Print the version, and exit."
        ),
    ] = False,
) -> None:
    """Your machines, reachable from anywhere by name."""


def command(
    app: typer.Typer,
    name: str,
    *,
    schema: str | Callable[[Mapping[str, Any]], str] | None = None,
    **options: Any,
) -> Callable[[Callable[P, None]], Any]:
    """Registers a command under ``name``; its errors are spoken as the module says.

    ``schema`` is the name it speaks under, where that is not ``name``; or says, from the options
    that were given, which its JSON has.
    """
    spoken = schema if isinstance(schema, str) else name

    def decorate(function: Callable[P, None]) -> Callable[P, None]:
        @functools.wraps(function)
        def run(*arguments: P.args, **named: P.kwargs) -> None:
            as_json = bool(named.get("as_json"))
            try:
                function(*arguments, **named)
            except (typer.Exit, typer.BadParameter):  # the latter is a usage error: code 2
                raise
            except BrokenPipeError:  # the reader of our data has gone; there is nobody to tell
                raise
            except (Exception, KeyboardInterrupt, SystemExit) as problem:
                of_json = schema(named) if callable(schema) else None
                tell_failure(spoken, as_json, problem, of_json)
                raise typer.Exit(1) from None

        return app.command(name, **options)(run)

    return decorate
