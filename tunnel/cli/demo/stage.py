"""The demo's network: two homes and four more places to be, each behind a router that translates.

::

    laptop ─┬─ home:  opens nothing ── .1 ─┐            ┌─ .2 ── study:  miniupnpd ────┬─ desk
            ├┄ cafe:  opens nothing ── .3 ─┼─ internet ─┼─ .4 ── office: miniupnpd ───┄┤
            └┄ train: symmetric ────── .5 ─┘  │      │  └─ .6 ── cabin:  a carrier's ─┄┘
                               rendezvous .10 ┘      └ agent .20         NAT, its own

All hosts but the agent have private addresses. The routers of home and cafe let in only whom the
inside sent to: peers come in by punching alone. Those of study and office run miniupnpd, which
opens ports by PCP, NAT-PMP and UPnP. The train's takes another port for every destination, and the
cabin's stands behind another NAT. The internet, which is captured, is 192.0.1.0/24: it looks
public, while miniupnpd refuses the nets that are for documentation. Dashed lines are taken later.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address

from tunnel.io.lab import Lab, Namespace, Switch, connect
from tunnel.io.lab.nat import INSIDE, OUTSIDE, PortMapper, forget_flows, make_nat

RENDEZVOUS = "192.0.1.10"
AGENT = "192.0.1.20"
HOME, STUDY, CAFE, OFFICE, TRAIN, CABIN = (f"192.0.1.{number}" for number in range(1, 7))
"""The routers' addresses on the internet, at first."""
STUDY_AGAIN, OFFICE_AGAIN = "192.0.1.12", "192.0.1.14"
"""Those that the provider gives next."""
STUB = "127.0.0.53"
"""Where a host's stub resolver listens, on port 53, since a resolver file can name no port."""


@dataclass(slots=True)
class Place:
    """A place where one host can be, and its router.

    ``outside`` is the router's address on the internet; ``device`` is the host's end of the link to
    the router, with ``address`` while the host is there.
    """

    router: Namespace
    outside: str
    device: str
    address: str
    mapper: PortMapper | None = None

    @property
    def gateway(self) -> str:
        """The router's address inside."""
        return f"{self.subnet}.1"

    @property
    def subnet(self) -> str:
        """The first three octets of all addresses inside."""
        return self.address.rpartition(".")[0]

    def renumber(self, outside: str) -> None:
        """The provider gives the router another address."""
        self._readdress(outside)

    def reboot(self, outside: str) -> None:
        """A power cut, after which the router knows nothing of before, and the provider gives it
        another address. It is away for as long as all that takes here."""
        if self.mapper is not None:
            self.mapper.kill()
            self.mapper.flush()
        self._readdress(outside)
        if self.mapper is not None:
            self.mapper.start()

    def _readdress(self, outside: str) -> None:
        """Also for Ethernet: what is sent to the old address finds nobody, as on a real line."""
        hardware = f"02:00:{int(IPv4Address(outside)):08x}"
        hardware = ":".join((hardware[:5], *re.findall("..", hardware[6:])))
        self.router.ip("address", "flush", "dev", OUTSIDE)
        self.router.ip("link", "set", OUTSIDE, "address", hardware)
        self.router.address(OUTSIDE, f"{outside}/24")
        forget_flows(self.router)
        self.outside = outside


@dataclass(frozen=True, slots=True)
class Stage:
    """The machines of the demo, and where they can be."""

    internet: Switch
    rendezvous: Namespace
    agent: Namespace
    desk: Namespace
    laptop: Namespace
    home: Place
    cafe: Place
    train: Place
    study: Place
    office: Place
    cabin: Place

    @property
    def places(self) -> tuple[Place, ...]:
        """All of them."""
        return self.home, self.cafe, self.train, self.study, self.office, self.cabin


def build(lab: Lab, join: Callable[..., str] = Switch.plug) -> Stage:
    """Build the network; the programs of all hosts resolve names through :data:`STUB`.

    ``join`` plugs a machine into the internet, as :meth:`Switch.plug` does.
    """
    internet = lab.switch("internet")
    rendezvous, agent, desk, laptop = lab.machines_of("rendezvous", "agent", "desk", "laptop")
    join(internet, rendezvous, "eth0", f"{RENDEZVOUS}/24")
    join(internet, agent, "eth0", f"{AGENT}/24")
    places = {}
    for name, host, kind, device, outside, address in (
        ("home", laptop, "restricted", "eth0", HOME, "192.168.1.10"),
        ("cafe", laptop, "restricted", "wlan0", CAFE, "192.168.3.10"),
        ("train", laptop, "symmetric", "wwan0", TRAIN, "192.168.6.10"),
        ("study", desk, "mapped", "eth0", STUDY, "192.168.2.10"),
        ("office", desk, "mapped", "wlan0", OFFICE, "10.0.4.10"),
        ("cabin", desk, "double", "wwan0", CABIN, "192.168.8.10"),
    ):
        router = lab.namespace(f"router-{name}")
        connect(host, device, router, INSIDE)
        subnet = address.rpartition(".")[0]
        router.address(INSIDE, f"{subnet}.1/24")
        outer = _behind_carrier(lab, router) if kind == "double" else router
        join(internet, outer, OUTSIDE, f"{outside}/24")
        place = places[name] = Place(outer, outside, device, address)
        if kind == "mapped":
            place.mapper = PortMapper(router, f"{subnet}.0/24", router.folder)
            place.mapper.start()
        else:
            make_nat(outer, "symmetric" if kind == "symmetric" else "restricted")
    for host, place in ((laptop, places["home"]), (desk, places["study"])):
        enter(host, place)
    for host in (agent, laptop, desk):
        host.set_resolver(STUB)
    return Stage(internet, rendezvous, agent, desk, laptop, **places)


def _behind_carrier(lab: Lab, router: Namespace) -> Namespace:
    """A second NAT before the router, as providers have them; it is the one on the internet."""
    carrier = lab.namespace(f"carrier-{router.role}")
    connect(router, OUTSIDE, carrier, INSIDE)
    router.address(OUTSIDE, "100.64.8.10/24")
    carrier.address(INSIDE, "100.64.8.1/24")
    router.gateway("100.64.8.1")
    make_nat(router, "restricted")
    return carrier


def enter(host: Namespace, place: Place, leaving: Place | None = None) -> None:
    """Bring ``host`` to a place. The link to the one that it leaves goes down at that moment."""
    steps = []
    if leaving is not None:
        steps += [f"address flush dev {leaving.device}", f"link set {leaving.device} down"]
    steps += [
        f"link set {place.device} up",
        f"address add {place.address}/24 dev {place.device}",
        f"route add default via {place.gateway}",
    ]
    host.run("ip", "-batch", "-", stdin="\n".join(steps) + "\n")
