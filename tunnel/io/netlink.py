"""The few things that a host asks of the kernel's links, addresses and routes (rtnetlink(7))."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from typing import Any

from tunnel.io.rtnetlink import CREATE_NEW, Rtnetlink, attribute, attributes

_AF_INET, _AF_INET6 = 2, 10
_IFF_UP, _IFF_LOWER_UP = 1, 1 << 16
_RT_TABLE_MAIN, _RTPROT_STATIC, _RTN_UNICAST, _RTM_F_CLONED = 254, 4, 1, 0x200
_IFA_F_NODAD, _IFA_F_NOPREFIXROUTE = 0x02, 0x200  # <linux/if_addr.h>
_ADDR_GEN_NONE = 1  # IN6_ADDR_GEN_MODE_NONE, <linux/if_link.h>: no link-local address

# <linux/rtnetlink.h>
_GETLINK, _SETLINK = 18, 19
_NEWADDR, _DELADDR, _GETADDR = 20, 21, 22
_NEWROUTE, _DELROUTE, _GETROUTE = 24, 25, 26
_LINK = struct.Struct("=BxHiII")  # struct ifinfomsg: family, type, index, flags, change mask
_ADDRESS = struct.Struct("=BBBBi")  # struct ifaddrmsg: family, prefix, flags, scope, index
_ROUTE = struct.Struct("=BBBBBBBBI")  # struct rtmsg: family, dst, src, tos, table, …, flags
_IFLA_IFNAME, _IFLA_MTU, _IFLA_LINKINFO, _IFLA_AF_SPEC = 3, 4, 18, 26
_IFLA_TXQLEN = 13
_IFLA_INFO_KIND, _IFLA_INET6_ADDR_GEN_MODE = 1, 8
_IFA_ADDRESS, _IFA_FLAGS = 1, 8
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY, _RTA_PREFSRC = 1, 4, 5, 6, 7
_RTNH_F_DOWN = 1 | 16  # RTNH_F_DEAD, RTNH_F_LINKDOWN

_TUNNELS = frozenset(
    ("tun", "wireguard", "ipip", "sit", "ip6tnl", "gre", "ip6gre", "vti", "vti6", "xfrm", "amt")
)

# Any addresses beyond the default route will do (RFC 5737, RFC 3849): nothing is sent there.
_SOMEWHERE = {_AF_INET: ip_address("192.0.2.1"), _AF_INET6: ip_address("2001:db8::1")}

# <linux/if_tun.h>
_TUN = "/dev/net/tun"
_TUNSETIFF, _TUNSETPERSIST, _TUNSETOWNER = 0x400454CA, 0x400454CB, 0x400454CC
_IFF_TUN, _IFF_NO_PI, _IFF_MULTI_QUEUE = 0x0001, 0x1000, 0x0100
_IFREQ = struct.Struct("=16sH22x")

QUEUE_PACKETS = 2048
"""Packets that wait in the device for us. TUN's own 500 are lost to a host that gets no processor
for a quarter of a second (decision 0033)."""


@dataclass(frozen=True, slots=True)
class Link:
    """A network device as the kernel tells it. ``kind`` is "tun" for TUN and TAP devices."""

    index: int
    name: str
    mtu: int
    up: bool
    kind: str
    addresses: frozenset[IPv6Address]
    attached: bool = False  # of a TUN device that is up: somebody has it open


def link(name: str) -> Link | None:
    """The device ``name`` with its IPv6 addresses, or ``None`` if there is none."""
    with Rtnetlink() as kernel:
        wanted = attribute(_IFLA_IFNAME, name.encode() + b"\0")
        try:
            message = kernel.get(_GETLINK, _LINK.pack(0, 0, 0, 0, 0) + wanted)
        except OSError as problem:
            if problem.errno in (errno.ENODEV, errno.ERANGE, errno.EINVAL):  # or no name at all
                return None
            raise
        _, _, index, flags, _ = _LINK.unpack_from(message)
        found = attributes(message[_LINK.size :])
        return Link(
            index=index,
            name=name,
            mtu=_number(found[_IFLA_MTU]),
            up=bool(flags & _IFF_UP),
            attached=bool(flags & _IFF_LOWER_UP),
            kind=_kind(found),
            addresses=_addresses(kernel, index),
        )


def _addresses(kernel: Rtnetlink, index: int) -> frozenset[IPv6Address]:
    entries = kernel.dump(_GETADDR, _ADDRESS.pack(_AF_INET6, 0, 0, 0, 0))
    return frozenset(
        IPv6Address(attributes(entry[_ADDRESS.size :])[_IFA_ADDRESS])
        for entry in entries
        if _ADDRESS.unpack_from(entry)[-1] == index
    )


def configure(index: int, mtu: int, address: IPv6Address) -> None:
    """Sets MTU (octets) and queue, gives the device ``address``/128 and no other, brings it up.

    Raises OSError (``EPERM`` without CAP_NET_ADMIN).
    """
    mode = attribute(_IFLA_INET6_ADDR_GEN_MODE, bytes([_ADDR_GEN_NONE]))
    quiet = attribute(_IFLA_AF_SPEC, attribute(_AF_INET6, mode))
    with Rtnetlink() as kernel:
        plain = _LINK.pack(0, 0, index, 0, 0)
        kernel.change(_SETLINK, plain + quiet)
        kernel.change(_SETLINK, plain + attribute(_IFLA_MTU, struct.pack("=I", mtu)))
        kernel.change(_SETLINK, plain + attribute(_IFLA_TXQLEN, struct.pack("=I", QUEUE_PACKETS)))
        flags = struct.pack("=I", _IFA_F_NODAD | _IFA_F_NOPREFIXROUTE)
        body = _address(index, address) + attribute(_IFA_FLAGS, flags)
        _ignore(errno.EEXIST, kernel.change, _NEWADDR, body, CREATE_NEW)
        kernel.change(_SETLINK, _LINK.pack(0, 0, index, _IFF_UP, _IFF_UP))


def make_persistent_tun(name: str, owner: int, several: bool = False) -> None:
    """Makes a TUN device that stays and that user id ``owner`` may open, with one queue or
    ``several``. Raises OSError."""
    descriptor = os.open(_TUN, os.O_RDWR | os.O_CLOEXEC)
    try:
        flags = _IFF_TUN | _IFF_NO_PI | (_IFF_MULTI_QUEUE if several else 0)
        request = _IFREQ.pack(name.encode(), flags)
        fcntl.ioctl(descriptor, _TUNSETIFF, request)
        fcntl.ioctl(descriptor, _TUNSETOWNER, owner)
        fcntl.ioctl(descriptor, _TUNSETPERSIST, 1)
    finally:
        os.close(descriptor)


def _address(index: int, address: IPv6Address) -> bytes:
    head = _ADDRESS.pack(_AF_INET6, 128, 0, 0, index)
    return head + attribute(_IFA_ADDRESS, address.packed)


def remove_address(kernel: Rtnetlink, index: int, address: IPv6Address) -> None:
    """Takes ``address``/128 from the device; one that is not there is fine."""
    _ignore(errno.EADDRNOTAVAIL, kernel.change, _DELADDR, _address(index, address))


def change_route(kernel: Rtnetlink, add: bool, index: int, to: IPv6Address) -> bool:
    """Adds or removes the route to ``to``/128 on the device; says whether it changed.

    Raises OSError; ``EEXIST`` if another device has the route, so that nothing leaks there.
    """
    how = (_RTPROT_STATIC, 0, _RTN_UNICAST) if add else (0, 0, 0)  # 0: whichever it is
    body = _ROUTE.pack(_AF_INET6, 128, 0, 0, _RT_TABLE_MAIN, *how, 0)
    body += attribute(_RTA_DST, to.packed) + attribute(_RTA_OIF, struct.pack("=i", index))
    if not add:
        return _ignore(errno.ESRCH, kernel.change, _DELROUTE, body)
    if _ignore(errno.EEXIST, kernel.change, _NEWROUTE, body, CREATE_NEW):
        return True
    if to not in _routes(kernel, index):
        raise OSError(errno.EEXIST, "another device has this route")
    return False


def routes(index: int) -> frozenset[IPv6Address]:
    """The /128 destinations that are routed to the device (main table)."""
    with Rtnetlink() as kernel:
        return _routes(kernel, index)


def _routes(kernel: Rtnetlink, index: int) -> frozenset[IPv6Address]:
    found = set()
    for entry in kernel.dump(_GETROUTE, _ROUTE.pack(_AF_INET6, *[0] * 8)):
        _, prefix, _, _, table, _, _, _, flags = _ROUTE.unpack_from(entry)
        about = attributes(entry[_ROUTE.size :])
        ours = _RTA_OIF in about and _number(about[_RTA_OIF]) == index
        if ours and prefix == 128 and table == _RT_TABLE_MAIN and not flags & _RTM_F_CLONED:
            found.add(IPv6Address(about[_RTA_DST]))
    return frozenset(found)


@dataclass(frozen=True, slots=True)
class WayOut:
    """A default route: its interface, its router (none on a link of two), and the address that the
    kernel sends from by this interface, whatever route it prefers. ``tunnel``: the interface is no
    network but somebody's tunnel through one."""

    version: int
    index: int
    gateway: str | None
    source: str | None
    tunnel: bool = False


