"""A process that stays, on a loop of its own, until it is told to end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from tunnel.cli import hold_standard_files
from tunnel.cli.voice import endure, tell_failure
from tunnel.io import capability

TIDY_SECONDS = 60.0  # between two collections
_TIDY_REST = 1000  # times as long as one took; with 10,000 peers that is the longer of the two


class Service(Protocol):
    """What stays: it runs until it is stopped."""

    async def run(self, on_ready: Callable[[], None]) -> None:
        """Returns after :meth:`stop`, when all is taken down."""

    async def stop(self) -> None:
        """Asks for the end."""


def program(
    module: str, path: Path, as_json: bool, ready_fd: int | None, more: Mapping[str, object]
) -> list[str]:
    """The command line by which ``module`` goes on from here, as :func:`go_on` reads it."""
    what = {"path": str(path), "as_json": as_json, "ready_fd": ready_fd, "more": more}
    return [sys.executable, "-P", "-m", module, json.dumps(what)]


def go_on(name: str, run: Callable[..., None], argument: str) -> int:
    """Runs the command ``name``, whose line was read by ``run.go_on_as``; its exit code.

    ``argument`` is JSON: ``path`` of the configuration, ``as_json``, ``ready_fd`` (or null: a
    descriptor that gets a line when all stands), and ``more``: arguments that this command has
    besides, by name. Among these, ``parent``: the process without which this one shall not stay.
    """
    hold_standard_files()
    endure()
    what = json.loads(argument)
    more = what["more"]
    try:
        if (parent := more.pop("parent", None)) is not None:
            capability.end_with(parent)
        run(Path(what["path"]), what["as_json"], what["ready_fd"], **more)
    except (Exception, KeyboardInterrupt) as problem:
        tell_failure(name, what["as_json"], problem)
        return 1
    return 0


def tell_ready(descriptor: int | None) -> None:
    """Says into ``ready_fd`` that all stands; whoever waited there may have gone."""
    if descriptor is not None:
        with contextlib.suppress(BrokenPipeError):
            os.write(descriptor, b"\n")
        os.close(descriptor)


def stay(make: Callable[[], Service], on_ready: Callable[[], None], *, trim: bool = False) -> None:
    """Runs a service on uvloop until SIGTERM or SIGINT, then waits for its clean end. ``trim``:
    what its connections leave behind in the heap goes back to the system once a minute."""
    import uvloop

    async def run() -> None:
        service = make()
        loop = asyncio.get_running_loop()
        ends: set[asyncio.Future[Any]] = set()

        def end() -> None:
            ends.add(asyncio.ensure_future(service.stop()))

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, end)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        tidying: list[asyncio.Task[None]] = []

        def ready() -> None:
            on_ready()
            tidying.append(asyncio.create_task(tidy(_trimmer() if trim else None)))

        try:
            await service.run(ready)
        finally:
            for task in tidying:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        await asyncio.gather(*ends)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


def _trimmer() -> Callable[[int], object] | None:
    """glibc's malloc_trim(3). Thousands of TLS connections leave a heap full of small holes, which
    it returns in the middle, too; where there is no such function, nothing needs it so."""
    import ctypes

    return getattr(ctypes.CDLL(None), "malloc_trim", None)


async def tidy(trim: Callable[[int], object] | None = None) -> None:
    """Keeps memory flat: Python's free lists, which only a full collection empties, else grow for
    hours, since such a collection waits for a quarter more objects than there are (decision 0033).

    What stands at the start stays for good; leaving it out makes each collection some ms cheap.
    """
    gc.collect()
    gc.freeze()
    took = 0.0
    while True:
        await asyncio.sleep(max(TIDY_SECONDS, took * _TIDY_REST))
        began = time.perf_counter()
        gc.collect()
        if trim is not None:
            trim(0)
        took = time.perf_counter() - began
