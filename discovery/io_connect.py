"""A TCP connection that does not wait a second for a lost first segment.

The kernel sends its SYN again only after a second (RFC 6298 §2.1), and right after a move or a
router's restart is when one is lost. So a second connection is begun a little later, from another
port, and the first of the two that stands is taken (RFC 8305 in spirit).
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress

from discovery.types import Endpoint


async def connect(server: Endpoint, pause: float) -> socket.socket:
    """A connected socket to (address or name, port); the second attempt begins after ``pause``
    seconds. Raises OSError."""
    return await first_of_two(lambda: _connect(server), pause)


async def first_of_two(
    attempt: Callable[[], Awaitable[socket.socket]], pause: float
) -> socket.socket:
    """Whichever attempt stands first. One that fails before the second began has the last word."""
    first = asyncio.ensure_future(attempt())
    tasks = {first}
    try:
        await asyncio.wait(tasks, timeout=pause)
        if not first.done():
            tasks.add(asyncio.ensure_future(attempt()))
        while True:
            done, waiting = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            good = next((one for one in done if one.exception() is None), None)
            if good is not None or not waiting:
                tasks.discard(good or first)
                return (good or first).result()
            tasks = waiting
    finally:
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError, OSError):
                (await task).close()  # it stood, too, at the same moment


def plain(error: OSError) -> str:
    """What the system says of an error; asyncio says "Connect call failed" of each, and where."""
    number = error.errno or 0
    known = number > 0  # getaddrinfo's are not
    return (os.strerror(number) if known else error.strerror or str(error)).lower()


async def _connect(server: Endpoint) -> socket.socket:
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(*server, type=socket.SOCK_STREAM)
    for number, (family, kind, protocol, _, address) in enumerate(found):
        one = socket.socket(family, kind, protocol)
        try:
            one.setblocking(False)
            await loop.sock_connect(one, address)
        except OSError:
            one.close()
            if number + 1 == len(found):
                raise
        except BaseException:
            one.close()
            raise
        else:
            return one
    raise OSError(f"{server[0]} has no address")
