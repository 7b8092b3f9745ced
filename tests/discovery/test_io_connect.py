"""A second connection is begun when the first one's beginning was lost."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Awaitable, Callable

import pytest

from discovery.io_connect import connect, first_of_two, plain
from tests.ports import free_port

Attempt = Callable[[], Awaitable[socket.socket]]


class Script:
    """Attempts that go as written: what each does, and the sockets that they made."""

    def __init__(self, *steps: Callable[[], Awaitable[None]]) -> None:
        self._steps = list(steps)
        self.made: list[socket.socket] = []
        self.cancelled = 0

    async def __call__(self) -> socket.socket:
        step = self._steps.pop(0)
        try:
            await step()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        self.made.append(socket.socket())
        return self.made[-1]


async def at_once() -> None:
    pass


async def never() -> None:
    await asyncio.Event().wait()


async def refuse() -> None:
    raise ConnectionRefusedError


def test_one_that_stands_at_once_is_alone() -> None:
    script = Script(at_once)
    asyncio.run(first_of_two(script, 10.0)).close()


def test_a_lost_beginning_does_not_keep_us_waiting() -> None:
    script = Script(never, at_once)
    with asyncio.run(first_of_two(script, 0.001)) as found:
        assert found is script.made[0]
    assert script.cancelled == 1


@pytest.mark.parametrize("steps", [(refuse,), (never, refuse)])
def test_a_refusal_ends_it(steps: tuple[Callable[[], Awaitable[None]], ...]) -> None:
    """At once if it came at once; else when there is nothing left to wait for."""
    script = Script(*steps)
    patience = 0.2 if never in steps else 60.0

    async def bounded() -> None:
        async with asyncio.timeout(patience):
            await first_of_two(script, 0.01)

    expected = TimeoutError if never in steps else ConnectionRefusedError
    with pytest.raises(expected):
        asyncio.run(bounded())
    assert script.cancelled == (never in steps)


def test_the_loser_is_closed() -> None:
    async def both() -> list[socket.socket]:
        gate, begun = asyncio.Event(), asyncio.Event()

        async def first() -> None:
            await gate.wait()

        async def second() -> None:
            begun.set()
            await gate.wait()

        script = Script(first, second)
        found = asyncio.ensure_future(first_of_two(script, 0.001))
        await begun.wait()
        gate.set()
        await found
        return script.made

    made = asyncio.run(both())
    assert sorted(one.fileno() == -1 for one in made) == [False, True][: len(made)]
    for one in made:
        one.close()


def test_a_real_server_is_reached_by_name() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        found = asyncio.run(connect(("localhost", server.getsockname()[1]), 1.0))
        assert found.getpeername() == server.getsockname()
        found.close()


async def test_what_fails_is_told_in_the_system_s_words() -> None:
    """And not as "Connect call failed ('203.0.113.10', 853)"."""
    with pytest.raises(OSError) as caught:
        await connect(("127.0.0.1", free_port()), 60.0)
    assert plain(caught.value) == "connection refused"
    unreachable = OSError(errno.EHOSTUNREACH, "Connect call failed ('203.0.113.10', 853)")
    assert plain(unreachable) == "no route to host"
    unknown = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    assert plain(unknown) == "name or service not known"
    assert plain(OSError("it has no address")) == "it has no address"
