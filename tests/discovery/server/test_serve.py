"""The running server: transports, connections, TLS identity, and its sentences."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from hashlib import sha256
from pathlib import Path

import dns.name
import pytest
import structlog
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from discovery import io_certificate, tsig
from discovery.io_serve import ConnectionLimits, RendezvousServer, ServeError
from discovery.io_store import SqliteStore
from discovery.store import Changes
from discovery.types import Endpoint
from discovery.zone import ZoneServer
from tests.discovery.server.helpers import (
    ALICE,
    BOB,
    account,
    add,
    key_of,
    opt,
    parse,
    query_wire,
    texts,
    update_wire,
)
from tests.ports import free_port

LOOPBACK = ("127.0.0.1", 0)
DEADLINE = 60.0


def make(state_dir: Path, **changed: object) -> RendezvousServer:
    settings: dict[str, object] = {
        "accounts": [account(ALICE), account(BOB)],
        "listen": [LOOPBACK],
        "tls_listen": [LOOPBACK],
        "state_dir": state_dir,
    }
    return RendezvousServer(**(settings | changed))


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RendezvousServer]:
    made = make(tmp_path / "state")
    await made.start()
    yield made
    await made.stop()


def now() -> int:
    return int(time.time())


def signed(wire: bytes, domain: str = ALICE) -> bytes:
    return tsig.sign(wire, key_of(domain), now())[0]


def framed(*wires: bytes) -> bytes:
    return b"".join(len(wire).to_bytes(2) + wire for wire in wires)


def client_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def connect(
    server: RendezvousServer, transport: str
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    context = client_context() if transport == "tls" else None
    return await asyncio.open_connection(*server.listening[transport][0], ssl=context)


async def read_message(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(DEADLINE):
        return await reader.readexactly(int.from_bytes(await reader.readexactly(2)))


async def read_end(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(DEADLINE):
        try:
            return await reader.read()
        except ConnectionResetError:
            return b""


async def ask_udp(endpoint: Endpoint, wire: bytes) -> bytes:
    """Ask from a connected socket: it takes answers only from the address that it asked."""
    loop = asyncio.get_running_loop()
    family = socket.AF_INET6 if ":" in endpoint[0] else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as asking:
        asking.setblocking(False)
        asking.connect(endpoint)
        async with asyncio.timeout(DEADLINE):
            await loop.sock_sendall(asking, wire)
            return await loop.sock_recv(asking, 65535)


UPDATE = update_wire(updates=(add(f"desk.{ALICE}", "AAAA", "fd01::1"),))
QUERY = query_wire(f"desk.{ALICE}", "AAAA")


@pytest.mark.parametrize("transport", ["udp", "tcp", "tls"])
async def test_updates_and_queries_work_over_every_transport(
    server: RendezvousServer, transport: str
) -> None:
    if transport == "udp":
        endpoint = server.listening["udp"][0]
        update, answer = await ask_udp(endpoint, signed(UPDATE)), b""
        answer = await ask_udp(endpoint, signed(QUERY))
    else:
        reader, writer = await connect(server, transport)
        writer.write(framed(signed(UPDATE), signed(QUERY)))
        update, answer = await read_message(reader), await read_message(reader)
        writer.close()
    assert parse(update).rcode() == 0
    assert texts(parse(answer)) == [f"desk.{ALICE}. 120 IN AAAA fd01::1"]
    assert server.counters == {"update.NOERROR": 1, "query.NOERROR": 1}


@pytest.mark.parametrize("asked", ["127.0.0.1", "127.0.0.53", "127.9.8.7"])
async def test_udp_answers_come_from_the_address_that_was_asked(tmp_path: Path, asked: str) -> None:
    made = make(tmp_path, listen=[("0.0.0.0", 0)], tls_listen=[])
    await made.start()
    try:
        port = made.listening["udp"][0][1]
        assert parse(await ask_udp((asked, port), query_wire(ALICE, "SOA"))).answer
    finally:
        await made.stop()


async def test_ipv6_is_served(tmp_path: Path) -> None:
    made = make(tmp_path, listen=[("::", 0)], tls_listen=[])
    await made.start()
    try:
        port = made.listening["udp"][0][1]
        assert parse(await ask_udp(("::1", port), query_wire(ALICE, "SOA"))).answer
    finally:
        await made.stop()


async def test_pipelined_messages_are_answered_in_order(server: RendezvousServer) -> None:
    """RFC 7766 §6.2.1.1: a client need not wait."""
    reader, writer = await connect(server, "tls")
    identities = range(1, 201)
    writer.write(framed(*[query_wire(ALICE, "SOA", identity=number) for number in identities]))
    answers = [parse(await read_message(reader)).id for _ in identities]
    assert answers == list(identities)
    writer.close()


async def test_pipelined_updates_share_writes_and_a_question_after_them_sees_them_all(
    server: RendezvousServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Group commit over real sockets; and who half-closes still gets what is owed."""
    commits: list[int] = []
    commit = SqliteStore.commit

    def counting(store: SqliteStore, changes: Mapping[dns.name.Name, Changes]) -> None:
        commits.append(len(changes))
        commit(store, changes)

    monkeypatch.setattr(SqliteStore, "commit", counting)
    reader, writer = await connect(server, "tcp")
    updates = [
        signed(update_wire(updates=(add(f"h{n}.{ALICE}", "AAAA", f"fd01::{n:x}"),), identity=n))
        for n in range(1, 201)
    ]
    writer.write(framed(*updates, signed(query_wire(f"h200.{ALICE}", "AAAA")), updates[0]))
    writer.write_eof()
    answers = [parse(await read_message(reader)) for _ in range(202)]
    assert [answer.id for answer in answers[:200]] == list(range(1, 201))
    assert {answer.rcode() for answer in answers} == {0}
    assert texts(answers[200]) == [f"h200.{ALICE}. 120 IN AAAA fd01::c8"]
    assert await read_end(reader) == b""
    assert len(commits) < 20
    writer.close()


