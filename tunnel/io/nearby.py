"""The host's ear on its local network, while the rendezvous cannot be reached.

It begins a few seconds after the rendezvous was lost, or at once where ``[host] multicast`` is
true, and ends when the rendezvous is back. Each time it calls out under a new random name.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Final

import structlog

from discovery import nearby
from discovery.io_nearby import Nearby, local_addresses
from discovery.types import HostRecords
from keys.account import Account
from keys.store import random_bytes
from tunnel.peers import Identity

_PATIENCE: Final = 3.0  # seconds without a rendezvous, after which the neighbours are asked
_AGAIN: Final = 600.0  # seconds: another name and time, so that nobody is followed by them
_INSTANCE: Final = 8  # octets


class Neighbours:
    """Calls out for ``identity``; ``heard`` gets the records of each host of the account."""

    def __init__(
        self,
        account: Account,
        identity: Identity,
        listen: int,
        heard: Callable[[HostRecords], None],
        *,
        always: bool,
    ) -> None:
        self._account = account
        self._identity = identity
        self._listen = listen
        self._heard = heard
        self._always = always
        self._nearby = Nearby(self._take)
        self._task: asyncio.Task[None] | None = None
        self._log = structlog.get_logger("autotunnel")

    def lost(self) -> None:
        """The rendezvous cannot be reached."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def back(self) -> None:
        """The rendezvous is there again."""
        if not self._always:
            await self.stop()

    async def stop(self) -> None:
        """Be quiet."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await self._nearby.stop()

    async def _run(self) -> None:
        if not self._always:
            await asyncio.sleep(_PATIENCE)
        while True:
            try:
                await self._call()
            except (OSError, ImportError, nearby.NearbyError) as problem:
                self._log.warning(
                    f"the local network cannot be asked for the account's hosts: {problem}"
                )
            await asyncio.sleep(_AGAIN)
            await self._nearby.stop()

    async def _call(self) -> None:
        identity = self._identity
        assert identity.label is not None
        own = str(identity.host_id)
        places = tuple((text, self._listen) for text in local_addresses() if text != own)
        records = HostRecords(identity.label, identity.host_id, identity.target, places)
        call = nearby.Call(records, int(time.time()))
        strings = nearby.seal(call, self._account.nearby_key, random_bytes)
        self._log.info("the local network is asked for the account's hosts", at=len(places))
        await self._nearby.start(
            random_bytes(_INSTANCE).hex(), places[: nearby.MAX_ENDPOINTS], strings
        )

    def _take(self, strings: dict[str, str]) -> None:
        key, domain = self._account.nearby_key, self._account.domain
        call = nearby.unseal(strings, key, domain, int(time.time()))
        if call is not None and call.records.label != self._identity.label:
            self._heard(call.records)
