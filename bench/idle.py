"""What a tunnel costs that nobody uses: octets on the wire, wake-ups, processor time.

Three pairs of hosts of one account stand in one lab: with public addresses, behind routers that
map their ports, behind NATs that do not. Each pair has a tunnel and is then left alone. After a
while (``settle`` seconds, in which the hosts behind NATs learn how long these remember) everything
is counted for ``minutes``, and told by the hour and the minute. Octets are those of IP packets, by
what they are for, in both directions, as the host's own packet filter counts them; a wake-up is a
thread of the process that had slept and ran again (voluntary context switches, proc(5)).
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from bench import machine, report
from bench.cost import Cost
from tunnel.cli.demo.scenes import DOMAIN, find_token
from tunnel.io.lab import HostMachine, Lab, Namespace, RendezvousMachine, connect, wait_until
from tunnel.io.lab.nat import INSIDE, OUTSIDE, PortMapper, make_nat
from tunnel.io.lab.topology import Switch

RENDEZVOUS = "192.0.1.10"
WAYS = ("public", "mapped", "unmapped")
COUNTERS = ("tunnel", "stun", "router", "zone", "other")
SETTLE = 120.0  # seconds
PATIENCE = 60.0  # seconds
_HOUR = 3600.0

_RULES = f"""
table inet idle {{
  {chr(10).join(f"  counter {name} {{ }}" for name in COUNTERS)}
  chain which {{
    udp sport {{ 3478, 3479 }} counter name stun return
    udp dport {{ 3478, 3479 }} counter name stun return
    udp sport {{ 1900, 5350, 5351 }} counter name router return
    udp dport {{ 1900, 5350, 5351 }} counter name router return
    udp sport 4500 counter name tunnel return
    udp dport 4500 counter name tunnel return
    tcp sport {{ 53, 853 }} counter name zone return
    tcp dport {{ 53, 853 }} counter name zone return
    counter name other
  }}
  chain out {{
    type filter hook output priority filter
    oifname eth0 goto which
  }}
  chain into {{
    type filter hook input priority filter
    iifname eth0 goto which
  }}
}}
"""


class Home:
    """One host of a pair, and the router before it."""

    def __init__(self, lab: Lab, internet: Switch, way: str, number: int) -> None:
        self.way, self.label = way, f"{way}{number}"
        machine = lab.namespace(self.label)
        outer = f"192.0.1.{number}/24"
        self.mapper: PortMapper | None = None
        if way == "public":
            internet.plug(machine, "eth0", outer)
        else:
            self._behind(lab, internet, machine, number, outer)
        machine.run("nft", "-f", "-", stdin=_RULES)
        self.host = HostMachine(machine)

    def _behind(
        self, lab: Lab, internet: Switch, machine: Namespace, number: int, outer: str
    ) -> None:
        router, subnet = lab.namespace(f"r-{self.label}"), f"192.168.{number}"
        connect(machine, "eth0", router, INSIDE)
        machine.address("eth0", f"{subnet}.10/24")
        router.address(INSIDE, f"{subnet}.1/24")
        machine.gateway(f"{subnet}.1")
        internet.plug(router, OUTSIDE, outer)
        if self.way == "mapped":
            self.mapper = PortMapper(router, f"{subnet}.0/24", router.folder, upnp=False)
            self.mapper.start()
        else:
            make_nat(router, "restricted")

    @property
    def pid(self) -> int:
        """Of its daemon."""
        assert self.host.process is not None
        return self.host.process.pid

    def octets(self) -> dict[str, int]:
        """Counted so far, by what they were for."""
        said = self.host.machine.run(
            "nft", "-j", "list", "counters", "table", "inet", "idle"
        ).stdout
        found = (one["counter"] for one in json.loads(said)["nftables"] if "counter" in one)
        return {one["name"]: one["bytes"] for one in found}

    def wakes(self) -> int:
        """Voluntary context switches of all its threads so far."""
        return sum(
            int(line.split()[1])
            for status in Path(f"/proc/{self.pid}/task").glob("*/status")
            for line in status.read_text().splitlines()
            if line.startswith("voluntary_ctxt_switches")
        )


@contextmanager
def _pairs() -> Iterator[list[tuple[Home, Home]]]:
    with Lab() as lab:
        internet = lab.switch("internet")
        server = lab.namespace("rendezvous")
        internet.plug(server, "eth0", f"{RENDEZVOUS}/24")
        rendezvous = RendezvousMachine(server)
        homes = [Home(lab, internet, way, 20 + n) for n, way in enumerate((*WAYS, *WAYS))]
        first, *others = [home.host for home in homes]
        where = ("--rendezvous", RENDEZVOUS, "--name", homes[0].label)
        first.cli("init", DOMAIN, "--auth", "psk", "-c", str(first.config), *where)
        rendezvous.adopt(first)
        rendezvous.serve()
        _up(first)
        for home, host in zip(homes[1:], others, strict=True):
            said = first.cli("invite", "--json", "-c", str(first.config)).stdout
            host.cli("join", find_token(said), "--name", home.label, "-c", str(host.config))
            _up(host)
        pairs = list(zip(homes[: len(WAYS)], homes[len(WAYS) :], strict=True))
        for home in homes:
            wait_until(partial(_is_settled, home), PATIENCE, f"{home.label} settles")
        for one, two in pairs:
            wait_until(partial(_ping, one, two), PATIENCE, f"a tunnel, {one.way}")
        yield pairs


def _up(host: HostMachine) -> None:
    host.settle()
    host.change("resolver", {"enabled": False})
    host.up()


def _is_settled(home: Home) -> bool | None:
    status = home.host.status()
    wanted = {"mapped": "method", "unmapped": "mapping"}.get(home.way)
    there = wanted is None or status["nat"][wanted] is not None
    return (there and bool(status["zone"]["published"])) or None


def _ping(one: Home, two: Home) -> bool | None:
    done = one.host.cli("ping", two.label, "-n", "1", "-c", str(one.host.config), check=False)
    return done.returncode == 0 or None


def _measure(homes: list[Home], seconds: float) -> list[dict[str, Any]]:
    costs = [Cost((home.pid,)) for home in homes]
    before = [(home.octets(), home.wakes()) for home in homes]
    began = time.monotonic()
    time.sleep(seconds)
    took = time.monotonic() - began
    after = [(home.octets(), home.wakes()) for home in homes]
    found = []
    for home, cost, (octets, wakes), (octets_now, wakes_now) in zip(
        homes, costs, before, after, strict=True
    ):
        own, _ = cost.seconds()
        spent = {name: (octets_now[name] - octets[name]) * _HOUR / took for name in COUNTERS}
        found.append(
            {
                "way": home.way,
                "octets_per_hour": {name: round(value) for name, value in spent.items()},
                "wakes_per_minute": (wakes_now - wakes) * 60 / took,
                "cpu_ms_per_minute": own * 1000 * 60 / took,
            }
        )
    return found


def _keepalive(one: Home, two: Home) -> float | None:
    peer = one.host.peer(two.label)
    return None if peer is None else peer["keepalive_s"]


def run(*, minutes: float, settle: float, as_json: bool, save: bool) -> int:
    """Measures; exit code 0."""
    results = []
    with _pairs() as pairs:
        report.say(f"idle: {settle:.0f} s until all have settled, then {minutes:g} minutes")
        time.sleep(settle)
        both = [home for pair in pairs for home in pair]
        each = _measure(both, minutes * 60)
        for number, (one, two) in enumerate(pairs):
            mine = each[2 * number : 2 * number + 2]
            octets = {
                name: round(sum(one["octets_per_hour"][name] for one in mine) / 2)
                for name in COUNTERS
            }
            results.append(
                {
                    "way": one.way,
                    "octets_per_hour": octets | {"all": sum(octets.values())},
                    "wakes_per_minute": round(sum(m["wakes_per_minute"] for m in mine) / 2, 1),
                    "cpu_ms_per_minute": round(sum(m["cpu_ms_per_minute"] for m in mine) / 2),
                    "keepalive_s": [_keepalive(one, two), _keepalive(two, one)],
                }
            )
    body = {"minutes": minutes, "settle_s": settle, "per": "host", "results": results}
    report.finish("idle", body, _table(results), as_json=as_json, save=save)
    return 0


def _table(results: list[dict[str, Any]]) -> str:
    head = ("pair", *(f"{name}, B/h" for name in (*COUNTERS, "all")), "wake-ups/min", "CPU ms/min")
    rows = [
        (
            one["way"],
            *(f"{one['octets_per_hour'][name]:,}" for name in (*COUNTERS, "all")),
            f"{one['wakes_per_minute']:g}",
            f"{one['cpu_ms_per_minute']}",
        )
        for one in results
    ]
    return f"{machine.summary()}\n\n" + report.table("An idle host of a pair", head, rows)
