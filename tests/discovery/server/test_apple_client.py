"""What an unmodified Apple client sends, octet by octet: it registers a service and browses it.

Facts: Update Lease of four octets (7200), OPT with payload 1440 and then TSIG with hmac-md5 under
the zone's name; LLQ Setup with id 0 and lease 7200 from a port of its own, the same again with id
and lease; events acknowledged by an unsigned response (QR) of the same id that echoes the option;
the end is a Refresh with lease 0. Nothing here uses our own codecs.
"""

from __future__ import annotations

import asyncio
import hmac
import socket
import struct
import time
from collections.abc import AsyncIterator
from pathlib import Path

import dns.message
import dns.rdatatype
import pytest

from discovery.io_serve import RendezvousServer
from tests.discovery.server.helpers import ALICE, account, name_wire, rdata_wire, secret_of

DEADLINE = 60.0
SERVICE = f"_ssh._tcp.{ALICE}"
INSTANCE = f"My\\032Mac.{SERVICE}"
HOST = f"mymac.{ALICE}"
PTR, SRV, TXT, AAAA, SOA = 12, 33, 16, 28, 6
MD5 = b"\x08HMAC-MD5\x07SIG-ALG\x03REG\x03INT\x00"


def header(identity: int, flags: int, *counts: int) -> bytes:
    return struct.pack("!6H", identity, flags, *counts)


def question(name: str, rdtype: int) -> bytes:
    return name_wire(name) + struct.pack("!HH", rdtype, 1)


def opt(code: int, data: bytes) -> bytes:
    return b"\x00" + struct.pack("!HHIHHH", 41, 1440, 0, len(data) + 4, code, len(data)) + data


def llq(opcode: int, identity: bytes = bytes(8), lease: int = 7200) -> bytes:
    return opt(1, struct.pack("!HHH", 1, opcode, 0) + identity + struct.pack("!I", lease))


def record(name: str, rdtype: int, text: str, *, rdclass: int = 1, ttl: int = 3600) -> bytes:
    data = rdata_wire(dns.rdatatype.to_text(dns.rdatatype.RdataType.make(rdtype)), text)
    return name_wire(name) + struct.pack("!HHIH", rdtype, rdclass, ttl, len(data)) + data


def signed(wire: bytes, when: int) -> bytes:
    """Append TSIG: the key has the zone's name, the algorithm is hmac-md5 (RFC 8945 §4.3)."""
    time_signed = struct.pack("!HIH", 0, when, 300)
    variables = name_wire(ALICE) + struct.pack("!HI", 255, 0) + MD5.lower() + time_signed
    mac = hmac.digest(secret_of(ALICE), wire + variables + bytes(4), "md5")
    rdata = MD5 + time_signed + struct.pack("!H", 16) + mac + wire[:2] + bytes(4)
    tsig = name_wire(ALICE) + struct.pack("!HHIH", 250, 255, 0, len(rdata)) + rdata
    counts = struct.unpack("!H", wire[10:12])[0] + 1
    return wire[:10] + struct.pack("!H", counts) + wire[12:] + tsig


def read_llq(wire: bytes) -> tuple[int, int, bytes, int]:
    """Return opcode, error, id and lease of the one LLQ option, found by its fixed octets."""
    at = wire.index(b"\x00\x01\x00\x12\x00\x01")
    opcode, error = struct.unpack("!HH", wire[at + 6 : at + 10])
    return opcode, error, wire[at + 10 : at + 18], int.from_bytes(wire[at + 18 : at + 22])


def records(wire: bytes) -> list[str]:
    said = dns.message.from_wire(wire, keyring=False)
    return [f"{dns.rdatatype.to_text(s.rdtype)} {r}" for s in said.answer for r in s]


class Apple:
    """A connected socket: it loses what does not come from the port that it asked."""

    def __init__(self, server: tuple[str, int]) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.connect(server)

    async def send(self, wire: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self._socket, wire)

    async def hear(self) -> bytes:
        async with asyncio.timeout(DEADLINE):
            return await asyncio.get_running_loop().sock_recv(self._socket, 9000)

    async def ask(self, wire: bytes) -> bytes:
        """Sign, send, and return the response."""
        await self.send(signed(wire, int(time.time())))
        answer = await self.hear()
        assert answer[:2] == wire[:2]
        assert answer[2] & 0x80
        return answer

    async def acknowledge(self, event: bytes) -> None:
        _, _, identity, lease = read_llq(event)
        echo = header(int.from_bytes(event[:2]), 0x8400, 1, 0, 0, 1)
        await self.send(echo + question(SERVICE, PTR) + llq(3, identity, lease))

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
async def apple(tmp_path: Path) -> AsyncIterator[Apple]:
    server = RendezvousServer(
        accounts=[account(ALICE, legacy_md5=True)],
        listen=[("127.0.0.1", 0)],
        state_dir=tmp_path / "state",
    )
    await server.start()
    client = Apple(server.listening["udp"][0])
    yield client
    client.close()
    await server.stop()


