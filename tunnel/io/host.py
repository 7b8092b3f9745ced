"""Host: one running autotunnel host on an asyncio loop; all of its I/O meets here."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv6Address
from typing import Any

from tunnel.config import HostConfig


class HostError(Exception):
    """The host cannot start or go on; the text says cause and fix."""


class Unreachable(Exception):  # noqa: N818 - an answer, not a fault
    """A peer could not be reached; the text is the reason. ``no_such_host``: the zone knows none."""

    def __init__(self, reason: str, no_such_host: bool = False) -> None:
        self.reason, self.no_such_host = reason, no_such_host
        super().__init__(reason)


class Host:
    """Runs one host of ``config``. Construct it on any thread, :meth:`run` it in a loop."""

    def __init__(self, config: HostConfig) -> None:
        self._config = config

    async def run(self, on_ready: Callable[[], None] = lambda: None) -> None:
        """Runs until :meth:`stop`. ``on_ready`` is called once device, sockets, and the control
        socket stand. Raises :class:`HostError` (and ``DeviceError``, ``ControlError``,
        ``PrivilegeError``, all with cause and fix) when it cannot start."""

    async def stop(self) -> None:
        """Withdraws the records, tells the peers, and takes everything away; :meth:`run` returns
        after it. Idempotent, bounded to a few seconds."""

    def status(self) -> dict[str, Any]:
        """``host``, ``nat``, ``zone`` and ``peers`` of DESIGN §5, without ``schema``."""
        return {}

    async def reach(self, name: str) -> IPv6Address:
        """Makes the tunnel to ``name`` (label or full name). Raises :class:`Unreachable`."""
        raise Unreachable("not running")

    async def ping(self, name: str, count: int) -> dict[str, Any]:
        """``name``, ``id``, ``path``, ``endpoint``, ``sent``, ``rtt_ms`` (list; null is lost).
        Raises :class:`Unreachable`."""
        raise Unreachable("not running")

    async def lookup(self, name: str) -> dict[str, Any]:
        """``name``, ``id``, ``target``, ``endpoints``, ``info``. Raises :class:`Unreachable`."""
        raise Unreachable("not running")
