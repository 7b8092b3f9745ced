"""The connection to a backing server: made, kept, and made again (:mod:`discovery.backing`)."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Iterable
from typing import Final

from discovery.backing.primary import (
    Mirrored,
    Passed,
    Primary,
    PrimaryCommand,
    SendPrimary,
)
from discovery.backing.reader import Mirrorable
from discovery.io_connect import plain
from discovery.message import Record
from discovery.types import Endpoint, TsigKey

FIRST_PAUSE: Final = 0.5  # seconds before the second attempt, doubling
LONGEST_PAUSE: Final = 30.0
CONNECT_TIMEOUT: Final = 5.0  # seconds

_TICK: Final = 1.0


class BackingLink:
    """Runs a :class:`~discovery.backing.primary.Primary` over TCP to ``server``.

    ``mirrored`` gets its :class:`~discovery.backing.primary.Mirrored` and ``passed`` its
    :class:`~discovery.backing.primary.Passed`; ``told`` a sentence when the primary is lost (with
    the reason) or back (empty).
    """

    def __init__(
        self,
        server: Endpoint,
        content: Mirrorable,
        key: TsigKey,
        *,
        mirrored: Callable[[Mirrored], None],
        passed: Callable[[Passed], None],
        told: Callable[[str], None],
    ) -> None:
        self.primary = Primary(content, key, secrets.token_bytes)
        self._server = server
        self._mirrored, self._passed, self._told = mirrored, passed, told
        self._writer: asyncio.StreamWriter | None = None
        self._task: asyncio.Task[None] | None = None
        self._was_up: bool | None = None
        self._why = ""  # we hang up

    @property
    def away(self) -> str:
        """Why the primary cannot be asked now, in words for a requestor; empty: it can."""
        return self.primary.away

    def start(self) -> None:
        """Begin to connect."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Hang up; whoever waits is told so."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None
        self._obey(self.primary.down("the rendezvous is ending"))

    def update(
        self, ticket: int, prerequisites: Iterable[Record], updates: Iterable[Record]
    ) -> None:
        """Pass an UPDATE on; its outcome comes to ``passed``."""
        now = time.monotonic()
        self._obey(self.primary.update(ticket, tuple(prerequisites), tuple(updates), now, _unix()))

    def notified(self) -> None:
        """A NOTIFY came."""
        self._obey(self.primary.notified(time.monotonic(), _unix()))

    # --- Inside -----------------------------------------------------------------------------

    async def _run(self) -> None:
        pause = FIRST_PAUSE
        while True:
            reason = await self._session()
            if self.primary.is_up:
                pause = FIRST_PAUSE
            self._obey(self.primary.down(reason))
            self._tell()
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)

    async def _session(self) -> str:
        """One connection, until it ends; why it did."""
        self._why = ""
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                reader, self._writer = await asyncio.open_connection(*self._server)
        except TimeoutError:
            return f"{_text(self._server)} does not answer"
        except OSError as error:
            return f"{_text(self._server)}: {plain(error)}"
        ticking = asyncio.create_task(self._tick())
        try:
            self._obey(self.primary.up(time.monotonic(), _unix()))
            while True:
                size = int.from_bytes(await reader.readexactly(2))
                wire = await reader.readexactly(size)
                self._obey(self.primary.receive(wire, time.monotonic(), _unix()))
                self._obey(self.primary.advance(time.monotonic(), _unix()))
                if self.primary.is_up:  # else it is on its way; its end will be told
                    self._tell()
        except asyncio.IncompleteReadError:
            return self._why or f"{_text(self._server)} closed the connection"
        except OSError as error:
            return self._why or f"{_text(self._server)}: {plain(error)}"
        except _HangUpError as error:
            return str(error)
        finally:
            self._writer.close()
            self._writer = None
            ticking.cancel()
            await asyncio.wait([ticking])  # unlike awaiting it: does not swallow our own end

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK)
            try:
                self._obey(self.primary.advance(time.monotonic(), _unix()))
            except _HangUpError as error:
                self._why = str(error)
                if self._writer is not None:
                    self._writer.transport.abort()
                return

    def _obey(self, commands: Iterable[PrimaryCommand]) -> None:
        for command in commands:
            if isinstance(command, SendPrimary):
                if self._writer is not None:
                    self._writer.write(len(command.wire).to_bytes(2) + command.wire)
            elif isinstance(command, Mirrored):
                self._mirrored(command)
            elif isinstance(command, Passed):
                self._passed(command)
            else:
                raise _HangUpError(f"{_text(self._server)}: {command.reason}")

    def _tell(self) -> None:
        """Say once when it is gone, and once when it is back."""
        if self.primary.is_up != self._was_up:
            self._was_up = self.primary.is_up
            self._told("" if self.primary.is_up else self.primary.reason)


class _HangUpError(Exception):
    """The machine wants another connection."""


def _text(server: Endpoint) -> str:
    host, port = server
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _unix() -> int:
    return int(time.time())
