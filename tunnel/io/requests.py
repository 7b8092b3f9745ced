"""Requests to the node that somebody waits for: a ticket each, a future each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import count
from typing import Any

from tunnel.commands import (
    Advertised,
    Browsed,
    Command,
    Found,
    NotReached,
    Pong,
    Reached,
    RecordsSaid,
)

_ANSWERS = (Reached, NotReached, Found, Pong, Advertised, Browsed, RecordsSaid)


class Requests:
    """Open requests by ticket. The node answers each of them, within its own time limits."""

    def __init__(self) -> None:
        self._tickets = count(1)
        self._open: dict[int, asyncio.Future[Command]] = {}

    async def ask(
        self, tell: Callable[..., None], method: Callable[..., Any], *arguments: Any
    ) -> Command:
        """Tells the node a request with ``arguments`` and waits for its answer."""
        ticket = next(self._tickets)
        future: asyncio.Future[Command] = asyncio.get_running_loop().create_future()
        self._open[ticket] = future
        try:
            tell(method, ticket, *arguments)
            return await future
        finally:
            del self._open[ticket]

    def answer(self, command: Command) -> bool:
        """Takes the node's answer; false if ``command`` is none."""
        if not isinstance(command, _ANSWERS):
            return False
        future = self._open.get(command.ticket)
        if future is not None and not future.done():
            future.set_result(command)
        return True

    def give_up(self, reason: str) -> None:
        """The host ends: whoever still waits is told."""
        for ticket, future in self._open.items():
            if not future.done():
                future.set_result(NotReached(ticket, reason))
