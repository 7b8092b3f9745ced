"""A process that stays gives back what only a full collection finds."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import weakref

import pytest

from tunnel.cli import staying


class Cycle:
    """Keeps itself."""

    def __init__(self) -> None:
        self.itself = self


def test_what_is_left_over_is_found_without_waiting_for_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(staying, "TIDY_SECONDS", 0.01)

    async def play() -> None:
        task = asyncio.create_task(staying.tidy())
        await asyncio.sleep(0)  # it has begun: what stands now is left alone
        assert gc.get_freeze_count() > 10_000
        reference = weakref.ref(Cycle())
        assert reference() is not None
        async with asyncio.timeout(60):
            while reference() is not None:  # noqa: ASYNC110 - nobody tells of a collection
                await asyncio.sleep(0.01)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    before = gc.isenabled()
    gc.disable()  # nobody else collects
    try:
        asyncio.run(play())
    finally:
        gc.unfreeze()
        if before:
            gc.enable()
