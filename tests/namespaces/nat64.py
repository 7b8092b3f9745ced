"""A network without IPv4: tayga translates, BIND tells by DNS64 how (RFC 6052, RFC 7050)."""

from __future__ import annotations

from pathlib import Path

from tests.namespaces.resolved import program
from tunnel.io.lab import Lab, Namespace, Switch, wait_until
from tunnel.io.lab.topology import make_router

PREFIX = "2001:db8:64:ff9b::/96"
_HERE, _POOL = "2001:db8:64::1", "192.168.255"
_NAMED = """
options {{
  directory "{folder}"; pid-file none; session-keyfile none;
  listen-on {{ none; }}; listen-on-v6 {{ any; }}; recursion yes; dnssec-validation no;
  allow-query {{ any; }}; dns64 {prefix} {{ clients {{ any; }}; }};
}};
controls {{ }};
"""
_OUT = """
table ip out {
  chain outof {
    type nat hook postrouting priority srcnat
    oifname wan0 masquerade
  }
}
"""
_TAYGA = """
tun-device nat64
ipv4-addr {pool}.1
prefix {prefix}
dynamic-pool {pool}.0/24
data-dir {folder}
"""


class Nat64:
    """A router on ``internet`` at ``outer`` (IPv4), and on a network of its own (IPv6 alone)."""

    def __init__(self, lab: Lab, internet: Switch, outer: str) -> None:
        tayga = str(program("sbin/tayga"))
        self.router = router = make_router(lab.namespace("nat64"))
        self.inside = lab.switch("six")
        internet.plug(router, "wan0", f"{outer}/24")
        self.inside.plug(router, "lan0", f"{_HERE}/64")
        config = self._file(
            "tayga.conf", _TAYGA.format(pool=_POOL, prefix=PREFIX, folder=router.folder)
        )
        router.run(tayga, "--config", config, "--mktun")
        router.address("nat64", f"{_POOL}.2/32")
        router.ip("route", "add", f"{_POOL}.0/24", "dev", "nat64")
        router.ip("-6", "route", "add", PREFIX, "dev", "nat64")
        router.run("nft", "-f", "-", stdin=_OUT)
        router.start(tayga, "--config", config, "--nodetach", name="tayga")
        named = self._file("named.conf", _NAMED.format(prefix=PREFIX, folder=router.folder))
        router.start("named", "-g", "-c", named, name="named").wait_for("running", 60)

    def _file(self, name: str, text: str) -> str:
        path: Path = self.router.folder / name
        path.write_text(text)
        return str(path)

    def move(self, machine: Namespace, number: int) -> None:
        """Take ``machine`` out of the network that it is in, and plug it in here."""
        machine.ip("link", "delete", "eth0")
        self.inside.plug(machine, "eth0", f"2001:db8:64::{number}/64")
        machine.gateway(_HERE)
        machine.set_resolver(_HERE)
        wait_until(lambda: self._translates(machine), 60.0, "the NAT64 translates")

    def _translates(self, machine: Namespace) -> bool:
        said = machine.run("getent", "ahostsv6", "ipv4only.arpa", check=False).stdout
        return PREFIX.partition("::")[0] in said
