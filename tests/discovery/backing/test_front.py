"""The rendezvous before a real primary: its leases, events and sentences, the primary's truth."""

from __future__ import annotations

import shutil
import struct
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import dns.asyncquery
import dns.message
import dns.name
import dns.rcode
import pytest
import structlog

from discovery import push, tsig
from discovery.held import Backing
from discovery.io_serve import RendezvousServer
from discovery.lease import LeaseLimits
from discovery.types import TsigKey
from tests.discovery.backing.real import (
    KEY,
    ZONE,
    RealServer,
    bind,
    knot,
    secondary,
    until,
)
from tests.discovery.server.helpers import (
    ALICE,
    ANY,
    account,
    add,
    key_of,
    opt,
    parse,
    query_wire,
    reason_of,
    rr,
    texts,
    update_wire,
)
from tests.discovery.server.test_serve import connect, framed, read_message
from tests.discovery.server.test_telling import subscribed
from tests.ports import free_port

DESK = f"desk.{ALICE}"
LEASE = 5  # seconds: enough to look at what has it
BRIEF = LeaseLimits(shortest=2, longest=7200)


@asynccontextmanager
async def front(
    folder: Path,
    primary: int,
    *,
    port: int = 0,
    key: TsigKey | None = KEY,
    leases: LeaseLimits = BRIEF,
) -> AsyncIterator[RendezvousServer]:
    served = RendezvousServer(
        accounts=[replace(account(ALICE), backing=Backing(("127.0.0.1", primary), key))],
        listen=[("127.0.0.1", port)],
        tls_listen=[("127.0.0.1", 0)],
        state_dir=folder,
        leases=leases,
    )
    await served.start()
    try:
        yield served
    finally:
        await served.stop()


async def ask(server: RendezvousServer, wire: bytes) -> dns.message.Message:
    reader, writer = await connect(server, "tcp")
    writer.write(framed(tsig.sign(wire, key_of(ALICE), int(time.time()))[0]))
    answer = parse(await read_message(reader))
    writer.close()
    return answer


async def addresses(server: RendezvousServer, name: str = DESK) -> set[str]:
    answer = await ask(server, query_wire(name, "AAAA"))
    return {line.split()[-1] for line in texts(answer)}


async def there(server: RealServer, name: str = DESK, rdtype: str = "AAAA") -> set[str]:
    """What somebody else's server answers."""
    question = dns.message.make_query(name, rdtype)
    answer = await dns.asyncquery.udp(question, "127.0.0.1", 60.0, server.port)
    return {line.split()[-1] for line in texts(answer)}


async def ready(server: RendezvousServer) -> None:
    await comes(lambda: addresses(server, f"old.{ALICE}"), {"fd00::1"})


async def comes(found, wanted: set[str], patience: float = 60.0) -> None:
    """Poll until the answer is this."""
    end = time.monotonic() + patience
    while (seen := await found()) != wanted:
        assert time.monotonic() < end, (seen, wanted)


async def still(found, wanted: set[str], began: float) -> None:
    """The answer is this, if ``LEASE``, which cannot have begun before ``began``, has not ended
    meanwhile (both ends count whole seconds)."""
    seen = await found()
    assert seen == wanted or time.monotonic() - began > LEASE - 1


def leased(seconds: int, *updates: bytes) -> bytes:
    return update_wire(
        updates=updates, additional=(opt(options=struct.pack("!HHI", 2, 4, seconds)),)
    )


@pytest.fixture(name="primary", params=[bind, knot], ids=["bind", "knot"])
def _primary(request: pytest.FixtureRequest, tmp_path: Path):
    with request.param(tmp_path) as server:
        yield server


async def test_an_update_is_true_on_both_when_it_is_answered_and_its_lease_ends_on_both(
    primary: RealServer, tmp_path: Path
) -> None:
    async with front(tmp_path / "state", primary.port) as server:
        await ready(server)
        began = time.monotonic()
        answer = await ask(server, leased(LEASE, add(DESK, "AAAA", "fd00::2")))
        assert answer.rcode() == dns.rcode.NOERROR
        assert [o.to_wire() for o in answer.options if o.otype == 2] == [struct.pack("!I", LEASE)]
        await still(lambda: there(primary), {"fd00::2"}, began)
        await comes(lambda: addresses(server), set())
        await comes(lambda: there(primary), set())
        assert await there(primary, f"old.{ALICE}") == {"fd00::1"}  # it has no lease
        # It is no ghost: who comes back is answered again.
        await ask(server, leased(3600, add(DESK, "AAAA", "fd00::2")))
        assert await addresses(server) == await there(primary) == {"fd00::2"}


