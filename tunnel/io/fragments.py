"""Which outer packets may be cut on their way, by options of the UDP socket (Linux ip(7), ipv6(7)).

Data over IPv4 goes without the "don't fragment" bit and takes no notice of ICMP errors, which
anybody can forge: a path that becomes narrower costs fragments, not packets, until the probes
find its MTU (RFC 8899). Over IPv6, where routers never cut, the kernel follows their Packet Too
Big. A probe must not be cut at all: for that one packet the socket is set otherwise and set back.
The usual packets pay nothing.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import sys
from typing import Any

_LINUX = sys.platform == "linux"
_IP_MTU_DISCOVER, _IPV6_MTU_DISCOVER = 10, 23  # <linux/in.h>, <linux/in6.h>
_WANT, _PROBE, _OMIT = 1, 3, 5  # IP_PMTUDISC_*; the same for IPv6
_DISCOVER = {
    socket.AF_INET: (socket.IPPROTO_IP, _IP_MTU_DISCOVER, _OMIT),
    socket.AF_INET6: (socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _WANT),
}


def allow_fragments(udp: socket.socket) -> None:
    """Sets a socket of either family up as above; a system without the option stays as it is."""
    if _LINUX:
        level, option, value = _DISCOVER[udp.family]
        with contextlib.suppress(OSError):
            udp.setsockopt(level, option, value)


def send_whole(udp: socket.socket, data: bytes, address: tuple[Any, ...]) -> None:
    """Sends a probe. Raises OSError (``EMSGSIZE`` when our own link is too narrow)."""
    if not _LINUX:
        raise OSError(errno.EMSGSIZE, "this system was not taught to send a probe")
    level, option, _ = _DISCOVER[udp.family]
    usual = udp.getsockopt(level, option)
    udp.setsockopt(level, option, _PROBE)
    try:
        udp.sendto(data, address)
    finally:
        udp.setsockopt(level, option, usual)
