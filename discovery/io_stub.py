"""The stub resolver on its loopback address, UDP and TCP, around :mod:`discovery.stub`.

Each query is a task of its own: a held one waits for its tunnel, together with all others for the
same host; one about services waits for the zone; a forwarded one goes to the system's servers
(:mod:`discovery.io_forward`). Tasks, connections, questions to the zone and tunnels waited for are
bounded; beyond that queries are dropped (UDP) or not read (TCP), and applications ask again.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any, Final, TypeAlias, cast

import dns.name
import structlog

from discovery import forwarding, rcodes, stub
from discovery.io_forward import RESOLV_CONF, Forwarder, ForwardSettings
from discovery.stub import AskZone, Forward, Hold, NotThere, Reply, Stub
from discovery.types import Endpoint, RecordsFound

_MAX_MESSAGE: Final = 65535
_FREE_PORTS: Final = 8  # that are tried where the system chooses
_MAX_UDP: Final = 4096  # octets of a query that we look at over UDP

Reach: TypeAlias = Callable[[str], Awaitable[IPv6Address | NotThere]]
"""Makes the tunnel to the host with this label; returns its host id, or why not."""

Ask: TypeAlias = Callable[[dns.name.Name, int], Awaitable[RecordsFound]]
"""Asks the zone for the records at a name."""


async def _ask_nobody(name: dns.name.Name, rdtype: int) -> RecordsFound:
    return RecordsFound(name, rdtype, (), exists=True)


class StubError(Exception):
    """The stub resolver cannot start; the message says cause and fix."""


@dataclass(frozen=True, slots=True)
class StubSettings:
    """Times in seconds; ``hold`` bounds the wait for a tunnel and for the zone. ``max_asked``
    questions to the zone leave room for the host's own lookups."""

    hold: float = 15.0
    forward: ForwardSettings = field(default_factory=ForwardSettings)
    tcp_idle: float = 30.0
    max_questions: int = 512
    max_labels: int = 64
    max_asked: int = 24
    max_connections: int = 64


DEFAULT_SETTINGS: Final = StubSettings()


