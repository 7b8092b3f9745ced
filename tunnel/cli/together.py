"""``serve --home-agent`` once its command line is read: a rendezvous, and the host beside it.

They stay two processes, each with the privileges that it needs and drops (decision 0064). This one
starts them, ends the host before the rendezvous from whose zone it takes its records, and starts
the host again when it fails; the rendezvous serves on meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from asyncio.subprocess import Process
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tunnel.cli.lean  # noqa: F401 - before all that it keeps away
from tunnel.cli.staying import go_on, program, stay
from tunnel.cli.voice import say

FIRST_PAUSE, LONGEST_PAUSE = 5.0, 300.0  # seconds until a host that failed is started again
_PATIENCE = 20.0  # seconds for an end: above what a host and a rendezvous take for theirs


class Child:
    """One of the two processes; :meth:`start` makes it."""

    def __init__(self, process: Process, ready: asyncio.Future[bool]) -> None:
        self.process, self.ready = process, ready

    @classmethod
    async def start(cls, module: str, path: Path, as_json: bool, more: dict[str, object]) -> Child:
        """Starts ``module`` as :func:`tunnel.cli.staying.program` has it.

        In a session of its own, since a terminal's Ctrl-C is for this process to pass on, in order.
        """
        ours, theirs = os.pipe()
        line = program(module, path, as_json, theirs, {**more, "parent": os.getpid()})
        try:
            process = await asyncio.create_subprocess_exec(
                *line, stdin=asyncio.subprocess.DEVNULL, pass_fds=[theirs], start_new_session=True
            )
        except OSError:
            os.close(ours)
            raise
        finally:
            os.close(theirs)
        return cls(process, _told(ours))

    async def end(self) -> None:
        """Ends it, at once if it does not in time."""
        with contextlib.suppress(ProcessLookupError):
            self.process.terminate()
        try:
            await asyncio.wait_for(self.process.wait(), _PATIENCE)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
            await self.process.wait()


def _told(descriptor: int) -> asyncio.Future[bool]:
    """Whether a process said into a pipe that it is ready; its end closes the pipe."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[bool] = loop.create_future()

    def readable() -> None:
        loop.remove_reader(descriptor)
        said = os.read(descriptor, 1)
        os.close(descriptor)
        if not ready.done():
            ready.set_result(said == b"\n")

    loop.add_reader(descriptor, readable)
    return ready


class Together:
    """The rendezvous of the configuration at ``path``, and the host of that at ``host``.

    ``code`` is the exit code in the end.
    """

    def __init__(
        self, path: Path, as_json: bool, host: Path, name: str, backing: str | None
    ) -> None:
        self._path, self._as_json = path, as_json
        self._host, self._name, self._backing = host, name, backing
        self._end = asyncio.Event()
        self.code = 0

    async def run(self, on_ready: Callable[[], None]) -> None:
        """Runs both until :meth:`stop`, or until the rendezvous fails."""
        more: dict[str, object] = {"home_agent": self._name}
        if self._backing:
            more["backing"] = self._backing
        rendezvous = await Child.start("tunnel.cli.server", self._path, self._as_json, more)
        over = asyncio.create_task(rendezvous.process.wait())
        end = asyncio.create_task(self._end.wait())
        keeping: asyncio.Task[None] | None = None
        first: list[asyncio.Future[Any]] = [over, end, rendezvous.ready]
        try:
            await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
            if not self._end.is_set() and rendezvous.ready.done() and rendezvous.ready.result():
                on_ready()
                keeping = asyncio.create_task(self._keep_host())
                await asyncio.wait([over, end], return_when=asyncio.FIRST_COMPLETED)
            self.code = 0 if self._end.is_set() else 1
            if self.code and keeping is not None:
                say("the rendezvous ended by itself, and so does the home agent")
        finally:
            await _cancel(keeping)
            await _cancel(end)
            await rendezvous.end()
            await over

    async def stop(self) -> None:
        """Ends :meth:`run`."""
        self._end.set()

    async def _keep_host(self) -> None:
        """Runs the host, and again when it fails; until `autotunnel down` ends it."""
        pause = FIRST_PAUSE
        while True:
            host = await Child.start("tunnel.cli.host", self._host, False, {"home_agent": True})
            try:
                if await host.ready:
                    pause = FIRST_PAUSE
                code = await host.process.wait()
            finally:
                await host.end()
            if code == 0:
                say("the home agent was ended by `autotunnel down`; the rendezvous serves on")
                return
            cause = "the home agent has ended, as it said above"
            say(f"{cause}; the rendezvous serves on without, and starts it again in {pause:.0f} s")
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)


async def _cancel(task: asyncio.Task[Any] | None) -> None:
    if task is not None:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def run(
    path: Path, as_json: bool, _: int | None, host: str, name: str, backing: str | None = None
) -> None:
    """Serves, with the host ``name`` of the configuration ``host``, until it is ended."""
    made: list[Together] = []

    def make() -> Together:
        made.append(Together(path, as_json, Path(host), name, backing))
        return made[0]

    stay(make, lambda: None)
    if made[0].code:
        raise SystemExit(made[0].code)


if __name__ == "__main__":
    raise SystemExit(go_on("serve", run, sys.argv[1]))
