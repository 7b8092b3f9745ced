"""A crowd of idle peers' SAs in an engine, and what they take there.

``python -m bench.crowd --peers 10000`` measures in a process of its own, so that nothing else has
warmed its memory, and prints JSON. The figure is the difference of the resident memory before and
after, so it holds what the allocator rounds up, too.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import os
import socket
import sys
from ipaddress import IPv6Address
from pathlib import Path

from fastpath.types import Pump, SaParams, Suite

OURS = IPv6Address("fd00:c::1").packed
ENDPOINT = ("192.0.2.250", 4500)  # idle: nothing is ever sent there
FIRST_SPI = 0x10_0000


def settle_in(pump: Pump, ours: bytes, peers: int, suite: Suite) -> None:
    """Gives ``pump`` an inbound and an outbound SA and a flow for each of so many idle peers."""
    for number in range(peers):
        peer = (0xFD00_000C_0000_0000 << 64 | 0x1_0000 + number).to_bytes(16, "big")
        key = number.to_bytes(suite.key_octets + 4, "big")
        spi = FIRST_SPI + number
        pump.install_inbound(SaParams(spi, suite, key, ours, peer))
        pump.install_outbound(SaParams(spi, suite, key, ours, peer))
        pump.set_flow(peer, spi, ENDPOINT)


def resident_octets() -> int:
    """Resident memory of this process."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def engine_octets(peers: int, engine: str, aead: str, suite: Suite) -> float:
    """Octets that one idle peer takes in an engine."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with near, far, udp:
        if engine == "native":
            native = importlib.import_module("fastpath._pump").NativePump
            pump = native(near.fileno(), udp.fileno(), None, OURS, aead=aead)
        else:
            from tunnel.io.portable_pump import PortablePump  # memory that the other never takes

            pump = PortablePump(near.fileno(), udp.fileno(), None, OURS)
        settle_in(pump, OURS, 1, suite)
        before = resident_octets()
        settle_in(pump, OURS, peers + 1, suite)
        taken = resident_octets() - before
        pump.stop()
    return taken / peers


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.crowd", description=__doc__)
    parser.add_argument("--peers", type=int, default=10_000)
    parser.add_argument("--engine", choices=["native", "reference"], default="native")
    parser.add_argument("--suite", choices=[str(suite) for suite in Suite], default="aes128gcm16")
    parser.add_argument("--aead", default="auto", help="backend of the native engine")
    options = parser.parse_args()
    octets = engine_octets(options.peers, options.engine, options.aead, Suite(options.suite))
    json.dump({"octets_per_peer": octets}, sys.stdout)


if __name__ == "__main__":
    main()
