"""Real servers that hold a zone, in processes of the test: BIND and Knot on loopback."""

from __future__ import annotations

import asyncio
import base64
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import dns.exception
import dns.message
import dns.query
import dns.rcode
import dns.rdatatype

from discovery.types import TsigKey
from tests.ports import free_port

ZONE = "alice.members.example."
KEY = TsigKey("front.example.", bytes(range(32)))
SECRET = base64.b64encode(KEY.secret).decode()

_FILE = f"""\
$TTL 300
@ SOA ns.{ZONE} hostmaster.{ZONE} 100 3600 600 86400 60
@ NS ns.{ZONE}
ns A 127.0.0.1
old AAAA fd00::1
"""


@dataclass
class RealServer:
    """A running server of somebody else's; ``port`` on 127.0.0.1."""

    port: int
    process: subprocess.Popen[bytes]
    log: Path

    def nsupdate(self, script: str) -> None:
        """Change the zone behind the front's back."""
        key = f"hmac-sha256:{KEY.name}:{SECRET}"
        lines = f"server 127.0.0.1 {self.port}\nzone {ZONE}\n{script}\nsend\n"
        subprocess.run(
            ["nsupdate", "-y", key], input=lines.encode(), check=True, capture_output=True
        )


@contextmanager
def bind(
    folder: Path, *, port: int | None = None, notify: tuple[int, ...] = ()
) -> Iterator[RealServer]:
    """BIND 9 with the zone; a second call with the same folder and port begins where it ended.

    ``notify``: the ports on 127.0.0.1 that are told of changes.
    """
    port = port or free_port()
    zone = folder / "zone.db"
    if not zone.exists():
        zone.write_text(_FILE)
    ports = "".join(f"127.0.0.1 port {each}; " for each in notify)
    also = f"also-notify {{ {ports}}};" if notify else ""
    config = folder / "named.conf"
    config.write_text(f"""
key "{KEY.name}" {{ algorithm hmac-sha256; secret "{SECRET}"; }};
options {{ directory "{folder}"; listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }};
  pid-file none; session-keyfile none; recursion no; dnssec-validation no; notify-delay 0;
  {"notify explicit;" if notify else "notify no;"} {also} }};
controls {{ }};
zone "{ZONE}" {{ type primary; file "{zone}"; journal "{folder}/zone.jnl";
  allow-update {{ key "{KEY.name}"; }}; allow-transfer {{ key "{KEY.name}"; }};
  ixfr-from-differences yes; }};
""")
    log = folder / "named.log"
    with _running(["named", "-g", "-c", str(config)], port, log) as server:
        yield server


@contextmanager
def secondary(folder: Path, primary: int, *, port: int) -> Iterator[RealServer]:
    """BIND 9 on ``port`` as a secondary of the zone on the port ``primary``."""
    config = folder / "named.conf"
    config.write_text(f"""
key "{KEY.name}" {{ algorithm hmac-sha256; secret "{SECRET}"; }};
options {{ directory "{folder}"; listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }};
  pid-file none; session-keyfile none; recursion no; dnssec-validation no; notify no; }};
controls {{ }};
zone "{ZONE}" {{ type secondary; file "{folder}/zone.db"; allow-notify {{ 127.0.0.1; }};
  primaries {{ 127.0.0.1 port {primary} key "{KEY.name}"; }}; min-refresh-time 1;
  max-refresh-time 2; min-retry-time 1; max-retry-time 2; }};
""")
    command = ["named", "-g", "-c", str(config)]
    with _running(command, port, folder / "named.log", zone=False) as server:
        yield server


@contextmanager
def knot(folder: Path, *, port: int | None = None) -> Iterator[RealServer]:
    """Knot DNS with the zone."""
    port = port or free_port()
    zone = folder / "zone.db"
    zone.write_text(_FILE)
    config = folder / "knot.conf"
    config.write_text(f"""
server:
  rundir: "{folder}"
  listen: "127.0.0.1@{port}"
database:
  storage: "{folder}"
log:
  - target: stderr
    any: info
key:
  - id: "{KEY.name}"
    algorithm: hmac-sha256
    secret: "{SECRET}"
acl:
  - id: front
    key: "{KEY.name}"
    action: [transfer, update]
zone:
  - domain: "{ZONE}"
    file: "{zone}"
    storage: "{folder}"
    acl: front
""")
    with _running(["knotd", "-c", str(config)], port, folder / "knot.log") as server:
        yield server


@contextmanager
def _running(
    command: list[str], port: int, log: Path, *, zone: bool = True
) -> Iterator[RealServer]:
    with log.open("ab") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, cwd=log.parent)
    try:
        _await(process, port, log, zone=zone)
        yield RealServer(port, process, log)
    finally:
        process.kill()
        process.wait()


def _await(process: subprocess.Popen[bytes], port: int, log: Path, *, zone: bool) -> None:
    """Until it listens, and with ``zone`` until it has loaded the zone, which it does later."""
    question = dns.message.make_query(ZONE, dns.rdatatype.SOA)
    for _ in range(1200):
        assert process.poll() is None, log.read_text()
        with suppress(OSError, dns.exception.DNSException):
            answer = dns.query.tcp(question, "127.0.0.1", timeout=5.0, port=port)
            if not zone or answer.rcode() == dns.rcode.NOERROR:
                return
        time.sleep(0.05)
    raise AssertionError(log.read_text())


async def until(condition, patience: float = 60.0) -> None:
    """Poll until it holds."""
    for _ in range(int(patience / 0.02)):
        if condition():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it did not come true in time")