def ways_out() -> tuple[WayOut, ...]:
    """The default routes of the main table, IPv4 first, the preferred ones first; a link-local
    router with its link (``fe80::1%eth0``). None by a link that has no carrier."""
    found: list[tuple[int, int, int, str]] = []
    with Rtnetlink() as kernel:
        for family in (_AF_INET, _AF_INET6):
            for entry in kernel.dump(_GETROUTE, _ROUTE.pack(family, *[0] * 8)):
                _, prefix, _, _, table, _, _, _, flags = _ROUTE.unpack_from(entry)
                about = attributes(entry[_ROUTE.size :])
                if prefix or table != _RT_TABLE_MAIN or flags & (_RTM_F_CLONED | _RTNH_F_DOWN):
                    continue
                if _RTA_OIF in about:
                    metric = _number(about.get(_RTA_PRIORITY, bytes(4)))
                    index = _number(about[_RTA_OIF])
                    router = about.get(_RTA_GATEWAY)
                    text = "" if router is None else _scoped(router, index)
                    found.append((family, metric, index, text))
        tunnels = {index: _is_tunnel(kernel, index) for _, _, index, _ in found}
        return tuple(
            WayOut(4 if family == _AF_INET else 6, index, text or None, by, tunnels[index])
            for family, _, index, text in sorted(found)
            for by in (_source_by(kernel, family, index),)
        )


