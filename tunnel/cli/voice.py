"""The voice of all commands: stdout is data, stderr is talk (DESIGN §5).

It is apart from :mod:`tunnel.cli.talk`, for processes that stay: nothing of a command line's
library is in it.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any, TextIO, cast

from tunnel import remedies
from tunnel.cli import leave_stdout
from tunnel.config import ConfigError

_PIPE_WIDTH = 200  # columns


class Patient:
    """The stderr of a process that stays: a full disk costs lines of it, and not the process."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Writes it, if it can be written."""
        with contextlib.suppress(OSError):
            return self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Sends on what waits, if it can be."""
        with contextlib.suppress(OSError):
            self._stream.flush()


class Failure(Exception):  # noqa: N818 (it is an outcome, and its text is what the person reads)
    """The command failed; the text says cause and fix. ``facts`` go beside it with ``--json``."""

    def __init__(self, text: str, **facts: Any) -> None:
        self.facts = facts
        super().__init__(text)


def tell_failure(
    name: str, as_json: bool, problem: BaseException, schema: str | None = None
) -> None:
    """Says why the command ``name`` failed, in one line and, if wanted, in JSON, whose schema has
    another name where ``schema`` says so."""
    facts = problem.facts if isinstance(problem, Failure) else {}
    ended = isinstance(problem, KeyboardInterrupt | SystemExit)  # the latter by SIGTERM to a lab
    text = "interrupted" if ended else _sentence(problem)
    say(f"autotunnel {name}: {text}", style="red")
    if as_json:
        with contextlib.suppress(OSError):  # which may be what has failed
            emit(schema or name, {**facts, "error": text})


def _sentence(problem: BaseException) -> str:
    """What a person can do something with. Set AUTOTUNNEL_DEBUG to see where a bug is."""
    if os.environ.get("AUTOTUNNEL_DEBUG"):
        raise problem
    if isinstance(problem, (Failure, ConfigError)) or type(problem).__module__.startswith(
        ("tunnel.", "keys.", "discovery.", "fastpath.")
    ):
        return str(problem)
    if isinstance(problem, OSError) and problem.strerror:
        return remedies.sentence(problem)
    cause = f"unexpected {type(problem).__name__}: {problem}"
    return f"{cause}; this is a bug: AUTOTUNNEL_DEBUG=1 shows where, please report it"


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
    with _writing():
        Console(markup=False, highlight=False, width=width).print(renderable)


def put(text: str) -> None:
    """Data as it is, on stdout."""
    with _writing():
        sys.stdout.write(text if text.endswith("\n") else text + "\n")


@contextlib.contextmanager
def _writing() -> Iterator[None]:
    """Writes to stdout, and now: not when Python ends. An error, as of a full disk, names it; what
    could not be written is not tried again."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as problem:
        leave_stdout()
        raise OSError(problem.errno, problem.strerror, "stdout") from None


def emit(name: str, facts: Mapping[str, Any]) -> None:
    """Data as one line of JSON with its schema, on stdout. What JSON lacks becomes text."""
    put(json.dumps({"schema": f"autotunnel/{name}/v1", **facts}, default=str))


def endure() -> None:
    """From now on stderr is :class:`Patient`."""
    sys.stderr = cast(TextIO, Patient(sys.stderr))


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
