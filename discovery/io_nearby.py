"""Multicast DNS for a host without its rendezvous: calls out and listens (RFC 6762, RFC 6763).

The library (python-zeroconf) is loaded when it is first needed: it costs about four mebibytes.
Callbacks run in the loop. Whatever it hears is bounded by :data:`MAX_HEARD`.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from discovery.nearby import SERVICE_TYPE
from discovery.types import Endpoint

if TYPE_CHECKING:
    from zeroconf import Zeroconf
    from zeroconf.asyncio import AsyncServiceBrowser, AsyncZeroconf

MAX_HEARD: Final = 256  # calls that are asked about at once
_ANSWER_MS: Final = 3000


class Nearby:
    """One host's voice and ear. ``on_heard`` gets the strings of every TXT record that comes."""

    def __init__(self, on_heard: Callable[[dict[str, str]], None]) -> None:
        self._on_heard = on_heard
        self._zeroconf: AsyncZeroconf | None = None
        self._browser: AsyncServiceBrowser | None = None
        self._said: Any = None
        self._asking: set[asyncio.Task[None]] = set()

    @property
    def running(self) -> bool:
        """Whether it calls and listens."""
        return self._zeroconf is not None

    async def start(
        self, instance: str, endpoints: Iterable[Endpoint], strings: dict[str, str]
    ) -> None:
        """Call out ``strings`` as the random name ``instance``, and listen. Raises OSError."""
        from zeroconf import ServiceInfo
        from zeroconf.asyncio import AsyncServiceBrowser, AsyncZeroconf

        places = list(endpoints)
        self._zeroconf = AsyncZeroconf()
        self._browser = AsyncServiceBrowser(
            self._zeroconf.zeroconf, SERVICE_TYPE, handlers=[self._noticed]
        )
        if not places:
            return
        self._said = ServiceInfo(
            SERVICE_TYPE,
            f"{instance}.{SERVICE_TYPE}",
            port=places[0][1],
            properties=dict(strings),
            server=f"{instance}.local.",
            parsed_addresses=[host for host, _ in places],
        )
        await self._zeroconf.async_register_service(self._said)

    async def stop(self) -> None:
        """Say goodbye, and be quiet. Idempotent."""
        zeroconf, self._zeroconf = self._zeroconf, None
        for task in list(self._asking):
            task.cancel()
        if zeroconf is None:
            return
        with contextlib.suppress(Exception):  # a network that is gone cannot be said goodbye to
            if self._browser is not None:
                await self._browser.async_cancel()
            await zeroconf.async_close()
        self._browser = self._said = None

    def _noticed(self, zeroconf: Zeroconf, service_type: str, name: str, state_change: Any) -> None:
        gone = getattr(state_change, "name", "") == "Removed"
        if gone or service_type != SERVICE_TYPE or len(self._asking) >= MAX_HEARD:
            return
        task = asyncio.get_running_loop().create_task(self._ask(zeroconf, name))
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    async def _ask(self, zeroconf: Zeroconf, name: str) -> None:
        from zeroconf.asyncio import AsyncServiceInfo

        about = AsyncServiceInfo(SERVICE_TYPE, name)
        try:
            found = await about.async_request(zeroconf, _ANSWER_MS)
        except Exception:  # whatever strangers send must not end the host
            return
        if found and self._zeroconf is not None:
            strings = {
                key.decode("utf-8", "replace"): (value or b"").decode("utf-8", "replace")
                for key, value in about.properties.items()
                if isinstance(key, bytes)
            }
            self._on_heard(strings)


def local_addresses() -> list[str]:
    """The addresses at which hosts on the same network reach this one, IPv4 first."""
    import ifaddr

    found: list[str] = []
    for adapter in ifaddr.get_adapters():
        for one in adapter.ips:
            text = one.ip if isinstance(one.ip, str) else one.ip[0]
            address = ipaddress.ip_address(text)
            if not (address.is_loopback or address.is_link_local or address.is_unspecified):
                found.append(text)
    return sorted(found, key=lambda text: (":" in text, text))
