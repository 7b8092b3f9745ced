"""Asking the system's servers what is not the account's, around :mod:`discovery.forwarding`.

Each question goes from a fresh socket, so that the source port is random like its ID. First UDP;
where a client that came over TCP gets a cut answer (TC), TCP. Servers are asked one by one.

We may be among the servers ourselves, under another name: a local resolver to which we forward may
forward to us. Where a question comes back while its answer is awaited, again and again, a probe for
a name of nobody finds that out; that server is then left out for a while.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import dns.name
import structlog

from discovery import forwarding, rcodes, stub
from discovery.forwarding import MAX_SERVERS, ResolvConf
from discovery.stub import Forward, Question
from discovery.types import Endpoint

RESOLV_CONF: Final = Path("/etc/resolv.conf")
UPLINKS: Final = Path("/run/systemd/resolve/resolv.conf")
"""Where systemd-resolved says which servers it asks itself. It hands us the reverse names of unique
local addresses (tunnel/io/resolved.py); what is no host id goes on to them, not back to it."""

_RESOLVED: Final = ("127.0.0.53", "127.0.0.54")
_ULA_REVERSE: Final = dns.name.from_text("d.f.ip6.arpa.")
_MAX_MESSAGE: Final = 65535
_MAX_CONF: Final = 65536  # octets of a resolv.conf that are read


@dataclass(frozen=True, slots=True)
class ForwardSettings:
    """Times in seconds: ``timeout`` bounds the wait for one server, of which all are asked
    ``rounds`` times, ``total`` all of it. When ``suspicious`` copies of one question are under way
    to servers on loopback, a loop is looked for; a server in one is left out for ``looping``."""

    timeout: float = 2.0
    rounds: int = 2
    total: float = 10.0
    suspicious: int = 4
    looping: float = 60.0


class ConfFile:
    """A resolv.conf, read again when it has changed; an absent one names nothing."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, int, int] | None = None
        self._conf = ResolvConf()

    def read(self) -> ResolvConf:
        """Return what it says now."""
        try:
            about = self._path.stat()
            stamp = about.st_mtime_ns, about.st_ino, about.st_size
            if stamp != self._stamp:
                with self._path.open("rb") as file:
                    text = file.read(_MAX_CONF).decode("utf-8", "replace")
                self._stamp, self._conf = stamp, forwarding.parse_resolv_conf(text)
        except OSError:
            self._stamp, self._conf = None, ResolvConf()
        return self._conf


