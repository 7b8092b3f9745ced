"""The files that a running host writes: a disk that fails costs a sentence, and not the host.

What could not be written waits in memory, the newest content of each file; it is tried again once
a minute and a last time at the end. The old file stays whole meanwhile, since new ones take its
place only when they are (:func:`keys.store.write_atomically`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import structlog

from keys.store import SecretFileError
from tunnel import remedies

AGAIN: Final = 60.0  # seconds until what waits is tried again
REMIND: Final = 3600.0  # seconds until a cause that stays is told again


@dataclass(slots=True)
class _Trouble:
    """What waits to be written; ``cause`` was told at ``told`` (the loop's time)."""

    content: bytes
    cause: str
    told: float


class Keeping:
    """Writes by ``write(what, content)``, which raises OSError or
    :exc:`keys.store.SecretFileError`, on the running loop."""

    def __init__(self, write: Callable[[str, bytes], None]) -> None:
        self._write = write
        self._troubles: dict[str, _Trouble] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._log = structlog.get_logger("autotunnel")

    def keep(self, what: str, content: bytes) -> None:
        """Writes a file, now or when it can be."""
        try:
            self._write(what, content)
        except SecretFileError as problem:
            self._wait(what, content, str(problem))
        except OSError as problem:
            self._wait(what, content, remedies.sentence(problem))
        else:
            if self._troubles.pop(what, None) is not None:
                self._log.info(f"the {what} could be written again")

    def end(self) -> None:
        """The host ends: what waits is tried a last time."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._retry()

    def _wait(self, what: str, content: bytes, cause: str) -> None:
        now, known = asyncio.get_running_loop().time(), self._troubles.get(what)
        told = known.told if known is not None and known.cause == cause else None
        if told is None or now - told >= REMIND:
            self._log.error(
                f"the {what} could not be written: {cause}; the host goes on with what it knows, "
                "and tries again"
            )
            told = now
        self._troubles[what] = _Trouble(content, cause, told)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(AGAIN, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._retry()

    def _retry(self) -> None:
        for what, trouble in list(self._troubles.items()):
            self.keep(what, trouble.content)
