"""UPnP's own process: finds gateways and does one action at a time (:mod:`discovery.nat.upnp`).

Usage: ``python -m discovery.io_upnp``, a question in JSON on stdin, JSON lines on stdout, the end.

It is a process of its own for two reasons: what it reads is XML from whoever is on the link, and
the libraries for it would double the memory of a host that needs them a second every quarter of an
hour. The process may use no more than ``MEMORY`` and live no longer than ``TIME``.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
from ipaddress import ip_address
from typing import Any, Final
from urllib.parse import urlsplit

SEARCH_TIME: Final = 3  # seconds: MX
ANSWER_TIME: Final = 5  # seconds for an HTTP answer
TIME: Final = 30  # seconds of life
MEMORY: Final = 512 << 20  # octets of address space
DEVICES: Final = 8  # descriptions that are read, of all that answer

_TARGETS: Final = (
    "urn:schemas-upnp-org:device:InternetGatewayDevice:2",
    "urn:schemas-upnp-org:device:InternetGatewayDevice:1",
)
_SERVICES: Final = (
    ("urn:schemas-upnp-org:service:WANIPConnection:2", 2),
    ("urn:schemas-upnp-org:service:WANIPConnection:1", 1),
    ("urn:schemas-upnp-org:service:WANPPPConnection:1", 1),
)


def main() -> None:
    """Do what stdin asks for."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    question = json.load(sys.stdin)
    try:
        asyncio.run(asyncio.wait_for(_do(question), TIME))
    except TimeoutError:
        _say({"error": "it took too long"})


async def _do(question: dict[str, Any]) -> None:
    if question["do"] == "search":
        await _search(question["local"], question["gateways"])
    else:
        await _call(question)


def _say(line: dict[str, Any]) -> None:
    print(json.dumps(line), flush=True)


async def _search(local: str, gateways: list[str]) -> None:
    """Print each WAN connection service of a device whose description lies on a gateway of ours.

    What others on the link claim to be is not read: ``LOCATION`` must name a gateway's address.
    """
    from async_upnp_client.search import async_search

    locations: dict[str, None] = {}

    async def answered(headers: Any) -> None:
        location = str(headers.get("LOCATION", ""))
        if _host(location) in gateways and len(locations) < DEVICES:
            locations[location] = None

    await asyncio.gather(
        *(async_search(answered, SEARCH_TIME, target, source=(local, 0)) for target in _TARGETS)
    )
    for location in locations:
        try:
            found = await _service(location)
        except Exception as error:  # whatever a device's description may hold
            _say({"error": f"{_host(location)}: {error}"})
            continue
        if found is not None:
            _say({"gateway": _host(location), "location": location, "version": found[1]})


def _host(location: str) -> str:
    try:
        return str(ip_address(urlsplit(location).hostname or ""))
    except ValueError:
        return ""


async def _service(location: str) -> tuple[Any, int] | None:
    """The WAN connection service of the device described there, and its version."""
    from async_upnp_client.aiohttp import AiohttpRequester
    from async_upnp_client.client_factory import UpnpFactory

    factory = UpnpFactory(AiohttpRequester(ANSWER_TIME), non_strict=True)
    device = await factory.async_create_device(location)
    for kind, version in _SERVICES:
        for service in device.all_services:
            if service.service_type == kind:
                return service, version
    return None


async def _call(question: dict[str, Any]) -> None:
    from async_upnp_client.exceptions import UpnpActionError, UpnpError

    try:
        found = await _service(question["location"])
        if found is None:
            _say({"error": "it has no WAN connection service any more"})
            return
        service = found[0]
        if not service.has_action(question["action"]):
            _say({"code": 401, "error": "Invalid Action"})
            return
        values = await service.action(question["action"]).async_call(**question["arguments"])
        _say({"values": {key: _plain(value) for key, value in values.items()}})
    except UpnpActionError as error:
        _say({"code": error.error_code, "error": error.error_desc or ""})
    except (UpnpError, OSError, ValueError) as error:
        _say({"error": str(error)})


def _plain(value: object) -> object:
    return value if isinstance(value, bool | int | str) else str(value)


if __name__ == "__main__":
    main()
