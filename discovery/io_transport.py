"""The way to the rendezvous: TLS, TCP or UDP, kept open, opened again if it breaks (RFC 7858).

A connection's life:

1. connect, and for TLS shake hands (TLS 1.3, no certificate authority);
2. prove the server's key (decision 0003): equal to the pin that we were given, before the first
   octet is sent; else a signed question for the account's TLSA record goes over this very
   connection, and the signed answer must name this connection's key. Nothing else is sent before;
3. ``on_up``; messages go both ways, each with two octets of length (RFC 1035 §4.2.2);
4. it ends: if the server only tired of an idle connection, the next message opens a new one;
   otherwise we connect again, at once the first time, then with growing, jittered pauses. When
   that fails, ``on_down(reason)``.

Buffers are bounded: what cannot be sent is dropped and counted; the client machine asks again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
import ssl
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final, Literal, Protocol, TypeAlias, cast

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from discovery import pinning
from discovery.exchange import Rejection
from discovery.io_connect import connect
from discovery.types import Endpoint, TsigKey

TransportName: TypeAlias = Literal["tls", "tcp", "udp"]

MAX_MESSAGE: Final = 65535  # octets, RFC 1035 §4.2.2
_MAX_BUFFERED: Final = 256 * 1024  # octets that wait in one connection's send buffer
_MAX_WAITING: Final = 64  # messages that wait for a sleeping connection to come back
_MAX_REMEMBERED: Final = 64  # UDP requests whose answer may come cut (TC)
_QUIET: Final = 60  # seconds without a packet, after which the kernel asks whether it still stands
_TC: Final = 0x02  # in the third octet of the header


@dataclass(frozen=True, slots=True)
class TransportSettings:
    """Times in seconds. ``second_attempt``: so long after the first one begins another connection,
    if that does not stand yet (:mod:`discovery.io_connect`). ``idle``: a connection that ends after
    so long without a message from us was not lost, it was tidied away. A connection that lives
    shorter than ``stable`` counts as a failed attempt. After the first one comes ``first_pause``,
    then twice as much, up to ``max_pause``; about ``wanted_pause`` at most where somebody waits."""

    connect_timeout: float = 5.0
    second_attempt: float = 0.35
    first_pause: float = 0.5
    max_pause: float = 60.0
    wanted_pause: float = 2.0
    idle: float = 20.0
    stable: float = 1.0
    user_timeout: float = 10.0


DEFAULT_SETTINGS: Final = TransportSettings()


class LinkError(Exception):
    """A connection could not be made, proven or kept; the message says why."""


class ImposterError(LinkError):
    """Somebody else answered in the server's place, or seemed to."""


class Link(Protocol):
    """One open way to the server."""

    def send(self, wire: bytes) -> bool:
        """Send one message, or return false if the buffer is full."""
        ...

    async def receive(self) -> bytes | None:
        """Return the next message; ``None`` when the server closed. Raises :exc:`LinkError`."""
        ...

    def close(self) -> None:
        """Close it at once."""
        ...


