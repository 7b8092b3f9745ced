"""Hostile octets against a real `autotunnel serve`, over UDP, TCP and TLS, while an honest client
goes on asking and updating.

``python -m tests.fuzz.running_zone [COUNT]`` sends COUNT messages (1,000,000) and prints what came
of it; the suite sends 20,000. FUZZ_SEED picks another run.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import ssl
import struct
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from discovery import tsig
from discovery.types import TsigKey
from keys import store
from tests.discovery.server.helpers import ALICE, BOB, add, opt, parse, query_wire, update_wire
from tests.discovery.server.test_leases import lease_option
from tests.fuzz.test_fuzz_zone import assemble, mutate, seeds
from tests.ports import free_port

ROOT = Path(__file__).parents[2]
DEADLINE = 120.0  # seconds; an honest question on a busy machine
AGAIN = 2.0  # seconds until a datagram counts as lost
WORKERS = 32  # that send at a time
BATCH = 64  # messages before it is made sure that the server took them
WARM = 0.25  # the share of messages after which memory must not grow
GROWTH_KIB = 12_000
"""Resident memory that may be added after that: allocators and full tables, not a leak."""

LONG = 100_000  # messages
TIDIED = 70  # seconds

LLQ_SETUP = struct.pack("!HHHHHQI", 1, 18, 1, 1, 0, 0, 7200)
LLQ_REFRESH = struct.pack("!HHHHHQI", 1, 18, 1, 2, 0, 1, 7200)
LLQ_EVENT_ACK = struct.pack("!HHHHHQI", 1, 18, 1, 3, 0, 1, 0)
DSO_KEEPALIVE = b"\x00\x07\x30\x00" + bytes(8) + struct.pack("!HHII", 1, 8, 15000, 15000)
DSO_SUBSCRIBE = (
    b"\x00\x08\x30\x00"
    + bytes(8)
    + struct.pack("!HH", 0x40, 27)
    + b"\x05alice\x07members\x07example"
    b"\x00\x00\x1c\x00\x01"
)


@dataclass
class Outcome:
    """What was sent, and how the server and its honest client fared."""

    sent: int = 0
    honest: int = 0
    slowest: float = 0.0  # seconds, of an honest answer
    warm_kib: int = 0
    end_kib: int = 0
    files: tuple[int, int] = (0, 0)


@dataclass
class Scene:
    """A server to be fuzzed."""

    folder: Path
    count: int
    chance: random.Random
    outcome: Outcome = field(default_factory=Outcome)
    pid: int = 0
    port: int = 0
    tls_port: int = 0

    def __post_init__(self) -> None:
        self._kept: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self.keys = [self._account(domain, index) for index, domain in enumerate((ALICE, BOB))]
        self.keys.append(TsigKey(self.keys[0].name, self.keys[0].secret, tsig.HMAC_MD5))
        self.keys.append(TsigKey(self.keys[0].name, self.keys[0].secret, "hmac-sha512"))
        self.valid = [
            *seeds(),
            *(
                query_wire(f"desk.{ALICE}", "AAAA", additional=(opt(options=option),))
                for option in (LLQ_SETUP, LLQ_REFRESH, LLQ_EVENT_ACK, LLQ_SETUP * 2)
            ),
            DSO_KEEPALIVE,
            DSO_SUBSCRIBE,
            update_wire(additional=(opt(options=lease_option(1800, 86400)),)),
        ]
        self.port, self.tls_port = free_port(), free_port()
        accounts = "".join(
            f'[[serve.account]]\ndomain = "{domain}"\nsecret_file = "{domain}.key"\n'
            "legacy_md5 = true\nnames = 300\nrecords = 1500\nupdates_per_s = 1000000\n"
            "queries_per_s = 1000000\n"
            for domain in (ALICE, BOB)
        )
        (self.folder / "serve.toml").write_text(
            f'[serve]\nlisten = ["127.0.0.1:{self.port}"]\n'
            f'tls_listen = ["127.0.0.1:{self.tls_port}"]\nstate_dir = "state"\n'
            "unsigned_per_s = 1000000\nidle_s = 5\n"
            f"connections_per_source = 200\n{accounts}"
        )

    def _account(self, domain: str, index: int) -> TsigKey:
        path = self.folder / f"{domain}.key"
        store.save_account_secret(path, bytes((index,)) * 32)
        return TsigKey(domain + ".", store.load_account(domain, path).tsig_secret)

    async def run(self) -> Outcome:
        """Send everything. Raises AssertionError where the server suffers."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "tunnel", "serve", "--json", "-c", str(self.folder / "serve.toml")),
            cwd=ROOT,
            stdout=asyncio.subprocess.PIPE,
            stderr=(self.folder / "log").open("wb"),
        )
        assert process.stdout is not None
        try:
            async with asyncio.timeout(DEADLINE):
                json.loads(await process.stdout.readline())
            self.pid = process.pid
            honest = asyncio.create_task(self._be_honest())
            await self._be_hostile(honest)
            honest.cancel()
            await asyncio.gather(honest, return_exceptions=True)
            assert process.returncode is None
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(DEADLINE):
                assert await process.wait() == 0
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        log = (self.folder / "log").read_text()
        assert "could not be handled" not in log, log[-4000:]  # no flaw of ours was met
        assert "Traceback" not in log, log[-4000:]
        return self.outcome

    # --- Hostile ---

    async def _be_hostile(self, honest: asyncio.Task[None]) -> None:
        workers = [asyncio.create_task(self._send_batches()) for _ in range(WORKERS)]
        tasks = {honest, *workers}
        try:
            while not all(worker.done() for worker in workers):
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
                tasks -= done
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
        self.outcome.end_kib = await self._kept_kib()
        self.outcome.files = (self.outcome.files[0], self._open())
        assert self.outcome.end_kib - self.outcome.warm_kib < GROWTH_KIB, self.outcome

    async def _send_batches(self) -> None:
        ways = [self._datagrams] * 6 + [self._stream] * 3 + [self._tls] * 2
        while self.outcome.sent < self.count:
            self.outcome.sent += BATCH
            if self.outcome.sent % (BATCH * 1000) == 0:
                print(self.outcome, flush=True)
            await self.chance.choice(ways)()
            if not self.outcome.warm_kib and self.outcome.sent >= self.count * WARM:
                self.outcome.warm_kib, self.outcome.files = 1, (self._open(), 0)
                self.outcome.warm_kib = await self._kept_kib()

    def _message(self) -> bytes:
        kind = self.chance.randrange(10)
        if kind == 0:
            return self.chance.randbytes(self.chance.choice((0, 5, 12, 13, 30, 100, 600, 1400)))
        if kind < 5:
            wire = mutate(self.chance, self.chance.choice(self.valid))
        elif kind < 7:
            wire = assemble(self.chance)
        else:
            wire = self.chance.choice(self.valid)
        if kind == 1 or len(wire) < 12 or wire[10:12] == b"\xff\xff":
            return wire
        unix = int(time.time()) + self.chance.choice((0, 0, 0, 0, 299, -301, 10**6))
        signed = tsig.sign(wire, self.chance.choice(self.keys), max(0, unix))[0]
        return mutate(self.chance, signed) if kind in (4, 9) else signed

    async def _datagrams(self) -> None:
        """A batch from some address of the loopback, which is made sure to have been read."""
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            sender.bind((f"127.{self.chance.randrange(4)}.{self.chance.randrange(256)}.1", 0))
            sender.connect(("127.0.0.1", self.port))
            for _ in range(BATCH):
                try:
                    sender.send(self._message())
                except OSError:
                    continue  # an ICMP error of an earlier one, or more than a datagram holds
            proof, _ = tsig.sign(query_wire(BOB, "SOA", identity=7), self.keys[1], int(time.time()))
            async with asyncio.timeout(DEADLINE):
                while True:  # a server without a processor has a full buffer, and loses it
                    await loop.sock_sendall(sender, proof)
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(AGAIN):
                            while (await loop.sock_recv(sender, 65535))[:2] != b"\x00\x07":
                                pass
                            return

    async def _stream(self) -> None:
        await self._converse(None, self.port)

    async def _tls(self) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        await self._converse(context, self.tls_port)

    async def _converse(self, context: ssl.SSLContext | None, port: int) -> None:
        """A batch over connections that end when either side has had enough."""
        left = BATCH
        while left > 0:
            try:
                async with asyncio.timeout(DEADLINE):
                    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
                    left -= await self._pour(reader, writer, left)
            except OSError:  # reset, or refused since too many are open
                left -= 1

    async def _pour(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, most: int
    ) -> int:
        sent = 0
        drinking = asyncio.create_task(_drain(reader))
        try:
            for _ in range(most):
                wire = self._message()
                size = len(wire)
                if not self.chance.randrange(50):
                    size = self.chance.randrange(65536)  # a frame that lies
                writer.write(size.to_bytes(2) + wire)
                sent += 1
                await writer.drain()
                if writer.is_closing() or drinking.done() or not self.chance.randrange(40):
                    break
        except OSError:
            sent += 1
        finally:
            drinking.cancel()
            await asyncio.gather(drinking, return_exceptions=True)
            writer.close()
        return max(sent, 1)

    # --- Honest ---

    async def _be_honest(self) -> None:
        """Update and ask again, and demand a right and proven answer each time."""
        key = self.keys[1]
        number = 0
        while True:
            number += 1
            value = f"fd01::{number >> 16:x}:{number & 0xFFFF:x}"
            name = f"honest.{BOB}"
            delete = b"\x06honest\x03bob\x07members\x07example\x00" + bytes.fromhex(
                "001c00ff000000000000"
            )
            wire = update_wire(BOB, (delete, add(name, "AAAA", value)), identity=number & 0xFFFF)
            started = time.monotonic()
            outcome = parse(await self._ask(wire, key))
            assert outcome.rcode() == 0, outcome
            found = parse(await self._ask(query_wire(name, "AAAA"), key)).answer
            self.outcome.slowest = max(self.outcome.slowest, time.monotonic() - started)
            addresses = [item.to_text() for rrset in found for item in rrset]
            assert [socket.inet_pton(socket.AF_INET6, a) for a in addresses] == [
                socket.inet_pton(socket.AF_INET6, value)
            ], (addresses, value)
            self.outcome.honest += 1

    async def _ask(self, wire: bytes, key: TsigKey) -> bytes:
        """Ask over the connection that is kept, as hosts do; a new one where it ended."""
        signed, mac = tsig.sign(wire, key, int(time.time()))
        async with asyncio.timeout(DEADLINE):
            answer = b""
            while not answer:
                try:
                    answer = await self._exchange(signed)
                except (OSError, asyncio.IncompleteReadError):
                    self._kept = None  # idle for too long on a busy machine
        verdict = tsig.verify(answer, lambda *_: key, int(time.time()), request_mac=mac)
        assert isinstance(verdict, tsig.Verified), verdict
        return answer

    async def _exchange(self, signed: bytes) -> bytes:
        if self._kept is None:
            self._kept = await asyncio.open_connection("127.0.0.1", self.port)
        reader, writer = self._kept
        writer.write(len(signed).to_bytes(2) + signed)
        return await reader.readexactly(int.from_bytes(await reader.readexactly(2)))

    # --- The server's own state ---

    async def _kept_kib(self) -> int:
        """What stays resident once the server has tidied up, which it does every minute; in a
        short run, what is resident."""
        lowest = self._resident()
        for _ in range(TIDIED if self.count >= LONG else 0):
            await asyncio.sleep(1)
            lowest = min(lowest, self._resident())
        return lowest

    def _resident(self) -> int:
        status = Path(f"/proc/{self.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if "VmRSS" in line)

    def _open(self) -> int:
        return sum(1 for _ in Path(f"/proc/{self.pid}/fd").iterdir())


async def _drain(reader: asyncio.StreamReader) -> None:
    while await reader.read(65536):
        pass


async def fuzz(folder: Path, count: int, seed: int) -> Outcome:
    """Send ``count`` messages to a new server."""
    return await Scene(folder, count, random.Random(seed)).run()


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    seed = int(os.environ.get("FUZZ_SEED", "0")) or random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}", flush=True)
    started = time.monotonic()
    quick = Path("/dev/shm")  # not the disk is tested here
    with tempfile.TemporaryDirectory(dir=quick if quick.is_dir() else None) as folder:
        outcome = asyncio.run(fuzz(Path(folder), count, seed))
    print(f"{outcome.sent} messages in {time.monotonic() - started:.0f} s")
    print(f"honest rounds {outcome.honest}, the slowest {outcome.slowest:.2f} s")
    print(f"resident {outcome.warm_kib} KiB after a quarter, {outcome.end_kib} KiB at the end")
    print(f"open files {outcome.files[0]} and {outcome.files[1]}")


if __name__ == "__main__":
    main()
