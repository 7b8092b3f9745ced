"""The zone transport on real loopback sockets, against the real rendezvous and bad ones."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import dns.name
import pytest
import uvloop

from discovery import exchange, io_certificate, pinning
from discovery.exchange import Response
from discovery.held import ZoneAccount
from discovery.io_serve import RendezvousServer
from discovery.io_transport import TransportName, TransportSettings, ZoneTransport
from discovery.types import Endpoint, TsigKey
from tests.discovery.client.waiting import until
from tests.ports import free_port

DOMAIN = "alice.members.example"
SECRET = bytes(range(32))
KEY = TsigKey(DOMAIN + ".", SECRET)
QUICK = TransportSettings(connect_timeout=60.0, first_pause=0.01, max_pause=0.05, stable=0.0)
# The newer way (a hook) is not known to older releases of pytest-asyncio.
pytestmark = pytest.mark.filterwarnings("ignore:Overriding the .event_loop_policy. fixture")
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]


@pytest.fixture(params=["asyncio", "uvloop"])
def event_loop_policy(request: pytest.FixtureRequest) -> asyncio.AbstractEventLoopPolicy:
    """Everything holds on both loops: hosts run on uvloop."""
    if request.param == "uvloop":
        return uvloop.EventLoopPolicy()
    return asyncio.DefaultEventLoopPolicy()


@asynccontextmanager
async def rendezvous(state_dir: Path) -> AsyncIterator[RendezvousServer]:
    account = ZoneAccount(DOMAIN, SECRET, bytes(32), lambda identity, expires: bytes(32))
    local = [("127.0.0.1", 0)]
    server = RendezvousServer(
        accounts=[account], listen=local, tls_listen=local, state_dir=state_dir
    )
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


@asynccontextmanager
async def streams(
    handler: Handler, context: ssl.SSLContext | None = None, port: int = 0
) -> AsyncIterator[Endpoint]:
    """A server of the test's own."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handler(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", port, ssl=context)
    try:
        yield server.sockets[0].getsockname()[:2]
    finally:
        server.close()


class Host:
    """A transport and what it told."""

    def __init__(self, server: Endpoint, transport: TransportName, **options: Any) -> None:
        self.messages: list[bytes] = []
        self.told: list[str] = []
        given = {"domain": DOMAIN, "key": KEY, "settings": QUICK} | options
        self.transport = ZoneTransport(
            server=server,
            transport=transport,
            on_message=self.messages.append,
            on_up=lambda: self.told.append("up"),
            on_down=self.told.append,
            **given,
        )

    async def __aenter__(self) -> Host:
        self.transport.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.transport.stop()

    def ask(self, identity: int = 7, rdtype: int = 6) -> exchange.Request:
        request = exchange.signed_query(
            dns.name.from_text(DOMAIN), rdtype, identity, KEY, int(time.time())
        )
        self.transport.send(request.wire)
        return request

    async def answer(self, request: exchange.Request) -> Response:
        await until(lambda: self.messages)
        judgement = exchange.judge(request, self.messages.pop(0), int(time.time()))
        assert isinstance(judgement, Response)
        return judgement


@pytest.mark.parametrize("transport", ["tls", "tcp", "udp"])
async def test_b60_messages_go_and_come(transport: TransportName, tmp_path: Path) -> None:
    async with (
        rendezvous(tmp_path) as server,
        Host(server.listening[transport][0], transport) as host,
    ):
        await until(lambda: host.transport.up)
        assert (await host.answer(host.ask())).rcode == 0
        assert host.told == ["up"]
        assert host.transport.pin == (server.pin if transport == "tls" else None)


