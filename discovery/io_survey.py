"""The two sockets of :mod:`discovery.nat.survey`."""

from __future__ import annotations

import asyncio
import functools
import secrets
import socket
import time
from typing import Any

from discovery.nat.survey import SendFrom, Survey, Surveyed, Which

_IDLE = 10.0  # seconds: longer than any survey waits


async def survey(server: str, ports: tuple[int, int], local: str) -> Surveyed:
    """Ask the STUN at ``server`` what kind of network we are in, from ``local``, an address of
    ours. A socket that cannot be had, or a network that is not there, counts as UDP that does not
    get out. It takes six seconds where nobody answers, and about three more where some do not."""
    loop = asyncio.get_running_loop()
    transports: dict[Which, asyncio.DatagramTransport] = {}
    arrivals: asyncio.Queue[tuple[Which, bytes, tuple[Any, ...]]] = asyncio.Queue(64)
    family = socket.AF_INET6 if ":" in local else socket.AF_INET
    names: tuple[Which, Which] = ("first", "second")
    try:
        for which in names:
            transport, _ = await loop.create_datagram_endpoint(
                functools.partial(_Arriving, which, arrivals),
                local_addr=(local, 0),
                family=family,
            )
            transports[which] = transport
        inside = transports["first"].get_extra_info("sockname")[:2]
        machine = Survey(server, ports, inside, secrets.token_bytes)
        _send(transports, machine.start(time.monotonic()))
        while (found := machine.result()) is None:
            due = machine.next_timer() or time.monotonic() + _IDLE
            try:
                async with asyncio.timeout(max(0.0, due - time.monotonic())):
                    which, data, source = await arrivals.get()
            except TimeoutError:
                _send(transports, machine.advance(time.monotonic()))
                continue
            endpoint = (str(source[0]), int(source[1]))
            _send(transports, machine.received(which, data, endpoint, time.monotonic()))
        return found
    except OSError:
        return Surveyed(udp=False)
    finally:
        for transport in transports.values():
            transport.close()


def _send(transports: dict[Which, asyncio.DatagramTransport], commands: list[SendFrom]) -> None:
    for command in commands:
        transports[command.which].sendto(command.data, command.to)


class _Arriving(asyncio.DatagramProtocol):
    def __init__(
        self, which: Which, arrivals: asyncio.Queue[tuple[Which, bytes, tuple[Any, ...]]]
    ) -> None:
        self._which, self._arrivals = which, arrivals

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        if not self._arrivals.full():
            self._arrivals.put_nowait((self._which, data, addr))
