"""A real `autotunnel serve`, under a load of updates, killed at random moments.

``python -m tests.discovery.server.kills [COUNT]`` does it COUNT times (300), and prints what it
saw; the suite does it ten times.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import dns.name

from discovery import audit, tsig
from discovery.io_store import SqliteStore
from discovery.lease import LeaseLimits
from discovery.types import TsigKey
from keys import store
from tests.discovery.server.helpers import (
    ALICE,
    ANY,
    NONE,
    add,
    opt,
    parse,
    query_wire,
    rr,
    update_wire,
)
from tests.discovery.server.test_leases import lease_option
from tests.ports import free_port

ROOT = Path(__file__).parents[3]
DEADLINE = 60.0  # seconds; a kill under load on a busy machine
WORKERS = 8
SECRET = bytes(range(32))


@dataclass
class Scene:
    """One store, its servers one after the other, and what they acknowledged."""

    folder: Path
    chance: random.Random
    possible: dict[str, set[str]] = field(default_factory=dict)
    serial: int = 0
    acknowledged: int = 0
    key: TsigKey = field(init=False)

    def __post_init__(self) -> None:
        path = self.folder / "alice.key"
        store.save_account_secret(path, SECRET)
        self.key = TsigKey(ALICE + ".", store.load_account(ALICE, path).tsig_secret)

    def configure(self) -> None:
        """Write the configuration, with a port that is free now."""
        port = free_port()
        (self.folder / "serve.toml").write_text(
            f'[serve]\nlisten = ["127.0.0.1:{port}"]\ntls_listen = []\nstate_dir = "state"\n'
            f'[[serve.account]]\ndomain = "{ALICE}"\nsecret_file = "alice.key"\n'
        )

    async def start(self) -> tuple[asyncio.subprocess.Process, int]:
        self.configure()
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "tunnel", "serve", "--json", "-c", str(self.folder / "serve.toml")),
            cwd=ROOT,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        assert process.stdout is not None
        async with asyncio.timeout(DEADLINE):
            ready = json.loads(await process.stdout.readline())
        return process, int(ready["tcp"][0][1])

    async def kill_once(self) -> None:
        """Start, check what is there, load, kill, check the file."""
        process, port = await self.start()
        try:
            client = await Client.connect(port, self.key)
            await self.check_content(client)
            target = self.acknowledged + self.chance.randrange(1, 400)
            clients = [await Client.connect(port, self.key) for _ in range(WORKERS)]
            workers = [
                asyncio.create_task(self.load(number, one)) for number, one in enumerate(clients)
            ]
            async with asyncio.timeout(DEADLINE):
                while self.acknowledged < target:
                    assert not any(worker.done() for worker in workers)
                    await asyncio.sleep(0)
            os.kill(process.pid, signal.SIGKILL)
            ends = await asyncio.gather(*workers, return_exceptions=True)
            assert all(isinstance(end, (OSError, asyncio.IncompleteReadError)) for end in ends)
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
        self.check_file()

    async def check_content(self, client: Client) -> None:
        """Nothing acknowledged is lost, no update is half there, and the serial goes on."""
        serial = int(parse(await client.ask(query_wire(ALICE, "SOA"))).answer[0][0].serial)
        assert (serial - self.serial) % 2**32 < 2**31, (serial, self.serial)
        self.serial = serial
        for name, values in self.possible.items():
            found = {}
            for rdtype in ("AAAA", "TXT"):
                answer = parse(await client.ask(query_wire(name, rdtype)))
                found[rdtype] = {item.to_text() for rrset in answer.answer for item in rrset}
            assert len(found["AAAA"]) == 1, name
            assert found["AAAA"] <= values, name
            assert found["TXT"] == {f'"{value}"' for value in found["AAAA"]}, name  # atomic
            self.possible[name] = found["AAAA"]

    def check_file(self) -> None:
        """As `serve --check` does."""
        opened = SqliteStore(self.folder / "state" / "zone.sqlite")
        try:
            assert opened.problems() == []
            zone = dns.name.from_text(ALICE)
            assert audit.problems(zone, opened.load(zone), LeaseLimits(), int(time.time())) == []
        finally:
            opened.close()

    async def load(self, worker: int, client: Client) -> None:
        """Replace what stands at one's own name, again and again; note what was asked for, and
        from its acknowledgement on only that."""
        name = f"w{worker}.{ALICE}"
        while True:
            value = f"fd01::{self.chance.randrange(1, 65536):x}:{self.chance.randrange(1, 65536):x}"
            wire = update_wire(
                updates=(
                    rr(name, "ANY", ANY),
                    add(name, "AAAA", value),
                    add(name, "TXT", f'"{value}"'),
                ),
                prerequisites=(rr(f"absent.{ALICE}", "ANY", NONE),),
                identity=self.chance.randrange(65536),
                additional=(opt(options=lease_option(7200)),) if worker % 2 else (),
            )
            self.possible.setdefault(name, set()).add(value)  # from here on it may be there
            answer = parse(await client.ask(wire))
            assert answer.rcode() == 0
            self.possible[name] = {value}  # and now it must be
            self.acknowledged += 1


class Client:
    """One TCP connection to the server."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, key: TsigKey
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._key = key

    @classmethod
    async def connect(cls, port: int, key: TsigKey) -> Client:
        return cls(*await asyncio.open_connection("127.0.0.1", port), key)

    async def ask(self, wire: bytes) -> bytes:
        signed, mac = tsig.sign(wire, self._key, int(time.time()))
        self._writer.write(len(signed).to_bytes(2) + signed)
        async with asyncio.timeout(DEADLINE):
            size = int.from_bytes(await self._reader.readexactly(2))
            answer = await self._reader.readexactly(size)
        verdict = tsig.verify(answer, lambda *_: self._key, int(time.time()), request_mac=mac)
        assert isinstance(verdict, tsig.Verified), verdict
        return answer


async def kill_often(folder: Path, count: int, seed: int) -> Scene:
    """Kill ``count`` times, then look once more. The seed decides loads and moments."""
    scene = Scene(folder, random.Random(seed))
    for _ in range(count):
        await scene.kill_once()
    process, port = await scene.start()
    try:
        await scene.check_content(await Client.connect(port, scene.key))
    finally:
        process.kill()
        await process.wait()
    return scene


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    seed = int(os.environ.get("FUZZ_SEED", "0")) or random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        scene = asyncio.run(kill_often(Path(folder), count, seed))
    print(f"{count} kills, {scene.acknowledged} acknowledged updates, none lost")


if __name__ == "__main__":
    main()
