"""The rendezvous as a running server: UDP, TCP and TLS around :class:`discovery.zone.ZoneServer`.

Messages are handled one after the other on the event loop; only UPDATEs wait for the disk
(:mod:`discovery.io_writer`), together. TCP and TLS connections are kept open
for further messages (RFC 7766, RFC 7858 §3.4), bounded in number and in time.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
import ssl
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TextIO

import structlog

from discovery import io_certificate, io_state, lease, message, rcodes, subscriptions
from discovery.backing.front import BackedZone
from discovery.backing.primary import Mirrored, Passed
from discovery.bootstrap import ServerIdentity
from discovery.held import SHA256, ZoneAccount
from discovery.io_backing import BackingLink
from discovery.io_listen import (
    DatagramServer,
    ListenError,
    bind,
    bind_pair,
    endpoint_of,
    port_of,
)
from discovery.io_state import STORE_NAME, StateError
from discovery.io_store import SqliteStore
from discovery.io_unasked import Courier, now
from discovery.io_writer import Reply, Writer
from discovery.lease import LeaseLimits
from discovery.store import StoreError
from discovery.subscriptions import SubscriptionLimits, Subscriptions
from discovery.types import Endpoint
from discovery.update import DEFAULT_LIMITS, ZoneLimits
from discovery.ways import Way
from discovery.zone import Happening, ZoneServer

UNSIGNED_PER_S: Final = 20
"""Unsigned datagrams per second that one network gets answered (:mod:`discovery.rates`)."""

CLOSING_TIME: Final = 2.0  # seconds in which a client may still take what was written


class ServeError(Exception):
    """The rendezvous cannot start; says cause and fix."""


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Bounds on TCP and TLS connections: how many in all and per source address, how many UPDATEs
    of one may wait for the disk, how long until the first message (and the TLS handshake), and how
    long idle between messages, in seconds."""

    total: int = 512
    per_source: int = 64
    pipelined: int = 64
    first_message: float = 10.0
    idle: float = 300.0


DEFAULT_CONNECTION_LIMITS: Final = ConnectionLimits()


