"""Two hosts and a home agent, with one narrow link or another between them.

::

    left ── router-left ════════ direct ════════ router-right ── right
                 ╚═ first ═ router-middle ═ second ═╝
                               │     │
                           agent    rendezvous

Everybody has an address that looks public; nobody translates. What goes by relay takes the first
link and the second, each of them twice as wide or as narrow as a test says; the direct link can be
cut, and all routers can be made to say nothing of sizes.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass

from tests.namespaces.narrow import SILENT
from tunnel.cli.demo.scenes import DOMAIN, find_token
from tunnel.io.lab import (
    HostMachine,
    Lab,
    LabError,
    Namespace,
    RendezvousMachine,
    connect,
    make_router,
    wait_until,
)

PATIENCE = 90.0
NETS = {4: "192.0.{}.", 6: "2001:db8:{}::"}
BITS = {4: 24, 6: 64}
PLACES = {"left": 1, "right": 2, "agent": 3, "rendezvous": 4}
"""Whose network is which; its machine has 10 there, its router 1."""
LINKS = {
    "direct": (5, "left", "right"),
    "first": (6, "left", "middle"),
    "second": (7, "right", "middle"),
}
"""Between routers: the network, who has 1, and who has 2."""
CUT = """
table inet cut {
    chain way { type filter hook forward priority -10
        iifname direct drop
        oifname direct drop
    }
}
"""
OTHER = {"left": "right", "right": "left"}
SIDES = tuple(OTHER)


@dataclass(frozen=True, slots=True)
class Web:
    """What a host serves on its host id."""

    url: str
    digest: str


class Legs:
    """The network of one IP version; left, right and agent have joined and are up."""

    def __init__(self, lab: Lab, family: int, octets: int) -> None:
        self._family = family
        machines = {name: lab.namespace(name) for name in PLACES}
        self.routers = {
            name: make_router(lab.namespace(f"router-{name}")) for name in (*SIDES, "middle")
        }
        for name, machine in machines.items():
            self._plug(machine, self.routers.get(name, self.routers["middle"]), PLACES[name])
        for link, (number, one, other) in LINKS.items():
            ends = self.routers[one], self.routers[other]
            connect(ends[0], link, ends[1], link)
            for place, end in enumerate(ends, 1):
                end.address(link, f"{self._at(number, place)}/{BITS[family]}")
        self._route()
        self.rendezvous = RendezvousMachine(machines["rendezvous"])
        self.hosts = {name: HostMachine(machines[name]) for name in ("left", "right", "agent")}
        self._join(self._at(PLACES["rendezvous"], 10))
        for host in self.hosts.values():
            host.up()
        wait_until(self._registered, PATIENCE, "both are registered with the home agent")
        self._ids = {side: str(self.hosts[side].status()["host"]["id"]) for side in SIDES}
        self._webs = {side: self._serve(side, octets) for side in SIDES}

    def _at(self, net: int, place: int) -> str:
        return NETS[self._family].format(net) + str(place)

    def _plug(self, machine: Namespace, router: Namespace, net: int) -> None:
        device = f"home{net}"
        connect(machine, "eth0", router, device)
        machine.address("eth0", f"{self._at(net, 10)}/{BITS[self._family]}")
        router.address(device, f"{self._at(net, 1)}/{BITS[self._family]}")
        machine.gateway(self._at(net, 1))

    def _route(self) -> None:
        nets = {name: f"{self._at(net, 0)}/{BITS[self._family]}" for name, net in PLACES.items()}
        for link, (number, one, _) in LINKS.items():
            if link == "direct":
                for place, side in enumerate(SIDES, 1):
                    way = "via", self._at(number, 3 - place)
                    self.routers[side].ip("route", "add", nets[OTHER[side]], *way)
            else:
                self.routers[one].gateway(self._at(number, 2))
                self.routers["middle"].ip("route", "add", nets[one], "via", self._at(number, 1))

    def _join(self, server: str) -> None:
        first, *others = self.hosts.values()
        name = f"[{server}]" if self._family == 6 else server
        where = ("--rendezvous", name, "--name", "left", "-c", str(first.config))
        first.cli("init", DOMAIN, "--auth", "psk", *where)
        self.rendezvous.adopt(first)
        self.rendezvous.serve()
        for label, host in list(self.hosts.items())[1:]:
            token = find_token(first.cli("invite", "--json", "-c", str(first.config)).stdout)
            host.cli("join", token, "--name", label, "-c", str(host.config))
        for host in (first, *others):
            host.settle()
            host.change("resolver", {"enabled": False})
            host.change("host", {"mtu": "auto"})
        self.hosts["agent"].change("home_agent", {})

    def _registered(self) -> bool | None:
        asked = (self.hosts[side].try_status() or {"home_agents": []} for side in SIDES)
        return all(any(one["registered"] for one in of["home_agents"]) for of in asked) or None

    # --- The links ------------------------------------------------------------------------------

    def widths(self, **octets: int) -> None:
        """Each link that is not named is of 1500 octets."""
        for link, (_, one, other) in LINKS.items():
            for end in (one, other):
                self.routers[end].ip("link", "set", link, "mtu", str(octets.get(link, 1500)))

    def silent(self, silent: bool) -> None:
        """Whether the routers say nothing of sizes."""
        self._rule(self.routers.values(), "silent", SILENT if silent else "")

    def cut(self, cut: bool) -> None:
        """Whether nothing passes on the direct link."""
        self._rule([self.routers["left"]], "cut", CUT if cut else "")

    def _rule(self, routers: Iterable[Namespace], table: str, rules: str) -> None:
        for router in routers:
            router.run("nft", "delete", "table", "inet", table, check=False)
            if rules:
                router.run("nft", "-f", "-", stdin=rules)

    # --- The hosts ------------------------------------------------------------------------------

    def again(self) -> None:
        """The left host is started again, so that nothing is known of any path, and makes the
        tunnel to the right one."""
        left = self.hosts["left"]
        left.down()
        left.up()
        wait_until(self._registered, PATIENCE, "both are registered with the home agent")
        left.cli("ping", "right", "-n", "1", "-c", str(left.config), timeout=PATIENCE)

    def takes(self, path: str) -> None:
        """Waits until both do."""
        wait_until(
            lambda: all(self.peer(side)["path"] == path for side in SIDES) or None,
            PATIENCE,
            f"both take the path {path}",
        )

    def peer(self, side: str) -> dict[str, object]:
        """What ``side`` shows of the other; nothing, if it is too busy to say."""
        status = self.hosts[side].try_status() or {"peers": []}
        found = (one for one in status["peers"] if one["name"].startswith(f"{OTHER[side]}."))
        return next(found, {"path": None})

    def knows(self, mtu: int, state: str = "complete") -> None:
        """Waits until both have found that an inner packet of ``mtu`` octets fits."""

        def both() -> list[tuple[object, object]]:
            return [self._mtu(side) for side in SIDES]

        try:
            wait_until(lambda: both() == [(mtu, state)] * 2 or None, PATIENCE, f"{mtu} is known")
        except LabError as error:
            raise LabError(f"{error}: {both()}") from error

    def _mtu(self, side: str) -> tuple[object, object]:
        """(mtu, mtu_state); traffic goes on, since an idle path is not looked at."""
        self.ping(side, 100)
        peer = self.peer(side)
        return peer.get("mtu"), peer.get("mtu_state")

    def ping(self, side: str, octets: int) -> bool:
        """Whether an inner packet of ``octets``, not to be fragmented, comes back."""
        command = ("ping", "-6", "-M", "do", "-s", str(octets - 48), "-c", "1", "-W", "5")
        done = self.hosts[side].machine.run(*command, self._ids[OTHER[side]], check=False)
        return done.returncode == 0

    def passes(self, octets: int) -> None:
        """Waits until such a packet passes from each to the other (the first may be lost). What
        the kernels were told of a narrower path, which they believe for ten minutes, is forgotten.
        """
        for side in SIDES:
            self.hosts[side].machine.ip("-6", "route", "flush", "cache")
            wait_until(
                lambda side=side: self.ping(side, octets) or None,
                PATIENCE,
                f"{octets} octets pass from {side}",
            )

    def _serve(self, side: str, octets: int) -> Web:
        """A file for the other side."""
        host = self.hosts[side]
        folder = host.machine.folder / "web"
        folder.mkdir()
        content = os.urandom(octets)
        (folder / "file.bin").write_bytes(content)
        server = host.machine.start(
            *("python3", "-u", "-m", "http.server", "0", "--bind", "::"),
            *("--directory", str(folder)),
            name="http",
        )
        server.wait_for("Serving HTTP", PATIENCE)
        port = re.search(r"port (\d+)", server.output())
        assert port is not None
        url = f"http://[{self._ids[side]}]:{port[1]}/file.bin"
        return Web(url, hashlib.sha256(content).hexdigest())

    def transfer(self) -> None:
        """A file over TCP each way; it must come whole."""
        for side in SIDES:
            web, target = self._webs[OTHER[side]], self.hosts[side].machine.folder / "fetched"
            command = ("curl", "-sS", "--fail", "--noproxy", "*", "-o", str(target), web.url)
            self.hosts[side].machine.run(*command, timeout=2 * PATIENCE)
            assert hashlib.sha256(target.read_bytes()).hexdigest() == web.digest
