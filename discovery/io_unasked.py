"""Takes what the rendezvous says unasked to where it belongs: events, pushes, ends of connections.

:class:`Courier` delivers in portions, one per turn of the event loop, so that questions and
acknowledgements get their turns in between however many have to be told. A socket that cannot take
more is waited for; a connection whose client does not read is cut off.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from itertools import count
from typing import Final

from discovery.io_listen import DatagramServer
from discovery.push_server import GRACE
from discovery.subscriptions import Subscriptions
from discovery.types import Endpoint
from discovery.ways import End, Tell, Unasked

PORTION: Final = 64  # messages per turn of the event loop
BLOCKED: Final = 0.002  # seconds until a full socket is tried again
MAX_BEHIND: Final = 1 << 20  # octets that one connection may have unread


class Courier:
    """Delivers for ``told``. ``flaw`` hears of what should never happen."""

    def __init__(self, told: Subscriptions, flaw: Callable[[Exception], None]) -> None:
        self._told = told
        self._flaw = flaw
        self._streams: dict[int, asyncio.StreamWriter] = {}
        self._numbers = count(1)
        self._sockets: dict[Endpoint, DatagramServer] = {}
        self._undelivered: deque[Unasked] = deque()
        self._turn: asyncio.Handle | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._left = asyncio.Event()

    # --- Who can be reached ---

    def opened(self, writer: asyncio.StreamWriter) -> int:
        """Give a connection its number."""
        number = next(self._numbers)
        self._streams[number] = writer
        return number

    def closed(self, number: int) -> None:
        """Forget a connection, and all that was asked on it."""
        del self._streams[number]
        self._told.gone(number)
        self._left.set()

    def asked_at(self, local: Endpoint, server: DatagramServer) -> None:
        """Note which socket receives what is sent to an address and port of this machine."""
        self._sockets[local] = server

    def holds(self, number: int) -> bool:
        """Say whether a connection may be silent because somebody waits to be told on it."""
        return self._told.holds(number)

    # --- Delivering ---

    def wake(self) -> None:
        """Something happened: deliver what is ready, and look again when it is time."""
        if self._turn is None and (self._told.is_ready or self._undelivered):
            self._turn = asyncio.get_running_loop().call_soon(self._deliver)
        at = self._told.next_alarm
        if self._alarm is not None and self._alarm.when() <= at:
            return
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if at != float("inf"):
            self._alarm = asyncio.get_running_loop().call_at(at, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        self._told.tick(now())
        self.wake()

    def _deliver(self) -> None:
        self._turn = None
        if not self._undelivered:
            self._undelivered += self._told.take(PORTION, now(), int(time.time()))
        try:
            while self._undelivered:
                if not self._carry(self._undelivered[0]):
                    self._turn = asyncio.get_running_loop().call_later(BLOCKED, self._deliver)
                    return
                self._undelivered.popleft()
        except Exception as error:  # a flaw of ours must cost one message, not all that follow
            self._undelivered.popleft()
            self._flaw(error)
        self.wake()

    def _carry(self, unasked: Unasked) -> bool:
        """Deliver one; return false if its socket is full."""
        if isinstance(unasked, End):
            self._end(unasked)
            return True
        if unasked.way.transport == "udp":
            server = self._sockets.get(unasked.way.local)
            return server is None or server.tell(
                unasked.way.source, unasked.way.local, unasked.wire
            )
        self._write(unasked)
        return True

    def _write(self, told: Tell) -> None:
        writer = self._streams.get(told.way.connection)
        if writer is None or writer.is_closing():
            return
        writer.write(len(told.wire).to_bytes(2) + told.wire)
        if writer.transport.get_write_buffer_size() > MAX_BEHIND:
            writer.transport.abort()

    def _end(self, end: End) -> None:
        writer = self._streams.get(end.connection)
        if writer is not None and end.abort:
            writer.transport.abort()
        elif writer is not None:
            writer.close()

    # --- Ending ---

    async def farewell(self) -> None:
        """Send all DSO sessions away, and give their clients the time that they have to go."""
        held = [number for number in self._streams if self._told.push.holds(number)]
        self._told.push.shut_down()
        self._deliver()
        try:
            async with asyncio.timeout(GRACE):
                while any(number in self._streams for number in held):
                    self._left.clear()
                    await self._left.wait()
        except TimeoutError:
            pass  # they are aborted with the rest

    def stop(self) -> None:
        """Deliver nothing any more."""
        for handle in (self._turn, self._alarm):
            if handle is not None:
                handle.cancel()


def now() -> float:
    """Return the clock of the running event loop, seconds: that of all subscriptions."""
    return asyncio.get_running_loop().time()
