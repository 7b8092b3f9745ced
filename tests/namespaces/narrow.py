"""Two hosts with a link between their routers that is narrower than they think, and silent.

::

    left ── router-left ── the narrow link, which tells nobody ── router-right ── right

Static peers, no zone. nftables on both routers drops every ICMP error about sizes, so that all
that is known of the path comes from probes (RFC 8899).
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass

from tunnel.io.lab import HostMachine, Lab, Namespace, connect, make_router, wait_until

IDS = {"left": "fd12:3456:789a::1", "right": "fd12:3456:789a::2"}
ADDRESSES = {
    4: {"left": "192.0.2.1", "right": "198.51.100.1"},
    6: {"left": "2001:db8:1::1", "right": "2001:db8:2::1"},
}
GATEWAYS = {
    4: {"left": "192.0.2.254", "right": "198.51.100.254"},
    6: {"left": "2001:db8:1::ff", "right": "2001:db8:2::ff"},
}
BETWEEN = {
    4: {"left": "203.0.113.1", "right": "203.0.113.2"},
    6: {"left": "2001:db8:3::1", "right": "2001:db8:3::2"},
}
OTHER = {"left": "right", "right": "left"}

CONFIG = """
[host]
name = "{name}.example"
id = "{id}"
device = "at0"
mtu = {mtu}
[resolver]
enabled = false
[engine]
name = "{engine}"
[[peer]]
name = "{other}.example"
id = "{other_id}"
endpoint = "{endpoint}"
auth = "psk"
psk_file = "peer.psk"
"""

SILENT = """
table inet silent {
    chain out { type filter hook output priority 0; policy accept;
        icmp type destination-unreachable counter drop
        icmpv6 type packet-too-big counter drop
    }
}
"""
NO_FRAGMENTS = """
table inet whole {
    chain way { type filter hook prerouting priority -450; policy accept;
        ip frag-off & 0x3fff != 0 counter drop
        exthdr frag exists counter drop
    }
}
"""


@dataclass
class Narrow:
    """Both hosts are up; nothing was sent yet."""

    hosts: dict[str, HostMachine]
    routers: dict[str, Namespace]

    def set_link(self, mtu: int) -> None:
        """The link between the routers becomes so narrow; still nobody says so."""
        for router in self.routers.values():
            router.ip("link", "set", "between", "mtu", str(mtu))

    def drop_fragments(self) -> None:
        """From now on the routers drop all fragments, as some firewalls do."""
        for router in self.routers.values():
            router.run("nft", "-f", "-", stdin=NO_FRAGMENTS)

    def ping(self, octets: int = 100, *, count: int = 1, check: bool = True) -> str:
        """Ping right from left with inner packets of ``octets`` that must not be fragmented."""
        wait = "30" if check else "5"  # what is refused here is waited for all the same
        command = ("ping", "-M", "do", "-s", str(octets - 48), "-c", str(count), "-W", wait)
        done = self.hosts["left"].machine.run(*command, IDS["right"], check=check, timeout=60)
        return done.stdout + done.stderr

    def knows(self, mtu: int, state: str, *sides: str) -> None:
        """Waits until ``sides`` have found ``mtu`` (the search takes some seconds)."""

        def found() -> bool:
            return all(self.peer(side) == (mtu, state) for side in sides or ("left", "right"))

        wait_until(found, 120, f"{sides or 'both'} know {mtu} and are {state}")

    def peer(self, side: str) -> tuple[object, object]:
        """(mtu, mtu_state) that ``side`` shows of the other."""
        peer = self.hosts[side].peer(f"{OTHER[side]}.example")
        assert peer is not None
        return peer["mtu"], peer["mtu_state"]

    def transfer(self, octets: int) -> None:
        """A file over one TCP connection, from right to left; its content must be right."""
        right, left = self.hosts["right"].machine, self.hosts["left"].machine
        folder = right.folder / "web"
        folder.mkdir(exist_ok=True)
        content = os.urandom(octets)
        (folder / "file.bin").write_bytes(content)
        web = right.start(
            *("python3", "-u", "-m", "http.server", "8080"),
            *("--bind", IDS["right"], "--directory", str(folder)),
            name="http",
        )
        web.wait_for("Serving HTTP", 60)
        target = left.folder / "file.bin"
        url = f"http://[{IDS['right']}]:8080/file.bin"
        command = ("curl", "-sS", "--fail", "--noproxy", "*", "-o", str(target), url)
        left.run(*command, timeout=180)
        web.stop()
        assert hashlib.sha256(target.read_bytes()).digest() == hashlib.sha256(content).digest()


def build(
    lab: Lab, *, link: int, family: int = 4, engine: str = "native", mtu: str = "1400"
) -> Narrow:
    """Two hosts of ``engine`` and device ``mtu`` that meet over ``family``; ``link`` in octets."""
    machines = {side: lab.namespace(side) for side in IDS}
    routers = {side: make_router(lab.namespace(f"router-{side}")) for side in IDS}
    bits = "24" if family == 4 else "64"
    connect(routers["left"], "between", routers["right"], "between", mtu=link)
    for side, router in routers.items():
        connect(machines[side], "eth0", router, "home")
        machines[side].address("eth0", f"{ADDRESSES[family][side]}/{bits}")
        router.address("home", f"{GATEWAYS[family][side]}/{bits}")
        router.address("between", f"{BETWEEN[family][side]}/{bits}")
        machines[side].gateway(GATEWAYS[family][side])
        router.gateway(BETWEEN[family][OTHER[side]])
        router.run("nft", "-f", "-", stdin=SILENT)
    hosts = {side: _host(machines[side], side, family, engine, mtu) for side in IDS}
    for host in hosts.values():
        host.up()
    return Narrow(hosts, routers)


def _host(machine: Namespace, side: str, family: int, engine: str, mtu: str) -> HostMachine:
    host, other = HostMachine(machine), OTHER[side]
    address = ADDRESSES[family][other]
    host.config.write_text(
        CONFIG.format(
            name=side,
            id=IDS[side],
            mtu=mtu,
            engine=engine,
            other=other,
            other_id=IDS[other],
            endpoint=f"{address}:4500" if family == 4 else f"[{address}]:4500",
        )
    )
    secret = host.config.parent / "peer.psk"
    secret.touch(mode=0o600)
    secret.write_bytes(bytes(range(32)))
    host.settle()
    return host
