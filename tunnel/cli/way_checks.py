"""What ``doctor`` says of other networks that this host could leave by (decision 0067)."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from ipaddress import IPv6Address
from pathlib import Path
from typing import Final

from tunnel.cli.checks import Finding, State
from tunnel.config import HostConfig
from tunnel.io import netlink, outer

_CONF: Final = Path("/proc/sys/net/ipv4/conf")
_STRICT: Final = 1  # RFC 3704 §2.2: dropped is what comes in where an answer would not go out


def second_networks(config: HostConfig, conf: Path = _CONF) -> Iterator[Finding]:
    """Whether the kernel lets in what peers send to a network that the routes do not prefer.
    Nothing is said of a host with one network, or without an account: there is nothing to prove."""
    if config.account is None:
        return
    names = [name for name in _others(config) if _filter(conf, name) == _STRICT]
    if not names:
        return
    found = (
        f"the kernel drops what comes in by {' and '.join(names)} (rp_filter is strict), so that "
        "no peer can prove that network early, and a move to it costs a whole proof"
    )
    loose = " ".join(f"net/ipv4/conf/{name}/rp_filter=2" for name in names)
    fix = f"make it loose: `sudo sysctl -w {loose}`, and the same in /etc/sysctl.d"
    yield Finding("second network", State.WARNING, found, fix)


def _others(config: HostConfig) -> list[str]:
    """The interfaces of other IPv4 networks with a default route."""
    nobody = IPv6Address(0)
    try:
        ways = netlink.ways_out()
        used = outer.outer_endpoints(config.host.listen, None, (), nobody)
        others = outer.other_ways(ways, used, nobody)
        return [socket.if_indextoname(index) for host, index in others if ":" not in host]
    except (AttributeError, OSError):
        return []  # no rtnetlink here, or the interface has gone meanwhile


def _filter(conf: Path, name: str) -> int:
    """What holds for an interface: the greater of its own value and that of all (ip-sysctl)."""
    return max(_number(conf / one / "rp_filter") for one in ("all", name))


def _number(path: Path) -> int:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return 0
