"""The rendezvous' STUN (RFC 8489): a host behind a NAT asks here where the outside sees it.

It answers nothing but Binding requests, in less than twice the octets, so that it amplifies
nothing; a source that asks more than :data:`PER_SECOND` times a second is not answered for the rest
of it. Our hosts ask from the tunnel's own socket, behind the non-ESP marker that IKE has there
(RFC 3948 §2.2), and are answered behind it; everybody else is answered in plain STUN.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections import Counter
from typing import Any, Final

from discovery.io_listen import bind
from discovery.nat import stun
from discovery.types import Endpoint

PER_SECOND: Final = 20
SOURCES: Final = 4096  # that are counted in a second; beyond them nobody new is answered
MARKER: Final = bytes(4)


class StunServer:
    """Answers at ``listen``, endpoints of UDP; ``counters`` tell how often it did, and not."""

    def __init__(self, listen: tuple[Endpoint, ...]) -> None:
        self._listen = listen
        self._transports: list[asyncio.DatagramTransport] = []
        self.counters: Counter[str] = Counter()
        self._second, self._asked = 0, Counter[str]()

    async def start(self) -> None:
        """Bind. Raises :class:`discovery.io_listen.ListenError`."""
        loop = asyncio.get_running_loop()
        try:
            for endpoint in self._listen:
                bound = bind(endpoint, socket.SOCK_DGRAM, "stun_listen")
                transport, _ = await loop.create_datagram_endpoint(
                    lambda: _Answering(self), sock=bound
                )
                self._transports.append(transport)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Close. Idempotent."""
        for transport in self._transports:
            transport.close()
        self._transports = []

    @property
    def listening(self) -> list[Endpoint]:
        """The bound endpoints."""
        return [transport.get_extra_info("sockname")[:2] for transport in self._transports]

    def answer(self, data: bytes, source: Endpoint) -> bytes | None:
        """What to send back, if anything."""
        marked = data.startswith(MARKER)
        reply = stun.answer(data[len(MARKER) :] if marked else data, source)
        if reply is None:
            self.counters["dropped"] += 1
            return None
        if not self._may_ask(source[0]):
            self.counters["limited"] += 1
            return None
        self.counters["answered"] += 1
        return MARKER + reply if marked else reply

    def _may_ask(self, address: str) -> bool:
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._asked = second, Counter()
        if len(self._asked) >= SOURCES and address not in self._asked:
            return False
        self._asked[address] += 1
        return self._asked[address] <= PER_SECOND


class _Answering(asyncio.DatagramProtocol):
    def __init__(self, server: StunServer) -> None:
        self._server = server
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        reply = self._server.answer(data, (str(addr[0]), int(addr[1])))
        if reply is not None and self._transport is not None:
            self._transport.sendto(reply, addr)
