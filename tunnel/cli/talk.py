"""How every command speaks: stdout is data, stderr is talk (DESIGN §5).

A command is a function decorated with :func:`command`; it raises :class:`Failure`, or any of the
errors that our rooms raise with cause and fix, and the decorator turns that into one line on
stderr and exit code 1. With ``--json``, stdout then holds one object with its ``schema`` and, if
the command failed, its ``error``; usage errors are typer's, with exit code 2.
"""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable, Mapping
from typing import Annotated, Any, NoReturn, ParamSpec

import typer

from tunnel.config import ConfigError

P = ParamSpec("P")
_PIPE_WIDTH = 200  # columns

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


class Failure(Exception):  # noqa: N818 (it is an outcome, and its text is what the person reads)
    """The command failed; the text says cause and fix. ``facts`` go beside it with ``--json``."""

    def __init__(self, text: str, **facts: Any) -> None:
        self.facts = facts
        super().__init__(text)


def command(
    app: typer.Typer, name: str, *, schema: str | None = None, **options: Any
) -> Callable[[Callable[P, None]], Any]:
    """Registers a command under ``name``; its errors are spoken as the module says.

    ``schema`` is the name it speaks under, where that is not ``name``.
    """
    spoken = schema or name

    def decorate(function: Callable[P, None]) -> Callable[P, None]:
        @functools.wraps(function)
        def run(*arguments: P.args, **named: P.kwargs) -> None:
            as_json = bool(named.get("as_json"))
            try:
                function(*arguments, **named)
            except typer.Exit:
                raise
            except KeyboardInterrupt:
                _fail(spoken, as_json, "interrupted", {})
            except Exception as problem:
                facts = problem.facts if isinstance(problem, Failure) else {}
                _fail(spoken, as_json, _sentence(problem), facts)

        return app.command(name, **options)(run)

    return decorate


def _sentence(problem: Exception) -> str:
    """What a person can do something with. Set AUTOTUNNEL_DEBUG to see where a bug is."""
    if os.environ.get("AUTOTUNNEL_DEBUG"):
        raise problem
    if isinstance(problem, (Failure, ConfigError)) or type(problem).__module__.startswith(
        ("tunnel.", "keys.", "discovery.", "fastpath.")
    ):
        return str(problem)
    if isinstance(problem, OSError) and problem.strerror:
        where = f"{problem.filename}: " if problem.filename else ""
        return f"{where}{problem.strerror}"
    cause = f"unexpected {type(problem).__name__}: {problem}"
    return f"{cause}; this is a bug: AUTOTUNNEL_DEBUG=1 shows where, please report it"


def _fail(name: str, as_json: bool, text: str, facts: Mapping[str, Any]) -> NoReturn:
    say(f"autotunnel {name}: {text}", style="red")
    if as_json:
        emit(name, {**facts, "error": text})
    raise typer.Exit(1)


def say(text: str, style: str | None = None) -> None:
    """Talk: a line for the person, on stderr; colour only on a terminal and without NO_COLOR."""
    if style is None:
        print(text, file=sys.stderr, flush=True)
        return
    from rich.console import Console  # for a person's eyes only: a process that stays has none

    Console(stderr=True).print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def show(renderable: Any) -> None:
    """Data for the person (a table), on stdout; a pipe gets lines as long as they are."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else _PIPE_WIDTH
    Console(markup=False, highlight=False, width=width).print(renderable)


def put(text: str) -> None:
    """Data as it is, on stdout."""
    sys.stdout.write(text if text.endswith("\n") else text + "\n")
    sys.stdout.flush()


def emit(name: str, facts: Mapping[str, Any]) -> None:
    """Data as one line of JSON with its schema, on stdout. What JSON lacks becomes text."""
    put(json.dumps({"schema": f"autotunnel/{name}/v1", **facts}, default=str))


def log_level() -> str:
    """AUTOTUNNEL_LOG if it is a level's name, else "info"."""
    wish = os.environ.get("AUTOTUNNEL_LOG", "").lower()
    return wish if wish in ("debug", "info", "warning", "error") else "info"


def log_to_stderr() -> None:
    """Sends the log of a command that stays to stderr: lines for a terminal, plain otherwise."""
    import structlog

    colors = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    plain = structlog.dev.plain_traceback
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=plain),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            os.environ.get("AUTOTUNNEL_LOG", "info")
        ),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