async def test_one_octet_at_a_time_is_a_message_too(server: RendezvousServer) -> None:
    reader, writer = await connect(server, "tcp")
    for octet in framed(query_wire(ALICE, "SOA")):
        writer.write(bytes((octet,)))
        await writer.drain()
    assert parse(await read_message(reader)).answer
    writer.close()


@pytest.mark.parametrize("hello", [b"", b"\x00", b"\x00\x20short", b"\x00\x00", b"\x00\x03abc"])
async def test_silent_and_senseless_connections_are_closed(tmp_path: Path, hello: bytes) -> None:
    limits = ConnectionLimits(first_message=0.2, idle=0.2)
    made = make(tmp_path, connection_limits=limits)
    await made.start()
    try:
        reader, writer = await connect(made, "tcp")
        writer.write(hello)
        assert await read_end(reader) == b""
        writer.close()
    finally:
        await made.stop()


async def test_idle_connections_are_closed_after_their_time(tmp_path: Path) -> None:
    made = make(tmp_path, connection_limits=ConnectionLimits(idle=0.1))
    await made.start()
    try:
        reader, writer = await connect(made, "tls")
        writer.write(framed(query_wire(ALICE, "SOA")))
        assert parse(await read_message(reader)).answer
        assert await read_end(reader) == b""
        writer.close()
    finally:
        await made.stop()


async def test_connections_above_the_limit_are_refused_and_counted(tmp_path: Path) -> None:
    made = make(tmp_path, connection_limits=ConnectionLimits(per_source=2))
    await made.start()
    try:
        kept = [await connect(made, "tcp") for _ in range(2)]
        for reader, writer in kept:  # an answer proves that it has been let in
            writer.write(framed(query_wire(ALICE, "SOA")))
            await read_message(reader)
        reader, writer = await connect(made, "tcp")
        assert await read_end(reader) == b""
        assert made.counters["connection.refused"] == 1
        kept[0][1].close()
        async with asyncio.timeout(DEADLINE):
            while True:  # the place is free as soon as the server has seen the end
                reader, writer = await connect(made, "tcp")
                writer.write(framed(query_wire(ALICE, "SOA")))
                if await reader.read(2):
                    break
    finally:
        await made.stop()


