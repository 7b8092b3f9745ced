"""The driver with real sockets, a real rendezvous and a real loop; only the TUN is a socket pair.

Everything is on loopback; what needs a real device is proven in ``tests/namespaces``.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from ipaddress import IPv6Address
from pathlib import Path

import dns.asyncresolver
import dns.resolver
import pytest

from discovery.held import ZoneAccount
from discovery.io_serve import RendezvousServer
from fastpath.types import Offload, OffloadState
from keys.account import Account
from keys.ike.endpoint import IkeEndpoint
from keys.ike.types import PeerPolicy, SendIke
from keys.store import random_bytes, save_account_secret, write_secret
from tests.ports import free_port
from tests.sim.world import PLAINTEXT, udp_packet
from tunnel.config import HostConfig, load_host
from tunnel.io import host as host_module
from tunnel.io.host import Host, HostError, Unreachable

DOMAIN = "alice.members.example"
SECRET = bytes(range(32))


class FakeDevice:
    """A TUN device whose other end is a socket of the test."""

    name, vnet_hdr = "fake0", False
    offloads = dict.fromkeys((o for o in Offload if o.startswith("tun_")), OffloadState.OFF)

    def __init__(self, mtu: int) -> None:
        self._ours, self.inside = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (self._ours, self.inside):
            end.setblocking(False)
        self.mtu, self.fds = mtu, (self._ours.fileno(),)
        self.routes: set[IPv6Address] = set()
        self.closed = False

    def add_route(self, host_id: IPv6Address) -> None:
        self.routes.add(host_id)

    def remove_route(self, host_id: IPv6Address) -> None:
        self.routes.discard(host_id)

    def close(self) -> None:
        self.closed = True
        self._ours.close()
        self.inside.close()


@pytest.fixture
def devices(monkeypatch: pytest.MonkeyPatch) -> list[FakeDevice]:
    """Every device that a host opens; capabilities of the test process are kept."""
    made: list[FakeDevice] = []

    def open_device(
        _name: str, _host_id: IPv6Address, mtu: int, *, exact: bool, offload: bool, queues: int
    ) -> FakeDevice:
        assert queues == 1  # what a configuration without a word on it means
        assert exact  # the configuration says how large
        assert not offload  # the reference engine does none
        made.append(FakeDevice(mtu))
        return made[-1]

    monkeypatch.setattr(host_module, "open_device", open_device)
    monkeypatch.setattr(host_module, "drop_all", lambda: None)
    return made


@pytest.fixture
def tmp_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short one, wherever temporary files are: a socket's path has at most 108 octets."""
    return tmp_path_factory.mktemp("host")


@pytest.fixture
async def rendezvous(tmp_path: Path) -> AsyncIterator[int]:
    """A rendezvous on loopback: its TLS port."""
    account = Account(DOMAIN, SECRET)
    folder = tmp_path / "serve"
    folder.mkdir()
    server = RendezvousServer(
        accounts=[ZoneAccount(DOMAIN, account.tsig_secret, account.secret, account.invitation_key)],
        listen=[("127.0.0.1", 0)],
        tls_listen=[("127.0.0.1", 0)],
        state_dir=folder,
    )
    await server.start()
    yield server.listening["tls"][0][1]
    await server.stop()


def configure(
    folder: Path,
    label: str,
    server: int,
    *,
    secret: bytes = SECRET,
    resolver: bool = False,
    ike_port: int | None = None,
) -> HostConfig:
    place = folder / label
    place.mkdir(exist_ok=True)
    save_account_secret(place / "account.key", secret, replace=True)
    stub = free_port()
    (place / "config.toml").write_text(
        f"""
        [host]
        name = "{label}"
        id = "fd00::{len(label)}"
        listen = {free_port()}
        {"" if ike_port is None else f"ike_port = {ike_port}"}
        state_dir = "state"
        [account]
        domain = "{DOMAIN}"
        auth = "psk"
        [rendezvous]
        server = "127.0.0.1:{server}"
        [engine]
        name = "reference"
        [resolver]
        enabled = {str(resolver).lower()}
        listen = "127.0.0.1:{stub}"
        """
    )
    (place / "state").mkdir(exist_ok=True)
    return load_host(place / "config.toml")


