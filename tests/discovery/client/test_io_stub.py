"""The stub resolver on real loopback sockets, asked by the real ``dig``."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import IPv6Address
from pathlib import Path

import dns.flags
import dns.message
import dns.name
import dns.rdata
import dns.rdatatype
import dns.rrset
import pytest

from discovery.io_forward import Forwarder, ForwardSettings
from discovery.io_stub import StubError, StubServer, StubSettings
from discovery.stub import NotThere
from discovery.types import Endpoint, RecordsFound
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
        while True:
            self.udp, _ = await loop.create_datagram_endpoint(
                lambda: self, local_addr=("127.0.0.1", 0)
            )
            address: Endpoint = self.udp.get_extra_info("sockname")
            try:
                self.tcp = await asyncio.start_server(self._stream, *address)
            except OSError:  # somebody has that port for TCP
                self.udp.close()
                continue
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
        response.set_rcode(self.rcode)
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


PATIENT = StubSettings(hold=60, forward=ForwardSettings(timeout=20, total=60))
"""For a machine that is busy otherwise."""


class Zone:
    """What the zone says of services."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.records = {
            (f"_ssh._tcp.{DOMAIN}.", "PTR"): [rf"Desk\032one._ssh._tcp.{DOMAIN}."],
            (rf"desk\032one._ssh._tcp.{DOMAIN}.", "SRV"): [
                f"0 0 22 desk.{DOMAIN}.",
                "0 0 22 evil.example.",
            ],
            (rf"desk\032one._ssh._tcp.{DOMAIN}.", "TXT"): ['"user=me"'],
            (f"_big._tcp.{DOMAIN}.", "PTR"): [
                f"{'x' * 60}{number:03}._big._tcp.{DOMAIN}." for number in range(40)
            ],
        }
        self.trouble = ""
        self.gate = asyncio.Event()
        self.gate.set()

    async def ask(self, name: dns.name.Name, rdtype: int) -> RecordsFound:
        kind, text = dns.rdatatype.to_text(rdtype), name.canonicalize().to_text()
        self.asked.append((text, kind))
        await self.gate.wait()
        data = tuple(
            dns.rdata.from_text("IN", kind, one) for one in self.records.get((text, kind), ())
        )
        exists = any(text == known for known, _ in self.records)
        return RecordsFound(name, rdtype, data, exists, self.trouble)


