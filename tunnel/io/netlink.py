"""The few rtnetlink requests that a host needs (RFC 3549), over pyroute2.

pyroute2 runs an event loop of its own, which cannot run inside ours: each request runs in a
short-lived thread, joined before the call returns, so that no thread outlives a dropped
capability.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Any, TypeVar

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

_AF_INET6 = 10
_IFA_F_NODAD, _IFA_F_NOPREFIXROUTE = 0x02, 0x200  # <linux/if_addr.h>
_ADDR_GEN_NONE = 1  # IN6_ADDR_GEN_MODE_NONE, <linux/if_link.h>: no link-local address
_IFF_UP = 1
_RT_TABLE_MAIN = 254
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Link:
    """A network device as the kernel tells it. ``kind`` is "tun" for TUN and TAP devices."""

    index: int
    name: str
    mtu: int
    up: bool
    kind: str
    addresses: frozenset[IPv6Address]


def link(name: str) -> Link | None:
    """The device ``name`` with its IPv6 addresses, or ``None`` if there is none."""
    return apart(lambda netlink: _link(netlink, name))


def _link(netlink: Any, name: str) -> Link | None:
    found = netlink.link_lookup(ifname=name)
    if not found:
        return None
    (message,) = netlink.get_links(found[0])
    info = message.get_attr("IFLA_LINKINFO")
    kind = info.get_attr("IFLA_INFO_KIND") if info else None
    addresses = {
        IPv6Address(entry.get_attr("IFA_ADDRESS").split("%")[0])
        for entry in netlink.get_addr(family=_AF_INET6, index=found[0])
    }
    return Link(
        index=found[0],
        name=name,
        mtu=message.get_attr("IFLA_MTU"),
        up=bool(message["flags"] & _IFF_UP),
        kind=kind or "",
        addresses=frozenset(addresses),
    )


def configure(index: int, mtu: int, address: IPv6Address) -> None:
    """Sets MTU (octets), gives the device ``address``/128 and no other, and brings it up.

    Raises OSError (``EPERM`` without CAP_NET_ADMIN).
    """

    def work(netlink: Any) -> None:
        quiet = {"attrs": [("AF_INET6", {"attrs": [("IFLA_INET6_ADDR_GEN_MODE", _ADDR_GEN_NONE)]})]}
        netlink.link("set", index=index, IFLA_AF_SPEC=quiet)
        netlink.link("set", index=index, mtu=mtu)
        _ignore(errno.EEXIST, _address, netlink, "add", index, address)
        netlink.link("set", index=index, state="up")

    apart(work)


def make_persistent_tun(name: str, owner: int) -> None:
    """Makes a TUN device that stays and that user id ``owner`` may open. Raises OSError."""
    apart(
        lambda netlink: netlink.link(
            "add",
            ifname=name,
            kind="tuntap",
            mode="tun",
            uid=owner,
            ifr={"no_pi": 1},
        )
    )


def _address(netlink: Any, verb: str, index: int, address: IPv6Address) -> None:
    flags = {"flags": _IFA_F_NODAD | _IFA_F_NOPREFIXROUTE} if verb == "add" else {}
    netlink.addr(verb, index=index, address=str(address), prefixlen=128, family=_AF_INET6, **flags)


def remove_address(netlink: Any, index: int, address: IPv6Address) -> None:
    """Takes ``address``/128 from the device; one that is not there is fine."""
    _ignore(errno.EADDRNOTAVAIL, _address, netlink, "del", index, address)


def change_route(netlink: Any, add: bool, index: int, to: IPv6Address) -> bool:
    """Adds or removes the route to ``to``/128 on the device; says whether it changed.

    Raises OSError; ``EEXIST`` if another device has the route, so that nothing leaks there.
    """
    arguments = {"dst": f"{to}/128", "oif": index, "family": _AF_INET6}
    if not add:
        return _ignore(errno.ESRCH, netlink.route, "del", **arguments)
    if _ignore(errno.EEXIST, netlink.route, "add", **arguments):
        return True
    if to not in _routes(netlink, index):
        raise OSError(errno.EEXIST, "another device has this route")
    return False


def routes(index: int) -> frozenset[IPv6Address]:
    """The /128 destinations that are routed to the device (main table)."""
    return apart(lambda netlink: _routes(netlink, index))


def _routes(netlink: Any, index: int) -> frozenset[IPv6Address]:
    entries = netlink.get_routes(family=_AF_INET6, oif=index, table=_RT_TABLE_MAIN)
    return frozenset(
        IPv6Address(entry.get_attr("RTA_DST")) for entry in entries if entry["dst_len"] == 128
    )


def _ignore(number: int, call: Callable[..., Any], *arguments: Any, **named: Any) -> bool:
    """Calls; an error ``number`` means that all is already so. Says whether anything changed."""
    try:
        call(*arguments, **named)
    except NetlinkError as problem:
        if problem.code != number:
            raise OSError(problem.code, str(problem.args[-1])) from None
        return False
    return True


def apart(work: Callable[[Any], _T]) -> _T:
    """Runs ``work`` with a netlink socket in a thread of its own, and joins that thread.

    Raises OSError for every error that the kernel answers.
    """

    def run() -> _T:
        loop = asyncio.SelectorEventLoop()
        asyncio.set_event_loop(loop)
        try:
            with IPRoute() as netlink:
                return work(netlink)
        except NetlinkError as problem:
            raise OSError(problem.code, str(problem.args[-1])) from None
        finally:
            loop.close()

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(run).result()
