"""The stub resolver on its loopback address, UDP and TCP, around :mod:`discovery.stub`.

Each query is a task of its own: a held one waits for its tunnel, together with all others for the
same host; a forwarded one goes to the system's servers from a fresh socket each time, so that the
source port is random too. Tasks, connections and tunnels waited for are bounded; beyond that
queries are dropped (UDP) or not read (TCP), and applications ask again.

``/etc/resolv.conf`` is read, never written; our own address in it is left out, so that no query
comes back to us.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from typing import Any, Final, TypeAlias, cast

import structlog

from discovery import stub
from discovery.stub import Forward, Hold, NotThere, Reply, Stub
from discovery.types import Endpoint

RESOLV_CONF: Final = Path("/etc/resolv.conf")
DNS_PORT: Final = 53
MAX_SERVERS: Final = 8

_MAX_MESSAGE: Final = 65535
_MAX_UDP: Final = 4096  # octets of a query that we look at over UDP

Reach: TypeAlias = Callable[[str], Awaitable[IPv6Address | NotThere]]
"""Makes the tunnel to the host with this label; returns its host id, or why not."""


class StubError(Exception):
    """The stub resolver cannot start; the message says cause and fix."""


@dataclass(frozen=True, slots=True)
class StubSettings:
    """Times in seconds; ``hold`` bounds the wait for a tunnel, ``forward_timeout`` the wait for
    one server, of which all are asked ``rounds`` times."""

    hold: float = 15.0
    forward_timeout: float = 2.0
    rounds: int = 2
    tcp_idle: float = 30.0
    max_questions: int = 512
    max_labels: int = 64
    max_connections: int = 64


DEFAULT_SETTINGS: Final = StubSettings()


class StubServer:
    """Answers applications on ``listen`` (port 0 takes a free one, see :attr:`address`).

    ``forward`` are the servers for all other names; left out, those of ``resolv_conf``.
    """

    def __init__(
        self,
        *,
        listen: Endpoint,
        domain: str,
        label: str,
        host_id: IPv6Address,
        reach: Reach,
        forward: Sequence[Endpoint] = (),
        resolv_conf: Path = RESOLV_CONF,
        settings: StubSettings = DEFAULT_SETTINGS,
    ) -> None:
        self.address = listen
        self.counters = {"held": 0, "forwarded": 0, "answered": 0, "dropped": 0}
        self._stub = Stub(domain, label, host_id)
        self._reach = reach
        self._forward = tuple(forward)
        self._resolv_conf = resolv_conf
        self._settings = settings
        self._log = structlog.get_logger("autotunnel.stub")
        self._reaching: dict[str, asyncio.Task[IPv6Address | NotThere]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._connections = 0
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
        self._udp = self._tcp = None

    def servers(self) -> list[Endpoint]:
        """Return the servers that other names are forwarded to, ours never among them."""
        found = self._forward or _nameservers(self._resolv_conf)
        return [server for server in found if server != self.address][:MAX_SERVERS]

    def _bind(self) -> tuple[socket.socket, socket.socket]:
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
        if isinstance(decision, Hold):
            self.counters["held"] += 1
            return decision.question.outcome(await self._held(decision.label))
        if isinstance(decision, Forward):
            self.counters["forwarded"] += 1
            answer = await self._forwarded(decision, tcp)
            if answer is None:
                reason = "no server of the system answered"
                return decision.question.reply(stub.SERVFAIL, reason=reason)
            return stub.with_identity(answer, decision.question.identity)
        self.counters["answered"] += 1
        return decision.wire if isinstance(decision, Reply) else None

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

    # --- Forwarding ---

    async def _forwarded(self, forward: Forward, tcp: bool) -> bytes | None:
        failed: bytes | None = None
        for server in self.servers() * self._settings.rounds:
            query = stub.with_identity(forward.wire, int.from_bytes(os.urandom(2)))
            answer = await self._ask(server, query, forward.question, tcp)
            if answer is None:
                continue
            if answer[3] & 15 != stub.SERVFAIL:
                return answer
            failed = answer  # perhaps another server knows better
        return failed

    async def _ask(
        self, server: Endpoint, query: bytes, question: stub.Question, tcp: bool
    ) -> bytes | None:
        """Ask one server over UDP; where a TCP client's answer was cut, over TCP."""
        try:
            async with asyncio.timeout(self._settings.forward_timeout):
                answer = await _ask_udp(server, query, question)
                if tcp and stub.is_truncated(answer):
                    answer = await _ask_tcp(server, query, question)
                return answer
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            return None


class _Datagrams(asyncio.DatagramProtocol):
    """Hands the queries of the UDP socket to the server."""

    def __init__(self, server: StubServer) -> None:
        self._server = server

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._server.datagram(data, addr)


class _Waiting(asyncio.DatagramProtocol):
    """One forwarded query: resolves with its answer, lets forged ones pass by."""

    def __init__(self, query: bytes, question: stub.Question) -> None:
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._query, self._question = query, question

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        del addr  # the socket is connected
        if not self.answer.done() and stub.is_answer(self._query, self._question, data):
            self.answer.set_result(data)

    def error_received(self, exc: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(exc)


async def _ask_udp(server: Endpoint, query: bytes, question: stub.Question) -> bytes:
    loop = asyncio.get_running_loop()
    transport, waiting = await loop.create_datagram_endpoint(
        lambda: _Waiting(query, question), remote_addr=server
    )
    try:
        transport.sendto(query)
        return await waiting.answer
    finally:
        transport.close()


async def _ask_tcp(server: Endpoint, query: bytes, question: stub.Question) -> bytes:
    reader, writer = await asyncio.open_connection(*server, limit=_MAX_MESSAGE + 2)
    try:
        writer.write(len(query).to_bytes(2) + query)
        answer = await reader.readexactly(int.from_bytes(await reader.readexactly(2)))
    finally:
        writer.close()
    if not stub.is_answer(query, question, answer):
        raise ConnectionError("the server answers another question")
    return answer


def _nameservers(path: Path) -> list[Endpoint]:
    """Return the servers of a resolv.conf; an absent or unreadable file names none."""
    found: list[Endpoint] = []
    with contextlib.suppress(OSError):
        for line in path.read_text("utf-8", "replace").splitlines():
            words = line.split()
            if len(words) >= 2 and words[0] == "nameserver":
                with contextlib.suppress(ValueError):
                    found.append((str(ip_address(words[1])), DNS_PORT))
    return found
