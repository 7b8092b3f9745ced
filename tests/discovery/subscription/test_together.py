"""Client, transport and rendezvous over real TLS, TCP and UDP: a change is told to another host."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import AsyncIterator
from ipaddress import IPv6Address
from pathlib import Path

import pytest

from discovery.client import ClientSettings, ZoneClient
from discovery.io_serve import RendezvousServer
from discovery.io_transport import TransportName, TransportSettings, ZoneTransport
from discovery.types import (
    ClientCommand,
    DropZone,
    Endpoint,
    HostFound,
    HostRecords,
    HostsListed,
    Published,
    SendZone,
    TsigKey,
)
from keys.account import Account
from keys.store import random_bytes
from tests.discovery.client.test_redeem import zone_account
from tests.discovery.client.waiting import until
from tests.ports import free_port

ALICE = Account("alice.members.example", bytes(range(32)))
DESK = HostRecords(
    "desk", IPv6Address("fd01::1"), "AutoTunnel-" + "-".join(["01"] * 8), (("192.0.2.7", 4500),)
)
MOVED = dataclasses.replace(DESK, endpoints=(("192.0.2.8", 4501),))

PATIENT = TransportSettings(connect_timeout=60.0, first_pause=0.01, max_pause=0.05, stable=0.0)


class Host:
    """The driver in small, with its timer."""

    def __init__(self, label: str, server: Endpoint, transport: TransportName) -> None:
        self.told: list[ClientCommand] = []
        key = TsigKey(ALICE.tsig_name, ALICE.tsig_secret)
        self.client = ZoneClient(
            domain=ALICE.domain,
            label=label,
            key=key,
            random=random_bytes,
            settings=ClientSettings(reliable=transport != "udp", secure=transport == "tls"),
        )
        self.transport = ZoneTransport(
            server=server,
            transport=transport,
            domain=ALICE.domain,
            key=key,
            on_message=lambda wire: self.do(self.client.receive(wire, *_clocks())),
            on_up=lambda: self.do(self.client.transport_up(*_clocks())),
            on_down=lambda reason: self.do(self.client.transport_down(reason, *_clocks())),
            holds=lambda: self.client.holds,
            settings=PATIENT,
        )
        self.transport.start()
        self._ticking = asyncio.create_task(self._tick())

    async def _tick(self) -> None:
        while True:
            self.do(self.client.advance(*_clocks()))
            await asyncio.sleep(0.02)

    def do(self, commands: list[ClientCommand]) -> None:
        for command in commands:
            if isinstance(command, SendZone):
                self.transport.send(command.wire)
            elif isinstance(command, DropZone):
                self.transport.reset(command.pause)
            else:
                self.told.append(command)

    def publish(self, records: HostRecords) -> None:
        self.do(self.client.publish(records, *_clocks()))

    def count(self, kind: type) -> int:
        return sum(isinstance(command, kind) for command in self.told)

    def found(self) -> HostRecords | None:
        found = [one.records for one in self.told if isinstance(one, HostFound)]
        return found[-1] if found else None

    async def stop(self) -> None:
        self._ticking.cancel()
        await self.transport.stop()


def _clocks() -> tuple[float, int]:
    return time.monotonic(), int(time.time())


async def serve(state_dir: Path, port: int = 0) -> RendezvousServer:
    server = RendezvousServer(
        accounts=[zone_account(ALICE)],
        listen=[("127.0.0.1", 0)],
        tls_listen=[("127.0.0.1", port)],
        state_dir=state_dir,
    )
    await server.start()
    return server


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RendezvousServer]:
    running = await serve(tmp_path)
    yield running
    await running.stop()


@pytest.mark.parametrize(("transport", "step"), [("tls", "push"), ("tcp", "llq"), ("udp", "llq")])
async def test_a_change_is_told_to_another_host(
    server: RendezvousServer, transport: TransportName, step: str
) -> None:
    address = server.listening[transport][0]
    desk, laptop = Host("desk", address, transport), Host("laptop", address, transport)
    laptop.do(laptop.client.watch_hosts(*_clocks()))
    laptop.do(laptop.client.watch("desk", *_clocks()))
    await until(lambda: laptop.client.step == step)
    desk.publish(DESK)
    await until(lambda: laptop.found() == DESK)
    await until(lambda: HostsListed(("desk",)) in laptop.told)
    desk.publish(MOVED)
    await until(lambda: laptop.found() == MOVED)
    await asyncio.gather(desk.stop(), laptop.stop())


async def test_a_restarted_rendezvous_is_subscribed_to_again(tmp_path: Path) -> None:
    server = await serve(tmp_path, free_port())
    address = server.listening["tls"][0]
    desk, laptop = Host("desk", address, "tls"), Host("laptop", address, "tls")
    laptop.do(laptop.client.watch("desk", *_clocks()))
    desk.publish(DESK)
    await until(lambda: laptop.found() == DESK)
    await server.stop()
    await until(lambda: laptop.client.step is None)
    server = await serve(tmp_path, address[1])
    # The server sent both away when it stopped, for up to ten seconds (RFC 8490 §6.6.1).
    await until(lambda: laptop.client.step == "push" and desk.count(Published) == 2, 90.0)
    desk.publish(MOVED)
    await until(lambda: laptop.found() == MOVED)
    await asyncio.gather(desk.stop(), laptop.stop(), server.stop())
    found = [one.records for one in laptop.told if isinstance(one, HostFound)]
    assert found == [DESK, MOVED]  # and nothing twice
