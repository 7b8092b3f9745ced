"""The control socket: how the command line talks with a running host.

A Unix socket ``<state_dir>/control.sock`` of mode 0600; one JSON object a line in both
directions. A request is ``{"command": …, …}`` with command ``status``, ``reach`` (name), ``ping``
(name, count), ``lookup`` (name), ``explain`` (name), ``keys`` (name), ``advertise`` (service),
``withdraw`` (type, name), ``services``, ``browse`` (type), ``down``, ``watch`` (interval_s) or
``browse-watch`` (type, interval_s); the answer ``{"ok": true, "result": …}`` or ``{"ok": false,
"error": …}``. ``watch`` answers with one status after the other until the client goes,
``browse-watch`` with the services whenever they have changed.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import socket
from collections.abc import AsyncIterator
from ipaddress import IPv6Address
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from tunnel.io.services import Services

MAX_LINE = 65536
"""Octets of a request line; the longest honest one is below 400."""
MAX_CLIENTS = 32
_STREAMS = ("watch", "browse-watch")
_OF_SERVICES = ("advertise", "withdraw", "services", "browse")
_MAX_NAME = 255
_MAX_PINGS = 1000
_MIN_INTERVAL, _MAX_INTERVAL = 0.1, 3600.0


class Controlled(Protocol):
    """What the control server asks of a running host. All but ``status`` and
    ``stop`` fail with an exception whose text is the reason (``tunnel.io.host.Unreachable``)."""

    def status(self) -> dict[str, Any]:
        """All that ``status --json`` shows (DESIGN §5)."""

    async def reach(self, name: str) -> IPv6Address:
        """Makes the tunnel to ``name`` and gives its host id."""

    async def ping(self, name: str, count: int) -> dict[str, Any]:
        """``name``, ``id``, ``path``, ``endpoint``, ``home_agent``, ``sent``, ``rtt_ms``."""

    async def lookup(self, name: str) -> dict[str, Any]:
        """``name``, ``id``, ``target``, ``endpoints``, ``info`` as the zone says now."""

    async def explain(self, name: str) -> dict[str, Any]:
        """How the path to ``name`` was chosen: what was learnt, tried and decided, and when."""

    async def export_keys(self, name: str) -> dict[str, Any]:
        """``esp_sa``, ``ikev2_decryption_table`` (lines for Wireshark) and ``notes``."""

    @property
    def services(self) -> Services:
        """What this host advertises, and what it finds."""

    async def stop(self) -> None:
        """Withdraws and ends."""


class ControlError(Exception):
    """The control socket cannot be had, or the host said no; the text says cause and fix."""


class NotRunningError(ControlError):
    """No host listens on that control socket."""


class RequestError(ValueError):
    """A request line that is not one of ours; the text says what is wrong with it."""


class ControlServer:
    """Serves one host's control socket. :meth:`start` and :meth:`close` belong to its loop."""

    def __init__(self, path: Path, host: Controlled, failures: tuple[type[Exception], ...]) -> None:
        self._path = path
        self._host = host
        self._failures = failures
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.Task[None]] = set()
        self._down: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Binds the socket, mode 0600. Raises :class:`ControlError`, as when a host runs there."""
        _remove_stale(self._path)
        listener = bind_private(self._path, "host.state_dir")
        self._server = await asyncio.start_unix_server(self._serve, sock=listener, limit=MAX_LINE)

    async def close(self) -> None:
        """Ends all clients and removes the socket. Idempotent."""
        if self._server is None:
            return
        self._server.close()
        self._server = None
        this = asyncio.current_task()
        for task in [task for task in self._clients if task is not this]:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self._path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._clients.add(task)
        try:
            if len(self._clients) > MAX_CLIENTS:
                await tell(writer, {"ok": False, "error": "too many clients; try again later"})
                return
            await self._converse(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass  # the client has gone, or the host ends
        finally:
            self._clients.discard(task)
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                line = await reader.readline()
            except ValueError:  # StreamReader's word for a line beyond its limit
                await tell(writer, {"ok": False, "error": f"a line is over {MAX_LINE} octets"})
                return
            if not line:
                return
            try:
                request = parse_request(line)
            except RequestError as problem:
                await tell(writer, {"ok": False, "error": str(problem)})
                continue
            if request["command"] == "watch":
                await self._watch(reader, writer, request["interval_s"])
                return
            if request["command"] == "browse-watch":
                await self._watch_services(reader, writer, request)
                return
            await tell(writer, await self._answer(request))

    async def _watch(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, interval: float
    ) -> None:
        gone = asyncio.ensure_future(reader.read(1))
        try:
            while not gone.done():
                await tell(writer, {"ok": True, "result": self._host.status()})
                await asyncio.wait([gone], timeout=interval)
        finally:
            gone.cancel()

    async def _watch_services(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: dict[str, Any]
    ) -> None:
        async def tell_all() -> None:
            watch = self._host.services.watch(request["type"], request["interval_s"])
            try:
                async for found in watch:
                    await tell(writer, {"ok": True, "result": found})
            except self._failures as problem:
                await tell(writer, {"ok": False, "error": str(problem)})

        telling = asyncio.ensure_future(tell_all())
        gone = asyncio.ensure_future(reader.read(1))
        try:
            await asyncio.wait([telling, gone], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in (telling, gone):
                one.cancel()
            await asyncio.gather(telling, gone, return_exceptions=True)

    async def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        host, name = self._host, request.get("name", "")
        try:
            if request["command"] in _OF_SERVICES:
                return {"ok": True, "result": await self._about_services(request)}
            match request["command"]:
                case "status":
                    return {"ok": True, "result": host.status()}
                case "reach":
                    return {"ok": True, "result": {"name": name, "id": await host.reach(name)}}
                case "ping":
                    return {"ok": True, "result": await host.ping(name, request["count"])}
                case "lookup":
                    return {"ok": True, "result": await host.lookup(name)}
                case "explain":
                    return {"ok": True, "result": await host.explain(name)}
                case "keys":
                    return {"ok": True, "result": await host.export_keys(name)}
                case _:  # "down": answered first, since the end takes this connection with it
                    self._down = asyncio.ensure_future(host.stop())
                    return {"ok": True, "result": {"pid": os.getpid()}}
        except self._failures as problem:
            return {"ok": False, "error": str(problem)}

    async def _about_services(self, request: dict[str, Any]) -> Any:
        of = self._host.services
        match request["command"]:
            case "advertise":
                return await of.advertise(request["service"])
            case "withdraw":
                return await of.withdraw(request["type"], request["name"])
            case "services":
                return of.own()
            case _:
                return await of.browse(request["type"])


def parse_request(line: bytes) -> dict[str, Any]:
    """One request line, checked: known command, and name, count or interval_s within their ranges.

    Raises :class:`RequestError`.
    """
    try:
        request = json.loads(line)
    except (ValueError, RecursionError):
        raise RequestError("the request is not a line of JSON") from None
    if not isinstance(request, dict) or not isinstance(request.get("command"), str):
        raise RequestError('the request is not an object with a "command"')
    match request["command"]:
        case "status" | "down":
            return {"command": request["command"]}
        case "advertise" | "withdraw" | "services" | "browse" | "browse-watch":
            return _of_services(request)
        case "reach" | "lookup" | "explain" | "keys" as command:
            return {"command": command, "name": _name(request)}
        case "ping":
            count = _number(request, "count", 1, 1, _MAX_PINGS)
            return {"command": "ping", "name": _name(request), "count": int(count)}
        case "watch":
            interval = _number(request, "interval_s", 1.0, _MIN_INTERVAL, _MAX_INTERVAL)
            return {"command": "watch", "interval_s": interval}
        case command:
            raise RequestError(f"unknown command {command[:40]!r}")


def _of_services(request: dict[str, Any]) -> dict[str, Any]:
    # Not above: the commands that only ask a running host load nothing of DNS.
    from discovery.services import ServiceError, check_instance
    from tunnel.io.services import checked_kind
    from tunnel.services import service_from

    command = request["command"]
    try:
        match command:
            case "services":
                return {"command": command}
            case "advertise":
                return {"command": command, "service": service_from(request.get("service"))}
            case "withdraw":
                kind, name = checked_kind(request.get("type")), check_instance(_name(request))
                return {"command": command, "type": kind, "name": name}
            case _:
                kind = checked_kind(request.get("type", ""))
    except ServiceError as problem:
        raise RequestError(str(problem)) from None
    interval = _number(request, "interval_s", 30.0, _MIN_INTERVAL, _MAX_INTERVAL)
    return {"command": command, "type": kind, "interval_s": interval}


def _name(request: dict[str, Any]) -> str:
    name = request.get("name")
    if not isinstance(name, str) or not 0 < len(name) <= _MAX_NAME or not name.isprintable():
        raise RequestError('"name" must be the name of a host')
    return name


def _number(request: dict[str, Any], key: str, default: float, least: float, most: float) -> float:
    value = request.get(key, default)
    # NaN fails the comparison, and True is no number here.
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
        raise RequestError(f'"{key}" must be a number from {least} to {most}')
    return value


async def tell(writer: asyncio.StreamWriter, answer: dict[str, Any]) -> None:
    """Writes one line of JSON."""
    writer.write(json.dumps(answer, default=str).encode() + b"\n")
    await writer.drain()


def _remove_stale(path: Path) -> None:
    """Removes the socket that a killed host left; a live one is an error."""
    if not path.is_socket():
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            with contextlib.suppress(OSError):
                path.unlink()
            return
    raise ControlError(
        f"a host runs already with {path.parent}; "
        "end it with `autotunnel down`, or give this one another host.state_dir"
    )


def bind_private(path: Path, key: str) -> socket.socket:
    """A Unix socket of mode 0600; ``key`` of the configuration says in which folder.

    Raises :class:`ControlError`.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    old = os.umask(0o177)
    try:
        listener.bind(str(path))
    except OSError as problem:
        listener.close()
        raise ControlError(_cannot_bind(path, problem, key)) from None
    finally:
        os.umask(old)
    return listener


