"""One datagram from an address and by an interface of our choice (Linux ip(7), ipv6(7): PKTINFO).

Linux takes the interface for the one that the route has to lead over, so that a default route with
a greater metric is found: no rule, no mark and no privilege is needed. With IPv6 it does so only
while the address is left to it; then it takes the one that it will take there after a move, too.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from ipaddress import ip_address
from typing import Any, Final

from fastpath.types import Source

_IP_PKTINFO: Final = 8  # <linux/in.h>; Python has no name for it
_FOUR = struct.Struct("=i4s4x")  # struct in_pktinfo: index, our address, (theirs)
_SIX = struct.Struct("=16si")  # struct in6_pktinfo: our address, index
_MOST_INDEX: Final = 2**31 - 1


def check(source: Source, family: int) -> None:
    """Raises :class:`ValueError` for what is no source of this address family."""
    host, index = source
    version = 4 if family == socket.AF_INET else 6
    if ip_address(host).version != version:
        raise ValueError(f"{host} is not of the family of the endpoint")
    if not 0 < index <= _MOST_INDEX:
        raise ValueError(f"{index} is no index of an interface")


def send_from(one: socket.socket, source: Source, datagram: bytes, address: Any) -> None:
    """Sends one UDP payload. Raises OSError: ``ENETUNREACH`` or ``ENODEV`` for a source that is
    gone, ``EOPNOTSUPP`` where the system is not Linux."""
    if sys.platform != "linux":
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
    host, index = source
    if one.family == socket.AF_INET:
        about = (socket.IPPROTO_IP, _IP_PKTINFO, _FOUR.pack(index, ip_address(host).packed))
    else:
        about = (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, _SIX.pack(bytes(16), index))
    one.sendmsg([datagram], [about], 0, address)
