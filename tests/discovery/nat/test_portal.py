"""Captive portals: told from whatever else may answer HTTP, and over real sockets."""

from __future__ import annotations

import asyncio

import pytest

from discovery.io_network import portal_before
from discovery.nat.portal import Portal, judge, request
from tests.fuzz.mutate import mutants

HERE = "203.0.113.1"
REDIRECT = b"HTTP/1.1 302 Found\r\nLocation: http://portal.example/login?u=1\r\nX: y\r\n\r\n<html>"


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (REDIRECT, Portal("http://portal.example/login?u=1")),
        (REDIRECT.replace(b"Location", b"lOCATION"), Portal("http://portal.example/login?u=1")),
        (b"HTTP/1.1 511 Network Authentication Required\r\n\r\n", Portal("")),
        (b"HTTP/1.0 307 x\nLocation: https://a.example\n\n", Portal("https://a.example")),
        (b"HTTP/1.1 200 OK\r\n\r\n<html>hello</html>", None),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", None),
        (b"HTTP/1.1 301 Moved\r\nLocation: https://203.0.113.1/\r\n\r\n", None),
        (b"HTTP/1.1 301 Moved\r\nLocation: /index.html\r\n\r\n", None),
        (b"HTTP/1.1 301 Moved\r\n\r\n", None),
        (b"SSH-2.0-OpenSSH_9.2\r\n", None),
        (b"", None),
    ],
)
def test_what_a_portal_says(answer: bytes, found: Portal | None) -> None:
    assert judge(answer, HERE) == found


def test_what_is_asked_names_nothing_of_ours() -> None:
    assert request(HERE).split(b"\r\n")[:2] == [b"GET / HTTP/1.1", b"Host: 203.0.113.1"]
    assert b"Host: [2001:db8::1]\r\n" in request("2001:db8::1")


def test_100_000_hostile_answers_are_judged() -> None:
    portals = sum(judge(octets, HERE) is not None for octets in mutants([REDIRECT], 100_000))
    assert portals > 1000


async def test_over_real_sockets() -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(REDIRECT)
        writer.close()

    server = await asyncio.start_server(speak, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        found = await portal_before("127.0.0.1", port)
    assert found == Portal("http://portal.example/login?u=1")
    assert await portal_before("127.0.0.1", port) is None
