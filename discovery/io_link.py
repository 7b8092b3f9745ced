"""One open way to the rendezvous: TCP, TLS 1.3 or UDP, and the messages on it.

Messages on a stream have two octets of length before them (RFC 1035 §4.2.2). Whether a TLS server's
key is the right one is for the caller to prove (:func:`check_pin`, or :mod:`discovery.pinning`):
any certificate will do for the handshake (decision 0003).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections import OrderedDict
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final, Protocol, cast

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from discovery.io_connect import connect, plain
from discovery.types import Endpoint

MAX_MESSAGE: Final = 65535  # octets, RFC 1035 §4.2.2
_MAX_BUFFERED: Final = 256 * 1024  # octets that wait in one connection's send buffer
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


def check_pin(link: StreamLink, pin: bytes, server: Endpoint) -> None:
    """Raise :exc:`LinkError` unless the connection's key has this pin."""
    if link.pin != pin:
        raise ImposterError(
            f"the TLS key of {endpoint_text(server)} is not the pinned one: somebody may be in the "
            "middle, or the rendezvous was set up anew; then remove [rendezvous] pin or join again"
        )


def endpoint_text(endpoint: Endpoint) -> str:
    """``address:port``, an IPv6 address in brackets."""
    host, port = endpoint
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def words_of(error: OSError) -> str:
    """What went wrong, and what to look at."""
    if isinstance(error, socket.gaierror):
        return "its name does not resolve; check [rendezvous] server, or write an address"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused; check that the rendezvous runs and serves this transport"
    return plain(error)


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


class UdpLink(asyncio.DatagramProtocol):
    """UDP to one server; an answer that was cut (TC) is fetched over TCP (RFC 1035 §4.2.1)."""

    def __init__(self, server: Endpoint, settings: TransportSettings) -> None:
        self._server = server
        self._settings = settings
        self._transport: asyncio.DatagramTransport | None = None
        self._inbox: asyncio.Queue[bytes | LinkError] = asyncio.Queue(maxsize=256)
        self._asked: OrderedDict[bytes, bytes] = OrderedDict()
        self._fetching: set[asyncio.Task[None]] = set()

    @classmethod
    async def open(cls, server: Endpoint, settings: TransportSettings) -> UdpLink:
        """A socket for this server alone. Raises OSError."""
        loop = asyncio.get_running_loop()
        _, link = await loop.create_datagram_endpoint(
            lambda: cls(server, settings), remote_addr=server
        )
        return link

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See :class:`asyncio.DatagramProtocol`."""
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """See :class:`asyncio.DatagramProtocol`."""
        del addr  # connected: only the server's datagrams come
        if len(data) > 2 and data[2] & _TC and data[:2] in self._asked:
            task = asyncio.get_running_loop().create_task(self._fetch(self._asked.pop(data[:2])))
            self._fetching.add(task)
            task.add_done_callback(self._fetching.discard)
            return
        self._deliver(data)

    def error_received(self, exc: Exception) -> None:
        """See :class:`asyncio.DatagramProtocol`; an ICMP error is one."""
        words = words_of(exc) if isinstance(exc, OSError) else str(exc)
        self._deliver(LinkError(f"{endpoint_text(self._server)}: {words}"))

    def send(self, wire: bytes) -> bool:
        """See :meth:`Link.send`."""
        if self._transport is None or self._transport.is_closing():
            return False
        self._asked[wire[:2]] = wire
        if len(self._asked) > _MAX_REMEMBERED:
            self._asked.popitem(last=False)
        self._transport.sendto(wire)
        return True

    async def receive(self) -> bytes | None:
        """See :meth:`Link.receive`; a socket never closes in order."""
        item = await self._inbox.get()
        if isinstance(item, LinkError):
            raise item
        return item

    def close(self) -> None:
        """See :meth:`Link.close`."""
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
