"""Requests to the node that somebody waits for: a ticket each, a future each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import count
from typing import Any

from tunnel.commands import Command, Found, NotReached, Pong, Reached


class Requests:
    """Open requests by ticket. The node answers each of them, within its own time limits."""

    def __init__(self) -> None:
        self._tickets = count(1)
        self._open: dict[int, asyncio.Future[Command]] = {}

    async def ask(
        self, tell: Callable[..., None], method: Callable[..., Any], name: str
    ) -> Command:
        """Tells the node a request for ``name`` and waits for its answer."""
        ticket = next(self._tickets)
        future: asyncio.Future[Command] = asyncio.get_running_loop().create_future()
        self._open[ticket] = future
        try:
            tell(method, ticket, name)
            return await future
        finally:
            del self._open[ticket]

    def answer(self, command: Command) -> bool:
        """Takes the node's answer; false if ``command`` is none."""
        if not isinstance(command, (Reached, NotReached, Found, Pong)):
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
