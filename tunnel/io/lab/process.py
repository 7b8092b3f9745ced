"""Programs that a lab runs: to their end, or in the background with a log, ended by their pid."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

_T = TypeVar("_T")
POLL_SECONDS = 0.02
TAIL_LINES = 15


class LabError(Exception):
    """Something in a lab went wrong; the text says which command and what it said."""


def run(
    argv: Sequence[str],
    *,
    timeout: float = 60.0,
    check: bool = True,
    env: Mapping[str, str] | None = None,
    stdin: str | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run ``argv`` to its end (``timeout`` in seconds); raise :class:`LabError` if it fails.

    ``env`` is added to our own environment. With ``check=False`` a non-zero exit code is the
    caller's to judge; a timeout is always an error.
    """
    try:
        done = subprocess.run(
            argv,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            env={**os.environ, **(env or {})},
            check=False,
        )
    except subprocess.TimeoutExpired as late:
        raise LabError(f"{' '.join(argv)}: not done after {timeout:g} s") from late
    except OSError as error:
        raise LabError(f"{argv[0]}: {error.strerror}") from error
    if check and done.returncode != 0:
        said = _tail(done.stderr.strip() or done.stdout.strip())
        raise LabError(f"{' '.join(argv)}: exit code {done.returncode}: {said}")
    return done


class Process:
    """A program in the background. Its output goes to ``log`` (and ``stdout_file``, if given).

    It has a session of its own, so that a Ctrl-C at the terminal reaches only the lab, which then
    ends it in order.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        log: Path,
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        stdout_file: Path | None = None,
    ) -> None:
        self.name = name
        self.argv = tuple(argv)
        self.log = log
        self._log_start = log.stat().st_size if log.exists() else 0
        with contextlib.ExitStack() as files:
            errors = files.enter_context(log.open("ab"))
            out = files.enter_context(stdout_file.open("wb")) if stdout_file else errors
            try:
                self._popen = subprocess.Popen(
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=errors,
                    env={**os.environ, **(env or {})},
                    cwd=cwd,
                    start_new_session=True,
                )
            except OSError as error:
                raise LabError(f"{argv[0]}: {error.strerror}") from error

    @property
    def pid(self) -> int:
        """The program's process id (``ip netns exec`` becomes the program, it does not fork)."""
        return self._popen.pid

    @property
    def returncode(self) -> int | None:
        """The exit code (negative: the signal), or ``None`` while it runs."""
        return self._popen.poll()

    @property
    def running(self) -> bool:
        """Whether it still runs."""
        return self._popen.poll() is None

    def output(self) -> str:
        """All that it has said so far (the log may also hold what earlier ones said)."""
        return self.log.read_bytes()[self._log_start :].decode(errors="replace")

    def tail(self) -> str:
        """The last lines of what it said, for an error message."""
        return _tail(self.output())

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, if it still runs."""
        if self.running:
            with contextlib.suppress(ProcessLookupError):
                self._popen.send_signal(number)

    def wait(self, timeout: float) -> int:
        """Wait for its end; the exit code. Raises :class:`LabError` after ``timeout`` seconds."""
        try:
            return self._popen.wait(timeout)
        except subprocess.TimeoutExpired as late:
            raise LabError(
                f"{self.name} still runs after {timeout:g} s; it said:\n{self.tail()}"
            ) from late

    def stop(self, number: signal.Signals = signal.SIGTERM, timeout: float = 10.0) -> int:
        """Ask it to end, and kill it if it does not within ``timeout`` seconds."""
        self.send(number)
        try:
            return self._popen.wait(timeout)
        except subprocess.TimeoutExpired:
            return self.kill()

    def kill(self) -> int:
        """Kill it at once (SIGKILL)."""
        self.send(signal.SIGKILL)
        return self._popen.wait()

    def wait_for(self, text: str, timeout: float) -> None:
        """Wait until it has said ``text``; an early end is an error that quotes it."""

        def said() -> bool:
            if text in self.output():
                return True
            if not self.running:
                raise LabError(
                    f"{self.name} ended with {self.returncode} before it said {text!r}:\n"
                    f"{self.tail()}"
                )
            return False

        wait_until(said, timeout, f"{self.name} says {text!r}")


def wait_until(condition: Callable[[], _T | None], timeout: float, what: str) -> _T:
    """Poll ``condition`` until it is true and give its value; :class:`LabError` at the deadline."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() >= deadline:
            raise LabError(f"waited {timeout:g} s in vain until {what}")
        time.sleep(POLL_SECONDS)  # a poll has to let go of the processor between two looks


def alive(pid: int) -> bool:
    """Whether a process runs. One that has ended and that nobody has collected does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def _tail(text: str) -> str:
    return "\n".join(text.splitlines()[-TAIL_LINES:])