class RendezvousServer:
    """``autotunnel serve``: the zones of ``accounts``, durable in ``state_dir``.

    ``listen`` are endpoints for UDP and TCP, ``tls_listen`` for TLS; port 0 takes a free one, see
    :attr:`listening`. ``addresses`` are this server's public addresses, for the zones' ``ns``
    records; left out, those of ``listen`` and ``tls_listen`` that name one.
    """

    def __init__(
        self,
        *,
        accounts: Sequence[ZoneAccount],
        listen: Sequence[Endpoint],
        tls_listen: Sequence[Endpoint] = (),
        state_dir: Path,
        addresses: Sequence[str] = (),
        zone_limits: ZoneLimits = DEFAULT_LIMITS,
        connection_limits: ConnectionLimits = DEFAULT_CONNECTION_LIMITS,
        subscription_limits: SubscriptionLimits = subscriptions.DEFAULT_LIMITS,
        unsigned_per_s: int = UNSIGNED_PER_S,
        leases: LeaseLimits = lease.DEFAULT_LIMITS,
    ) -> None:
        self._accounts = tuple(accounts)
        self._listen = tuple(listen)
        self._tls_listen = tuple(tls_listen)
        self._state_dir = state_dir
        self._addresses = tuple(addresses)
        self._zone_limits = zone_limits
        self._limits = connection_limits
        self._subscription_limits = subscription_limits
        self._unsigned_per_s = unsigned_per_s
        self._leases = leases
        self._log = _RateLimitedLog()
        self._zone: ZoneServer | None = None
        self._store: SqliteStore | None = None
        self._writer: Writer | None = None
        self._courier: Courier | None = None
        self._links: dict[BackedZone, BackingLink] = {}
        self._lock: TextIO | None = None
        self._identity: io_certificate.TlsIdentity | None = None
        self._datagrams: list[DatagramServer] = []
        self._servers: list[asyncio.Server] = []
        self._unstarted: list[socket.socket] = []
        self._connections: dict[asyncio.Task[None], str] = {}
        self._refused: Counter[str] = Counter()
        self.listening: dict[str, list[Endpoint]] = {"udp": [], "tcp": [], "tls": []}
        """The bound endpoints by transport, after :meth:`start`."""

    @property
    def counters(self) -> Mapping[str, int]:
        """Messages by outcome ("query.NOERROR", "tsig.BADSIG", …) and refused connections."""
        return dict((self._zone.counters if self._zone else Counter()) + self._refused)

    def status(self) -> dict[str, Any]:
        """What its owner is shown while it runs: ``listening``, ``pin``, ``connections`` and how
        many there may be, ``subscriptions``, ``zones`` and ``counters``."""
        told = self.told
        return {
            "listening": self.listening,
            "pin": self.pin.hex() if self.pin else None,
            "connections": len(self._connections),
            "connections_limit": self._limits.total,
            "subscriptions": {
                "push": len(told.push) if told else 0,
                "llq": len(told.llq) if told else 0,
            },
            "zones": self._zone.census(_unix()) if self._zone else [],
            "counters": dict(sorted(self.counters.items())),
        }

    @property
    def told(self) -> Subscriptions | None:
        """Who is told of changes, while it runs."""
        return self._zone.subscriptions if self._zone else None

    @property
    def pin(self) -> bytes | None:
        """The SHA-256 of the TLS key's SubjectPublicKeyInfo, after :meth:`start` with TLS."""
        return self._identity.pin if self._identity else None

    async def start(self) -> None:
        """Bind, open the store, and begin to answer. Raises :exc:`ServeError`; nothing is left."""
        try:
            await self._start()
        except (ListenError, StateError, StoreError, io_certificate.CertificateError) as error:
            await self.stop()
            raise ServeError(str(error)) from error
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Close everything. What was acknowledged is on disk."""
        for datagrams in self._datagrams:
            datagrams.close()
        for unstarted in self._unstarted:
            unstarted.close()
        for server in self._servers:
            server.close()
        if self._courier is not None:
            await self._courier.farewell()
        tasks = list(self._connections)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._datagrams, self._unstarted, self._servers = [], [], []
        for link in self._links.values():
            await link.stop()
        self._links = {}
        if self._writer is not None:
            await self._writer.stop()
            self._writer = None
        if self._courier is not None:
            self._courier.stop()
            self._courier = None
        if self._store is not None:
            self._store.close()
            self._store = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    # --- Starting ---

    async def _start(self) -> None:
        self._lock = io_state.claim(self._state_dir)
        if self._tls_listen:
            self._identity = io_certificate.load_or_make(self._state_dir)
        pairs = [self._bound(*bind_pair(endpoint)) for endpoint in self._listen]
        tls = [
            self._bound(bind(endpoint, socket.SOCK_STREAM, "tls_listen"))
            for endpoint in self._tls_listen
        ]
        self._store = SqliteStore(self._state_dir / STORE_NAME)
        self._zone = ZoneServer(
            self._accounts,
            self._store,
            self._place(pairs, tls),
            unix=_unix(),
            limits=self._zone_limits,
            report=self._log.happening,
            unsigned_per_s=self._unsigned_per_s,
            on_change=lambda _: self._wake(),
            leases=self._leases,
            random=secrets.token_bytes,
            subscription_limits=self._subscription_limits,
        )
        assert self._zone.subscriptions is not None
        self._courier = Courier(self._zone.subscriptions, self._log.flaw)
        self._writer = Writer(self._zone, self._store, self._log.flaw)
        self._writer.start()
        self._zone.on_notify = lambda zone: self._links[zone].notified()
        for zone in self._zone.backed:
            self._links[zone] = self._linked(zone, self._writer)
        for stream, datagram in pairs:
            self._start_datagrams(datagram)
            await self._start_streams(stream, "tcp", None)
        for (stream,) in tls:
            await self._start_streams(stream, "tls", self._identity)

    def _linked(self, zone: BackedZone, writer: Writer) -> BackingLink:
        """The connection to the server that a zone is on."""
        backing = zone.account.backing
        assert backing is not None

        def mirrored(word: Mirrored) -> None:
            zone.mirrored(word)
            writer.wake()

        def passed(word: Passed) -> None:
            zone.passed(word)
            writer.wake()

        def told(reason: str) -> None:
            if not reason:
                zone.reached()
                writer.wake()
            self._log.backing(zone, reason)

        key = backing.key or zone.key(SHA256)
        assert key is not None
        link = BackingLink(
            backing.server, zone.mirror, key, mirrored=mirrored, passed=passed, told=told
        )
        zone.upstream = link
        link.start()
        return link

    def _bound(self, *sockets: socket.socket) -> tuple[socket.socket, ...]:
        self._unstarted += sockets
        return sockets

    def _place(
        self,
        pairs: Sequence[tuple[socket.socket, ...]],
        tls: Sequence[tuple[socket.socket, ...]],
    ) -> ServerIdentity:
        named = [host for host, _ in (*self._listen, *self._tls_listen)]
        known = dict.fromkeys(host for host in named if host not in ("0.0.0.0", "::"))  # noqa: S104 - compared, not bound
        return ServerIdentity(
            self._addresses or tuple(known),
            port_of(pairs[0][0]) if pairs else None,
            port_of(tls[0][0]) if tls else None,
            self.pin,
        )

    def _start_datagrams(self, bound: socket.socket) -> None:
        def answer(
            data: bytes, source: Endpoint, local: Endpoint, send: Reply
        ) -> list[bytes] | None:
            if self._courier is not None:
                self._courier.asked_at(local, server)
            return self._handle(data, Way("udp", source, local), send)

        server = DatagramServer(bound, answer)
        server.start()
        self._unstarted.remove(bound)
        self._datagrams.append(server)
        self.listening["udp"].append(endpoint_of(bound))

    async def _start_streams(
        self, bound: socket.socket, transport: str, identity: io_certificate.TlsIdentity | None
    ) -> None:
        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            # Cancelled is what stop() does; asyncio would log it as a flaw.
            with contextlib.suppress(asyncio.CancelledError):
                await self._connection(reader, writer, transport)

        context: ssl.SSLContext | None = identity.context if identity else None
        timeout = self._limits.first_message if context else None
        server = await asyncio.start_server(
            connected, sock=bound, ssl=context, ssl_handshake_timeout=timeout
        )
        self._unstarted.remove(bound)
        self._servers.append(server)
        self.listening[transport].append(endpoint_of(bound))

    # --- Serving ---

    def _wake(self) -> None:
        if self._courier is not None:
            self._courier.wake()

    def _handle(self, wire: bytes, way: Way, reply: Reply) -> list[bytes] | None:
        """Answer a message; ``None``: it waits for the disk, and ``reply`` gets its answer."""
        assert self._zone is not None
        assert self._writer is not None
        try:
            answers = self._zone.submit(wire, way, _unix(), now(), reply)
            self._wake()
            if answers is None:
                self._writer.wake()
            return answers
        except Exception as error:  # a flaw of ours must cost one answer, not the server
            self._refused["failed"] += 1
            self._log.flaw(error)
            short = len(wire) < message.HEADER_SIZE
            return [] if short else [message.header_only(wire, rcodes.SERVFAIL)]

    async def _connection(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, transport: str
    ) -> None:
        peer = writer.get_extra_info("peername") or ("", 0)
        source = (str(peer[0]), int(peer[1]))
        task = asyncio.current_task()
        assert task is not None
        if self._is_crowded(source[0]):
            self._refused["connection.refused"] += 1
            writer.transport.abort()
            return
        courier = self._courier
        if courier is None:  # it is stopping
            writer.transport.abort()
            return
        self._connections[task] = source[0]
        number = courier.opened(writer)
        try:
            await self._converse(reader, writer, Way(transport, source, connection=number))
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            pass  # gone, silent for too long, or cut off: all end the same way
        finally:
            del self._connections[task]
            courier.closed(number)
            writer.close()  # in TLS with close_notify; a client that never reads is cut off
            asyncio.get_running_loop().call_later(CLOSING_TIME, writer.transport.abort)

    def _is_crowded(self, host: str) -> bool:
        here = sum(other == host for other in self._connections.values())
        return len(self._connections) >= self._limits.total or here >= self._limits.per_source

    async def _converse(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        way: Way,
    ) -> None:
        owed = _Owed(writer)
        try:
            await self._read(reader, owed, way)
        finally:
            async with asyncio.timeout(self._limits.first_message):
                await owed.room(1)  # who half-closes after a last UPDATE waits for its answer

    async def _read(self, reader: asyncio.StreamReader, owed: _Owed, way: Way) -> None:
        patience = self._limits.first_message
        while True:
            size = await self._next_size(reader, patience, way.connection)
            async with asyncio.timeout(patience):
                wire = await reader.readexactly(size)
            if not message.is_update(wire):  # whoever asks after an UPDATE sees what it did
                async with asyncio.timeout(self._limits.first_message):
                    await owed.room(1)
            answers = self._handle(wire, way, owed.pay)
            if answers is None:
                owed.answers += 1
            for answer in answers or ():
                owed.write(answer)
            async with asyncio.timeout(self._limits.first_message):
                await owed.drain()
                await owed.room(self._limits.pipelined)
            patience = self._limits.idle

    async def _next_size(
        self, reader: asyncio.StreamReader, patience: float, connection: int
    ) -> int:
        """Wait for a message; who waits for news on a connection may be silent for longer."""
        while True:
            try:
                async with asyncio.timeout(patience):
                    return int.from_bytes(await reader.readexactly(2))
            except TimeoutError:
                if self._courier is None or not self._courier.holds(connection):
                    raise


class _Owed:
    """The answers that one connection still gets for UPDATEs that wait for the disk."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.answers = 0
        self._writer = writer
        self._paid = asyncio.Event()

    def pay(self, answer: bytes) -> None:
        """Send an answer that was owed."""
        self.answers -= 1
        self._paid.set()
        self.write(answer)

    def write(self, answer: bytes) -> None:
        """Send a message."""
        if not self._writer.is_closing():
            self._writer.write(len(answer).to_bytes(2) + answer)

    async def drain(self) -> None:
        """Wait until the client has taken most of what was written."""
        await self._writer.drain()

    async def room(self, fewer_than: int) -> None:
        """Wait until fewer answers are owed."""
        while self.answers >= fewer_than:
            self._paid.clear()
            await self._paid.wait()


