"""A host with two uplinks for test_second_network: ``second_end.py ENGINE``, in its namespace.

It sends one mobility message and one plain datagram from each way out, to the same two targets,
and says what it found; ``vpn0`` leads out, too, but only while it is held.
"""

from __future__ import annotations

import fcntl
import json
import socket
import struct
import sys
from pathlib import Path

from fastpath.types import Source
from tests.fastpath.relays import HOST_A, HOST_B, MESSAGE, sa
from tests.fastpath.support import ipv6
from tests.fastpath.test_relay_pumps import maker
from tunnel.io import netlink
from tunnel.io.lab import wait_until
from tunnel.io.sockets import UdpPair

PORT, SPI = 4500, 0xAB35
TUNNEL, TUNSETIFF, IFF_TUN, IFF_NO_PI = b"vpn0", 0x400454CA, 0x0001, 0x1000  # <linux/if_tun.h>
TARGETS = {4: ("203.0.113.1", 9), 6: ("2001:db8:f::1", 9)}


def networks() -> tuple[netlink.WayOut, ...] | None:
    """All ways out, when no tunnel is one of them: its carrier goes a moment after its holder."""
    ways = netlink.ways_out()
    return None if any(way.tunnel for way in ways) else ways


def tunnels() -> list[str | None]:
    """Those among the ways out, when somebody holds the device, as a VPN's program does."""
    with Path("/dev/net/tun").open("r+b", buffering=0) as held:
        fcntl.ioctl(held, TUNSETIFF, struct.pack("=16sH22x", TUNNEL, IFF_TUN | IFF_NO_PI))
        ways = wait_until(
            lambda: [way for way in netlink.ways_out() if way.tunnel] or None, 20, "a tunnel"
        )
        return [way.source for way in ways]


def main(engine: str) -> None:
    ways = wait_until(networks, 60, "nobody holds the tunnel any more")
    pair, (near, far) = UdpPair(PORT, "the test"), socket.socketpair()
    near.setblocking(False)
    four, six = pair.fd(socket.AF_INET), pair.fd(socket.AF_INET6)
    pump = maker(engine)(near.fileno(), four, six, HOST_A)
    pump.install_outbound(sa(SPI, HOST_A, HOST_B, inbound=False))
    for way in ways:
        assert way.source is not None
        source: Source = (way.source, way.index)
        pump.send_inner(SPI, TARGETS[way.version], ipv6(HOST_A, HOST_B, MESSAGE, 135), source)
        pump.send(bytes(4) + b"question", TARGETS[way.version], source)
    found = {"ways": [way.source for way in ways], "tunnels": tunnels()}
    print(json.dumps(found | {"counters": pump.counters()}))
    pump.stop()
    pair.close()
    far.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
