"""The internet of a scenario: a rendezvous, and homes behind routers of every kind.

::

    left ── router ── (carrier) ──┐                    ┌── (carrier) ── router ── right
         lan0   wan0             the internet 192.0.1.0/24
                                       │
                                 rendezvous 192.0.1.10

The addresses look public on purpose: miniupnpd refuses those for documentation. A host that moves
has one such access for each network that it will stand in, and uses one at a time.
"""

from __future__ import annotations

from collections.abc import Iterator

from tunnel.io.lab.capture import Capture
from tunnel.io.lab.hosts import HostMachine, RendezvousMachine
from tunnel.io.lab.lab import Lab
from tunnel.io.lab.namespace import Namespace
from tunnel.io.lab.nat import INSIDE, OUTSIDE, NatKind, PortMapper, make_nat
from tunnel.io.lab.scenario import Links, Network
from tunnel.io.lab.topology import connect
from tunnel.io.lab.wire import connect_badly

DOMAIN = "lab.members.example"
RENDEZVOUS = "192.0.1.10"
_NAT: dict[str, NatKind] = {"full-cone": "full-cone", "symmetric": "symmetric"}
_NO_UDP = f"""
table ip closed {{
  chain through {{
    type filter hook forward priority -1
    oifname {OUTSIDE} meta l4proto udp drop
  }}
}}
"""


class Internet:
    """The segment in the middle, and the rendezvous on it. Every access gets a number."""

    def __init__(self, lab: Lab, links: Links, seed: int = 0) -> None:
        self.lab, self.links, self.seed = lab, links, seed
        self.middle = lab.switch("internet")
        machine = lab.namespace("rendezvous")
        self.middle.plug(machine, "eth0", f"{RENDEZVOUS}/24")
        self.rendezvous = RendezvousMachine(machine)
        self._count = 0

    def number(self) -> int:
        """The next free one, from 1 on."""
        self._count += 1
        return self._count

    def plug(self, machine: Namespace, device: str, number: int) -> str:
        """Join a machine to the internet over links of the scenario; its address there."""
        address = outside(number)
        if self.links.plain:
            self.middle.plug(machine, device, f"{address}/24", mtu=self.links.mtu)
        else:
            port = f"wire{number}"
            middle = self.middle.namespace
            connect_badly(machine, device, middle, port, self.links, self.seed + number)
            middle.ip("link", "set", port, "master", self.middle.device)
            machine.address(device, f"{address}/24")
        return address


class Access:
    """One network that a host may stand in: the routers, and the device of the host in it."""

    def __init__(self, internet: Internet, host: Namespace, device: str, network: Network) -> None:
        self._internet, self.network, self.device = internet, network, device
        self._host = host
        self.number = number = internet.number()
        self.mapper: PortMapper | None = None
        self.routers: list[Namespace] = []
        self.inside, self._gateway = f"192.168.{number}.10", f"192.168.{number}.1"
        if network.kind == "public":
            self.outside = internet.plug(host, device, number)
            host.ip("link", "set", device, "down")
            return
        router = self._router(f"{host.role}-router{number}")
        connect(host, device, router, INSIDE)
        host.address(device, f"{self.inside}/24")
        router.address(INSIDE, f"{self._gateway}/24")
        host.ip("link", "set", device, "down")
        if network.kind in ("double", "cgnat"):
            self._carrier(router)
        else:
            self.outside = internet.plug(router, OUTSIDE, number)
        self._translate(router)
        if network.timeout:
            for one in self.routers:
                _forget_after(one, network.timeout)

    def enter(self) -> None:
        """The host stands here now."""
        self._host.ip("link", "set", self.device, "up")
        if self.network.kind != "public":
            self._host.gateway(self._gateway)

    def leave(self) -> None:
        """The host is here no more."""
        self._host.ip("link", "set", self.device, "down")

    def reboot(self) -> None:
        """The router comes back with another address, and knows nothing of before."""
        if not self.routers:
            return
        outermost, number = self.routers[-1], self._internet.number()
        if self.mapper is not None:
            self.mapper.kill()
            self.mapper.flush()
        for router in self.routers:
            router.ip("link", "set", OUTSIDE, "down")  # masquerade forgets its flows with it
        outermost.ip("address", "flush", "dev", OUTSIDE)
        self.outside = outside(number)
        outermost.address(OUTSIDE, f"{self.outside}/24")
        for router in self.routers:
            router.ip("link", "set", OUTSIDE, "up")
            if router is not outermost:
                router.gateway(self._between(1))
        if self.mapper is not None:
            self.mapper.start()

    def hops(self) -> Iterator[tuple[Namespace, str]]:
        """Every device on the way between the host and the internet, from the inside out."""
        yield self._host, self.device
        for router in self.routers:
            yield router, INSIDE
            yield router, OUTSIDE

    # --- Inside -----------------------------------------------------------------------------

    def _router(self, role: str) -> Namespace:
        made = self._internet.lab.namespace(role)
        self.routers.append(made)
        return made

    def _between(self, last: int) -> str:
        net = "100.64" if self.network.kind == "cgnat" else "10.0"
        return f"{net}.{self.number}.{last}"

    def _carrier(self, router: Namespace) -> None:
        carrier = self._router(f"{self._host.role}-carrier{self.number}")
        connect(router, OUTSIDE, carrier, INSIDE)
        router.address(OUTSIDE, f"{self._between(10)}/24")
        carrier.address(INSIDE, f"{self._between(1)}/24")
        router.gateway(self._between(1))
        self.outside = self._internet.plug(carrier, OUTSIDE, self.number)
        make_nat(carrier, "restricted")

    def _translate(self, router: Namespace) -> None:
        kind = self.network.kind
        if kind in ("mapped", "cgnat"):
            net = f"192.168.{self.number}.0/24"
            self.mapper = PortMapper(router, net, router.folder)
            self.mapper.start()
            return
        make_nat(router, _NAT.get(kind, "restricted"), inner=self.inside)
        if kind == "blocked":
            router.run("nft", "-f", "-", stdin=_NO_UDP)


class Home:
    """A host, and the networks that it will stand in, one after the other."""

    def __init__(self, internet: Internet, label: str, networks: tuple[Network, ...]) -> None:
        self.label = label
        machine = internet.lab.namespace(label)
        self.host = HostMachine(machine)
        self.accesses = [
            Access(internet, machine, f"eth{index}", network)
            for index, network in enumerate(networks)
        ]
        self._place = 0
        self.access.enter()

    @property
    def access(self) -> Access:
        """Where it stands."""
        return self.accesses[self._place]

    def move(self) -> None:
        """It leaves its network, and enters the next."""
        self.access.leave()
        self._place += 1
        self.access.enter()

    def restart(self) -> None:
        """Its program is killed, and started again."""
        assert self.host.process is not None
        self.host.process.kill()
        self.host.begin_up()

    def capture(self, lab: Lab) -> list[Capture]:
        """Capture every hop of every network."""
        return [
            lab.capture(machine, device, f"{machine.role}-{device}")
            for access in self.accesses
            for machine, device in access.hops()
        ]


def outside(number: int) -> str:
    """The address of an access on the internet."""
    return f"192.0.1.{20 + number}"


def _forget_after(router: Namespace, seconds: float) -> None:
    for name in ("timeout", "timeout_stream"):
        router.write_sysctl(f"net/netfilter/nf_conntrack_udp_{name}", str(round(seconds)))
