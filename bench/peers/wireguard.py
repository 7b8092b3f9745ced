"""wireguard-go, configured over its own socket: neither kernel WireGuard nor ``wg`` is needed.

``wireguard-go`` is the distribution's; ``wireguard-go-named`` the binary that the environment
variable WIREGUARD_GO names, for example a current build.
"""

from __future__ import annotations

import os
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from bench.pair import Pair, wait_for_ping
from bench.peers.types import Tunnel
from tunnel.io.lab import LabError, Namespace, Process, wait_until

INNER = ("fd00:d::1", "fd00:d::2")
PORT = 51_820
MTU = "1400"


class WireGuardGo:
    """One binary of wireguard-go."""

    def __init__(self, name: str, binary: str | None, absent: str) -> None:
        self.name = name
        self._binary = binary
        self._absent = absent

    def missing(self) -> str | None:
        return None if self._binary and shutil.which(self._binary) else self._absent

    @contextmanager
    def tunnel(self, pair: Pair) -> Iterator[Tunnel]:
        started = time.monotonic()
        binary = shutil.which(self._binary or "") or ""
        secrets = [X25519PrivateKey.generate() for _ in INNER]
        processes = []
        for number, (end, _, theirs) in enumerate(pair.ends):
            device = f"wg{os.getpid()}-{number}"  # its socket lies in a folder that all share
            process = end.start(
                *(binary, "--foreground", device), name="wireguard-go", env={"LOG_LEVEL": "error"}
            )
            processes.append(process)
            other = secrets[1 - number].public_key().public_bytes_raw()
            _configure(
                Path(f"/var/run/wireguard/{device}.sock"),
                process,
                f"private_key={secrets[number].private_bytes_raw().hex()}\nlisten_port={PORT}\n"
                f"public_key={other.hex()}\nendpoint={theirs}:{PORT}\n"
                f"allowed_ip={INNER[1 - number]}/128\n",
            )
            _address(end, device, number)
        wait_for_ping(pair.left, INNER[1])
        said = pair.left.run(binary, "--version", check=False).stdout.split()
        yield Tunnel(
            *INNER,
            engine=" ".join(said[:2]),
            aead="chacha20poly1305",
            pids=tuple(process.pid for process in processes),
            setup_seconds=time.monotonic() - started,
        )


def _configure(path: Path, process: Process, settings: str) -> None:
    """Speaks the cross-platform configuration protocol: ``set=1`` …, answered by ``errno=0``."""

    def listens() -> bool:
        if not process.running:
            raise LabError(f"wireguard-go ended: {process.tail()}")
        return path.exists()

    wait_until(listens, 10.0, "wireguard-go listens")
    with socket.socket(socket.AF_UNIX) as control:
        control.connect(str(path))
        control.sendall(f"set=1\n{settings}\n".encode())
        answer = control.recv(4096).decode()
    if "errno=0" not in answer:
        raise LabError(f"wireguard-go refused its configuration: {answer.strip()}")


def _address(end: Namespace, device: str, number: int) -> None:
    end.ip("link", "set", device, "mtu", MTU)
    end.address(device, f"{INNER[number]}/64")


VARIANTS = (
    WireGuardGo("wireguard-go", "wireguard-go", "not installed (Debian: wireguard-go)"),
    WireGuardGo(
        "wireguard-go-named",
        os.environ.get("WIREGUARD_GO"),
        "no binary named; set WIREGUARD_GO to its path",
    ),
)
