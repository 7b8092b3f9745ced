"""An account whose hosts stand behind routers of every kind, on an internet that looks public."""

from __future__ import annotations

from typing import Literal, TypeAlias

from tunnel.cli.demo.scenes import DOMAIN, find_token
from tunnel.io.lab import HostMachine, Lab, Namespace, RendezvousMachine, connect
from tunnel.io.lab.nat import INSIDE, OUTSIDE, PortMapper, make_nat

Kind: TypeAlias = Literal["public", "mapped", "restricted", "symmetric", "double"]

RENDEZVOUS = "192.0.1.10"
HUB = "hub"


class Home:
    """One host, and the routers before it."""

    def __init__(self, homes: Homes, kind: Kind, number: int) -> None:
        self.kind, self.label = kind, f"{kind}{number}"
        self.outer = f"192.0.1.{number}"
        lab = homes.lab
        machine = lab.namespace(self.label)
        self.mapper: PortMapper | None = None
        self.routers: list[Namespace] = []
        if kind == "public":
            homes.internet.plug(machine, "eth0", f"{self.outer}/24")
        else:
            self._behind(homes, machine, number)
        self.host = HostMachine(machine)

    def _behind(self, homes: Homes, machine: Namespace, number: int) -> None:
        """``machine`` in a network of its own, behind one router or two."""
        router = homes.lab.namespace(f"r-{self.label}")
        self.routers.append(router)
        subnet = f"192.168.{number}"
        connect(machine, "eth0", router, INSIDE)
        machine.address("eth0", f"{subnet}.10/24")
        router.address(INSIDE, f"{subnet}.1/24")
        machine.gateway(f"{subnet}.1")
        if self.kind == "double":
            carrier = homes.lab.namespace(f"c-{self.label}")
            self.routers.append(carrier)
            connect(router, OUTSIDE, carrier, INSIDE)
            router.address(OUTSIDE, f"100.64.{number}.10/24")
            carrier.address(INSIDE, f"100.64.{number}.1/24")
            router.gateway(f"100.64.{number}.1")
            make_nat(carrier, "restricted")
            homes.internet.plug(carrier, OUTSIDE, f"{self.outer}/24")
        else:
            homes.internet.plug(router, OUTSIDE, f"{self.outer}/24")
        if self.kind == "mapped":
            self.mapper = PortMapper(router, f"{subnet}.0/24", router.folder, upnp=False)
            self.mapper.start()
        else:
            make_nat(router, "symmetric" if self.kind == "symmetric" else "restricted")


class Homes:
    """The internet, the rendezvous, and the homes; all hosts have joined. ``agents``: so many
    public hosts more, which are home agents. ``hub``: the rendezvous' machine is one, too."""

    def __init__(self, lab: Lab, *kinds: Kind, agents: int = 0, hub: bool = False) -> None:
        self.lab = lab
        self.internet = lab.switch("internet")
        machine = lab.namespace("rendezvous")
        self.internet.plug(machine, "eth0", f"{RENDEZVOUS}/24")
        self.rendezvous = RendezvousMachine(machine)
        public: tuple[Kind, ...] = ("public",) * agents
        places = (*kinds, *public)
        self.homes = [Home(self, kind, 20 + number) for number, kind in enumerate(places)]
        self.agents = self.homes[len(kinds) :]
        self.hub = HostMachine(machine)
        first, others = (self.hub, self.homes) if hub else (self.homes[0].host, self.homes[1:])
        where = ("--rendezvous", RENDEZVOUS, "--name", HUB if hub else self.homes[0].label)
        first.cli(*("init", DOMAIN, "--auth", "psk", "-c", str(first.config)), *where)
        if hub:
            self.hub.settle()
            self.rendezvous.change("serve", {"state_dir": str(self.rendezvous.state_dir)})
        else:
            self.rendezvous.adopt(first)
        self.rendezvous.serve(*["--home-agent"] if hub else [])
        for home in others:
            said = first.cli("invite", "--json", "-c", str(first.config)).stdout
            host = home.host
            host.cli("join", find_token(said), "--name", home.label, "-c", str(host.config))
        for home in self.homes:
            home.host.settle()
            home.host.change("resolver", {"enabled": False})
        for agent in self.agents:
            agent.host.change("home_agent", {})

    def up(self) -> Homes:
        """Start all hosts."""
        for home in self.homes:
            home.host.begin_up()
        for home in self.homes:
            home.host.wait_until_up()
        return self

    def of(self, kind: Kind, which: int = 0) -> Home:
        """One of the homes of a kind."""
        return [home for home in self.homes if home.kind == kind][which]
