"""Home routers of a lab: NATs of every kind by nftables, and miniupnpd, which opens ports.

What the kinds mean (RFC 4787): a plain ``masquerade`` keeps ports where it can and maps one inner
endpoint to one outer one, whoever is at the other end, but lets in only whom the inside sent to;
``symmetric`` takes another port for every destination; ``full-cone`` lets everybody in. As home
routers do, they drop what comes to themselves from outside: an answer (ICMP) would end the wait of
whoever sent it, and its flow would take the port that the host inside is about to use.
"""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Literal, TypeAlias

from tunnel.io.lab.namespace import Namespace
from tunnel.io.lab.process import Process
from tunnel.io.lab.topology import make_router

NatKind: TypeAlias = Literal["restricted", "symmetric", "full-cone"]

INSIDE, OUTSIDE = "lan0", "wan0"
"""The devices of every home router."""

_SOURCE_NAT = {
    "restricted": "masquerade",
    "full-cone": "masquerade",
    "symmetric": "masquerade fully-random",
}


def make_nat(router: Namespace, kind: NatKind, *, inner: str | None = None) -> Namespace:
    """Let a namespace with :data:`INSIDE` and :data:`OUTSIDE` be a home router of this kind.

    ``inner``: with ``full-cone``, the host to which everything from outside goes.
    """
    make_router(router)
    forward = ""
    if kind == "full-cone":
        assert inner is not None
        forward = f"""
  chain into {{
    type nat hook prerouting priority dstnat
    iifname {OUTSIDE} meta l4proto udp dnat ip to {inner}
  }}"""
    _load(
        router,
        f"""
table ip home {{
  chain outof {{
    type nat hook postrouting priority srcnat
    oifname {OUTSIDE} {_SOURCE_NAT[kind]}
  }}{forward}
  chain through {{
    type filter hook forward priority filter
    ct status dnat accept
    iifname {OUTSIDE} ct state new drop
  }}
  chain to_me {{
    type filter hook input priority filter
    iifname {OUTSIDE} ct state new drop
  }}
}}
""",
    )
    return router


def forget_flows(router: Namespace) -> None:
    """What a router forgets with a power cut, or when its provider gives it another address."""
    router.run("conntrack", "-F")


class PortMapper:
    """miniupnpd on a home router: NAT-PMP, PCP and UPnP, all or some of them.

    The router's outer address must look public: miniupnpd refuses private ones and those of the
    documentation nets. ``lifetimes`` are the shortest and the longest that it grants, in seconds;
    ``more`` are further lines of its configuration.
    """

    def __init__(
        self,
        router: Namespace,
        inside: str,
        folder: Path,
        *,
        upnp: bool = True,
        natpmp: bool = True,
        lifetimes: tuple[int, int] = (60, 86400),
        more: tuple[str, ...] = (),
    ) -> None:
        self._router, self._folder, self._natpmp = router, folder, natpmp
        self._runs = 0
        self._process: Process | None = None
        make_router(router)
        _load(router, _MINIUPNPD_CHAINS)
        lines = [
            f"ext_ifname={OUTSIDE}",
            f"listening_ip={INSIDE}",
            f"enable_upnp={'yes' if upnp else 'no'}",
            f"enable_natpmp={'yes' if natpmp else 'no'}",
            "secure_mode=yes",
            "system_uptime=no",
            f"min_lifetime={lifetimes[0]}",
            f"max_lifetime={lifetimes[1]}",
            *more,
            "uuid=6281aaaa-0000-4000-8000-000000000001",
            "http_port=5000",
            f"allow 1024-65535 {inside} 1024-65535",
            "deny 0-65535 0.0.0.0/0 0-65535",
        ]
        self._config = folder / "miniupnpd.conf"
        self._config.write_text("\n".join(lines) + "\n")

    def start(self) -> None:
        """Begin to answer."""
        self._runs += 1
        self._process = self._router.start(
            *("miniupnpd", "-d", "-f", str(self._config)),
            *("-P", str(self._folder / "miniupnpd.pid")),
            name=f"miniupnpd{self._runs}",
        )
        self._process.wait_for("5351" if self._natpmp else "HTTP listening", 60)

    def stop(self) -> None:
        """Say no more, and let nothing through that was mapped."""
        if self._process is not None:
            self._process.stop(signal.SIGTERM)
            self._process = None

    def kill(self) -> None:
        """A power cut."""
        if self._process is not None:
            self._process.kill()
            self._process = None

    def announce_address(self) -> None:
        """Let it look at its outer address and announce it (SIGUSR1)."""
        assert self._process is not None
        self._process.send(signal.SIGUSR1)

    def flush(self) -> None:
        """A reboot: what was mapped is forgotten."""
        for chain in ("miniupnpd", "prerouting_miniupnpd", "postrouting_miniupnpd"):
            self._router.run("nft", "flush", "chain", "inet", "filter", chain)

    @property
    def said(self) -> str:
        """What it has said since it started."""
        return self._process.output() if self._process is not None else ""

    def pinholes(self) -> str:
        """The rules by which it lets packets through: of IPv6, that is all a mapping is."""
        return self._router.run("nft", "list", "chain", "inet", "filter", "miniupnpd").stdout

    def mappings(self) -> str:
        """The rules by which it forwards."""
        return self._router.run(
            "nft", "list", "chain", "inet", "filter", "prerouting_miniupnpd"
        ).stdout


_MINIUPNPD_CHAINS = f"""
table inet filter {{
  chain miniupnpd {{
  }}
  chain prerouting_miniupnpd {{
  }}
  chain postrouting_miniupnpd {{
  }}
  chain through {{
    type filter hook forward priority filter
    jump miniupnpd
    iifname {OUTSIDE} ct state new drop
  }}
  chain to_me {{
    type filter hook input priority filter
    iifname {OUTSIDE} ct state new drop
  }}
  chain into {{
    type nat hook prerouting priority dstnat
    jump prerouting_miniupnpd
  }}
  chain outof {{
    type nat hook postrouting priority srcnat
    jump postrouting_miniupnpd
    oifname {OUTSIDE} masquerade
  }}
}}
"""


def _load(router: Namespace, rules: str) -> None:
    router.run("nft", "-f", "-", stdin=rules)
