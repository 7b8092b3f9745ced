"""The stub resolver on real loopback sockets, asked by the real ``dig``."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import IPv6Address
from pathlib import Path

import dns.flags
import dns.message
import dns.rrset
import pytest

from discovery.io_stub import DEFAULT_SETTINGS, StubError, StubServer, StubSettings
from discovery.stub import NotThere
from discovery.types import Endpoint
from tests.discovery.client.waiting import until

DOMAIN = "alice.members.example"
OWN = IPv6Address("fd01::1")
PEER = IPv6Address("fd02::2")


class Upstream(asyncio.DatagramProtocol):
    """A little server of the outside world: UDP and TCP, TC over UDP for ``big.``."""

    def __init__(self) -> None:
        self.asked: list[tuple[dns.message.Message, Endpoint]] = []
        self.forge = False
        self.rcode = 0
        self.silent = False

    async def start(self) -> Endpoint:
        loop = asyncio.get_running_loop()
        self.udp, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=("127.0.0.1", 0))
        address: Endpoint = self.udp.get_extra_info("sockname")
        self.tcp = await asyncio.start_server(self._stream, *address)
        return address

    def stop(self) -> None:
        self.udp.close()
        self.tcp.close()

    def datagram_received(self, data: bytes, addr: Endpoint) -> None:
        query = dns.message.from_wire(data)
        self.asked.append((query, addr))
        if self.silent:
            return
        if self.forge:  # a wrong ID and a wrong question come before the true answer
            other = dns.message.make_query("evil.example", "A", id=query.id)
            for forged in (self.answer(query, "192.0.2.66"), dns.message.make_response(other)):
                wire = bytearray(forged.to_wire())
                wire[0] ^= forged.question == query.question
                self.udp.sendto(bytes(wire), addr)
        answer = self.answer(query)
        if str(query.question[0].name).startswith("big."):
            answer = dns.message.make_response(query)
            answer.flags |= dns.flags.TC
        self.udp.sendto(answer.to_wire(), addr)

    async def _stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wire = await reader.readexactly(int.from_bytes(await reader.readexactly(2)))
        answer = self.answer(dns.message.from_wire(wire)).to_wire()
        writer.write(len(answer).to_bytes(2) + answer)
        writer.close()

    def answer(self, query: dns.message.Message, address: str = "192.0.2.7") -> dns.message.Message:
        response = dns.message.make_response(query)
        response.set_rcode(self.rcode)  # type: ignore[arg-type]  # a number will do
        if not self.rcode:
            name = query.question[0].name
            response.answer.append(dns.rrset.from_text(name, 60, "IN", "A", address))
        return response


class Peers:
    """What ``reach`` does: waits until told."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.outcomes: dict[str, IPv6Address | NotThere] = {
            "desk": PEER,
            "off": NotThere("off.alice.members.example has published no endpoint"),
            "nobody": NotThere("the zone knows no such host", no_such_host=True),
        }
        self.gate = asyncio.Event()
        self.gate.set()

    async def reach(self, label: str) -> IPv6Address | NotThere:
        self.asked.append(label)
        await self.gate.wait()
        return self.outcomes[label]


@asynccontextmanager
async def running(
    peers: Peers, forward: tuple[Endpoint, ...] = (), settings: StubSettings = DEFAULT_SETTINGS
) -> AsyncIterator[StubServer]:
    server = StubServer(
        listen=("127.0.0.1", 0),
        domain=DOMAIN,
        label="lap",
        host_id=OWN,
        reach=peers.reach,
        forward=forward or (("127.0.0.1", 1),),
        settings=settings,
    )
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


