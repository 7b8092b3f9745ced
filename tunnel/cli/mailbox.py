"""The zone's messages for commands that run outside of a host, over one connection."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import suppress
from types import TracebackType
from typing import Literal, TypeAlias

from discovery import types as zone_types
from discovery.client import ClientSettings, ZoneClient
from discovery.io_transport import ZoneTransport
from discovery.texts import Change
from discovery.types import ClientCommand, Endpoint, TextsChanged, TextsFound, TsigKey
from keys.account import Account
from keys.issuer import Issuer
from tunnel.config import HostConfig
from tunnel.signing import REVOKED

Transport: TypeAlias = Literal["tls", "tcp", "udp"]
_PATIENCE = 8.0  # seconds for one question or change
_TICK = 0.2


class MailboxError(Exception):
    """The zone could not be read or written; the text says why."""


class Mailbox:
    """Reads and changes messages in the zone, as an async context. Raises :exc:`MailboxError`."""

    def __init__(
        self, account: Account, server: Endpoint, transport: Transport, pin: bytes | None
    ) -> None:
        key = TsigKey(account.tsig_name, account.tsig_secret)
        self._client = ZoneClient(
            domain=account.domain,
            label="mailbox",  # it registers nothing
            key=key,
            random=os.urandom,
            settings=ClientSettings(reliable=transport != "udp", timeout=_PATIENCE),
        )
        self._transport = ZoneTransport(
            server=server,
            transport=transport,
            domain=account.domain,
            key=key,
            pin=pin,
            on_message=lambda wire: self._run(self._client.receive(wire, *self._times())),
            on_up=lambda: self._run(self._client.transport_up(*self._times())),
            on_down=self._down,
        )
        self._waiting: asyncio.Future[TextsFound | TextsChanged] | None = None
        self._clock: asyncio.Task[None] | None = None
        self._trouble = ""

    async def __aenter__(self) -> Mailbox:
        self._transport.start()
        self._clock = asyncio.create_task(self._advance())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._clock is not None
        self._clock.cancel()
        with suppress(asyncio.CancelledError):
            await self._clock
        await self._transport.stop()

    async def read(self, prefix: str) -> tuple[bytes, ...]:
        """The messages at ``<prefix>.<domain>``."""
        answer = await self._ask(self._client.read_texts(prefix, *self._times()))
        assert isinstance(answer, TextsFound)
        return answer.messages

    async def change(self, *changes: Change) -> None:
        """Makes all of ``changes``."""
        await self._ask(self._client.change_texts("cli", changes, *self._times()))

    async def _ask(self, commands: list[ClientCommand]) -> TextsFound | TextsChanged:
        self._waiting = asyncio.get_running_loop().create_future()
        self._run(commands)
        answer = await self._waiting
        if answer.reason:
            raise MailboxError(self._trouble or answer.reason)
        return answer

    def _run(self, commands: list[ClientCommand]) -> None:
        for command in commands:
            if isinstance(command, zone_types.SendZone):
                self._transport.send(command.wire)
            elif isinstance(command, zone_types.ZoneProblem):
                self._trouble = command.reason
            elif isinstance(command, (TextsFound, TextsChanged)) and self._is_waiting:
                assert self._waiting is not None
                self._waiting.set_result(command)

    @property
    def _is_waiting(self) -> bool:
        return self._waiting is not None and not self._waiting.done()

    def _down(self, reason: str) -> None:
        self._run(self._client.transport_down(reason, *self._times()))

    async def _advance(self) -> None:
        while True:
            await asyncio.sleep(_TICK)
            self._run(self._client.advance(*self._times()))

    @staticmethod
    def _times() -> tuple[float, int]:
        return time.monotonic(), int(time.time())


async def publish(settings: HostConfig, account: Account, issuer: Issuer, unix: int) -> str | None:
    """Puts the issuer's revocation list into the zone; why it could not be done, or ``None``."""
    server, octets = settings.rendezvous.endpoint, issuer.revocations(unix)
    if server is None or octets is None:
        return "the configuration names no rendezvous"
    rendezvous = settings.rendezvous
    try:
        async with Mailbox(account, server, rendezvous.transport, rendezvous.pin_octets) as box:
            await box.change(Change(REVOKED), Change(REVOKED, octets, add=True))
    except MailboxError as problem:
        return str(problem)
    return None