def _cannot_bind(path: Path, problem: OSError, key: str) -> str:
    if problem.errno is None:  # "AF_UNIX path too long"
        return f"the path {path} is too long for a socket; choose a shorter {key}"
    cause = f"the control socket {path} cannot be made ({problem.strerror})"
    return f"{cause}; check the owner of {path.parent}, or choose another {key}"


async def converse(path: Path, request: dict[str, Any]) -> AsyncIterator[Any]:
    """The client's side: sends one request, yields the results as they come.

    Raises :class:`NotRunningError`, and :class:`ControlError` with the host's own words.
    """
    try:
        reader, writer = await asyncio.open_unix_connection(str(path), limit=1 << 24)
    except OSError as problem:
        raise _not_reached(path, problem) from None
    try:
        writer.write(json.dumps(request).encode() + b"\n")
        while line := await reader.readline():
            answer = json.loads(line)
            if not answer["ok"]:
                raise ControlError(answer["error"])
            yield answer["result"]
            if request["command"] not in _STREAMS:
                return
    except ConnectionError:
        pass
    finally:
        writer.close()
    if request["command"] not in _STREAMS:
        raise ControlError("the host ended before it answered; see its log")


def _not_reached(path: Path, problem: OSError) -> ControlError:
    if problem.errno in (errno.EACCES, errno.EPERM):
        cause = f"{path} belongs to another user"
        return ControlError(f"{cause}; run this as the user that runs the host, or with sudo")
    return NotRunningError(f"no host runs here ({path}); start it with `autotunnel up`")


async def ask(path: Path, request: dict[str, Any]) -> Any:
    """Sends one request and gives its one result. Raises as :func:`converse`."""
    async for result in converse(path, request):
        return result
    raise ControlError("the host ended before it answered; see its log")
