"""One host of a measurement: a real device, a real socket, a real pump, fixed SAs, no IKE.

Says ``ready {json}`` with the engine and AEAD in use, then runs until SIGTERM. The keys are
fixed, and so are worth nothing: this never leaves the namespaces of a measurement.
"""

from __future__ import annotations

import argparse
import importlib
import json
import signal
import socket
from collections.abc import Callable
from functools import partial
from ipaddress import IPv6Address

from bench.crowd import settle_in
from fastpath.types import Mode, Pump, SaParams, Suite
from tunnel.io.device import open_device

INNER = ("fd00:b::1", "fd00:b::2")  # host ids, left and right
PORT = 4500
MTU = 1400
SOCKET_BUFFER = 4 * 2**20
SPI = {"left": 0x1001, "right": 0x1002}  # inbound SPI of each side


def main() -> None:
    options = _parser().parse_args()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    mine, other = ("left", "right") if options.side == "left" else ("right", "left")
    ids = dict(zip(("left", "right"), (IPv6Address(text) for text in INNER), strict=True))
    device = open_device("at0", ids[mine], MTU, offload=options.engine == "native")
    device.add_route(ids[other])
    with bound_socket(options.local) as udp:
        make = pump_class(options.engine, options.aead)
        pump = make(device.fd, udp.fileno(), None, ids[mine].packed, device.vnet_hdr)
        suite, mode = Suite(options.suite), Mode(options.mode)

        def sa(side: str) -> SaParams:
            key = bytes([SPI[side] & 0xFF]) * (suite.key_octets + 4)
            return SaParams(SPI[side], suite, key, ids[mine].packed, ids[other].packed, mode=mode)

        pump.install_inbound(sa(mine))
        pump.install_outbound(sa(other))
        pump.set_flow(ids[other].packed, SPI[other], (options.remote, PORT))
        settle_in(pump, ids[mine].packed, options.idle, suite)
        pump.start()
        print("ready", json.dumps({"engine": pump.engine, "aead": pump.aead}), flush=True)
        signal.sigwait({signal.SIGTERM, signal.SIGINT})
        pump.stop()
        print("counters", json.dumps(pump.counters()), flush=True)
    device.close()


def bound_socket(address: str) -> socket.socket:
    """The outer socket, with room for bursts."""
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        udp.setsockopt(socket.SOL_SOCKET, option, SOCKET_BUFFER)
    udp.bind((address, PORT))
    udp.setblocking(False)
    return udp


def pump_class(engine: str, aead: str) -> Callable[..., Pump]:
    """What makes a pump of that engine."""
    if engine == "reference":
        from tunnel.io.portable_pump import PortablePump  # its libraries are no part of the other

        return PortablePump
    native: Callable[..., Pump] = importlib.import_module("fastpath._pump").NativePump
    return partial(native, aead=aead)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench.pump_end", description=__doc__)
    parser.add_argument("side", choices=["left", "right"])
    parser.add_argument("local", help="our outer IPv4 address")
    parser.add_argument("remote", help="the other's")
    parser.add_argument("--engine", choices=["native", "reference"], default="native")
    parser.add_argument("--suite", choices=[str(suite) for suite in Suite], default="aes128gcm16")
    parser.add_argument("--aead", default="auto", help="backend of the native engine")
    parser.add_argument("--idle", type=int, default=0, help="peers beside the one that is busy")
    parser.add_argument("--mode", choices=[str(mode) for mode in Mode], default="tunnel")
    return parser


if __name__ == "__main__":
    main()