async def test_a_client_that_never_reads_is_let_go(tmp_path: Path) -> None:
    made = make(tmp_path, connection_limits=ConnectionLimits(first_message=0.2, idle=5.0))
    await made.start()
    try:
        small = socket.socket()
        small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        small.connect(made.listening["tcp"][0])
        _, writer = await asyncio.open_connection(sock=small)
        writer.transport.pause_reading()
        large = [add(f"big.{ALICE}", "TXT", f'"{n:03}{"x" * 250}"') for n in range(120)]
        writer.write(framed(signed(update_wire(updates=large))))
        question = framed(signed(query_wire(f"big.{ALICE}", "TXT"))) * 100
        with pytest.raises((ConnectionError, BrokenPipeError)):
            async with asyncio.timeout(DEADLINE):
                while True:
                    writer.write(question)
                    await writer.drain()
        writer.close()
    finally:
        await made.stop()


# --- TLS identity ---------------------------------------------------------------------------


async def test_the_pin_names_the_key_of_the_connection(server: RendezvousServer) -> None:
    """Decision 0003: TLSA 3 1 1 at _853._tcp.ns.<domain>, over that very connection."""
    reader, writer = await connect(server, "tls")
    shown = writer.get_extra_info("ssl_object")
    certificate = x509.load_der_x509_certificate(shown.getpeercert(binary_form=True))
    spki = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    writer.write(framed(signed(query_wire(f"_853._tcp.ns.{ALICE}", "TLSA"))))
    (rdata,) = parse(await read_message(reader)).answer[0]
    assert rdata.to_text() == "3 1 1 " + sha256(spki).hexdigest()
    assert server.pin == sha256(spki).digest()
    assert shown.version() == "TLSv1.3"
    writer.close()


async def test_the_certificate_says_nothing_and_does_not_end(server: RendezvousServer) -> None:
    _, writer = await connect(server, "tls")
    der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    certificate = x509.load_der_x509_certificate(der)
    assert certificate.subject.rfc4514_string() == "CN=rendezvous"
    assert certificate.issuer == certificate.subject
    assert list(certificate.extensions) == []
    assert certificate.not_valid_after_utc.year == 9999
    for word in (b"alice", b"bob", b"members"):
        assert word not in der
    writer.close()


async def test_older_tls_is_refused(server: RendezvousServer) -> None:
    context = client_context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await asyncio.open_connection(*server.listening["tls"][0], ssl=context)


async def test_plain_dns_on_the_tls_port_gets_no_answer(server: RendezvousServer) -> None:
    """RFC 7858 §3.1: never cleartext there."""
    reader, writer = await asyncio.open_connection(*server.listening["tls"][0])
    writer.write(framed(query_wire(ALICE, "SOA")))
    assert b"alice" not in await read_end(reader)
    writer.close()


def test_the_tls_key_is_kept_and_is_nobody_elses_to_read(tmp_path: Path) -> None:
    first = io_certificate.load_or_make(tmp_path)
    assert io_certificate.load_or_make(tmp_path).pin == first.pin
    assert (tmp_path / io_certificate.FILE_NAME).stat().st_mode & 0o777 == 0o600
    (tmp_path / io_certificate.FILE_NAME).write_text("damaged")
    with pytest.raises(io_certificate.CertificateError, match="delete it"):
        io_certificate.load_or_make(tmp_path)


# --- Starting and ending --------------------------------------------------------------------