async def dig(server: StubServer, *words: str) -> str:
    """Run dig; return what it prints."""
    program = shutil.which("dig")
    assert program is not None, "dnsutils is part of the test set-up"
    process = await asyncio.create_subprocess_exec(
        program, f"@{server.address[0]}", "-p", str(server.address[1]), "+tries=1", "+time=10",
        *words, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    output, _ = await process.communicate()
    return output.decode()


@pytest.mark.parametrize("way", ["+notcp", "+tcp"])
async def test_b8_the_name_of_a_peer_is_its_host_id(way: str) -> None:
    async with running(Peers()) as server:
        assert await dig(server, way, "+short", f"Desk.{DOMAIN}", "AAAA") == f"{PEER}\n"


async def test_b48_the_answer_is_held_until_the_tunnel_stands_and_made_once_for_all() -> None:
    peers = Peers()
    peers.gate.clear()
    async with running(peers) as server:
        asked = [
            asyncio.create_task(dig(server, "+short", f"desk.{DOMAIN}", "AAAA")) for _ in range(3)
        ]
        await until(lambda: server.counters["held"] == 3)
        assert not any(task.done() for task in asked)
        peers.gate.set()
        assert await asyncio.gather(*asked) == [f"{PEER}\n"] * 3
    assert peers.asked == ["desk"]


async def test_b48_no_such_record_when_the_tunnel_fails_and_the_reason_beside_it() -> None:
    async with running(Peers()) as server:
        said = await dig(server, f"off.{DOMAIN}", "AAAA")
    assert "status: NOERROR" in said
    assert "ANSWER: 0" in said
    assert "has published no endpoint" in said


async def test_an_unknown_host_is_nxdomain() -> None:
    async with running(Peers()) as server:
        assert "status: NXDOMAIN" in await dig(server, f"nobody.{DOMAIN}", "AAAA")


async def test_b48_an_a_record_is_never_faked() -> None:
    peers = Peers()
    async with running(peers) as server:
        said = await dig(server, f"desk.{DOMAIN}", "A")
    assert "status: NOERROR" in said
    assert "ANSWER: 0" in said
    assert peers.asked == []


async def test_the_own_name_is_answered_at_once() -> None:
    peers = Peers()
    async with running(peers) as server:
        assert await dig(server, "+short", f"lap.{DOMAIN}", "AAAA") == f"{OWN}\n"
    assert peers.asked == []


async def test_a_tunnel_that_takes_too_long_is_no_such_record() -> None:
    peers = Peers()
    peers.gate.clear()
    async with running(peers, settings=StubSettings(hold=0.05)) as server:
        said = await dig(server, f"desk.{DOMAIN}", "AAAA")
    assert "did not stand in time" in said


async def test_a_fault_of_ours_still_gives_an_answer() -> None:
    async with running(Peers()) as server:
        assert "internal fault" in await dig(server, f"faulty.{DOMAIN}", "AAAA")


async def test_tunnels_waited_for_are_bounded() -> None:
    peers = Peers()
    peers.gate.clear()
    async with running(peers, settings=StubSettings(max_labels=1)) as server:
        first = asyncio.create_task(dig(server, "+short", f"desk.{DOMAIN}", "AAAA"))
        await until(lambda: peers.asked)
        assert "too many tunnels" in await dig(server, f"off.{DOMAIN}", "AAAA")
        peers.gate.set()
        assert await first == f"{PEER}\n"


async def test_other_names_are_forwarded_with_ids_and_ports_of_their_own() -> None:
    upstream = Upstream()
    forward = await upstream.start()
    async with running(Peers(), (forward,)) as server:
        for _ in range(4):
            assert await dig(server, "+short", "www.example.org", "A") == "192.0.2.7\n"
    upstream.stop()
    assert len({query.id for query, _ in upstream.asked}) > 1
    assert len({source for _, source in upstream.asked}) == 4


@pytest.mark.parametrize(
    "name", ["desk", "nobody", "_autotunnel._udp.desk", "ns", "AutoTunnel-00-22-69-FF-FE-8E-34-2A"]
)
async def test_names_of_the_account_are_never_forwarded(name: str) -> None:
    upstream = Upstream()
    forward = await upstream.start()
    peers = Peers()
    async with running(peers, (forward,)) as server:
        for rdtype in ("AAAA", "A", "SRV", "TXT", "ANY"):
            await dig(server, f"{name}.{DOMAIN}", rdtype)
    upstream.stop()
    assert upstream.asked == []
    assert set(peers.asked) <= {"desk", "nobody"}  # control names are not reached for either


async def test_forged_answers_pass_by() -> None:
    upstream = Upstream()
    upstream.forge = True
    forward = await upstream.start()
    async with running(Peers(), (forward,)) as server:
        assert await dig(server, "+short", "www.example.org", "A") == "192.0.2.7\n"
    upstream.stop()


async def test_a_cut_answer_is_fetched_over_tcp_for_a_client_that_came_over_tcp() -> None:
    upstream = Upstream()
    forward = await upstream.start()
    async with running(Peers(), (forward,)) as server:
        assert await dig(server, "+short", "big.example.org", "A") == "192.0.2.7\n"
        said = await dig(server, "+ignore", "big.example.org", "A")
    upstream.stop()
    assert " tc " in said.split("flags:")[1].split(";")[0]


async def test_the_next_server_is_asked_when_one_is_dead_silent_or_failing() -> None:
    silent, failing, good = Upstream(), Upstream(), Upstream()
    silent.silent = True
    failing.rcode = 2
    servers = [("127.0.0.1", 1)] + [await one.start() for one in (silent, failing, good)]
    settings = StubSettings(forward_timeout=0.2)
    async with running(Peers(), tuple(servers), settings) as server:
        assert await dig(server, "+short", "www.example.org", "A") == "192.0.2.7\n"
    for one in (silent, failing, good):
        one.stop()


async def test_no_server_that_answers_is_servfail() -> None:
    async with running(Peers(), settings=StubSettings(forward_timeout=0.1)) as server:
        assert "status: SERVFAIL" in await dig(server, "www.example.org", "A")


async def test_the_systems_servers_are_read_and_ours_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    path.write_text(
        "# a comment\nsearch example\nnameserver 127.0.0.1\nnameserver 2001:db8::53\n"
        "nameserver nonsense\nnameserver\nnameserver 192.0.2.53 # trailing\n"
    )
    server = StubServer(
        listen=("127.0.0.1", 53), domain=DOMAIN, label="lap", host_id=OWN,
        reach=Peers().reach, resolv_conf=path,
    )  # fmt: skip
    assert server.servers() == [("2001:db8::53", 53), ("192.0.2.53", 53)]
    path.unlink()
    assert server.servers() == []


async def test_an_occupied_port_is_told_with_the_fix() -> None:
    async with running(Peers()) as server:
        second = StubServer(
            listen=server.address, domain=DOMAIN, label="lap", host_id=OWN, reach=Peers().reach
        )
        with pytest.raises(StubError, match=r"address already in use.*choose another \[resolver\]"):
            await second.start()


async def test_queries_beyond_the_bound_are_dropped() -> None:
    peers = Peers()
    peers.gate.clear()
    async with running(peers, settings=StubSettings(max_questions=1)) as server:
        first = asyncio.create_task(dig(server, "+short", f"desk.{DOMAIN}", "AAAA"))
        await until(lambda: peers.asked)
        server.datagram(b"\x00" * 40, ("127.0.0.1", 9))
        assert server.counters["dropped"] == 1
        peers.gate.set()
        await first


async def test_connections_are_bounded() -> None:
    async with running(Peers(), settings=StubSettings(max_connections=1)) as server:
        _, kept = await asyncio.open_connection(*server.address)
        await until(lambda: server._connections == 1)
        reader, writer = await asyncio.open_connection(*server.address)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await asyncio.wait_for(reader.readexactly(1), 5)
        for one in (kept, writer):
            one.close()
