"""The mirror of a zone on a real BIND: first copy, differences, updates, its death and return."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import dns.name
import dns.rdata
import dns.rdatatype
import pytest

from discovery.backing.primary import Mirrored, Passed
from discovery.content import ZoneContent
from discovery.io_backing import BackingLink
from discovery.message import IN, Record
from discovery.rcodes import NOERROR, NXRRSET, SERVFAIL
from discovery.types import TsigKey
from tests.discovery.backing.real import KEY, ZONE, RealServer, bind, knot, until
from tests.ports import free_port

ORIGIN = dns.name.from_text(ZONE)
AAAA = int(dns.rdatatype.AAAA)


class Front:
    """A mirror and what it heard."""

    def __init__(self, port: int, key: TsigKey = KEY) -> None:
        self.content = ZoneContent(ORIGIN)
        self.mirrored: list[Mirrored] = []
        self.passed: list[Passed] = []
        self.told: list[str] = []
        self.link = BackingLink(
            ("127.0.0.1", port),
            self.content,
            key,
            mirrored=self._mirrored,
            passed=self.passed.append,
            told=self.told.append,
        )

    def _mirrored(self, word: Mirrored) -> None:
        self.mirrored.append(word)
        self.content.merge(word.changes)

    def addresses(self, label: str) -> set[str]:
        found = self.content.get(dns.name.from_text(label, ORIGIN), AAAA)
        return {item.rdata.to_text() for item in found.items} if found else set()


@asynccontextmanager
async def mirror(port: int, key: TsigKey = KEY) -> AsyncIterator[Front]:
    front = Front(port, key)
    front.link.start()
    try:
        yield front
    finally:
        await front.link.stop()


def added(label: str, address: str) -> Record:
    rdata = dns.rdata.from_text("IN", "AAAA", address)
    return Record(dns.name.from_text(label, ORIGIN), AAAA, IN, 120, 16, rdata)


@pytest.fixture(name="server", params=[bind, knot], ids=["bind", "knot"])
def _server(request: pytest.FixtureRequest, tmp_path: Path):
    with request.param(tmp_path) as server:
        yield server


async def test_the_zone_is_mirrored_and_others_changes_come_as_differences(
    server: RealServer,
) -> None:
    async with mirror(server.port) as front:
        await until(lambda: front.link.primary.is_up)
        assert front.addresses("old") == {"fd00::1"}
        assert front.content.soa.serial == 100
        assert front.told[-1] == ""
        for number in range(3):
            server.nsupdate(f"update add new{number}.{ZONE} 60 AAAA fd00::{number + 2}")
            front.link.notified()
            await until(lambda n=number: front.addresses(f"new{n}"))
        server.nsupdate(f"update delete old.{ZONE} AAAA\nupdate add new0.{ZONE} 60 AAAA fd00::77")
        front.link.notified()
        await until(lambda: not front.addresses("old"))
        assert front.addresses("new0") == {"fd00::2", "fd00::77"}
        # Only what differs came: the SOA and what was changed.
        assert all(len(word.changes) <= 3 for word in front.mirrored[1:])


async def test_an_update_is_true_here_when_its_requestor_is_answered(server: RealServer) -> None:
    async with mirror(server.port) as front:
        await until(lambda: front.link.primary.is_up)
        for number in range(20):
            front.link.update(number, (), [added(f"h{number}", f"fd00:1::{number}")])
        await until(lambda: len(front.passed) == 20)
        assert front.passed == [Passed(number, NOERROR) for number in range(20)]
        assert all(front.addresses(f"h{number}") for number in range(20))
        assert len(front.mirrored) <= 4  # they were passed on together


async def test_the_primary_judges_prerequisites(server: RealServer) -> None:
    exists = Record(dns.name.from_text("nobody", ORIGIN), AAAA, 255, 0, 0, None)
    async with mirror(server.port) as front:
        await until(lambda: front.link.primary.is_up)
        front.link.update(1, [exists], [added("h", "fd00::9")])
        await until(lambda: front.passed)
        assert front.passed[0].rcode == NXRRSET
        assert "NXRRSET" in front.passed[0].reason
        assert not front.addresses("h")


async def test_a_primary_that_dies_is_told_and_found_again(tmp_path: Path) -> None:
    port = free_port()
    with bind(tmp_path, port=port) as server:
        front = Front(port)
        front.link.start()
        await until(lambda: front.link.primary.is_up)
        server.process.kill()
        await until(lambda: front.told[-1])
    assert "127.0.0.1" in front.told[-1]
    front.link.update(1, (), [added("h", "fd00::9")])
    assert front.passed[0].rcode == SERVFAIL
    assert front.addresses("old") == {"fd00::1"}  # what was known is still known
    with bind(tmp_path, port=port) as server:
        server.nsupdate(f"update add late.{ZONE} 60 AAAA fd00::5")
        await until(lambda: not front.told[-1])
        await until(lambda: front.addresses("late"))
    await front.link.stop()


async def test_a_wrong_key_is_told(server: RealServer) -> None:
    async with mirror(server.port, TsigKey(KEY.name, bytes(32))) as front:
        await until(lambda: front.told)
        assert "sign" in front.told[0] or "BADSIG" in front.told[0] or "NOTAUTH" in front.told[0]


async def test_without_a_server_it_says_where_it_looked() -> None:
    port = free_port()
    async with mirror(port) as front:
        await until(lambda: front.told)
        assert f"127.0.0.1:{port}" in front.told[0]