class ZoneTransport:
    """Carries the messages of one :class:`discovery.client.ZoneClient`; lives in one asyncio loop.

    ``server`` is (address or name, port). ``pin`` is the SHA-256 of the server's
    SubjectPublicKeyInfo, checked before the first octet is sent; without it, the account's signed
    TLSA record (``domain``, ``key``) is asked for. Callbacks run in the loop. While ``holds`` says
    that a connection carries more than questions and answers, one that ends is made anew at once.
    """

    def __init__(
        self,
        *,
        server: Endpoint,
        transport: TransportName,
        domain: str,
        key: TsigKey,
        pin: bytes | None = None,
        on_message: Callable[[bytes], None],
        on_up: Callable[[], None],
        on_down: Callable[[str], None],
        holds: Callable[[], bool] = lambda: False,
        settings: TransportSettings = DEFAULT_SETTINGS,
    ) -> None:
        self.server = server
        self.transport = transport
        self.pin: bytes | None = pin
        """The pin of the server's key, once proven (or as given)."""
        self.refusal: str | None = None
        """Why the server refuses our signature (wrong secret, clock), as long as it does."""
        self.imposter = False
        """Whether somebody else answered the last time, or seemed to."""
        self.counters = {"sent": 0, "received": 0, "dropped": 0, "connections": 0}
        self._domain, self._key, self._given_pin = domain, key, pin
        self._on_message, self._on_up, self._on_down = on_message, on_up, on_down
        self._holds = holds
        self._pause = 0.0  # before the next connection, after a reset
        self._settings = settings
        self._link: Link | None = None
        self._up = False
        self._sleeping = False  # tidied away by the server; the next message opens a new one
        self._resuming = False  # being opened again after that
        self._waiting: list[bytes] = []
        self._last_sent = 0.0
        self._wake = asyncio.Event()
        self._stirred = asyncio.Event()  # as _wake, or wanted
        self._session: asyncio.Task[None] | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def up(self) -> bool:
        """Whether messages can be sent (a connection that sleeps is opened by the next one)."""
        return self._up

    def start(self) -> None:
        """Begin to connect. Call it once, in the loop."""
        self._task = asyncio.get_running_loop().create_task(self._run())
        self._task.add_done_callback(_complain)

    async def stop(self) -> None:
        """Close, and return when nothing is left. No callback comes after it."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        self._task = None

    def send(self, wire: bytes) -> None:
        """Send one message; dropped and counted where that is not possible now."""
        if len(wire) <= MAX_MESSAGE:
            if self._link is not None and self._link.send(wire):
                self.counters["sent"] += 1
                self._last_sent = time.monotonic()
                return
            if (self._sleeping or self._resuming) and len(self._waiting) < _MAX_WAITING:
                self._waiting.append(wire)
                self._wake.set()
                return
        self.counters["dropped"] += 1

    def reset(self, pause: float = 0.0) -> None:
        """Leave the connection, whatever it does, since the network changed or the server wants
        it; connect anew after ``pause`` seconds."""
        self._pause = pause
        self._sleeping = self._resuming = False
        if self._session is not None:
            self._session.cancel()
        self._wake.set()
        self._stirred.set()

    def hurry(self) -> None:
        """Somebody waits for an answer: a long pause between two attempts ends."""
        if not self._up:
            self._stirred.set()

    # --- The life of connections ---

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        failures = 0
        try:
            while True:
                self._wake.clear()
                self._resuming, self._sleeping = self._sleeping, False
                self._session = loop.create_task(self._one_connection())
                await asyncio.wait([self._session])
                if self._wake.is_set():  # reset
                    failures = 0
                    await self._rest()
                elif self._sleeping:
                    await self._wake.wait()
                else:
                    failures = await self._after(self._session, failures)
        finally:
            if self._session is not None:
                self._session.cancel()
                with contextlib.suppress(asyncio.CancelledError, LinkError):
                    await self._session

    async def _rest(self) -> None:
        """Wait as long as :meth:`reset` said, or until the next one."""
        pause, self._pause = self._pause, 0.0
        if pause:
            self._up = False
            self._on_down(f"the rendezvous asked not to be used for {pause:.0f} s")
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), pause)

    async def _after(self, session: asyncio.Task[None], failures: int) -> int:
        """Say that a connection failed and pause; return how many have failed in a row."""
        error = None if session.cancelled() else session.exception()
        if error is None:
            return 0  # it was good and ended: connect again at once
        if not isinstance(error, LinkError):
            raise error
        self._up = self._resuming = False
        self.imposter = isinstance(error, ImposterError)
        self._waiting.clear()
        self._on_down(str(error))
        settings = self._settings
        pause = min(settings.first_pause * 2.0**failures, settings.max_pause)
        jitter = 0.5 + secrets.randbelow(1000) / 1000  # so that an account's hosts spread out
        await self._pause_for(pause * jitter, min(pause, settings.wanted_pause) * jitter)
        return 0 if self._wake.is_set() else min(failures + 1, 20)

    async def _pause_for(self, seconds: float, wanted: float) -> None:
        """Until the next attempt: :meth:`reset` ends it at once, :meth:`hurry` after ``wanted``."""
        began = asyncio.get_running_loop().time()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(began + seconds):
                await self._stirred.wait()
                async with asyncio.timeout_at(began + wanted):
                    await self._wake.wait()
        self._stirred.clear()

    async def _one_connection(self) -> None:
        """Live through one connection. Raises :exc:`LinkError` if it failed or was too short."""
        link = await self._open()
        began = time.monotonic()
        self.counters["connections"] += 1
        try:
            self._link = link
            self._greet()
            lost = await self._read(link)
        finally:
            self._link = None
            link.close()
        now = time.monotonic()
        idle = now - max(self._last_sent, began) >= self._settings.idle
        self._sleeping = lost is None and idle and not self._holds()
        if not self._sleeping and now - began < self._settings.stable:
            closes = "the rendezvous closes the connection as soon as it stands"
            raise lost or LinkError(closes)

    def _greet(self) -> None:
        if self._resuming:
            self._resuming = False
            waiting, self._waiting = self._waiting, []
            for wire in waiting:
                self.send(wire)
            return
        self._up, self.imposter = True, False
        self._on_up()

    async def _read(self, link: Link) -> LinkError | None:
        """Hand on messages until the connection is lost, or (``None``) closed in order."""
        while True:
            try:
                wire = await link.receive()
            except LinkError as error:
                return error
            if wire is None:
                return None
            self.counters["received"] += 1
            self._on_message(wire)

    # --- Opening ---

    async def _open(self) -> Link:
        try:
            async with asyncio.timeout(self._settings.connect_timeout):
                if self.transport == "udp":
                    return await _UdpLink.open(self.server, self._settings)
                return await self._open_stream()
        except TimeoutError:
            raise LinkError(f"{_text(self.server)} does not answer ({self.transport})") from None
        except ssl.SSLError as error:
            what = (error.reason or "unknown").lower().replace("_", " ")
            raise ImposterError(
                f"{_text(self.server)} does not speak TLS as expected ({what}); "
                "check [rendezvous] server and transport"
            ) from error
        except OSError as error:
            raise LinkError(f"{_text(self.server)}: {_os_words(error)}") from error

    async def _open_stream(self) -> Link:
        link = await StreamLink.open(self.server, self.transport == "tls", self._settings)
        try:
            if self.transport == "tls":
                await self._prove(link)
        except BaseException:
            link.close()
            raise
        return link

    async def _prove(self, link: StreamLink) -> None:
        if self._given_pin is not None:
            check_pin(link, self._given_pin, self.server)
            return
        identity = int.from_bytes(os.urandom(2))
        request = pinning.ask(self._domain, identity, self._key, int(time.time()))
        link.send(request.wire)
        while True:
            wire = await link.receive()
            if wire is None:
                raise LinkError(f"{_text(self.server)} closed the connection")
            verdict = pinning.judge(request, wire, int(time.time()), link.pin)
            if isinstance(verdict, Rejection):
                self.refusal = verdict.reason
                raise LinkError(verdict.reason)
            if isinstance(verdict, str):
                raise LinkError(verdict)
            if verdict:
                self.pin, self.refusal = link.pin, None
                return


def _complain(task: asyncio.Task[None]) -> None:
    """A transport ends only when it is stopped: anything else is a fault, and is not kept quiet."""
    if not task.cancelled() and task.exception() is not None:
        context = {"message": "the zone transport has ended", "exception": task.exception()}
        task.get_loop().call_exception_handler(context)


def check_pin(link: StreamLink, pin: bytes, server: Endpoint) -> None:
    """Raise :exc:`LinkError` unless the connection's key has this pin."""
    if link.pin != pin:
        raise ImposterError(
            f"the TLS key of {_text(server)} is not the pinned one: somebody may be in the middle, "
            "or the rendezvous was set up anew; then remove [rendezvous] pin or join again"
        )