class Forwarder:
    """Asks ``servers``, or those of ``resolv_conf`` where there are none; never ``own()``."""

    def __init__(
        self,
        own: Callable[[], Endpoint],
        servers: Sequence[Endpoint] = (),
        resolv_conf: Path = RESOLV_CONF,
        uplinks: Path = UPLINKS,
        settings: ForwardSettings = ForwardSettings(),
    ) -> None:
        self._own = own
        self._servers = tuple(servers)
        self._system, self._uplinks = ConfFile(resolv_conf), ConfFile(uplinks)
        self._settings = settings
        self._under_way: Counter[bytes] = Counter()
        self._probing: dict[bytes, Endpoint] = {}  # token: the server that is being probed
        self._probes: set[asyncio.Task[None]] = set()
        self._looping: dict[Endpoint, float] = {}  # server: until when it is left out
        self._log = structlog.get_logger("autotunnel.stub")

    def searches(self) -> Sequence[dns.name.Name]:
        """Return the search list of the system's resolver."""
        return self._system.read().searches

    def servers(self, name: dns.name.Name = dns.name.root) -> list[Endpoint]:
        """Return the servers for a name: not ourselves, nor one through which we ask ourselves."""
        found = list(self._servers or self._system.read().servers)
        if name.is_subdomain(_ULA_REVERSE) and any(host in _RESOLVED for host, _ in found):
            others = [server for server in found if server[0] not in _RESOLVED]
            found = [*self._uplinks.read().servers, *others]
        now, own = asyncio.get_running_loop().time(), self._own()
        return [
            server
            for server in found
            if not forwarding.same_server(server, own) and self._looping.get(server, now) <= now
        ][:MAX_SERVERS]

    def is_our_probe(self, question: Question) -> bool:
        """Say whether a question is a probe of ours that came back; its server is then left out."""
        if not self._probing:
            return False
        token = forwarding.probe_token(question, tuple(self._probing))
        if token is None:
            return False
        server = self._probing.pop(token)
        until = asyncio.get_running_loop().time() + self._settings.looping
        self._looping[server] = until
        self._log.warning(
            "a server to which names are forwarded asks us in turn, and is left out; "
            "set [resolver] forward, or take our address out of its servers",
            server=f"{server[0]} port {server[1]}",
        )
        return True

    async def ask(self, forward: Forward, *, tcp: bool) -> bytes | None:
        """Return a server's answer, with an ID of ours; ``None`` if there is none in time."""
        question = forward.question
        key = question.octets.lower()
        self._under_way[key] += 1
        try:
            async with asyncio.timeout(self._settings.total):
                return await self._one_after_the_other(forward, tcp)
        except TimeoutError:
            return None
        finally:
            self._under_way[key] -= 1
            if not self._under_way[key]:
                del self._under_way[key]

    async def stop(self) -> None:
        """End the probes that are under way."""
        for probe in list(self._probes):
            probe.cancel()
        await asyncio.gather(*self._probes, return_exceptions=True)

    async def _one_after_the_other(self, forward: Forward, tcp: bool) -> bytes | None:
        failed: bytes | None = None
        for _ in range(self._settings.rounds):
            for server in self.servers(forward.question.name):
                self._suspect(server, forward.question)
                query = forwarding.with_identity(forward.wire, int.from_bytes(os.urandom(2)))
                answer = await self._ask(server, query, forward.question, tcp)
                if answer is None:
                    continue
                if answer[3] & 15 != rcodes.SERVFAIL:
                    return answer
                failed = answer  # perhaps another server knows better
        return failed

    async def _ask(
        self, server: Endpoint, query: bytes, question: Question, tcp: bool
    ) -> bytes | None:
        """Ask one server over UDP; where a TCP client's answer was cut, over TCP."""
        try:
            async with asyncio.timeout(self._settings.timeout):
                answer = await _ask_udp(server, query, question)
                if tcp and forwarding.is_truncated(answer):
                    answer = await _ask_tcp(server, query, question)
                return answer
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            return None

    def _suspect(self, server: Endpoint, question: Question) -> None:
        """Probe a server on loopback when one question is under way suspiciously often."""
        often = self._under_way[question.octets.lower()] >= self._settings.suspicious
        if not often or not forwarding.is_loopback(server) or server in self._probing.values():
            return
        token = os.urandom(forwarding.PROBE_OCTETS)
        self._probing[token] = server
        task = asyncio.get_running_loop().create_task(self._probe(server, question, token))
        self._probes.add(task)
        task.add_done_callback(self._probes.discard)

    async def _probe(self, server: Endpoint, question: Question, token: bytes) -> None:
        query = forwarding.probe_for(question, token, int.from_bytes(os.urandom(2)))
        try:
            await self._ask(server, query, stub.read_question(query), tcp=False)
        finally:
            self._probing.pop(token, None)


class _Waiting(asyncio.DatagramProtocol):
    """One forwarded query: resolves with its answer, lets forged ones pass by."""

    def __init__(self, query: bytes, question: Question) -> None:
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._query, self._question = query, question

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        del addr  # the socket is connected
        if not self.answer.done() and forwarding.is_answer(self._query, self._question, data):
            self.answer.set_result(data)

    def error_received(self, exc: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(exc)


async def _ask_udp(server: Endpoint, query: bytes, question: Question) -> bytes:
    loop = asyncio.get_running_loop()
    transport, waiting = await loop.create_datagram_endpoint(
        lambda: _Waiting(query, question), remote_addr=server
    )
    try:
        transport.sendto(query)
        return await waiting.answer
    finally:
        transport.close()


async def _ask_tcp(server: Endpoint, query: bytes, question: Question) -> bytes:
    reader, writer = await asyncio.open_connection(*server, limit=_MAX_MESSAGE + 2)
    try:
        writer.write(len(query).to_bytes(2) + query)
        answer = await reader.readexactly(int.from_bytes(await reader.readexactly(2)))
    finally:
        writer.close()
    if not forwarding.is_answer(query, question, answer):
        raise ConnectionError("the server answers another question")
    return answer