async def test_an_occupied_port_has_its_sentence(server: RendezvousServer, tmp_path: Path) -> None:
    taken = server.listening["tcp"][0]
    other = make(tmp_path / "other", listen=[taken])
    with pytest.raises(ServeError) as told:
        await other.start()
    assert str(told.value) == (
        f"cannot listen on 127.0.0.1:{taken[1]}: in use by another program; "
        "choose another [serve] listen or stop it"
    )
    taken = server.listening["tls"][0]
    with pytest.raises(ServeError, match=r"choose another \[serve\] tls_listen"):
        await make(tmp_path / "other", tls_listen=[taken]).start()


async def test_an_occupied_udp_port_alone_has_its_sentence_too(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(LOOPBACK)
        with pytest.raises(ServeError, match="in use by another program"):
            await make(tmp_path, listen=[taken.getsockname()]).start()


async def test_an_address_that_is_not_here_has_its_sentence(tmp_path: Path) -> None:
    with pytest.raises(ServeError, match="this machine has no such address"):
        await make(tmp_path, listen=[("192.0.2.1", 5300)]).start()


async def test_two_servers_never_share_a_state_dir(
    server: RendezvousServer, tmp_path: Path
) -> None:
    with pytest.raises(ServeError, match="another rendezvous is running"):
        await make(tmp_path / "state").start()


async def test_an_unwritable_state_dir_has_its_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ServeError, match="choose another"):
        await make(tmp_path / "file" / "state").start()


async def test_a_failed_start_leaves_nothing_bound(tmp_path: Path) -> None:
    free = ("127.0.0.1", free_port())
    (tmp_path / "zone.sqlite").write_text("no database at all " * 100)
    with pytest.raises(ServeError):
        await make(tmp_path, listen=[free]).start()
    (tmp_path / "zone.sqlite").unlink()
    again = make(tmp_path, listen=[free])
    await again.start()
    await again.stop()


async def test_a_restart_keeps_records_serial_and_pin(tmp_path: Path) -> None:
    first = make(tmp_path)
    await first.start()
    port, tls_port = first.listening["udp"][0], first.listening["tls"][0]
    assert parse(await ask_udp(port, signed(UPDATE))).rcode() == 0
    before = parse(await ask_udp(port, query_wire(ALICE, "SOA"))).answer[0].to_text()
    pin = first.pin
    await first.stop()
    second = make(tmp_path, listen=[port], tls_listen=[tls_port])
    await second.start()
    try:
        assert texts(parse(await ask_udp(port, signed(QUERY))))
        after = parse(await ask_udp(port, query_wire(ALICE, "SOA"))).answer[0].to_text()
        assert after == before
        assert second.pin == pin
    finally:
        await second.stop()


async def test_ns_addresses_come_from_the_configuration_or_from_listen(tmp_path: Path) -> None:
    for given, expected in (((), ["127.0.0.1"]), (("203.0.113.10",), ["203.0.113.10"])):
        made = make(tmp_path, addresses=given)
        await made.start()
        try:
            answer = await ask_udp(made.listening["udp"][0], query_wire(f"ns.{ALICE}", "A"))
            assert [item.to_text() for item in parse(answer).answer[0]] == expected
        finally:
            await made.stop()


async def test_a_flaw_of_ours_costs_one_answer_and_is_logged(
    server: RendezvousServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = server.listening["udp"][0]
    with monkeypatch.context() as broken, structlog.testing.capture_logs() as logs:
        broken.setattr(ZoneServer, "submit", lambda *_: 1 // 0)
        for _ in range(30):
            assert parse(await ask_udp(endpoint, query_wire(ALICE, "SOA"))).rcode() == 2
    assert server.counters["failed"] == 30
    assert len(logs) == 20  # the log's limit
    assert parse(await ask_udp(endpoint, query_wire(ALICE, "SOA"))).rcode() == 0


async def test_the_log_names_no_private_name(server: RendezvousServer) -> None:
    with structlog.testing.capture_logs() as logs:
        await ask_udp(
            server.listening["udp"][0],
            query_wire(f"secretname.{ALICE}", "AAAA", additional=(opt(),)),
        )
    assert len(logs) == 1
    assert "secretname" not in str(logs)
    assert "signed questions only" in logs[0]["event"]
