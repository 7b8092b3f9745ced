"""The rendezvous' STUN (RFC 8489): a host behind a NAT asks here where the outside sees it.

It answers nothing but Binding requests, in less than twice the octets, so that it amplifies
nothing; a source that asks more than :data:`PER_SECOND` times a second is not answered for the rest
of it. Our hosts ask from the tunnel's own socket, behind the non-ESP marker that IKE has there
(RFC 3948 §2.2), and are answered behind it; everybody else is answered in plain STUN. Whoever asks
to be answered from the other port (CHANGE-REQUEST, RFC 5780 §4.4) is, where one address listens at
two: so a host learns whom its NAT or firewall lets in. Whoever asks to be answered later is, as
long as there are not too many of those: so a host learns how long its NAT remembers a flow.
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
LATER: Final = 4096  # answers that wait
MARKER: Final = bytes(4)


class StunServer:
    """Answers at ``listen``, endpoints of UDP; ``counters`` tell how often it did, and not."""

    def __init__(self, listen: tuple[Endpoint, ...]) -> None:
        self._listen = listen
        self._transports: list[asyncio.DatagramTransport] = []
        self.counters: Counter[str] = Counter()
        self._second, self._asked = 0, Counter[str]()
        self._waiting = 0

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

    def heard(self, data: bytes, source: tuple[Any, ...], at: asyncio.DatagramTransport) -> None:
        """A datagram came to one of our sockets, from a socket address."""
        other, endpoint = self._other_port(at), (str(source[0]), int(source[1]))
        reply = self.answer(data, endpoint, changes_port=other is not None)
        if reply is not None:
            asked = data.removeprefix(MARKER)
            changes = other is not None and stun.wants_other_port(asked)
            way = other if other is not None and changes else at
            self._send(reply, source, way, stun.delay_of(asked))

    def _send(
        self, reply: bytes, source: tuple[Any, ...], way: asyncio.DatagramTransport, delay: int
    ) -> None:
        if not delay:
            way.sendto(reply, source)
        elif self._waiting >= LATER:
            self.counters["limited"] += 1
        else:
            self._waiting += 1
            asyncio.get_running_loop().call_later(delay, self._send_late, reply, source, way)

    def _send_late(
        self, reply: bytes, source: tuple[Any, ...], way: asyncio.DatagramTransport
    ) -> None:
        self._waiting -= 1
        if not way.is_closing():
            way.sendto(reply, source)

    def _other_port(self, at: asyncio.DatagramTransport) -> asyncio.DatagramTransport | None:
        """The socket of the same address at another port."""
        place = at.get_extra_info("sockname")
        for one in self._transports:
            there = one.get_extra_info("sockname")
            if there[0] == place[0] and there[1] != place[1]:
                return one
        return None

    def answer(self, data: bytes, source: Endpoint, *, changes_port: bool = False) -> bytes | None:
        """What to send back, if anything. ``changes_port``: there is another port to do it from."""
        marked = data.startswith(MARKER)
        asked = data[len(MARKER) :] if marked else data
        reply = stun.answer(asked, source, changes_port=changes_port)
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
        if self._transport is not None:
            self._server.heard(data, addr, self._transport)