def _text(endpoint: Endpoint) -> str:
    host, port = endpoint
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _os_words(error: OSError) -> str:
    if isinstance(error, socket.gaierror):
        return "its name does not resolve; check [rendezvous] server, or write an address"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused; check that the rendezvous runs and serves this transport"
    return (error.strerror or str(error)).lower()


# --- Streams: TCP and TLS -------------------------------------------------------------------


class StreamLink:
    """A TCP or TLS connection that carries framed messages."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pin: bytes
    ) -> None:
        self._reader = reader
        self._writer = writer
        self.pin = pin
        """SHA-256 of the server's SubjectPublicKeyInfo; empty without TLS."""

    @classmethod
    async def open(
        cls, server: Endpoint, tls: bool, settings: TransportSettings = DEFAULT_SETTINGS
    ) -> StreamLink:
        """Connect (and shake hands). Raises OSError and ssl.SSLError."""
        # No server name: the handshake must not tell an eavesdropper more than the address.
        secure: dict[str, Any] = {
            "ssl": _tls_context(),
            "server_hostname": "",
            "ssl_shutdown_timeout": 1.0,
        }
        connected = await connect(server, settings.second_attempt)
        try:
            reader, writer = await asyncio.open_connection(
                sock=connected, limit=MAX_MESSAGE + 2, **(secure if tls else {})
            )
        except BaseException:
            connected.close()
            raise
        _be_watchful(writer.get_extra_info("socket"), settings.user_timeout)
        ssl_object = writer.get_extra_info("ssl_object")
        try:
            pin = _spki_pin(ssl_object.getpeercert(binary_form=True)) if tls else b""
        except ValueError as error:
            writer.transport.abort()
            raise ssl.SSLError(f"the certificate cannot be read: {error}") from error
        return cls(reader, writer, pin)

    def send(self, wire: bytes) -> bool:
        """See :meth:`Link.send`. Length and message go in one write (RFC 7766 §8)."""
        closing = self._writer.is_closing()
        if closing or self._writer.transport.get_write_buffer_size() > _MAX_BUFFERED:
            return False
        self._writer.write(len(wire).to_bytes(2) + wire)
        return True

    async def receive(self) -> bytes | None:
        """See :meth:`Link.receive`."""
        try:
            size = int.from_bytes(await self._reader.readexactly(2))
            return await self._reader.readexactly(size)
        except asyncio.IncompleteReadError as error:
            if error.partial:
                raise LinkError("the connection ended within a message") from error
            return None
        except OSError as error:  # ssl.SSLError is one
            raise LinkError(f"the connection was lost ({error})") from error

    def close(self) -> None:
        """See :meth:`Link.close`."""
        self._writer.close()


