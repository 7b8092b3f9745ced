"""Hosts of the simulation in networks of every kind, and what their driver does there.

A :class:`Standing` is one host of a :class:`tunnel.io.lab.scenario.Scenario`. What it tells its
node on a change is what :mod:`tunnel.io.network` tells a real one, in that order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from fastpath.types import Endpoint
from tests.sim.nat import STUN, Kind, Nat
from tests.sim.world import Config, SimHost, Weather, World
from tunnel.io.lab.scenario import Links, Network

PORT = 4500
PATIENCE = 1.5  # seconds that the driver gives a router before it goes on (tunnel.io.network)
_KINDS: dict[str, Kind] = {"full-cone": "full-cone", "symmetric": "symmetric", "blocked": "blocked"}


def weather(links: Links) -> Weather:
    """Two such links one behind the other, as a packet meets them."""
    loss, duplicate = links.loss / 100, links.duplicate / 100
    return Weather(
        latency=max(0.001, 2 * links.delay_ms / 1000),
        jitter=2 * links.jitter_ms / 1000,
        loss=1 - (1 - loss) ** 2,
        duplication=1 - (1 - duplicate) ** 2,
        mtu=links.mtu - 28,  # IPv4 and UDP
    )


class Standing:
    """A host, and where it stands."""

    def __init__(self, world: World, label: str, network: Network) -> None:
        self.world, self.label, self.network = world, label, network
        self.nat: Nat | None = None
        self._turn = 0  # what was begun in an earlier network or process is not gone on with
        self.host = SimHost(world, Config(label, self._enter(network)))
        self._begin()

    # --- What happens to it -----------------------------------------------------------------

    def move(self, network: Network) -> None:
        """Another network; nobody forwards what comes to the old one."""
        world, host = self.world, self.host
        self._turn += 1
        world.hosts.pop(host.endpoint, None)
        host.endpoint = self._enter(network)
        world.hosts[host.endpoint] = host
        self.network = network
        host.tell(host.node.moved)
        if world.zone_up:
            host.reconnect()
        self._settle()

    def reboot(self, down: float) -> None:
        """Its router is away for ``down`` seconds, and comes back with another address."""
        router, world = self.nat, self.world
        if router is not None and not router.down:
            router.down = True
            world.rendezvous.leave(self.host.connection)  # nobody tells the host
            world.at(world.now + down, lambda: self._router_is_back(router))

    def restart(self) -> None:
        """Its program is killed and started again; it keeps its host id (B52)."""
        before = self.host
        before.kill()
        self._turn += 1
        config = replace(before.config, endpoint=before.endpoint, host_id=before.host_id)
        self.host = SimHost(self.world, config)
        self._begin()

    # --- Inside -----------------------------------------------------------------------------

    def _later(self, wait: float, action: Callable[[], None]) -> None:
        turn = self._turn

        def act() -> None:
            if turn == self._turn:
                action()

        self.world.at(self.world.now + wait, act)

    def _enter(self, network: Network) -> Endpoint:
        """A new network of that kind; our own endpoint in it."""
        world = self.world
        number = world.places = world.places + 1
        outside = f"203.0.{100 + number // 200}.{1 + number % 200}"
        self.nat = None
        if network.kind == "public":
            return (outside, PORT)
        timeout = network.timeout or float("inf")
        inside = f"192.168.{number}.10"
        outer = None
        if network.kind in ("double", "cgnat"):
            outer = Nat(outside, "restricted", timeout=timeout)
            outside = f"100.64.{number}.10" if network.kind == "cgnat" else f"10.0.{number}.10"
        self.nat = Nat(
            outside, _KINDS.get(network.kind, "restricted"), timeout=timeout, outer=outer
        )
        world.behind(inside, self.nat)
        return (inside, PORT)

    def _begin(self) -> None:
        self.host.start(settled=False)
        self._settle()

    def _settle(self) -> None:
        """The driver has seen the new network; what it learns there comes a little later."""
        host = self.host
        wait = self.world.random.uniform(0.02, PATIENCE)
        if self.network.kind == "mapped":
            self._later(wait, self._mapped)
        elif self.network.translates:
            self._later(wait, self._unmapped)
        else:
            host.tell(host.node.look_outside, ())
            host.tell(host.node.set_endpoints, (host.endpoint,))

    def _mapped(self) -> None:
        host, nat = self.host, self.nat
        assert nat is not None
        if nat.down:
            return  # it will announce itself
        host.tell(host.node.look_outside, ())
        host.tell(host.node.set_endpoints, (nat.forward(PORT, host.endpoint),))

    def _unmapped(self) -> None:
        host = self.host
        host.tell(host.node.look_outside, STUN)
        host.tell(host.node.set_endpoints, (host.endpoint,))

    def _router_is_back(self, router: Nat) -> None:
        world = self.world
        number = world.places = world.places + 1
        router.down = False
        outermost = router
        while outermost.outer is not None:
            outermost = outermost.outer
        world.reboot(outermost, f"203.0.{100 + number // 200}.{1 + number % 200}")
        if outermost is not router:
            router.reboot()
        if self.nat is not router:
            return  # the host is elsewhere by now
        if self.network.kind == "mapped":  # it has announced itself, and was asked again
            self._later(world.random.uniform(0.1, 6.0), self._mapped)
        self._later(world.random.uniform(0.5, 30.0), self._reconnect)

    def _reconnect(self) -> None:
        """The connection to the rendezvous is found dead, and made anew."""
        if self.world.zone_up:
            self.host.reconnect()
