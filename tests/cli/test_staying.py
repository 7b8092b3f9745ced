"""A process that stays gives back what only a full collection finds."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import subprocess
import sys
import weakref
from pathlib import Path

import pytest

from tests import disks
from tests.cli.support import Person
from tunnel.cli import staying
from tunnel.cli.voice import Patient


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


def test_a_log_on_a_full_disk_costs_its_lines_only(small_disk: Path) -> None:
    path = small_disk / "up.log"
    with path.open("a", buffering=1) as file:
        log = Patient(file)
        print("first", file=log, flush=True)
        ballast = disks.fill(small_disk)
        path.open("ab", buffering=0).write(bytes(4096))  # the rest of its page
        for number in range(10_000):
            print(f"line {number}", file=log, flush=True)
        ballast.unlink()
        print("last", file=log, flush=True)
        assert not log.isatty()
    said = path.read_text()
    assert said.startswith("first\n")
    assert said.endswith("last\n")


def test_a_process_that_stays_fails_as_ever_where_nobody_can_hear_it(person: Person) -> None:
    what = {"path": str(person.home / "none"), "as_json": True, "ready_fd": None, "more": {}}
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "tunnel.cli.server", json.dumps(what)],
            stdout=subprocess.PIPE, stderr=full, text=True, env=person.env, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert "there is no such file" in json.loads(done.stdout)["error"]