class StubServer:
    """Answers applications on ``listen`` (port 0 takes a free one, see :attr:`address`).

    ``forward`` are the servers for all other names; left out, those of ``resolv_conf``.
    ``ask`` is left out where there is no zone, ``name_of`` gives the name of a host by its host id.
    """

    def __init__(
        self,
        *,
        listen: Endpoint,
        domain: str,
        label: str,
        host_id: IPv6Address,
        reach: Reach,
        ask: Ask = _ask_nobody,
        name_of: Callable[[IPv6Address], str | None] = lambda _: None,
        forward: Sequence[Endpoint] = (),
        resolv_conf: Path = RESOLV_CONF,
        settings: StubSettings = DEFAULT_SETTINGS,
    ) -> None:
        self.address = listen
        self.counters = {"held": 0, "asked": 0, "forwarded": 0, "answered": 0, "dropped": 0}
        self.forwarder = Forwarder(
            lambda: self.address, forward, resolv_conf, settings=settings.forward
        )
        self._stub = Stub(domain, label, host_id, name_of=name_of, searches=self.forwarder.searches)
        self._reach = reach
        self._ask = ask
        self._settings = settings
        self._log = structlog.get_logger("autotunnel.stub")
        self._reaching: dict[str, asyncio.Task[IPv6Address | NotThere]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._connections = 0
        self._asked = 0
        self._udp: asyncio.DatagramTransport | None = None
        self._tcp: asyncio.Server | None = None

    async def start(self) -> None:
        """Bind and begin to answer. Raises :exc:`StubError`."""
        loop = asyncio.get_running_loop()
        udp, tcp = self._bind()
        transport, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(self), sock=udp)
        self._udp = transport
        self._tcp = await asyncio.start_server(self._connected, sock=tcp, limit=_MAX_MESSAGE + 2)

    async def stop(self) -> None:
        """Close all; held queries get no answer any more."""
        if self._udp is not None:
            self._udp.close()
        if self._tcp is not None:
            self._tcp.close()
        tasks = [*self._tasks, *self._reaching.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.forwarder.stop()
        self._udp = self._tcp = None

    def _bind(self) -> tuple[socket.socket, socket.socket]:
        for _ in range(_FREE_PORTS if self.address[1] == 0 else 0):
            # The port that is free for TCP may be somebody's for UDP.
            with contextlib.suppress(StubError):
                return self._bind_once()
        return self._bind_once()

    def _bind_once(self) -> tuple[socket.socket, socket.socket]:
        host, port = self.address
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        tcp = socket.socket(family, socket.SOCK_STREAM)
        udp = socket.socket(family, socket.SOCK_DGRAM)
        try:
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tcp.bind((host, port))
            port = tcp.getsockname()[1]
            udp.bind((host, port))
        except OSError as error:
            tcp.close()
            udp.close()
            raise StubError(
                f"the stub resolver cannot listen on {host} port {port} "
                f"({(error.strerror or str(error)).lower()}); choose another [resolver] listen, "
                "or stop what holds it"
            ) from error
        for one in (tcp, udp):
            one.setblocking(False)
        self.address = (host, port)
        return udp, tcp

    # --- Queries from applications ---

    def datagram(self, wire: bytes, source: tuple[str, int]) -> None:
        """Take a query over UDP; its answer goes back to ``source``."""
        if len(wire) > _MAX_UDP or not self._spawn(self._over_udp(wire, source)):
            self.counters["dropped"] += 1

    async def _over_udp(self, wire: bytes, source: tuple[str, int]) -> None:
        answer = await self._answer(wire, tcp=False)
        if answer is not None and self._udp is not None and not self._udp.is_closing():
            self._udp.sendto(answer, source)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = cast("asyncio.Task[None]", asyncio.current_task())
        if self._connections >= self._settings.max_connections:
            writer.transport.abort()
            return
        self._connections += 1
        self._tasks.add(task)
        try:
            await self._converse(reader, writer)
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            pass  # the application went away or tired of us
        finally:
            self._connections -= 1
            self._tasks.discard(task)
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection's queries in order."""
        while True:
            async with asyncio.timeout(self._settings.tcp_idle):
                size = int.from_bytes(await reader.readexactly(2))
                wire = await reader.readexactly(size)
            answer = await self._answer(wire, tcp=True)
            if answer is None:
                return
            writer.write(len(answer).to_bytes(2) + answer)
            async with asyncio.timeout(self._settings.tcp_idle):
                await writer.drain()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> bool:
        if len(self._tasks) >= self._settings.max_questions:
            work.close()
            return False
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    async def _answer(self, wire: bytes, *, tcp: bool) -> bytes | None:
        decision = self._stub.decide(wire)
        match decision:
            case Hold(label, question):
                self.counters["held"] += 1
                outcome = await self._held(label)
                if not isinstance(outcome, NotThere):
                    self._stub.remember(outcome, label)
                return question.outcome(outcome)
            case AskZone(question):
                self.counters["asked"] += 1
                found = await self._asked_of_zone(question)
                return question.found(found, self._stub.domain, tcp=tcp)
            case Forward(question, _):
                return await self._forwarded(decision, question, tcp)
            case Reply(answer):
                self.counters["answered"] += 1
                return answer
        return None

    async def _forwarded(
        self, forward: Forward, question: stub.Question, tcp: bool
    ) -> bytes | None:
        if self.forwarder.is_our_probe(question):
            return None
        self.counters["forwarded"] += 1
        answer = await self.forwarder.ask(forward, tcp=tcp)
        if answer is None:
            return question.reply(rcodes.SERVFAIL, reason="no server of the system answered")
        return forwarding.with_identity(answer, question.identity)

    async def _asked_of_zone(self, question: stub.Question) -> RecordsFound:
        name, rdtype = question.name, question.rdtype
        if self._asked >= self._settings.max_asked:
            return RecordsFound(name, rdtype, (), False, "too many questions; try again")
        self._asked += 1
        try:
            async with asyncio.timeout(self._settings.hold):
                return await self._ask(name, rdtype)
        except TimeoutError:
            return RecordsFound(name, rdtype, (), False, "the rendezvous did not answer in time")
        except Exception as error:  # a fault of ours; the application gets an answer all the same
            self._log.exception("asking the zone failed", name=str(name), error=str(error))
            return RecordsFound(name, rdtype, (), False, "an internal fault; the log says more")
        finally:
            self._asked -= 1

    # --- Holding ---

    async def _held(self, label: str) -> IPv6Address | NotThere:
        """Wait for the tunnel to a host, together with all others who wait for it."""
        task = self._reaching.get(label)
        if task is None:
            if len(self._reaching) >= self._settings.max_labels:
                return NotThere("too many tunnels are being made; try again")
            task = asyncio.get_running_loop().create_task(self._reached(label))
            self._reaching[label] = task
            task.add_done_callback(lambda _: self._reaching.pop(label, None))
        try:
            return await asyncio.wait_for(asyncio.shield(task), self._settings.hold)
        except TimeoutError:
            return NotThere("the tunnel did not stand in time")

    async def _reached(self, label: str) -> IPv6Address | NotThere:
        try:
            return await self._reach(label)
        except Exception as error:  # a fault of ours; the application gets an answer all the same
            self._log.exception("reaching a host failed", label=label, error=str(error))
            return NotThere("an internal fault; the log says more")


class _Datagrams(asyncio.DatagramProtocol):
    """Hands the queries of the UDP socket to the server."""

    def __init__(self, server: StubServer) -> None:
        self._server = server

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._server.datagram(data, addr)