def _tls_context() -> ssl.SSLContext:
    """TLS 1.3, any certificate: its key is proven afterwards (decision 0003)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["dot"])  # RFC 7858 §3.1 with the ALPN of its registry entry
    return context


def _spki_pin(certificate: bytes | None) -> bytes:
    if not certificate:
        raise ValueError("there is none")
    key = x509.load_der_x509_certificate(certificate).public_key()
    return sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()


def _be_watchful(connection: socket.socket, user_timeout: float) -> None:
    """Let the kernel end a connection whose other side is gone, not in 15 minutes but now."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
        milliseconds = int(user_timeout * 1000)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
        # A session that only listens would not notice: the kernel asks for us, and thereby keeps
        # the NATs between us and the server from forgetting the connection.
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _QUIET)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _QUIET // 6)


# --- Datagrams ------------------------------------------------------------------------------


class _UdpLink(asyncio.DatagramProtocol):
    """UDP to one server; an answer that was cut (TC) is fetched over TCP (RFC 1035 §4.2.1)."""

    def __init__(self, server: Endpoint, settings: TransportSettings) -> None:
        self._server = server
        self._settings = settings
        self._transport: asyncio.DatagramTransport | None = None
        self._inbox: asyncio.Queue[bytes | LinkError] = asyncio.Queue(maxsize=256)
        self._asked: OrderedDict[bytes, bytes] = OrderedDict()
        self._fetching: set[asyncio.Task[None]] = set()

    @classmethod
    async def open(cls, server: Endpoint, settings: TransportSettings) -> _UdpLink:
        loop = asyncio.get_running_loop()
        _, link = await loop.create_datagram_endpoint(
            lambda: cls(server, settings), remote_addr=server
        )
        return link

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        del addr  # connected: only the server's datagrams come
        if len(data) > 2 and data[2] & _TC and data[:2] in self._asked:
            task = asyncio.get_running_loop().create_task(self._fetch(self._asked.pop(data[:2])))
            self._fetching.add(task)
            task.add_done_callback(self._fetching.discard)
            return
        self._deliver(data)

    def error_received(self, exc: Exception) -> None:
        words = _os_words(exc) if isinstance(exc, OSError) else str(exc)
        self._deliver(LinkError(f"{_text(self._server)}: {words}"))

    def send(self, wire: bytes) -> bool:
        if self._transport is None or self._transport.is_closing():
            return False
        self._asked[wire[:2]] = wire
        if len(self._asked) > _MAX_REMEMBERED:
            self._asked.popitem(last=False)
        self._transport.sendto(wire)
        return True

    async def receive(self) -> bytes | None:
        item = await self._inbox.get()
        if isinstance(item, LinkError):
            raise item
        return item

    def close(self) -> None:
        for task in self._fetching:
            task.cancel()
        if self._transport is not None:
            self._transport.abort()

    def _deliver(self, item: bytes | LinkError) -> None:
        with contextlib.suppress(asyncio.QueueFull):  # a flood: the requests are sent again
            self._inbox.put_nowait(item)

    async def _fetch(self, wire: bytes) -> None:
        try:
            async with asyncio.timeout(self._settings.connect_timeout):
                link = await StreamLink.open(self._server, False, self._settings)
                try:
                    link.send(wire)
                    answer = await link.receive()
                finally:
                    link.close()
        except (OSError, LinkError, TimeoutError):
            return  # the request's own timeout tells of it
        if answer is not None:
            self._deliver(answer)
