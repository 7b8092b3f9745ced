"""The disk's side of the rendezvous: writes batches in a thread of its own, one at a time.

The event loop goes on answering queries while SQLite waits for the disk, and gathers the UPDATEs
that come meanwhile into the next batch (:mod:`discovery.batch`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, cast

from discovery.batch import Batch
from discovery.store import StoreError, ZoneStore
from discovery.zone import ZoneServer

PERIOD: Final = 1.0  # seconds between two looks at the leases; they end by the second

Reply = Callable[[bytes], None]
"""The ticket of an UPDATE: takes its answer to whoever sent it."""


class Writer:
    """Writes what waits in ``zone`` to ``store``. ``flaw`` is told of what should never happen."""

    def __init__(
        self, zone: ZoneServer, store: ZoneStore, flaw: Callable[[Exception], None]
    ) -> None:
        self._zone = zone
        self._store = store
        self._flaw = flaw
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="zone-store")
        self._running: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to look at the leases, on the running event loop."""
        self._look()

    def wake(self) -> None:
        """Something waits: write it, now or after the write that is under way."""
        if self._running is None:
            self._running = asyncio.get_running_loop().create_task(self._write())
            self._running.add_done_callback(self._done)

    async def stop(self) -> None:
        """Finish the write that is under way; what waits behind it gets no answer."""
        if self._timer is not None:
            self._timer.cancel()
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
        await asyncio.to_thread(self._thread.shutdown)

    def _look(self) -> None:
        self._zone.expire(_unix())
        self.wake()
        self._timer = asyncio.get_running_loop().call_later(PERIOD, self._look)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._running = None
        if not task.cancelled() and isinstance(error := task.exception(), Exception):
            self._flaw(error)

    async def _write(self) -> None:
        while (batch := self._zone.begin(_unix())) is not None:
            error: StoreError | None = None
            if batch.changes:
                commit = asyncio.get_running_loop().run_in_executor(
                    self._thread, self._store.commit, batch.changes
                )
                try:
                    await asyncio.shield(commit)
                except StoreError as problem:
                    error = problem
            self._answer(batch, error)

    def _answer(self, batch: Batch, error: StoreError | None) -> None:
        for ticket, wire in self._zone.end(batch, error, _unix()):
            cast(Reply, ticket)(wire)


def _unix() -> int:
    return int(time.time())
