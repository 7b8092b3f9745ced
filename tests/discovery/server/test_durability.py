"""Nothing that was acknowledged is lost when the server is killed at any moment (RFC 2136 §3.5)."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time
from pathlib import Path

from discovery import tsig
from tests.discovery.server.helpers import (
    ALICE,
    ANY,
    add,
    key_of,
    parse,
    query_wire,
    rr,
    update_wire,
)

ROOT = Path(__file__).parents[3]
ROUNDS = 5
DEADLINE = 20.0


async def start(state_dir: Path) -> tuple[asyncio.subprocess.Process, int]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.discovery.server.running",
        str(state_dir),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    async with asyncio.timeout(DEADLINE):
        return process, int(await process.stdout.readline())


class Client:
    """One TCP connection that sends updates as fast as they are acknowledged."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def ask(self, wire: bytes) -> bytes:
        signed, mac = tsig.sign(wire, key_of(ALICE), int(time.time()))
        self._writer.write(len(signed).to_bytes(2) + signed)
        async with asyncio.timeout(DEADLINE):
            size = int.from_bytes(await self._reader.readexactly(2))
            answer = await self._reader.readexactly(size)
        verdict = tsig.verify(answer, lambda *_: key_of(ALICE), int(time.time()), request_mac=mac)
        assert isinstance(verdict, tsig.Verified)
        return answer

    async def load(self, worker: int, rounds: dict[str, set[str]]) -> None:
        """Replace what stands at one's own name, again and again; note what was asked for, and
        from its acknowledgement on only that."""
        name = f"w{worker}.{ALICE}"
        number = 0
        while True:
            number += 1
            value = f"fd01::{worker + 1}:{number:x}"
            wire = update_wire(
                updates=(rr(name, "AAAA", ANY), add(name, "AAAA", value)),
                identity=number,
            )
            rounds[name].add(value)  # from here on it may be there
            answer = await self.ask(wire)
            assert parse(answer).rcode() == 0
            rounds[name] = {value}  # and now it must be


async def connect(port: int) -> Client:
    return Client(*await asyncio.open_connection("127.0.0.1", port))


async def serial_of(client: Client) -> int:
    return int(parse(await client.ask(query_wire(ALICE, "SOA"))).answer[0][0].serial)


async def test_killed_under_load_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    seed = int(os.environ.get("FUZZ_SEED", "0")) or random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}; FUZZ_SEED=… repeats it")
    chance = random.Random(seed)
    names = [f"w{worker}.{ALICE}" for worker in range(3)]
    possible: dict[str, set[str]] = {name: set() for name in names}
    serial = 0
    for _ in range(ROUNDS):
        process, port = await start(tmp_path)
        try:
            checker = await connect(port)
            now_serial = await serial_of(checker)
            assert now_serial > serial
            serial = now_serial
            for name in names:
                answer = parse(await checker.ask(query_wire(name, "AAAA")))
                found = {item.to_text() for rrset in answer.answer for item in rrset}
                if possible[name]:
                    assert len(found) == 1  # never half of an update
                    assert found <= possible[name]
                    possible[name] = found
            workers = [
                asyncio.create_task((await connect(port)).load(number, possible))
                for number in range(3)
            ]
            target = serial + chance.randrange(5, 60)
            while await serial_of(checker) < target:
                assert not any(worker.done() for worker in workers)
            serial = await serial_of(checker)
            os.kill(process.pid, signal.SIGKILL)
            ends = await asyncio.gather(*workers, return_exceptions=True)
            assert all(isinstance(end, (OSError, asyncio.IncompleteReadError)) for end in ends)
            serial -= 1  # the next start must show at least this one again
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
