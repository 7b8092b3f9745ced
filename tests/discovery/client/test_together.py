"""Client machine, transport and rendezvous together over real TLS: a life with a restart in it."""

from __future__ import annotations

import asyncio
import time
from ipaddress import IPv6Address
from pathlib import Path

from discovery.client import ZoneClient
from discovery.io_serve import RendezvousServer
from discovery.io_transport import TransportSettings, ZoneTransport
from discovery.types import (
    ClientCommand,
    Endpoint,
    HostFound,
    HostRecords,
    Published,
    SendZone,
    TsigKey,
    Withdrawn,
    ZoneFine,
    ZoneProblem,
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

PATIENT = TransportSettings(connect_timeout=60.0, first_pause=0.01, max_pause=0.05, stable=0.0)


class Host:
    """The driver in small: carries out what the client machine says."""

    def __init__(self, server: Endpoint) -> None:
        self.told: list[ClientCommand] = []
        key = TsigKey(ALICE.tsig_name, ALICE.tsig_secret)
        self.client = ZoneClient(domain=ALICE.domain, label="desk", key=key, random=random_bytes)
        self.transport = ZoneTransport(
            server=server,
            transport="tls",
            domain=ALICE.domain,
            key=key,
            on_message=lambda wire: self.do(self.client.receive(wire, *_clocks())),
            on_up=lambda: self.do(self.client.transport_up(*_clocks())),
            on_down=lambda reason: self.do(self.client.transport_down(reason, *_clocks())),
            settings=PATIENT,
        )

    def do(self, commands: list[ClientCommand]) -> None:
        for command in commands:
            if isinstance(command, SendZone):
                self.transport.send(command.wire)
            else:
                self.told.append(command)

    def count(self, kind: type) -> int:
        return sum(isinstance(command, kind) for command in self.told)


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


async def test_a_host_publishes_survives_a_restart_of_the_rendezvous_and_withdraws(
    tmp_path: Path,
) -> None:
    server = await serve(tmp_path, free_port())
    address = server.listening["tls"][0]
    host = Host(address)
    host.transport.start()
    host.do(host.client.publish(DESK, *_clocks()))
    await until(lambda: host.count(Published) == 1)
    host.do(host.client.lookup("desk", *_clocks()))
    await until(lambda: host.told[-1] == HostFound(DESK))

    await server.stop()
    await until(lambda: host.count(ZoneProblem) == 1)
    host.do(host.client.lookup("desk", *_clocks()))  # waits for the rendezvous to return
    server = await serve(tmp_path, address[1])
    await until(lambda: host.count(HostFound) == 2)
    await until(lambda: host.count(Published) == 2)
    assert host.count(ZoneFine) == 1
    assert host.transport.pin == server.pin  # the key was kept

    host.do(host.client.withdraw(*_clocks()))
    await until(lambda: host.count(Withdrawn) == 1)
    await asyncio.gather(host.transport.stop(), server.stop())
    assert host.count(ZoneProblem) == 1
