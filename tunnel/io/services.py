"""The host's services towards its owner: the list on disk, and what the command line asks.

``<state_dir>/services.json`` holds what the owner advertises, so that it stands in the zone again
whenever the host is up. The command line writes it itself while no host runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from discovery.services import MAX_SERVICES, ServiceError, check_type
from discovery.types import Service
from keys.store import write_atomically
from tunnel import commands as do
from tunnel.services import from_json, service_json, to_json

FILE: Final = "services.json"
_MAX_FILE: Final = 1 << 20  # octets; the largest honest one is far below

Found = list[dict[str, Any]]


class ServicesFileError(Exception):
    """The list on disk cannot be read or written; the text says cause and fix."""


class ServicesFile:
    """The list on disk."""

    def __init__(self, state_dir: Path) -> None:
        self.path = state_dir / FILE

    def load(self) -> tuple[tuple[Service, ...], tuple[Service, ...]]:
        """What is advertised, and what was withdrawn and may still stand in the zone."""
        try:
            with self.path.open("rb") as file:
                return from_json(file.read(_MAX_FILE))
        except FileNotFoundError:
            return (), ()
        except OSError as problem:
            fix = "give this user the right to read it"
            raise ServicesFileError(f"{self.path}: {problem.strerror}; {fix}") from None
        except ServiceError as problem:
            fix = "remove it, and advertise again what shall be there"
            raise ServicesFileError(f"{self.path} is damaged ({problem}); {fix}") from None

    def keep(self, octets: bytes) -> None:
        """Writes the list that the node made. Raises OSError."""
        write_atomically(self.path, octets, 0o600)

    def advertise(self, service: Service) -> None:
        """Adds to the list, while no host runs. Raises :class:`ServicesFileError`."""
        offered, withdrawn = self.load()
        kept = [one for one in offered if not _same(one, service.type, service.name)]
        if len(kept) >= MAX_SERVICES:
            raise ServicesFileError(
                f"this host advertises {MAX_SERVICES} services already; withdraw one"
            )
        self._write([*kept, service], [one for one in withdrawn if one != service])

    def withdraw(self, kind: str, name: str) -> bool:
        """Takes from the list, while no host runs; false if it is not there."""
        offered, withdrawn = self.load()
        gone = [one for one in offered if _same(one, kind, name)]
        if gone:
            kept = [one for one in offered if one not in gone]
            self._write(kept, [*withdrawn, *gone][-MAX_SERVICES:])
        return bool(gone)

    def _write(self, offered: list[Service], withdrawn: list[Service]) -> None:
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.keep(to_json(offered, withdrawn))
            _give_to_owner(self.path)
        except OSError as problem:
            raise ServicesFileError(
                f"{self.path} cannot be written ({problem.strerror}); run this as the user "
                "that runs the host, or with sudo"
            ) from None


def _same(service: Service, kind: str, name: str) -> bool:
    return service.type == kind.lower() and service.name.casefold() == name.casefold()


def _give_to_owner(path: Path) -> None:
    """Written with sudo, the list still belongs to the user that runs the host."""
    owner = path.parent.stat()
    if os.geteuid() == 0 and owner.st_uid != 0:
        os.chown(path, owner.st_uid, owner.st_gid)


class Services:
    """What the control socket asks of a running host about services. ``ask`` puts a request to the
    node and fails with the reason; ``own`` gives what the node itself advertises; ``follow`` says
    that one more (1) or one fewer (-1) watches the services of a type."""

    def __init__(
        self,
        ask: Callable[..., Awaitable[do.Command]],
        own: Callable[[], Found],
        domain: str | None,
        follow: Callable[[str, int], None] = lambda _kind, _more: None,
    ) -> None:
        self._ask = ask
        self._own = own
        self._domain = domain
        self._follow = follow
        self._stirred = asyncio.Event()

    def own(self) -> Found:
        """What this host advertises: ``type``, ``name``, ``port``, ``texts``, ``state``,
        ``reason``."""
        return self._own()

    async def advertise(self, service: Service) -> dict[str, Any]:
        """The service, and whether it is ``published`` already."""
        answer = await self._ask("advertise", service)
        assert isinstance(answer, do.Advertised)
        return {**service_json(service), "published": answer.done}

    async def withdraw(self, kind: str, name: str) -> dict[str, Any]:
        """``type``, ``name``, and whether it has ``gone`` from the zone already."""
        answer = await self._ask("withdraw_service", kind, name)
        assert isinstance(answer, do.Advertised)
        return {"type": kind, "name": name, "gone": answer.done}

    async def browse(self, kind: str) -> Found:
        """The account's services of one type, or of all: ``type``, ``name``, ``port``, ``texts``,
        and the ``host`` whose name resolves to its host id."""
        answer = await self._ask("browse", kind)
        assert isinstance(answer, do.Browsed)
        return [
            {**service_json(one.service), "host": f"{one.label}.{self._domain}"}
            for one in answer.services
        ]

    def stirred(self) -> None:
        """Something has changed among the services: whoever watches looks again."""
        event, self._stirred = self._stirred, asyncio.Event()
        event.set()

    async def watch(self, kind: str, interval: float) -> AsyncIterator[Found]:
        """The services now, and again whenever they have changed; looked at when the zone says so,
        and every ``interval`` seconds at least."""
        last: Found | None = None
        self._follow(kind, 1)
        try:
            while True:
                stirred = self._stirred
                found = await self.browse(kind)
                if found != last:
                    last = found
                    yield found
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(interval):
                        await stirred.wait()
        finally:
            self._follow(kind, -1)


def checked_kind(kind: object) -> str:
    """A service type, or nothing for all. Raises :exc:`ServiceError`."""
    if not isinstance(kind, str):
        raise ServiceError("a service type is text")
    return check_type(kind) if kind else ""
