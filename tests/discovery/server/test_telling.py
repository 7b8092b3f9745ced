"""The running rendezvous tells: events over UDP and streams, pushes over TLS, and its farewell."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import dns.name
import pytest

from discovery import dso, llq, push, tsig
from discovery.dso import DsoMessage, Keepalive, RetryDelay
from discovery.io_serve import ConnectionLimits, RendezvousServer
from discovery.llq import LlqOption
from discovery.push import Subscribe
from tests.discovery.client.waiting import until
from tests.discovery.server.helpers import (
    ALICE,
    ANY,
    account,
    add,
    key_of,
    parse,
    query_wire,
    rr,
    update_wire,
)
from tests.discovery.server.subscribing import DESK, llq_query, options_of, records_of
from tests.discovery.server.test_serve import connect, framed, read_end, read_message

NAME = dns.name.from_text(DESK)


IDLE = 3.0  # seconds: so long may a busy machine take from one message of a session to the next


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RendezvousServer]:
    made = RendezvousServer(
        accounts=[account(ALICE)],
        listen=[("127.0.0.1", 0)],
        tls_listen=[("127.0.0.1", 0)],
        state_dir=tmp_path / "state",
        connection_limits=ConnectionLimits(idle=IDLE),
    )
    await made.start()
    yield made
    await made.stop()


class Stream:
    """A signing client on a connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def ask(self, wire: bytes) -> bytes:
        """Sign, send, and return the next message."""
        return await self.plain(tsig.sign(wire, key_of(ALICE), int(time.time()))[0])

    async def plain(self, wire: bytes) -> bytes:
        self.writer.write(framed(wire))
        return await self.hear()

    async def hear(self) -> bytes:
        return await read_message(self.reader)


async def opened(server: RendezvousServer, transport: str) -> Stream:
    return Stream(*await connect(server, transport))


async def update(server: RendezvousServer, *records: bytes) -> None:
    stream = await opened(server, "tcp")
    assert (await stream.ask(update_wire(updates=records)))[3] & 15 == 0
    stream.writer.close()


async def subscribed(server: RendezvousServer) -> Stream:
    stream = await opened(server, "tls")
    assert (await stream.ask(query_wire(f"_push.{ALICE}", "SOA")))[3] & 15 == 3
    keepalive = DsoMessage(1, (Keepalive(dso.INFINITE_MS, 60_000).tlv(),))
    assert DsoMessage.parse(await stream.plain(keepalive.pack())).rcode == 0
    wanted = DsoMessage(2, (Subscribe(NAME, 28).tlv(),))
    assert DsoMessage.parse(await stream.plain(wanted.pack())).rcode == 0
    return stream


async def test_pushes_go_to_all_who_subscribed(server: RendezvousServer) -> None:
    clients = [await subscribed(server) for _ in range(5)]
    await update(server, add(DESK, "AAAA", "fd00::1"))
    for client in clients:
        (change,) = push.parse_push(await client.hear())
        assert (change.name, change.ttl, str(change.rdata)) == (NAME, 120, "fd00::1")
    clients.pop().writer.close()
    await update(server, rr(DESK, "AAAA", ANY))
    for client in clients:
        (change,) = push.parse_push(await client.hear())
        assert change.ttl == push.REMOVE_ALL
    for client in clients:
        client.writer.close()
    await until(lambda: server.told is not None and server.told.size == 0)


async def test_a_session_outlives_the_idle_time_of_connections(server: RendezvousServer) -> None:
    idle, client = await opened(server, "tls"), await subscribed(server)
    await idle.ask(query_wire(f"ns.{ALICE}", "A"))
    assert await read_end(idle.reader) == b""  # the idle one is closed, the session is not
    await update(server, add(DESK, "AAAA", "fd00::1"))
    assert len(push.parse_push(await client.hear())) == 1
    client.writer.close()


async def test_a_fatal_error_aborts_the_connection(server: RendezvousServer) -> None:
    client = await subscribed(server)
    client.writer.write(framed(DsoMessage(0, (RetryDelay(1).tlv(),)).pack()))
    assert await read_end(client.reader) == b""
    await until(lambda: server.told is not None and server.told.size == 0)


async def test_long_lived_queries_over_tls(server: RendezvousServer) -> None:
    stream = await opened(server, "tls")
    asked = LlqOption(llq.SETUP, lease=900)
    for _ in range(2):
        answer = parse(await stream.ask(llq_query([(DESK, "AAAA")], [asked])))
        (option,) = options_of(answer)
        asked = LlqOption(llq.SETUP, id=option.id, lease=option.lease)
    await update(server, add(DESK, "AAAA", "fd00::1"))
    event = parse(await stream.hear())
    assert options_of(event) == [LlqOption(llq.EVENT, id=option.id)]
    assert records_of(event) == [f"{DESK}. 120 AAAA fd00::1"]
    stream.writer.close()
    await until(lambda: server.told is not None and server.told.size == 0)


async def test_at_its_end_the_server_sends_sessions_away(tmp_path: Path) -> None:
    server = RendezvousServer(
        accounts=[account(ALICE)],
        listen=[("127.0.0.1", 0)],
        tls_listen=[("127.0.0.1", 0)],
        state_dir=tmp_path / "state",
    )
    await server.start()
    client = await subscribed(server)
    stopping = asyncio.create_task(server.stop())
    said = DsoMessage.parse(await client.hear())
    assert (said.id, said.tlvs[0].type) == (0, dso.RETRY_DELAY)
    client.writer.close()  # as RFC 8490 §6.6.1 asks: at once
    await stopping


async def test_nonsense_on_a_stream_ends_it(server: RendezvousServer) -> None:
    stream = await opened(server, "tcp")
    stream.writer.write(framed(b"\x00\x01\x80" + bytes(9)))
    assert await read_end(stream.reader) == b""
