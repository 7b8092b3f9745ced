"""One of the three hosts of ``bench.relay``: a real device, a real socket, a real pump, fixed SAs.

``left`` and ``right`` reach each other directly at first; SIGUSR1 moves their flow to the home
agent, and back. ``agent`` forwards. Says ``ready {json}``, then runs until SIGTERM. The keys are
fixed, and so are worth nothing: this never leaves the namespaces of a measurement.
"""

from __future__ import annotations

import argparse
import json
import signal
from ipaddress import IPv6Address

from bench.pump_end import MTU, PORT, bound_socket, pump_class
from fastpath.types import RELAY_PORT, Endpoint, Mode, Pump, SaParams, Suite, Traffic
from tunnel.io.device import open_device

IDS = {name: IPv6Address(f"fd00:b::{n}") for n, name in enumerate(("left", "right", "agent"), 1)}
SPIS = {
    ("left", "right"): 0x1001,
    ("right", "left"): 0x1002,
    ("left", "agent"): 0x2001,
    ("agent", "left"): 0x2002,
    ("right", "agent"): 0x2003,
    ("agent", "right"): 0x2004,
}
RELAYED_MTU = 1350
"""What fits 1,500 octets nested: 28 for IPv4 and UDP, 37 for ESP twice, 40 between them."""


def main() -> None:
    """Until SIGTERM."""
    options = _parser().parse_args()
    wanted = {signal.SIGTERM, signal.SIGINT, signal.SIGUSR1}
    signal.pthread_sigmask(signal.SIG_BLOCK, wanted)
    name, host_id = options.name, IDS[options.name]
    device = open_device("at0", host_id, MTU, offload=options.engine == "native")
    for other, address in IDS.items():
        if other != name:
            device.add_route(address)
    with bound_socket("0.0.0.0") as udp:
        make = pump_class(options.engine, "auto")
        pump = make(device.fd, udp.fileno(), None, host_id.packed, device.vnet_hdr)
        for sender, receiver in SPIS:
            _install(pump, name, sender, receiver)
        places = dict(pair.split("=") for pair in options.at)
        relayed = {other: (address, PORT) for other, address in places.items()}
        if name == "agent":
            for other, endpoint in relayed.items():
                pump.set_relay(IDS[other].packed, SPIS[name, other], endpoint, True)
        else:
            other = "right" if name == "left" else "left"
            pump.set_relay(IDS[other].packed, SPIS[name, "agent"], relayed["agent"])
            _point(pump, name, other, relayed[other])
        pump.start()
        print("ready", json.dumps({"engine": pump.engine, "aead": pump.aead}), flush=True)
        direct = True
        while signal.sigwait(wanted) == signal.SIGUSR1:
            direct = not direct
            way = relayed[other] if direct else (str(IDS[other]), RELAY_PORT)
            _point(pump, name, other, way)
            print("direct" if direct else "relay", flush=True)
        pump.stop()
        print("counters", json.dumps(pump.counters()), flush=True)
    device.close()


def params(name: str, sender: str, receiver: str, mode: Mode = Mode.TUNNEL) -> SaParams:
    """The SA from ``sender`` to ``receiver`` as ``name`` has it; a relay SA where one of them is
    the agent."""
    spi = SPIS[sender, receiver]
    nested = "agent" in (sender, receiver)
    return SaParams(
        spi,
        Suite.AES128GCM16,
        bytes([spi & 0xFF]) * (Suite.AES128GCM16.key_octets + 4),
        IDS[name].packed,
        IDS[sender if name == receiver else receiver].packed,
        mode=Mode.TRANSPORT if nested else mode,
        traffic=Traffic(protocol=41) if nested else None,
    )


def _install(pump: Pump, name: str, sender: str, receiver: str) -> None:
    if name == receiver:
        pump.install_inbound(params(name, sender, receiver))
    elif name == sender:
        pump.install_outbound(params(name, sender, receiver))


def _point(pump: Pump, name: str, other: str, endpoint: Endpoint) -> None:
    mtu = MTU if endpoint[1] == PORT else RELAYED_MTU
    pump.set_flow(IDS[other].packed, SPIS[name, other], endpoint, mtu, MTU)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench.relay_end", description=__doc__)
    parser.add_argument("name", choices=list(IDS))
    parser.add_argument("at", nargs="+", help="NAME=ADDRESS: where each of the others is")
    parser.add_argument("--engine", choices=["native", "reference"], default="native")
    return parser


if __name__ == "__main__":
    main()