@asynccontextmanager
async def running(
    peers: Peers,
    forward: tuple[Endpoint, ...] = (),
    settings: StubSettings = PATIENT,
    zone: Zone | None = None,
    host: str = "127.0.0.1",
) -> AsyncIterator[StubServer]:
    server = StubServer(
        listen=(host, 0),
        ask=(zone or Zone()).ask,
        name_of={PEER: f"desk.{DOMAIN}"}.get,
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
        program, f"@{server.address[0]}", "-p", str(server.address[1]), "+tries=1", "+time=60",
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
    async with running(peers, settings=replace(PATIENT, max_labels=1)) as server:
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
    assert len({source for _, source in upstream.asked}) >= 3  # two may be alike by chance


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
    settings = StubSettings(forward=ForwardSettings(timeout=1.0, rounds=4, total=60))
    async with running(Peers(), tuple(servers), settings) as server:
        assert await dig(server, "+short", "www.example.org", "A") == "192.0.2.7\n"
    for one in (silent, failing, good):
        one.stop()


async def test_no_server_that_answers_is_servfail() -> None:
    settings = StubSettings(forward=ForwardSettings(timeout=0.1))
    async with running(Peers(), settings=settings) as server:
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
    assert server.forwarder.servers() == [("2001:db8::53", 53), ("192.0.2.53", 53)]
    path.unlink()
    assert server.forwarder.servers() == []


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
    async with running(peers, settings=replace(PATIENT, max_questions=1)) as server:
        first = asyncio.create_task(dig(server, "+short", f"desk.{DOMAIN}", "AAAA"))
        await until(lambda: peers.asked)
        server.datagram(b"\x00" * 40, ("127.0.0.1", 9))
        assert server.counters["dropped"] == 1
        peers.gate.set()
        await first


async def test_connections_are_bounded() -> None:
    async with running(Peers(), settings=replace(PATIENT, max_connections=1)) as server:
        _, kept = await asyncio.open_connection(*server.address)
        await until(lambda: server._connections == 1)
        reader, writer = await asyncio.open_connection(*server.address)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await asyncio.wait_for(reader.readexactly(1), 60)
        for one in (kept, writer):
            one.close()


# --- Services -------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["+notcp", "+tcp"])
async def test_rfc6763_4_dig_finds_services_step_by_step(way: str) -> None:
    async with running(Peers()) as server:
        (instance,) = (await dig(server, way, "+short", f"_SSH._tcp.{DOMAIN}", "PTR")).split("\n")[
            :-1
        ]
        assert instance == rf"Desk\032one._ssh._tcp.{DOMAIN}."
        said = await dig(server, way, "+short", instance, "SRV")
        assert said == f"0 0 22 desk.{DOMAIN}.\n"  # the other one leads out of the account
        assert await dig(server, way, "+short", instance, "TXT") == '"user=me"\n'
        assert await dig(server, way, "+short", f"desk.{DOMAIN}", "AAAA") == f"{PEER}\n"


async def test_rfc6763_11_the_domain_can_be_browsed() -> None:
    zone = Zone()
    async with running(Peers(), zone=zone) as server:
        for kind in ("b", "db", "LB"):
            name = f"{kind}._dns-sd._udp.{DOMAIN}"
            assert await dig(server, "+short", name, "PTR") == f"{DOMAIN}.\n"
        assert await dig(server, "+short", f"r._dns-sd._udp.{DOMAIN}", "PTR") == ""
    assert zone.asked == []


async def test_services_that_are_not_there_are_nxdomain_and_trouble_is_servfail() -> None:
    zone = Zone()
    async with running(Peers(), zone=zone) as server:
        assert "status: NXDOMAIN" in await dig(server, f"_ipp._tcp.{DOMAIN}", "PTR")
        said = await dig(server, f"_ssh._tcp.{DOMAIN}", "SRV")
        assert "status: NOERROR" in said
        assert "ANSWER: 0" in said
        zone.trouble = "the rendezvous cannot be reached"
        said = await dig(server, f"_ssh._tcp.{DOMAIN}", "PTR")
        assert "status: SERVFAIL" in said
        assert zone.trouble in said


async def test_a_list_that_does_not_fit_is_cut_over_udp_and_whole_over_tcp() -> None:
    async with running(Peers()) as server:
        cut = await dig(server, "+ignore", "+bufsize=512", f"_big._tcp.{DOMAIN}", "PTR")
        assert " tc " in cut.split("flags:")[1].split(";")[0]
        assert "ANSWER: 0" in cut
        whole = await dig(server, "+short", f"_big._tcp.{DOMAIN}", "PTR")
        assert len(whole.splitlines()) == 40


async def test_questions_to_the_zone_are_bounded_and_told() -> None:
    zone = Zone()
    zone.gate.clear()
    async with running(Peers(), settings=replace(PATIENT, max_asked=1), zone=zone) as server:
        first = asyncio.create_task(dig(server, "+short", f"_ssh._tcp.{DOMAIN}", "PTR"))
        await until(lambda: zone.asked)
        assert "too many questions" in await dig(server, f"_ipp._tcp.{DOMAIN}", "PTR")
        zone.gate.set()
        assert "Desk" in await first


async def test_a_zone_that_is_slow_or_a_fault_of_ours_still_gives_an_answer() -> None:
    zone = Zone()
    zone.gate.clear()
    async with running(Peers(), settings=StubSettings(hold=0.05), zone=zone) as server:
        assert "did not answer in time" in await dig(server, f"_ssh._tcp.{DOMAIN}", "PTR")
        zone.records = None
        zone.gate.set()
        assert "internal fault" in await dig(server, f"_ssh._tcp.{DOMAIN}", "PTR")


# --- What must not leave --------------------------------------------------------------------


async def test_reverse_names_of_host_ids_are_answered_and_stay_here() -> None:
    upstream = Upstream()
    forward = await upstream.start()
    given = IPv6Address("fd09::9")
    peers = Peers()
    peers.outcomes["lapsed"] = given  # given out once, and no peer any more
    async with running(peers, (forward,)) as server:
        await dig(server, f"lapsed.{DOMAIN}", "AAAA")
        for host_id, label in ((OWN, "lap"), (PEER, "desk"), (given, "lapsed")):
            assert await dig(server, "+short", "-x", str(host_id)) == f"{label}.{DOMAIN}.\n"
            assert "ANSWER: 0" in await dig(server, host_id.reverse_pointer, "SOA")
            browse = f"lb._dns-sd._udp.{host_id.reverse_pointer}"
            assert await dig(server, "+short", browse, "PTR") == f"{DOMAIN}.\n"
        assert upstream.asked == []
        for stranger in ("fd03::3", "2001:db8::1"):
            await dig(server, "-x", stranger)
    upstream.stop()
    assert len(upstream.asked) == 2


async def test_what_a_search_list_makes_of_our_names_stays_here(tmp_path: Path) -> None:
    upstream = Upstream()
    forward = await upstream.start()
    path = tmp_path / "resolv.conf"
    path.write_text("domain other.example\nsearch corp.example . lab.corp.example\n")
    server = StubServer(
        listen=("127.0.0.1", 0), domain=DOMAIN, label="lap", host_id=OWN,
        reach=Peers().reach, forward=(forward,), resolv_conf=path,
    )  # fmt: skip
    await server.start()
    for name in ("desk", "_ssh._tcp", "b._dns-sd._udp"):
        for search in ("corp.example", "lab.CORP.example"):
            said = await dig(server, f"{name}.{DOMAIN}.{search}", "AAAA")
            assert "status: NXDOMAIN" in said
    assert upstream.asked == []
    await dig(server, "www.corp.example", "A")
    await dig(server, f"desk.{DOMAIN}.elsewhere.example", "A")  # in nobody's search list
    assert len(upstream.asked) == 2
    await server.stop()
    upstream.stop()


async def test_edns_goes_through_as_it_came() -> None:
    upstream = Upstream()
    forward = await upstream.start()
    async with running(Peers(), (forward,)) as server:
        options = ("+dnssec", "+bufsize=1400", "+ednsopt=65001:c0ffee", "+nocookie")
        await dig(server, *options, "www.example.org", "A")
    upstream.stop()
    ((query, _),) = upstream.asked
    assert query.payload == 1400
    assert query.ednsflags & dns.flags.DO
    assert [option.to_wire() for option in query.options] == [b"\xc0\xff\xee"]


async def test_an_unknown_edns_version_is_badvers_for_names_of_ours() -> None:
    async with running(Peers()) as server:
        said = await dig(server, "+edns=1", "+noednsnegotiation", f"desk.{DOMAIN}", "AAAA")
    assert "status: BADVERS" in said


async def test_it_listens_and_forwards_over_ipv6_too() -> None:
    peers = Peers()
    async with (
        running(peers, host="::1") as inner,
        running(peers, (inner.address,), host="::1") as server,
    ):
        assert await dig(server, "+short", f"desk.{DOMAIN}", "AAAA") == f"{PEER}\n"
        said = await dig(server, "x.example.org", "AAAA")
        assert "status: SERVFAIL" in said  # of the inner one, handed on
    assert inner.counters["forwarded"] > 0


async def test_a_loop_through_another_resolver_is_found_and_left_out() -> None:
    """A local resolver to which we forward hands our questions back to us."""
    server: StubServer
    questions = 0

    class Mirror(asyncio.DatagramProtocol):
        """Forwards to the stub under test, as a mis-set dnsmasq would."""

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = transport

        def datagram_received(self, data: bytes, addr: Endpoint) -> None:
            nonlocal questions
            questions += 1
            server.datagram(data, ("127.0.0.1", 9))

    loop = asyncio.get_running_loop()
    mirror, _ = await loop.create_datagram_endpoint(Mirror, local_addr=("127.0.0.1", 0))
    good = Upstream()
    forward = (mirror.get_extra_info("sockname"), await good.start())
    settings = StubSettings(forward=ForwardSettings(timeout=1.0, rounds=4, total=60))
    async with running(Peers(), forward, settings) as server:
        assert await dig(server, "+short", "www.example.org", "A") == "192.0.2.7\n"
        await until(lambda: server.forwarder.servers() == [forward[1]])
        assert questions < 20
        before = questions
        assert await dig(server, "+short", "other.example.org", "A") == "192.0.2.7\n"
        assert questions == before
    mirror.close()
    good.stop()


async def test_reverse_names_that_resolved_hands_to_us_do_not_go_back_to_it(
    tmp_path: Path,
) -> None:
    stub_conf, uplinks = tmp_path / "resolv.conf", tmp_path / "uplinks"
    stub_conf.write_text("nameserver 127.0.0.53\nsearch example\n")
    uplinks.write_text("nameserver 192.0.2.53\n")
    own = ("127.0.0.1", 4553)
    forwarder = Forwarder(lambda: own, (), stub_conf, uplinks)
    assert forwarder.servers() == [("127.0.0.53", 53)]
    reverse = dns.name.from_text(IPv6Address("fd03::3").reverse_pointer)
    assert forwarder.servers(reverse) == [("192.0.2.53", 53)]
    uplinks.unlink()
    assert forwarder.servers(reverse) == []
