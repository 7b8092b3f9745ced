"""The rendezvous' STUN over real sockets on loopback: plain, behind the marker, and limited."""

from __future__ import annotations

import asyncio
import socket
import time

import pytest

from discovery.io_stun import PER_SECOND, SOURCES, StunServer
from discovery.nat import stun

ASK = stun.Message(stun.REQUEST, bytes(range(12))).pack(fingerprint=True)


async def test_it_tells_a_real_socket_where_it_is() -> None:
    server = StunServer((("127.0.0.1", 0),))
    await server.start()
    loop = asyncio.get_running_loop()
    with socket.socket(type=socket.SOCK_DGRAM) as client:
        client.setblocking(False)
        client.bind(("127.0.0.1", 0))
        for marker in (b"", bytes(4)):
            await loop.sock_sendto(client, marker + ASK, server.listening[0])
            async with asyncio.timeout(60):
                reply, source = await loop.sock_recvfrom(client, 2000)
            assert source == server.listening[0]
            assert reply.startswith(marker)
            message = stun.read(reply[len(marker) :])
            assert message is not None
            assert stun.mapped_address(message) == client.getsockname()
    server.stop()


async def test_it_answers_from_its_other_port_where_it_is_asked_to() -> None:
    server = StunServer((("127.0.0.1", 0), ("127.0.0.1", 0)))
    await server.start()
    loop = asyncio.get_running_loop()
    asked = stun.ask(bytes(12), change_port=True)
    with socket.socket(type=socket.SOCK_DGRAM) as client:
        client.setblocking(False)
        client.bind(("127.0.0.1", 0))
        for marker in (b"", bytes(4)):
            await loop.sock_sendto(client, marker + asked, server.listening[0])
            async with asyncio.timeout(60):
                reply, source = await loop.sock_recvfrom(client, 2000)
            assert source == server.listening[1]
            message = stun.read(reply.removeprefix(marker))
            assert message is not None
            assert message.kind == stun.SUCCESS
    server.stop()


def test_what_is_no_question_is_not_answered() -> None:
    server = StunServer(())
    for data in (b"", b"\xff", bytes(4), bytes(40), ASK[:-1], bytes(4) + b"\x21" * 30):
        assert server.answer(data, ("192.0.2.7", 9)) is None
    assert server.counters["dropped"] == 6


def test_it_amplifies_little_and_seldom() -> None:
    server, began = StunServer(()), int(time.monotonic())
    replies = [server.answer(ASK, ("192.0.2.7", port)) for port in range(1, 4 * PER_SECOND)]
    seconds = int(time.monotonic()) - began + 1  # that have been on the clock meanwhile
    sent = [one for one in replies if one is not None]
    assert PER_SECOND <= len(sent) <= seconds * PER_SECOND
    assert all(len(one) < 2 * len(ASK) for one in sent)


def test_a_flood_of_sources_is_bounded() -> None:
    server = StunServer(())
    for number in range(2 * SOURCES):
        server.answer(ASK, (f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", 9))
    assert len(server._asked) <= SOURCES


async def test_an_answer_that_shall_wait_waits_and_too_many_do_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """So a host learns how long its NAT remembers a flow."""
    monkeypatch.setattr("discovery.io_stun.LATER", 2)
    server = StunServer((("127.0.0.1", 0),))
    await server.start()
    came: asyncio.Queue[bytes] = asyncio.Queue()

    class Asking(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, addr: object) -> None:
            came.put_nowait(data)

    loop = asyncio.get_running_loop()
    asking, _ = await loop.create_datagram_endpoint(Asking, remote_addr=server.listening[0])
    try:
        began = loop.time()
        for number in range(3):
            asking.sendto(stun.delayed(bytes([number] * 12), 1))
        asking.sendto(stun.delayed(bytes([9] * 12), stun.LONGEST_DELAY + 1))  # absurd: at once
        assert (await came.get())[8:20] == bytes([9] * 12)
        found = {(await came.get())[8:20] for _ in range(2)}
        assert loop.time() - began >= 1.0
        assert found == {bytes([0] * 12), bytes([1] * 12)}
        assert server.counters["limited"] == 1
    finally:
        asking.close()
        server.stop()