def _is_tunnel(kernel: Rtnetlink, index: int) -> bool:
    try:
        message = kernel.get(_GETLINK, _LINK.pack(0, 0, index, 0, 0))
    except OSError:
        return False  # it has gone meanwhile
    return _kind(attributes(message[_LINK.size :])) in _TUNNELS


def _kind(about: dict[int, bytes]) -> str:
    kind = attributes(about.get(_IFLA_LINKINFO, b"")).get(_IFLA_INFO_KIND, b"")
    return kind.rstrip(b"\0").decode(errors="replace")


def _source_by(kernel: Rtnetlink, family: int, index: int) -> str | None:
    """``ip route get SOMEWHERE oif INTERFACE``, and of that the source."""
    somewhere = _SOMEWHERE[family].packed
    body = _ROUTE.pack(family, 8 * len(somewhere), *[0] * 7)
    body += attribute(_RTA_DST, somewhere) + attribute(_RTA_OIF, struct.pack("=i", index))
    try:
        about = attributes(kernel.get(_GETROUTE, body)[_ROUTE.size :])
    except OSError:
        return None  # it has gone down meanwhile
    return str(ip_address(about[_RTA_PREFSRC])) if _RTA_PREFSRC in about else None


def _scoped(packed: bytes, index: int) -> str:
    address = ip_address(packed)
    if address.version == 6 and address.is_link_local:
        return f"{address}%{socket.if_indextoname(index)}"
    return str(address)


def _number(value: bytes) -> int:
    (number,) = struct.unpack("=I", value)
    return int(number)


def _ignore(number: int, call: Callable[..., Any], *arguments: Any) -> bool:
    """Calls; an error ``number`` means that all is already so. Says whether anything changed."""
    try:
        call(*arguments)
    except OSError as problem:
        if problem.errno != number:
            raise
        return False
    return True
