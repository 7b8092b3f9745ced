"""The sockets and processes behind :class:`discovery.nat.mapper.Mapper`.

A connected UDP socket for each gateway, so that the kernel tells when nobody listens there and lets
nobody else's datagrams in; the groups to which gateways announce (B32); and UPnP's process.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from ipaddress import ip_address
from typing import Any, Final

import structlog

from discovery.nat.mapper import Doubt, Gateway, Mapper, MapperCommand, UpnpSearch, Way
from discovery.nat.types import CLIENT_PORT, SERVER_PORT, Method, SendNat, UpnpCall

GROUP4: Final = "224.0.0.1"
GROUP6: Final = "ff02::1"
UPNP_LINE: Final = 65_536  # octets of one answer
UPNP_TIME: Final = 40.0  # seconds until a process that does not end is ended
UPNP_GOODBYE: Final = 8.0  # seconds that its process may take
GOODBYE: Final = 1.0  # seconds in which a deletion is repeated if nobody acknowledges it

_log = structlog.get_logger("nat")


class NatLink:
    """Runs the race on the networks that :meth:`network` names; ``on_way`` gets each outcome.

    ``on_answer`` is called whenever a gateway has answered, whatever it said; ``on_doubt`` when the
    one that maps for us says that it restarted (:class:`discovery.nat.mapper.Doubt`).
    """

    def __init__(
        self,
        methods: Iterable[Method],
        on_way: Callable[[Way], None],
        *,
        on_answer: Callable[[], None] = lambda: None,
        on_doubt: Callable[[], None] = lambda: None,
    ) -> None:
        self.mapper = Mapper(methods, secrets.token_bytes)
        self._on_way, self._on_answer, self._on_doubt = on_way, on_answer, on_doubt
        self._sockets: dict[str, asyncio.DatagramTransport] = {}
        self._groups: list[asyncio.DatagramTransport] = []
        self._gateways: tuple[Gateway, ...] = ()
        self._locations: dict[str, str] = {}
        self._upnp: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._idle = asyncio.Event()  # the mapper waits for nothing any more

    # --- For its owner ----------------------------------------------------------------------

    async def network(self, gateways: Iterable[Gateway]) -> None:
        """The host stands in this network now. Mappings of the last one are forgotten: whoever
        could delete them is not there any more."""
        self._close()
        self._gateways = tuple(gateways)
        for gateway in self._gateways:
            await self._open(gateway)
        for family in sorted({4 if "." in one.address else 6 for one in self._gateways}):
            await self._listen(family)
        self._obey(self.mapper.network(self._gateways, time.monotonic()))

    def refresh(self) -> None:
        """Ask those who map for us once more, now."""
        self._obey(self.mapper.refresh(time.monotonic()))

    async def stop(self) -> None:
        """Delete the mappings (B30), and close."""
        self._obey(self.mapper.stop(time.monotonic()))
        with suppress(TimeoutError):
            async with asyncio.timeout(GOODBYE):
                await self._idle.wait()
        if self._upnp:
            await asyncio.wait(self._upnp, timeout=UPNP_GOODBYE)
        self._close()

    # --- Sockets ----------------------------------------------------------------------------

    async def _open(self, gateway: Gateway) -> None:
        loop = asyncio.get_running_loop()
        host, scope = gateway.local[0], gateway.address.partition("%")[2]
        local: tuple[str, int] = (f"{host}%{scope}" if _is_link_local(host) else host, 0)
        try:
            transport, _ = await loop.create_datagram_endpoint(
                lambda: _Asking(self, gateway.address),
                local_addr=local,
                remote_addr=(gateway.address, SERVER_PORT),
            )
        except OSError as error:
            _log.info("a gateway cannot be asked", gateway=gateway.address, cause=str(error))
            return
        self._sockets[gateway.address] = transport

    async def _listen(self, family: int) -> None:
        """Announcements of gateways; without them, changes are seen at the next renewal."""
        try:
            bound = _group_socket(family, self._gateways)
        except OSError as error:
            _log.info("announcements of gateways are not heard", cause=str(error))
            return
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(lambda: _Hearing(self), sock=bound)
        self._groups.append(transport)

    def _close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for transport in (*self._sockets.values(), *self._groups):
            transport.close()
        self._sockets, self._groups = {}, []
        for task in self._upnp:
            task.cancel()
        self._locations.clear()

    # --- Events -----------------------------------------------------------------------------

    def received(self, data: bytes, gateway: str) -> None:
        """A gateway's datagram."""
        source = (gateway, SERVER_PORT)
        self._obey(self.mapper.receive(data, source, time.monotonic()))
        self._on_answer()

    def heard(self, data: bytes, source: tuple[str, int]) -> None:
        """A datagram to the group; only those of our gateways count."""
        for gateway in self._gateways:
            if _same(gateway.address, source[0]) and source[1] == SERVER_PORT:
                self.received(data, gateway.address)

    def refused(self, gateway: str) -> None:
        """Nobody listens at the gateway."""
        self._obey(self.mapper.refused(gateway, time.monotonic()))
        self._on_answer()

    def _tick(self) -> None:
        self._timer = None
        self._obey(self.mapper.advance(time.monotonic()))

    def _obey(self, commands: Iterable[MapperCommand]) -> None:
        for command in commands:
            if isinstance(command, SendNat):
                transport = self._sockets.get(command.to[0])
                if transport is not None:
                    transport.sendto(command.data)
            elif isinstance(command, Way):
                self._on_way(command)
            elif isinstance(command, Doubt):
                self._on_doubt()
            else:
                task = asyncio.get_running_loop().create_task(self._ask_upnp(command))
                self._upnp.add(task)
                task.add_done_callback(self._upnp.discard)
        self._wind()

    def _wind(self) -> None:
        """One timer, for the next thing that the mapper has to do."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = self.mapper.next_timer()
        if due is None:
            self._idle.set()
        else:
            self._idle.clear()
            delay = max(0.0, due - time.monotonic())
            self._timer = asyncio.get_running_loop().call_later(delay, self._tick)

    # --- UPnP -------------------------------------------------------------------------------

    async def _ask_upnp(self, command: UpnpCall | UpnpSearch) -> None:
        if isinstance(command, UpnpSearch):
            for local in {one.local[0] for one in self._gateways if "." in one.address}:
                await self._search(local)
            return
        gateway = next(iter(self._locations), "")
        question = {
            "do": "call",
            "location": self._locations.get(gateway, ""),
            "action": command.action,
            "arguments": dict(command.arguments),
        }
        lines = await _upnp(question)
        said: dict[str, Any] = {"error": "its process ended without a word"}
        said = lines[-1] if lines else said
        now = time.monotonic()
        if "values" in said:
            self._obey(self.mapper.upnp_answered(command.ticket, said["values"], now))
            return
        code, text = said.get("code"), str(said.get("error", ""))
        self._obey(self.mapper.upnp_failed(command.ticket, code, text, now))

    async def _search(self, local: str) -> None:
        ours = [one.address for one in self._gateways if "." in one.address]
        for line in await _upnp({"do": "search", "local": local, "gateways": ours}):
            if "gateway" not in line:
                _log.info("a UPnP device is of no use", cause=line.get("error", ""))
                continue
            gateway, version = str(line["gateway"]), int(line["version"])
            self._locations[gateway] = str(line["location"])
            now = time.monotonic()
            self._obey(self.mapper.upnp_found(gateway, version, local, now))


class _Asking(asyncio.DatagramProtocol):
    def __init__(self, link: NatLink, gateway: str) -> None:
        self._link, self._gateway = link, gateway

    def datagram_received(self, data: bytes, _addr: tuple[str | Any, int]) -> None:
        self._link.received(data, self._gateway)

    def error_received(self, exc: Exception) -> None:
        if isinstance(exc, ConnectionRefusedError):
            self._link.refused(self._gateway)


class _Hearing(asyncio.DatagramProtocol):
    def __init__(self, link: NatLink) -> None:
        self._link = link

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        self._link.heard(data, (str(addr[0]), int(addr[1])))


async def _upnp(question: Mapping[str, object]) -> list[dict[str, Any]]:
    """One process, one question: its answers, one a line."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "discovery.io_upnp"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        limit=UPNP_LINE,
    )
    try:
        async with asyncio.timeout(UPNP_TIME):
            output, _ = await process.communicate(json.dumps(question).encode())
    except TimeoutError:
        return []
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    lines = []
    for line in output.splitlines():
        with suppress(ValueError):
            said = json.loads(line)
            lines += [said] if isinstance(said, dict) else []
    return lines