class _RateLimitedLog:
    """At most ``LINES`` lines in ``PERIOD`` seconds about what strangers send; the rest is counted
    and told with the next line."""

    LINES: Final = 20
    PERIOD: Final = 60.0

    def __init__(self) -> None:
        self._log = structlog.get_logger("rendezvous")
        self._since = 0.0
        self._lines = 0
        self._left_out = 0

    def happening(self, happening: Happening) -> None:
        if self._may_log():
            self._log.info(
                happening.reason,
                outcome=happening.what,
                source=happening.source[0],
                **({"zone": happening.zone} if happening.zone else {}),
                **self._told(),
            )

    def backing(self, zone: BackedZone, reason: str) -> None:
        """Tell that the server which a zone is on is gone (why), or back; each comes once."""
        if not reason:
            self._log.info("the server that the zone is on is there", zone=zone.text)
            return
        kept = "what it had last is answered" if zone.is_ready else "nothing of it can be answered"
        self._log.warning(
            f"the server that the zone is on is away: {kept}, updates are not taken",
            zone=zone.text,
            reason=reason,
        )

    def flaw(self, error: Exception) -> None:
        if self._may_log():
            self._log.error(
                "a message could not be handled", error=repr(error), exc_info=error, **self._told()
            )

    def _may_log(self) -> bool:
        now = time.monotonic()
        if now - self._since >= self.PERIOD:
            self._since, self._lines = now, 0
        self._lines += 1
        self._left_out += self._lines > self.LINES
        return self._lines <= self.LINES

    def _told(self) -> dict[str, int]:
        left_out, self._left_out = self._left_out, 0
        return {"left_out_before": left_out} if left_out else {}


def _unix() -> int:
    return int(time.time())