async def test_a_given_pin_is_checked_before_the_first_octet(tmp_path: Path) -> None:
    received: list[bytes] = []

    async def record(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        received.append(await reader.read(1000))

    identity = io_certificate.load_or_make(tmp_path)
    async with (
        streams(record, identity.context) as address,
        Host(address, "tls", pin=bytes(32)) as host,
    ):
        await until(lambda: host.told)
    assert "not the pinned one" in host.told[0]
    assert host.transport.imposter
    assert set(received) <= {b""}


async def test_a_right_pin_needs_no_question(tmp_path: Path) -> None:
    async with (
        rendezvous(tmp_path) as server,
        Host(server.listening["tls"][0], "tls", pin=server.pin) as host,
    ):
        await until(lambda: host.transport.up)
    assert server.counters.get("query.NOERROR", 0) == 0


async def test_a_man_in_the_middle_who_passes_everything_on_is_found_out(tmp_path: Path) -> None:
    seen: list[bytes] = []
    async with rendezvous(tmp_path / "true") as server:

        async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            far_reader, far_writer = await asyncio.open_connection(*server.listening["tcp"][0])
            while True:
                frame = await reader.readexactly(2)
                frame += await reader.readexactly(int.from_bytes(frame))
                seen.append(frame[2:])
                far_writer.write(frame)
                size = await far_reader.readexactly(2)
                writer.write(size + await far_reader.readexactly(int.from_bytes(size)))

        (tmp_path / "false").mkdir()
        own = io_certificate.load_or_make(tmp_path / "false")
        async with streams(relay, own.context) as address, Host(address, "tls") as host:
            await until(lambda: len(host.told) >= 2)
            host.ask()
    assert all("somebody may be in the middle" in words for words in host.told)
    pin_name = dns.name.from_text(f"{pinning.PIN_NAME}.{DOMAIN}").to_wire()
    assert all(pin_name in wire for wire in seen)  # nothing but the question for the pin


async def test_a_wrong_secret_is_told_by_the_pin_check(tmp_path: Path) -> None:
    wrong = TsigKey(KEY.name, bytes(32))
    async with (
        rendezvous(tmp_path) as server,
        Host(server.listening["tls"][0], "tls", key=wrong) as host,
    ):
        await until(lambda: host.told)
    assert "account secret is a different one" in host.told[0]


async def test_clock_skew_is_told_by_the_pin_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with rendezvous(tmp_path) as server:
        true_time = time.time
        monkeypatch.setattr("discovery.io_transport.time", _Clock(true_time, 4000))
        async with Host(server.listening["tls"][0], "tls") as host:
            await until(lambda: host.told)
    assert "s ahead of the rendezvous; fix the clock" in host.told[0]


class _Clock:
    """The module ``time`` with a wall clock that is wrong."""

    def __init__(self, true_time: Callable[[], float], ahead: float) -> None:
        self._true, self._ahead = true_time, ahead
        self.monotonic = time.monotonic

    def time(self) -> float:
        return self._true() + self._ahead


async def test_a_server_without_a_pin_in_its_zone_is_told(tmp_path: Path) -> None:
    account = ZoneAccount(DOMAIN, SECRET, bytes(32), lambda identity, expires: bytes(32))
    server = RendezvousServer(
        accounts=[account], listen=[("127.0.0.1", 0)], state_dir=tmp_path / "plain"
    )
    await server.start()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(*server.listening["tcp"][0])
        size = await reader.readexactly(2)
        far_writer.write(size + await reader.readexactly(int.from_bytes(size)))
        size = await far_reader.readexactly(2)
        writer.write(size + await far_reader.readexactly(int.from_bytes(size)))
        await reader.read()

    own = io_certificate.load_or_make(tmp_path)
    async with streams(relay, own.context) as address, Host(address, "tls") as host:
        await until(lambda: host.told)
    await server.stop()
    assert "names no TLS key" in host.told[0]


async def test_nobody_there_is_told_and_tried_again(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address: Endpoint = taken.getsockname()
        async with Host(address, "tcp") as host:
            await until(lambda: len(host.told) >= 3)
    assert "connection refused; check that the rendezvous runs" in host.told[0]


async def test_udp_refusals_are_told(tmp_path: Path) -> None:
    settings = TransportSettings(first_pause=0.01, max_pause=0.05, stable=10)
    async with Host(("127.0.0.1", free_port()), "udp", settings=settings) as host:
        await until(lambda: host.transport.up)
        host.ask()
        await until(lambda: len(host.told) >= 2)
    assert "connection refused" in host.told[1]


async def test_tls_against_a_plain_server_is_told(tmp_path: Path) -> None:
    async def babble(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-nonsense\r\n")
        await writer.drain()

    async with streams(babble) as address, Host(address, "tls") as host:
        await until(lambda: host.told)
    assert "does not speak TLS" in host.told[0] or "lost" in host.told[0]


async def test_a_server_that_never_answers_is_told(tmp_path: Path) -> None:
    async def silence(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    settings = TransportSettings(connect_timeout=0.1, first_pause=0.01, max_pause=0.02)
    async with streams(silence) as address, Host(address, "tls", settings=settings) as host:
        await until(lambda: host.told)
    assert "does not answer" in host.told[0]


async def test_a_lost_connection_is_replaced_at_once_and_silently(tmp_path: Path) -> None:
    connections: list[asyncio.StreamWriter] = []

    async def keep(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        await reader.read()

    async with streams(keep) as address, Host(address, "tcp") as host:
        await until(lambda: len(connections) == 1)
        connections[0].transport.abort()
        await until(lambda: len(connections) == 2)
        await until(lambda: len(host.told) == 2)
    assert host.told == ["up", "up"]


async def test_a_server_that_closes_at_once_is_not_courted_without_pause(tmp_path: Path) -> None:
    async def slam(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
        return

    settings = TransportSettings(first_pause=0.01, max_pause=0.02, stable=60.0)
    async with streams(slam) as address, Host(address, "tcp", settings=settings) as host:
        await until(lambda: len(host.told) >= 4)
    assert host.told[:2] == ["up", "the rendezvous closes the connection as soon as it stands"]


async def test_an_idle_connection_that_the_server_tidied_away_is_opened_by_the_next_message(
    tmp_path: Path,
) -> None:
    connections: list[asyncio.StreamWriter] = []
    frames: list[bytes] = []

    async def keep(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        while True:
            size = await reader.readexactly(2)
            frames.append(await reader.readexactly(int.from_bytes(size)))

    settings = TransportSettings(idle=0.0, first_pause=0.01)
    async with streams(keep) as address, Host(address, "tcp", settings=settings) as host:
        await until(lambda: len(connections) == 1)
        connections[0].close()
        await until(lambda: host.transport._sleeping)
        assert host.transport.up
        assert len(connections) == 1  # nothing happens until there is something to say
        host.transport.send(b"first")
        host.transport.send(b"second")
        await until(lambda: len(frames) == 2)
    assert frames == [b"first", b"second"]
    assert host.told == ["up"]


async def test_a_connection_that_carries_a_session_is_made_anew_when_it_ends() -> None:
    connections: list[asyncio.StreamWriter] = []

    async def keep(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        await reader.read()

    settings = TransportSettings(idle=0.0, first_pause=0.01, stable=0.0)
    async with (
        streams(keep) as address,
        Host(address, "tcp", settings=settings, holds=lambda: True) as host,
    ):
        await until(lambda: len(connections) == 1)
        connections[0].close()
        await until(lambda: len(connections) == 2 and len(host.told) == 2)
        assert host.told == ["up", "up"]


async def test_a_server_that_sent_us_away_is_left_alone_for_that_time() -> None:
    connections: list[float] = []

    async def keep(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(time.monotonic())
        await reader.read()

    async with streams(keep) as address, Host(address, "tcp") as host:
        await until(lambda: len(connections) == 1 and host.told)
        left = time.monotonic()
        host.transport.reset(0.5)
        await until(lambda: len(connections) == 2)
        assert connections[1] - left > 0.49  # uvloop's timers count whole milliseconds
        assert host.told[1] == "the rendezvous asked not to be used for 0 s"
        host.transport.reset(3600.0)
        await until(lambda: len(host.told) == 4)
        host.transport.reset()  # the network changed: that is another matter
        await until(lambda: len(connections) == 3)


async def test_a_sleeping_connection_that_cannot_be_opened_again_is_told(tmp_path: Path) -> None:
    connections: list[asyncio.StreamWriter] = []

    async def keep(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        await reader.read()

    settings = TransportSettings(idle=0.0, first_pause=0.01, max_pause=0.02)
    async with streams(keep) as address:
        host = Host(address, "tcp", settings=settings)
        host.transport.start()
        await until(lambda: connections)
        connections[0].close()
        await until(lambda: host.transport._sleeping)
    host.transport.send(b"first")
    await until(lambda: len(host.told) >= 2)
    await host.transport.stop()
    assert "refused" in host.told[1]
    assert not host.transport.up


async def test_reset_leaves_the_connection_and_connects_anew(tmp_path: Path) -> None:
    async with rendezvous(tmp_path) as server, Host(server.listening["tls"][0], "tls") as host:
        await until(lambda: host.told == ["up"])
        host.transport.reset()
        await until(lambda: host.told == ["up", "up"])
        assert (await host.answer(host.ask())).rcode == 0
        assert host.transport.counters["connections"] == 2


async def test_reset_ends_a_pause(tmp_path: Path) -> None:
    settings = TransportSettings(first_pause=3600.0, max_pause=3600.0)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address: Endpoint = taken.getsockname()
        async with Host(address, "tcp", settings=settings) as host:
            await until(lambda: len(host.told) == 1)
            host.transport.reset()
            await until(lambda: len(host.told) == 2)


async def test_a_pause_ends_soon_where_somebody_waits(tmp_path: Path) -> None:
    settings = TransportSettings(first_pause=3600.0, max_pause=3600.0, wanted_pause=0.05)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address: Endpoint = taken.getsockname()
        async with Host(address, "tcp", settings=settings) as host:
            for times in range(1, 4):
                await until(lambda times=times: len(host.told) == times)
                host.transport.hurry()
            await until(lambda: len(host.told) == 4)


async def test_what_cannot_be_sent_is_dropped_and_counted(tmp_path: Path) -> None:
    host = Host(("127.0.0.1", 9), "tcp")
    host.transport.send(b"too early")
    host.transport.send(bytes(70000))
    assert host.transport.counters["dropped"] == 2


async def test_a_send_buffer_does_not_grow_without_end(tmp_path: Path) -> None:
    async def deaf(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
        await asyncio.sleep(3600)

    async with streams(deaf) as address, Host(address, "tcp") as host:
        await until(lambda: host.transport.up)
        for _ in range(500):
            host.transport.send(bytes(60000))
        assert host.transport.counters["dropped"] > 0


async def test_a_cut_udp_answer_is_fetched_over_tcp(tmp_path: Path) -> None:
    answer_wire: list[bytes] = []

    class Cut(asyncio.DatagramProtocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def datagram_received(self, data: bytes, addr: Endpoint) -> None:
            self.transport.sendto(data[:2] + b"\x82\x00" + bytes(8), addr)

    async def whole(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        size = await reader.readexactly(2)
        query = await reader.readexactly(int.from_bytes(size))
        answer_wire.append(query[:2] + b"\x80" + query[3:])
        writer.write(len(query).to_bytes(2) + answer_wire[0])
        await writer.drain()

    async with streams(whole, port=free_port()) as address:
        loop = asyncio.get_running_loop()
        udp, _ = await loop.create_datagram_endpoint(Cut, local_addr=address)
        async with Host(address, "udp") as host:
            await until(lambda: host.transport.up)
            host.ask()
            await until(lambda: host.messages)
        udp.close()
    assert host.messages == answer_wire


async def test_nothing_is_told_after_stop(tmp_path: Path) -> None:
    async with rendezvous(tmp_path) as server:
        host = Host(server.listening["tls"][0], "tls")
        host.transport.start()
        await until(lambda: host.told)
        await host.transport.stop()
        told = list(host.told)
    await asyncio.sleep(0)
    assert host.told == told
