"""The UDP sockets of a host, and which address the kernel would send from."""

from __future__ import annotations

import contextlib
import errno
import socket
from ipaddress import ip_address

from fastpath.types import Endpoint
from tunnel.io.fragments import allow_fragments

BUFFER_OCTETS = 4 * 1024 * 1024
"""Asked for each socket; without CAP_NET_ADMIN the kernel gives what ``net.core.rmem_max`` allows.

The usual 208 KiB cost a fifth of the TCP throughput, on a link without UDP GSO a third."""

_FORCED = (33, 32)  # SO_RCVBUFFORCE, SO_SNDBUFFORCE: Python has no names for them

# Any address beyond the default route will do: connect() on UDP sends nothing (RFC 5737, RFC 3849).
_SOMEWHERE = {socket.AF_INET: "192.0.2.1", socket.AF_INET6: "2001:db8::1"}
_MTU = {  # IP_MTU, IPV6_MTU of <linux/in.h> and <linux/in6.h>
    socket.AF_INET: (socket.IPPROTO_IP, 14),
    socket.AF_INET6: (socket.IPPROTO_IPV6, 24),
}


class SocketError(Exception):
    """A UDP port cannot be had; the text says cause and fix."""


class UdpPair:
    """The IPv4 and the IPv6 socket of one UDP port, non-blocking; one may be missing.

    With several ``queues``, each has a pair of its own, and the kernel chooses by the addresses and
    ports of a datagram (SO_REUSEPORT). The port is bound as by anybody first, so that one that is
    taken is told all the same.
    """

    def __init__(self, port: int, key: str, queues: int = 1) -> None:
        self.port = port
        self.sockets: dict[int, socket.socket] = {}
        self._more: list[dict[int, socket.socket]] = [{} for _ in range(queues - 1)]
        try:
            for family in (socket.AF_INET, socket.AF_INET6):
                if (one := _bind(family, port, key)) is not None:
                    self.sockets[family] = one
                    self._share(family, one, key)
        except SocketError:
            self.close()
            raise
        if not self.sockets:
            raise SocketError("this machine has neither IPv4 nor IPv6; see `ip address`")

    def _share(self, family: int, first: socket.socket, key: str) -> None:
        if self._more:
            first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        for sockets in self._more:
            one = _bind(family, self.port, key, shared=True)
            assert one is not None  # the first one of this family is there
            sockets[family] = one

    def fd(self, family: int, queue: int = 0) -> int | None:
        """The descriptor of one family's socket."""
        sockets = (self.sockets, *self._more)[queue]
        return sockets[family].fileno() if family in sockets else None

    def send(self, data: bytes, remote: Endpoint) -> bool:
        """Sends one datagram; false when it could not go (as if it were lost on the way)."""
        host, port = remote
        one = self.sockets.get(socket.AF_INET6 if ":" in host else socket.AF_INET)
        try:
            ip_address(host)  # never a name, so never a lookup
            return one is not None and one.sendto(data, (host, port)) == len(data)
        except (OSError, ValueError):
            return False

    def close(self) -> None:
        """Closes all."""
        for sockets in (self.sockets, *self._more):
            for one in sockets.values():
                one.close()


def _bind(family: int, port: int, key: str, *, shared: bool = False) -> socket.socket | None:
    """A bound socket; ``None`` where the system lacks the family. Raises :class:`SocketError`."""
    try:
        one = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    except OSError:
        return None
    try:
        if family == socket.AF_INET6:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if shared:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        allow_fragments(one)
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF, *_FORCED):
            with contextlib.suppress(OSError):
                one.setsockopt(socket.SOL_SOCKET, option, BUFFER_OCTETS)
        one.bind(("::" if family == socket.AF_INET6 else "0.0.0.0", port))  # noqa: S104 (all of them)
    except OSError as problem:
        one.close()
        if problem.errno == errno.EADDRNOTAVAIL and family == socket.AF_INET6:
            return None  # IPv6 is compiled in, and switched off
        raise SocketError(_why_not(port, key, problem)) from None
    return one


def _why_not(port: int, key: str, problem: OSError) -> str:
    if problem.errno == errno.EADDRINUSE:
        cause = f"UDP port {port} is in use by another process"
        return f"{cause}; end that one (`ss -ulpn sport = :{port}` shows it) or change {key}"
    if problem.errno in (errno.EACCES, errno.EPERM):
        cause = f"UDP port {port} may not be bound by this user"
        return f"{cause}; choose a port above 1023 for {key}, or grant CAP_NET_BIND_SERVICE"
    return f"UDP port {port} cannot be bound ({problem.strerror}); check {key}"


def source_towards(remote: str | None, family: int) -> str | None:
    """The address that the kernel sends from towards ``remote`` (or the default route).

    ``None`` where there is no route, and where the address is no use to anybody else: link-local,
    unspecified, or loopback unless ``remote`` itself is on loopback.
    """
    target = remote or _SOMEWHERE[socket.AddressFamily(family)]
    try:
        with _connected(target, family) as probe:
            address = ip_address(probe.getsockname()[0].partition("%")[0])
    except OSError:
        return None
    if address.is_unspecified or address.is_link_local:
        return None
    if address.is_loopback and not ip_address(target.partition("%")[0]).is_loopback:
        return None
    return str(address)


def mtu_towards(remote: str | None, family: int) -> int | None:
    """Octets of a packet that leaves whole towards ``remote`` (or the default route).

    ``None`` where there is no route, or where the system does not say.
    """
    level, option = _MTU[socket.AddressFamily(family)]
    try:
        with _connected(remote or _SOMEWHERE[socket.AddressFamily(family)], family) as probe:
            return probe.getsockopt(level, option)
    except OSError:
        return None


def _connected(target: str, family: int) -> socket.socket:
    probe = socket.socket(family, socket.SOCK_DGRAM)
    try:
        probe.connect((target, 53))
    except OSError:
        probe.close()
        raise
    return probe
