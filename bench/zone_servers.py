"""The servers that ``python -m bench zone`` asks: ours and BIND, each in a process of its own, both
durable on the same disk. ``python -m bench.zone_servers STATE_DIR PORT`` is ours."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from discovery.held import ZoneAccount
from discovery.io_serve import RendezvousServer
from discovery.llq_server import LlqLimits
from discovery.rates import RateLimits
from discovery.subscriptions import SubscriptionLimits
from discovery.types import Endpoint, TsigKey
from discovery.update import ZoneLimits
from tunnel.io.lab import LabError

DOMAIN: Final = "bench.example"
SECRET: Final = hashlib.sha256(b"bench zone").digest()  # of a zone that lives for this run
KEY: Final = TsigKey(f"{DOMAIN}.", SECRET)
PATIENCE: Final = 20.0  # seconds to start
ROOT: Final = Path(__file__).parents[1]
MANY: Final = 10_000_000


@dataclass(frozen=True, slots=True)
class Server:
    """A running server: where it is asked, and its process."""

    name: str
    endpoint: Endpoint
    pid: int

    def cpu_seconds(self) -> float:
        """Return the processor time that it has used."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident(self) -> int:
        """Return its resident memory in octets."""
        pages = Path(f"/proc/{self.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def ours(folder: Path) -> Iterator[Server]:
    """``autotunnel serve``'s server, with limits that do not bound what is measured."""
    port = _free_port()
    command = [sys.executable, "-m", "bench.zone_servers", str(folder), str(port)]
    with _running("autotunnel", command, port, folder) as server:
        yield server


@contextmanager
def bind(folder: Path) -> Iterator[Server]:
    """BIND 9 as Debian has it: each update is in its journal, and fsync'ed, before the answer."""
    named = shutil.which("named")
    if named is None:
        raise LabError("named is not installed; on Debian: apt install bind9")
    port = _free_port()
    (folder / "zone.db").write_text(
        f"$ORIGIN {DOMAIN}.\n$TTL 300\n"
        f"@ SOA ns.{DOMAIN}. hostmaster.{DOMAIN}. 1 7200 900 1209600 60\n@ NS ns\nns A 127.0.0.1\n"
    )
    (folder / "named.conf").write_text(f"""
key "{KEY.name}" {{ algorithm hmac-sha256; secret "{base64.b64encode(SECRET).decode()}"; }};
options {{ directory "{folder}"; listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }};
  pid-file none; session-keyfile none; recursion no; dnssec-validation no; notify no; }};
controls {{ }};
logging {{ category default {{ null; }}; }};
zone "{DOMAIN}" {{ type primary; file "{folder}/zone.db"; journal "{folder}/zone.jnl";
  allow-update {{ key "{KEY.name}"; }}; }};
""")
    command = [named, "-g", "-c", str(folder / "named.conf")]
    with _running("BIND", command, port, folder) as server:
        yield server


@contextmanager
def _running(name: str, command: list[str], port: int, folder: Path) -> Iterator[Server]:
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + PATIENCE
        while not _answers(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise LabError(f"{name} did not start: {(folder / 'log').read_text()[-500:]}")
            time.sleep(0.02)
        yield Server(name, ("127.0.0.1", port), process.pid)
    finally:
        process.terminate()
        process.wait(PATIENCE)


def _answers(port: int) -> bool:
    """Say whether the server has its zone: BIND listens before."""
    asked = b"\0\1\0\0\0\1" + bytes(6) + b"\5bench\7example\0\0\6\0\1"
    with socket.socket(type=socket.SOCK_DGRAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(("127.0.0.1", port))
            probe.send(asked)
            return probe.recv(512)[3] & 15 == 0
        except OSError:
            return False


def _free_port() -> int:
    with socket.socket() as one, socket.socket(type=socket.SOCK_DGRAM) as other:
        one.bind(("127.0.0.1", 0))
        other.bind(one.getsockname())
        return int(one.getsockname()[1])


async def _serve(state_dir: Path, port: int) -> None:
    limits = ZoneLimits(names=MANY, records=MANY)
    account = ZoneAccount(
        DOMAIN, SECRET, bytes(32), lambda *_: bytes(32), rates=RateLimits(MANY, MANY)
    )
    server = RendezvousServer(
        accounts=[account],
        listen=[("127.0.0.1", port)],
        state_dir=state_dir,
        zone_limits=limits,
        subscription_limits=SubscriptionLimits(llq=LlqLimits(MANY, MANY, MANY)),
    )
    await server.start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1]), int(sys.argv[2])))