def _group_socket(family: int, gateways: Iterable[Gateway]) -> socket.socket:
    """A socket that hears announcements. It is bound to the group, not to any address: then no
    unicast comes there, and other programs may listen too (RFC 6886 §3.2.1)."""
    kind = socket.AF_INET if family == 4 else socket.AF_INET6
    bound = socket.socket(kind, socket.SOCK_DGRAM)
    try:
        bound.setblocking(False)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        for gateway in gateways:
            if family == 4 and "." in gateway.address:
                bound.bind((GROUP4, CLIENT_PORT)) if not bound.getsockname()[1] else None
                joined = socket.inet_aton(GROUP4) + socket.inet_aton(gateway.local[0])
                with suppress(OSError):  # two gateways on one link
                    bound.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, joined)
            elif family == 6 and ":" in gateway.address:
                scope = gateway.address.partition("%")[2]
                index = socket.if_nametoindex(scope) if scope else 0
                if not bound.getsockname()[1]:
                    bound.bind((GROUP6, CLIENT_PORT, 0, index))
                joined = socket.inet_pton(kind, GROUP6) + struct.pack("@I", index)
                with suppress(OSError):
                    bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, joined)
    except BaseException:
        bound.close()
        raise
    return bound


def _is_link_local(address: str) -> bool:
    return ip_address(address.partition("%")[0]).is_link_local


def _same(one: str, other: str) -> bool:
    """Whether two address texts mean the same, with or without the link's name."""
    return ip_address(one.partition("%")[0]) == ip_address(other.partition("%")[0])
