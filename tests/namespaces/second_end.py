"""A host with two uplinks for test_second_network: ``second_end.py ENGINE``, in its namespace.

It sends one mobility message from each way out, to the same two targets, and says what it found.
"""

from __future__ import annotations

import json
import socket
import sys

from fastpath.types import Source
from tests.fastpath.relays import HOST_A, HOST_B, MESSAGE, sa
from tests.fastpath.support import ipv6
from tests.fastpath.test_relay_pumps import maker
from tunnel.io import netlink
from tunnel.io.sockets import UdpPair

PORT, SPI = 4500, 0xAB35
TARGETS = {4: ("203.0.113.1", 9), 6: ("2001:db8:f::1", 9)}


def main(engine: str) -> None:
    ways = netlink.ways_out()
    pair, (near, far) = UdpPair(PORT, "the test"), socket.socketpair()
    near.setblocking(False)
    four, six = pair.fd(socket.AF_INET), pair.fd(socket.AF_INET6)
    pump = maker(engine)(near.fileno(), four, six, HOST_A)
    pump.install_outbound(sa(SPI, HOST_A, HOST_B, inbound=False))
    for way in ways:
        assert way.source is not None
        source: Source = (way.source, way.index)
        pump.send_inner(SPI, TARGETS[way.version], ipv6(HOST_A, HOST_B, MESSAGE, 135), source)
    print(json.dumps({"ways": [way.source for way in ways], "counters": pump.counters()}))
    pump.stop()
    pair.close()
    far.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
