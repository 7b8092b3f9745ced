"""A process that stays, on a loop of its own, until it is told to end."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from typing import Any, Protocol


class Service(Protocol):
    """What stays: it runs until it is stopped."""

    async def run(self, on_ready: Callable[[], None]) -> None:
        """Returns after :meth:`stop`, when all is taken down."""

    async def stop(self) -> None:
        """Asks for the end."""


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
