"""One host for test_native_tun: a real device, a real socket, a native pump, fixed SAs.

``pump_end.py SIDE OFFLOAD OUTER PEER_OUTER [QUEUES]``; says its offloads and ``ready``, and its
counters after SIGTERM.
"""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import sys
from ipaddress import IPv6Address

from fastpath.types import Queue, SaParams, Suite
from tests.fastpath.support import native_module
from tunnel.io.device import open_device
from tunnel.io.offloads import states_of
from tunnel.io.sockets import BUFFER_OCTETS

IDS = {"left": IPv6Address("fd00::1"), "right": IPv6Address("fd00::2")}
SPIS = {"left": 0x1001, "right": 0x1002}  # inbound
PORT = 4500
SO_RCVBUFFORCE = 33
MTU = 1400


def main(side: str, offload: str, outer: str, peer_outer: str, queues: str = "1") -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    other = "right" if side == "left" else "left"
    ours, theirs = IDS[side].packed, IDS[other].packed
    count = int(queues)
    device = open_device("at0", IDS[side], MTU, offload=offload == "offload", queues=count)
    device.add_route(IDS[other])
    family = socket.AF_INET6 if ":" in outer else socket.AF_INET
    with contextlib.ExitStack() as stack:
        pairs: list[tuple[int | None, int | None]] = []
        for _ in device.fds:
            udp = stack.enter_context(socket.socket(family, socket.SOCK_DGRAM))
            udp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, count > 1)
            udp.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_OCTETS)
            udp.setblocking(False)
            udp.bind((outer, PORT))
            pairs.append((None, udp.fileno()) if ":" in outer else (udp.fileno(), None))
        first, *more = (Queue(fd, *pair) for fd, pair in zip(device.fds, pairs, strict=True))
        pump = native_module("_pump").NativePump(*first, ours, device.vnet_hdr, more=more)

        def sa(receiver: str) -> SaParams:
            key = SPIS[receiver].to_bytes(2, "big") * 10
            return SaParams(SPIS[receiver], Suite.AES128GCM16, key, ours, theirs)

        pump.install_inbound(sa(side))
        pump.install_outbound(sa(other))
        pump.set_flow(theirs, SPIS[other], (peer_outer, PORT))
        pump.start()
        states = states_of(device.offloads, pump.offloads())
        print("offloads", json.dumps(states), flush=True)
        print("ready", flush=True)
        signal.sigwait({signal.SIGTERM})
        pump.stop()
        print("counters", json.dumps(pump.counters()), flush=True)
    device.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