@contextlib.asynccontextmanager
async def running(config: HostConfig) -> AsyncIterator[Host]:
    host, ready = Host(config), asyncio.Event()
    task = asyncio.create_task(host.run(ready.set))
    waiting = asyncio.create_task(ready.wait())
    await asyncio.wait([task, waiting], return_when=asyncio.FIRST_COMPLETED, timeout=60)
    waiting.cancel()
    if task.done():
        await task  # raises why it did not start
    assert ready.is_set()
    try:
        yield host
    finally:
        await host.stop()
        await asyncio.wait_for(task, 60)


async def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - the condition is a status, not an event
            await asyncio.sleep(0.01)


async def test_two_hosts_find_each_other_and_exchange_packets_over_real_sockets(
    tmp_path: Path, rendezvous: int, devices: list[FakeDevice]
) -> None:
    desk, laptop = (configure(tmp_path, label, rendezvous) for label in ("desk", "laptop"))
    loop = asyncio.get_running_loop()
    async with running(desk) as one, running(laptop) as two:
        assert await one.reach("laptop") == IPv6Address("fd00::6")
        packet = udp_packet(IPv6Address("fd00::4"), IPv6Address("fd00::6"), 1)
        await loop.sock_sendall(devices[0].inside, packet)
        async with asyncio.timeout(60):
            assert await loop.sock_recv(devices[1].inside, 2000) == packet
        assert PLAINTEXT in packet
        assert devices[0].routes == {IPv6Address("fd00::6")}

        facts = await two.ping("desk", 2)
        assert facts["sent"] == 2 and all(rtt > 0 for rtt in facts["rtt_ms"])
        assert facts["path"] == "direct"
        found = await two.lookup(f"desk.{DOMAIN}")
        assert found["id"] == "fd00::4"
        assert f"127.0.0.1:{desk.host.listen}" in found["endpoints"]

        status = one.status()
        assert status["host"]["engine"] == "reference"
        assert status["zone"]["transport"] == "tls"
        assert status["peers"][0]["state"] == "up"
        assert status["peers"][0]["tx_packets"] == 1
    assert all(device.closed for device in devices)


async def test_a_host_that_is_not_there_is_said_to_be_unknown(
    tmp_path: Path, rendezvous: int, devices: list[FakeDevice]
) -> None:
    async with running(configure(tmp_path, "desk", rendezvous)) as host:
        with pytest.raises(Unreachable) as caught:
            await host.reach("nobody")
        assert caught.value.no_such_host
    with pytest.raises(Unreachable):
        await host.reach("nobody")  # it has ended


async def test_the_end_withdraws_and_leaves_no_socket(
    tmp_path: Path, rendezvous: int, devices: list[FakeDevice]
) -> None:
    config = configure(tmp_path, "desk", rendezvous)
    async with running(configure(tmp_path, "laptop", rendezvous)) as laptop:
        async with running(config):
            await laptop.lookup("desk")
            assert config.control_socket.exists()
        with pytest.raises(Unreachable):
            await laptop.lookup("desk")
        assert not config.control_socket.exists()


async def test_static_peers_need_no_account_and_no_zone(
    tmp_path: Path, devices: list[FakeDevice]
) -> None:
    ports = {"left.example": free_port(), "right.example": free_port()}
    ids = {"left.example": "fd00::a", "right.example": "fd00::b"}
    configs = []
    for name, other in (("left.example", "right.example"), ("right.example", "left.example")):
        place = tmp_path / name
        (place / "state").mkdir(parents=True)
        write_secret(place / "peer.psk", b"a key of theirs alone")
        (place / "config.toml").write_text(
            f"""
            [host]
            name = "{name}"
            id = "{ids[name]}"
            listen = {ports[name]}
            state_dir = "state"
            [engine]
            name = "reference"
            [[peer]]
            name = "{other}"
            id = "{ids[other]}"
            endpoint = "127.0.0.1:{ports[other]}"
            psk_file = "peer.psk"
            """
        )
        configs.append(load_host(place / "config.toml"))
    loop = asyncio.get_running_loop()
    async with running(configs[0]) as left, running(configs[1]):
        packet = udp_packet(IPv6Address("fd00::a"), IPv6Address("fd00::b"), 1)
        await loop.sock_sendall(devices[0].inside, packet)
        async with asyncio.timeout(60):
            assert await loop.sock_recv(devices[1].inside, 2000) == packet
        assert left.status()["zone"]["server"] is None
        assert devices[0].routes == {IPv6Address("fd00::b")}


