"""A small network that translates nothing: two homes, a rendezvous, the internet between them.

::

    laptop ── router-laptop ──┐                        ┌── router-desk ── desk
    192.0.2.2        203.0.113.1 ── the internet ── 203.0.113.2       198.51.100.2
                                  (captured here)
                                        │
                                 rendezvous 203.0.113.10

Routing is plain: no NAT. The addresses are those of RFC 5737, for documentation.
"""

from __future__ import annotations

from dataclasses import dataclass

from tunnel.io.lab.lab import Lab
from tunnel.io.lab.namespace import Namespace
from tunnel.io.lab.topology import Switch, connect, make_router

RENDEZVOUS = "203.0.113.10"
DESK = "198.51.100.2"
DESK_GATEWAY = "198.51.100.1"
LAPTOP = "192.0.2.2"
STUB = "127.0.0.53"
"""Where a host's stub resolver listens, on port 53, since a resolver file can name no port."""

_HOMES = {
    "desk": (DESK_GATEWAY, DESK, "203.0.113.2"),
    "laptop": ("192.0.2.1", LAPTOP, "203.0.113.1"),
}


@dataclass(frozen=True, slots=True)
class Stage:
    """Its machines."""

    internet: Switch
    rendezvous: Namespace
    desk: Namespace
    laptop: Namespace


def build(lab: Lab) -> Stage:
    """Build the network; both homes' programs resolve names through :data:`STUB`."""
    internet = lab.switch("internet")
    rendezvous = lab.namespace("rendezvous")
    internet.plug(rendezvous, "eth0", f"{RENDEZVOUS}/24")
    hosts, routers = {}, {}
    for name, (inside, address, outside) in _HOMES.items():
        host, router = lab.machines_of(name, f"router-{name}")
        connect(host, "eth0", router, "home")
        host.address("eth0", f"{address}/24")
        router.address("home", f"{inside}/24")
        internet.plug(router, "wan", f"{outside}/24")
        host.gateway(inside)
        host.set_resolver(STUB)
        hosts[name], routers[name] = host, make_router(router)
    for name, (_, address, outside) in _HOMES.items():
        home = address.rpartition(".")[0] + ".0/24"
        others = [router for other, router in routers.items() if other != name]
        for machine in (rendezvous, *others):
            machine.ip("route", "add", home, "via", outside)
    return Stage(internet, rendezvous, hosts["desk"], hosts["laptop"])
