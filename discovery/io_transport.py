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
import ssl
import time
from collections.abc import Callable
from typing import Final, Literal, TypeAlias

from discovery import pinning
from discovery.exchange import Rejection
from discovery.io_link import (
    DEFAULT_SETTINGS,
    MAX_MESSAGE,
    ImposterError,
    Link,
    LinkError,
    StreamLink,
    TransportSettings,
    UdpLink,
    check_pin,
    endpoint_text,
    words_of,
)
from discovery.types import Endpoint, TsigKey

TransportName: TypeAlias = Literal["tls", "tcp", "udp"]

_MAX_WAITING: Final = 64  # messages that wait for a sleeping connection to come back


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
                    return await UdpLink.open(self.server, self._settings)
                return await self._open_stream()
        except TimeoutError:
            raise LinkError(
                f"{endpoint_text(self.server)} does not answer ({self.transport})"
            ) from None
        except ssl.SSLError as error:
            what = (error.reason or "unknown").lower().replace("_", " ")
            raise ImposterError(
                f"{endpoint_text(self.server)} does not speak TLS as expected ({what}); "
                "check [rendezvous] server and transport"
            ) from error
        except OSError as error:
            raise LinkError(f"{endpoint_text(self.server)}: {words_of(error)}") from error

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
                raise LinkError(f"{endpoint_text(self.server)} closed the connection")
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
