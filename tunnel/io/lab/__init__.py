"""Whole networks on one machine: namespaces, links, routers, processes and captures.

The demo, the tests and the benchmarks build their networks with this. A :class:`Lab` owns all
that it makes and takes it away at the end, also after an exception, Ctrl-C or SIGTERM; what a run
that was killed with SIGKILL left behind is removed by the next one. Nothing is made in the
machine's own network namespace, so that a lab neither sees nor touches the machine's network, and
many labs may run at once.

::

    with Lab() as lab:
        net = lab.switch("net")
        left, right = lab.namespace("left"), lab.namespace("right")
        net.plug(left, "eth0", "192.0.2.1/24")
        net.plug(right, "eth0", "192.0.2.2/24")
        capture = lab.capture(net.namespace, net.device)
        left.run("ping", "-c", "1", "192.0.2.2")

It needs Linux, root and iproute2: :func:`missing` says in a sentence what is not there.
"""

from tunnel.io.lab.arrivals import Arrivals
from tunnel.io.lab.capture import Capture, Sighting, find_all
from tunnel.io.lab.hosts import HostMachine, RendezvousMachine
from tunnel.io.lab.lab import Lab
from tunnel.io.lab.namespace import Namespace
from tunnel.io.lab.pcap import Packet, read_packets
from tunnel.io.lab.process import LabError, Process, wait_until
from tunnel.io.lab.requirements import missing
from tunnel.io.lab.topology import Switch, connect, make_router

__all__ = [
    "Arrivals",
    "Capture",
    "HostMachine",
    "Lab",
    "LabError",
    "Namespace",
    "Packet",
    "Process",
    "RendezvousMachine",
    "Sighting",
    "Switch",
    "connect",
    "find_all",
    "make_router",
    "missing",
    "read_packets",
    "wait_until",
]