async def test_names_are_answered_while_the_host_runs_and_b48_only_when_the_tunnel_stands(
    tmp_path: Path, rendezvous: int, devices: list[FakeDevice]
) -> None:
    config = configure(tmp_path, "desk", rendezvous, resolver=True)
    async with running(configure(tmp_path, "laptop", rendezvous)), running(config):
        resolver = dns.asyncresolver.Resolver(configure=False)
        resolver.nameservers = ["127.0.0.1"]
        resolver.port = config.resolver.address[1]
        answer = await resolver.resolve(f"laptop.{DOMAIN}", "AAAA", lifetime=60)
        assert [record.address for record in answer] == ["fd00::6"]
        with pytest.raises(dns.resolver.NXDOMAIN):
            await resolver.resolve(f"nobody.{DOMAIN}", "AAAA", lifetime=60)


async def test_the_extra_ike_port_answers_without_the_marker(
    tmp_path: Path, rendezvous: int, devices: list[FakeDevice]
) -> None:
    """RFC 7296 §2: an initiator may insist on port 500, where there is no non-ESP marker."""
    port = free_port()
    stranger = IkeEndpoint(
        local_name=f"other.{DOMAIN}", secret_for=lambda _: b"any", random=random_bytes
    )
    policy = PeerPolicy(f"desk.{DOMAIN}", IPv6Address("fd00::9"), IPv6Address("fd00::4"))
    loop = asyncio.get_running_loop()
    async with running(configure(tmp_path, "desk", rendezvous, ike_port=port)) as host:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
            one.setblocking(False)
            one.bind(("127.0.0.1", 0))
            (hello,) = [
                command.data
                for command in stranger.connect(policy.name, policy, ("127.0.0.1", port), 0.0)
                if isinstance(command, SendIke)
            ]
            for target, marker in ((port, b""), (host.status()["host"]["listen"], bytes(4))):
                await loop.sock_sendto(one, marker + hello, ("127.0.0.1", target))
                async with asyncio.timeout(60):
                    answer, source = await loop.sock_recvfrom(one, 4096)
                assert source[1] == target
                assert answer.startswith(marker + hello[:8])


async def test_a_wrong_secret_is_one_sentence_with_the_fix(
    tmp_path: Path, rendezvous: int, devices: list[FakeDevice]
) -> None:
    config = configure(tmp_path, "desk", rendezvous, secret=bytes(32))
    with pytest.raises(HostError, match=r"account secret .*; copy the secret file"):
        async with running(config):
            pass
    assert devices[0].closed and not config.control_socket.exists()


async def test_a_clock_that_is_off_is_one_sentence_with_the_fix(
    tmp_path: Path, rendezvous: int, devices: list[FakeDevice], monkeypatch: pytest.MonkeyPatch
) -> None:
    import time

    from discovery import io_transport

    class Late:
        """The host's clock, an hour behind; the rendezvous keeps the true one."""

        def time(self) -> float:
            return time.time() - 3600

        def __getattr__(self, name: str) -> object:
            return getattr(time, name)

    monkeypatch.setattr(io_transport, "time", Late())
    with pytest.raises(HostError, match=r"your clock is 3(59|60)\d s behind .*timedatectl"):
        async with running(configure(tmp_path, "desk", rendezvous)):
            pass


async def test_a_rendezvous_that_is_away_does_not_keep_a_host_from_starting(
    tmp_path: Path, devices: list[FakeDevice], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_module, "_FIRST_WORD", 0.2)
    async with running(configure(tmp_path, "desk", 9)) as host:
        await until(lambda: host.status()["zone"]["problem"] is not None)
        assert "refused" in host.status()["zone"]["problem"]


async def test_an_occupied_port_is_one_sentence_with_the_fix(
    tmp_path: Path, devices: list[FakeDevice]
) -> None:
    config = configure(tmp_path, "desk", 9)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("0.0.0.0", config.host.listen))
        with pytest.raises(HostError, match=r"UDP port \d+ is in use .*change host\.listen"):
            async with running(config):
                pass
    assert not config.control_socket.exists()


async def test_a_secret_that_others_may_read_is_refused(
    tmp_path: Path, devices: list[FakeDevice]
) -> None:
    config = configure(tmp_path, "desk", 9)
    (tmp_path / "desk" / "account.key").chmod(0o644)
    with pytest.raises(HostError, match="run: chmod 600"):
        async with running(config):
            pass