async def test_a_refresh_moves_the_end_and_an_update_without_lease_lets_it_stay(
    tmp_path: Path,
) -> None:
    with bind(tmp_path) as primary:
        async with front(tmp_path / "state", primary.port) as server:
            await ready(server)
            brief = [add(DESK, "AAAA", f"fd00::{n}") for n in (2, 3, 4)]
            await ask(server, leased(2, *brief))
            await ask(server, leased(3600, brief[0]))
            await ask(server, update_wire(updates=[brief[1]]))
            await comes(lambda: there(primary), {"fd00::2", "fd00::3"})
            assert await addresses(server) == {"fd00::2", "fd00::3"}


async def test_the_secondaries_of_the_primary_have_it_and_its_loss_is_survived(
    tmp_path: Path,
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    port = free_port()
    with bind(first, notify=(port,)) as primary:
        async with front(tmp_path / "state", primary.port) as server:
            await ready(server)
            with secondary(second, primary.port, port=port) as other:
                await comes(lambda: there(other, f"old.{ALICE}"), {"fd00::1"})
                await ask(server, leased(3600, add(DESK, "AAAA", "fd00::2")))
                await comes(lambda: there(other), {"fd00::2"})
                await ask(server, leased(2, add(DESK, "AAAA", "fd00::2")))
                await comes(lambda: there(primary), set())
                await comes(lambda: there(other), set())
            answer = await ask(server, leased(3600, add(DESK, "AAAA", "fd00::3")))
            assert answer.rcode() == dns.rcode.NOERROR


async def test_what_others_change_at_the_primary_is_pushed_after_its_notify(
    tmp_path: Path,
) -> None:
    port = free_port()
    with bind(tmp_path, notify=(port,)) as primary:
        async with front(tmp_path / "state", primary.port, port=port) as server:
            await ready(server)
            client = await subscribed(server)
            for number in (7, 8):
                primary.nsupdate(f"update add {DESK} 60 AAAA fd00::{number}")
                (change,) = push.parse_push(await client.hear())
                assert (change.ttl, str(change.rdata)) == (60, f"fd00::{number}")
            primary.nsupdate(f"update delete {DESK} AAAA fd00::7")
            (change,) = push.parse_push(await client.hear())
            assert change.ttl == push.REMOVE_ONE
            await ask(server, update_wire(updates=[rr(DESK, "AAAA", ANY)]))
            (change,) = push.parse_push(await client.hear())
            assert change.ttl in (push.REMOVE_ONE, push.REMOVE_ALL)
            assert server.counters["notify.NOERROR"] >= 3


async def test_a_notify_by_somebody_else_is_not_taken(tmp_path: Path) -> None:
    port = free_port()
    with bind(tmp_path) as primary:
        async with front(tmp_path / "state", primary.port, port=port) as server:
            await ready(server)
            question = dns.message.make_query(ZONE, "SOA")
            question.set_opcode(4)
            answer = await dns.asyncquery.udp(
                question, "127.0.0.1", 60.0, port, source="127.0.0.77"
            )
            assert answer.rcode() == dns.rcode.NOTIMP
            answer = await dns.asyncquery.udp(question, "127.0.0.1", 60.0, port)
            assert answer.rcode() == dns.rcode.NOERROR
            assert answer.flags & dns.flags.AA


async def test_the_primary_judges_prerequisites_and_we_judge_what_may_be_changed(
    primary: RealServer, tmp_path: Path
) -> None:
    async with front(tmp_path / "state", primary.port) as server:
        await ready(server)
        primary.nsupdate(f"update add {DESK} 60 AAAA fd00::9")  # and nobody tells us
        used = rr(DESK, "ANY", 254)
        answer = await ask(
            server, update_wire(updates=[add(DESK, "A", "192.0.2.1")], prerequisites=[used])
        )
        assert answer.rcode() == dns.rcode.YXDOMAIN
        theirs = add(f"autotunnel-server.{ALICE}", "A", "192.0.2.66")
        answer = await ask(server, update_wire(updates=[theirs], additional=(opt(),)))
        assert answer.rcode() == dns.rcode.REFUSED
        assert "keeps this name" in reason_of(answer)


async def test_without_the_primary_questions_are_answered_and_updates_are_told_why(
    tmp_path: Path,
) -> None:
    port = free_port()
    with structlog.testing.capture_logs() as log, bind(tmp_path, port=port) as primary:
        async with front(tmp_path / "state", port) as server:
            await ready(server)
            assert not away(log)
            primary.process.kill()
            await until(lambda: away(log))
            answer = await ask(server, leased(3600, add(DESK, "AAAA", "fd00::2")))
            assert answer.rcode() == dns.rcode.SERVFAIL
            assert "primary server cannot be reached" in reason_of(answer)
            assert await addresses(server, f"old.{ALICE}") == {"fd00::1"}
            with bind(tmp_path, port=port):

                async def again() -> set[str]:
                    await ask(server, leased(3600, add(DESK, "AAAA", "fd00::2")))
                    return await addresses(server)

                await comes(again, {"fd00::2"})
            assert len(away(log)) <= 2  # once for each time that it went


def away(log: list) -> list:
    return [line for line in log if "away" in line["event"]]


async def test_leases_end_over_restarts_of_ours_and_without_the_primary(tmp_path: Path) -> None:
    port = free_port()
    state = tmp_path / "state"
    with bind(tmp_path, port=port) as primary:
        async with front(state, port) as server:
            await ready(server)
            began = time.monotonic()
            await ask(server, leased(LEASE, add(DESK, "AAAA", "fd00::2")))
            await ask(server, leased(3600, add(DESK, "AAAA", "fd00::3")))
            await still(lambda: there(primary), {"fd00::2", "fd00::3"}, began)
    async with front(state, port) as server:  # what it had last is answered, and its leases end
        await comes(lambda: addresses(server), {"fd00::3"})
        assert await addresses(server, f"old.{ALICE}") == {"fd00::1"}
    with bind(tmp_path, port=port) as primary:
        await comes(lambda: there(primary), {"fd00::2", "fd00::3"})  # once it has read its zone
        async with front(state, port) as server:
            await comes(lambda: there(primary), {"fd00::3"})
            assert await addresses(server) == {"fd00::3"}


async def test_what_was_acknowledged_ends_though_we_were_killed(tmp_path: Path) -> None:
    with bind(tmp_path) as primary:
        async with front(tmp_path / "state", primary.port) as server:
            await ready(server)
            began = time.monotonic()
            await ask(server, leased(LEASE, add(DESK, "AAAA", "fd00::2")))
            shutil.copytree(tmp_path / "state", tmp_path / "killed")  # as a kill would leave it
        async with front(tmp_path / "killed", primary.port) as server:
            await still(lambda: there(primary), {"fd00::2"}, began)
            await comes(lambda: there(primary), set())
            assert await addresses(server) == set()


async def test_a_zone_that_was_never_seen_is_answered_with_a_sentence(tmp_path: Path) -> None:
    async with front(tmp_path / "state", free_port()) as server:
        answer = await ask(server, query_wire(DESK, "AAAA"))
        assert answer.rcode() == dns.rcode.SERVFAIL
        assert "not reached yet" in reason_of(answer)


async def test_the_zone_leads_to_us_and_its_name_server_stays(
    primary: RealServer, tmp_path: Path
) -> None:
    async with front(tmp_path / "state", primary.port) as server:
        await ready(server)
        service = f"_dns-push-tls._tcp.{ALICE}"
        await comes(lambda: there(primary, service, "SRV"), {f"autotunnel-server.{ZONE}"})
        assert await there(primary, f"autotunnel-server.{ALICE}", "A") == {"127.0.0.1"}
        assert await there(primary, f"ns.{ALICE}", "A") == {"127.0.0.1"}
        primary.nsupdate(f"update delete {service} SRV")
        await ask(server, update_wire(updates=[add(DESK, "AAAA", "fd00::2")]))
        await comes(lambda: there(primary, service, "SRV"), {f"autotunnel-server.{ZONE}"})


async def test_an_update_that_comes_twice_is_passed_on_once(tmp_path: Path) -> None:
    with bind(tmp_path) as primary:
        async with front(tmp_path / "state", primary.port) as server:
            await ready(server)
            absent = rr(DESK, "ANY", 254)
            wire = update_wire(updates=[add(DESK, "AAAA", "fd00::2")], prerequisites=[absent])
            signed = tsig.sign(wire, key_of(ALICE), int(time.time()))[0]
            reader, writer = await connect(server, "tcp")
            writer.write(framed(signed) * 3)
            answers = [parse(await read_message(reader)) for _ in range(3)]
            writer.close()
            assert {answer.rcode() for answer in answers} == {dns.rcode.NOERROR}
