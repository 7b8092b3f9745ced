"""How the machines of a lab are joined: links, switches and plain routers."""

from __future__ import annotations

import itertools

from tunnel.io.lab.namespace import Namespace
from tunnel.io.lab.process import run


def connect(
    left: Namespace,
    left_device: str,
    right: Namespace,
    right_device: str,
    *,
    mtu: int = 1500,
) -> None:
    """Join two namespaces with a veth link; neither end ever stands in the machine's own."""
    run(
        [
            *("ip", "link", "add", left_device, "mtu", str(mtu), "netns", left.name),
            *("type", "veth", "peer", "name", right_device, "mtu", str(mtu), "netns", right.name),
        ]
    )
    left.ip("link", "set", left_device, "up")
    right.ip("link", "set", right_device, "up")


class Switch:
    """A bridge in a namespace of its own: a network segment, or the internet of a lab."""

    device = "br0"

    def __init__(self, namespace: Namespace) -> None:
        self.namespace = namespace
        self._ports = itertools.count(1)
        namespace.ip("link", "add", self.device, "type", "bridge", "mcast_snooping", "0")
        namespace.ip("link", "set", self.device, "up")

    def plug(self, machine: Namespace, device: str, *addresses: str, mtu: int = 1500) -> str:
        """Join ``machine`` to the segment with a new ``device``; the name of the switch's port."""
        port = f"port{next(self._ports)}"
        connect(machine, device, self.namespace, port, mtu=mtu)
        self.namespace.ip("link", "set", port, "master", self.device)
        machine.address(device, *addresses)
        return port


def make_router(namespace: Namespace) -> Namespace:
    """Let the namespace forward packets (plain routing, no NAT)."""
    namespace.write_sysctl("net/ipv4/ip_forward", "1")
    namespace.write_sysctl("net/ipv6/conf/all/forwarding", "1")
    return namespace