async def test_it_registers_a_service_and_browses_it(apple: Apple) -> None:
    # SOA of the name, SOA of the zone, SRV of the services.
    for number, (name, rdtype) in enumerate(
        [(SERVICE, SOA), (ALICE, SOA), (f"_dns-llq._udp.{ALICE}", SRV)]
    ):
        await apple.send(header(number, 0x0100, 1, 0, 0, 0) + question(name, rdtype))
        said = dns.message.from_wire(await apple.hear())
        assert said.rcode() == 0
        assert (said.authority or said.answer)[0].rdtype in (SOA, SRV)
    # Setup, challenge, the same again with id and lease, acknowledgement and no answer yet.
    asked = header(0x11AA, 0x0100, 1, 0, 0, 1) + question(SERVICE, PTR)
    challenge = await apple.ask(asked + llq(1))
    opcode, error, identity, lease = read_llq(challenge)
    assert (opcode, error, lease) == (1, 0, 7200)
    assert identity != bytes(8)
    done = await apple.ask(b"\x11\xab" + asked[2:] + llq(1, identity))
    assert read_llq(done) == (1, 0, identity, 7200)
    assert records(done) == []
    # It registers: four octets of lease, and gets four back.
    zone = question(ALICE, SOA)
    added = [
        record(SERVICE, PTR, f"{INSTANCE}."),
        record(INSTANCE, SRV, f"0 0 22 {HOST}.", ttl=120),
        record(INSTANCE, TXT, '""'),
        record(HOST, AAAA, "fd00::1", ttl=120),
    ]
    update = header(0x22AA, 0x2800, 1, 0, 4, 1) + zone + b"".join(added)
    answer = await apple.ask(update + opt(2, struct.pack("!I", 7200)))
    assert answer[3] & 15 == 0
    assert bytes.fromhex("00020004") + struct.pack("!I", 7200) in answer
    # The event comes to the port that asked, and is acknowledged as Apple does.
    event = await apple.hear()
    assert event[2] & 0x80
    assert read_llq(event) == (3, 0, identity, 0)
    assert records(event) == [f"PTR {INSTANCE}."]
    await apple.acknowledge(event)
    # It takes the service back; the next event is the removal and not a repetition.
    gone = record(SERVICE, PTR, f"{INSTANCE}.", rdclass=254, ttl=0)
    update = header(0x22AB, 0x2800, 1, 0, 1, 1) + zone + gone
    answer = await apple.ask(update + opt(2, struct.pack("!I", 7200)))
    assert answer[3] & 15 == 0
    event = await apple.hear()
    assert b"\x00\x0c\x00\x01\xff\xff\xff\xff" in event
    assert read_llq(event)[:3] == (3, 0, identity)
    await apple.acknowledge(event)
    # The end: a Refresh with lease 0.
    ended = await apple.ask(b"\x11\xac" + asked[2:] + llq(2, identity, 0))
    assert read_llq(ended) == (2, 0, identity, 0)
    again = await apple.ask(b"\x11\xad" + asked[2:] + llq(2, identity, 7200))
    assert read_llq(again)[:2] == (2, 4)  # NO-SUCH-LLQ, where Apple's own server is silent


async def test_an_event_that_nobody_acknowledges_comes_again(apple: Apple) -> None:
    asked = header(1, 0x0100, 1, 0, 0, 1) + question(SERVICE, PTR)
    _, _, identity, _ = read_llq(await apple.ask(asked + llq(1)))
    await apple.ask(b"\x00\x02" + asked[2:] + llq(1, identity))
    update = header(3, 0x2800, 1, 0, 1, 1) + question(ALICE, SOA)
    await apple.ask(update + record(SERVICE, PTR, f"{INSTANCE}.") + opt(2, bytes([0, 0, 28, 32])))
    first = await apple.hear()
    second = await apple.hear()
    assert first[:2] == second[:2]
    assert records(first) == records(second)
