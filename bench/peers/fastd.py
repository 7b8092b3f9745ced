"""fastd in tun mode with its fastest method, salsa2012+umac."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager

from bench.pair import Pair, wait_for_ping
from bench.peers.types import Tunnel
from tunnel.io.lab import Namespace

INNER = ("fd00:e::1", "fd00:e::2")
METHOD = "salsa2012+umac"
PORT = 10_000
CONFIG = """
mode tun;
interface "fast0";
method "{method}";
mtu 1400;
bind {local}:{port};
secret "{secret}";
peer "other" {{ key "{key}"; {remote} }}
"""


class Fastd:
    """The daemon of community mesh networks."""

    name = "fastd"

    def missing(self) -> str | None:
        return None if shutil.which("fastd") else "not installed (Debian: fastd)"

    @contextmanager
    def tunnel(self, pair: Pair) -> Iterator[Tunnel]:
        started = time.monotonic()
        keys = [_keys(end) for end in (pair.left, pair.right)]
        processes = []
        for number, (end, ours, theirs) in enumerate(pair.ends):
            config = end.folder / "fastd.conf"
            config.touch(0o600)
            config.write_text(
                CONFIG.format(
                    method=METHOD,
                    local=ours,
                    # Only one begins: two handshakes that cross leave both deaf for 20 s.
                    remote=f"remote {theirs}:{PORT};" if number else "",
                    port=PORT,
                    secret=keys[number][0],
                    key=keys[1 - number][1],
                )
            )
            processes.append(end.start("fastd", "--config", str(config)))
            processes[number].wait_for("bound to", 10.0)
        for number, process in enumerate(processes):
            end = pair.ends[number][0]
            process.wait_for("established", 20.0)
            end.address("fast0", f"{INNER[number]}/64")
        wait_for_ping(pair.left, INNER[1])
        version = pair.left.run("fastd", "--version", check=False).stdout.split()
        yield Tunnel(
            *INNER,
            engine=" ".join(version[:2]),
            aead=METHOD,
            pids=tuple(process.pid for process in processes),
            setup_seconds=time.monotonic() - started,
        )


def _keys(end: Namespace) -> tuple[str, str]:
    """(secret, public) as fastd prints them."""
    lines = end.run("fastd", "--generate-key").stdout.splitlines()
    found = dict(line.split(": ", 1) for line in lines if ": " in line)
    return found["Secret"], found["Public"]
