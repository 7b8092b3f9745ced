"""Sockets for the rendezvous: bound with clear sentences, UDP answered from the address asked.

A UDP socket bound to "any" would answer from whatever address routing prefers; a client that asked
another address of this machine drops such an answer. So each datagram's own destination is noted
and used as the source of its answer (RFC 3542 §6, and its IPv4 likeness on Linux).
"""

from __future__ import annotations

import asyncio
import errno
import socket
import sys
from collections.abc import Callable
from functools import partial
from typing import Final

from discovery.types import Endpoint

_LINUX: Final = sys.platform == "linux"
_IP_PKTINFO: Final = 8  # linux/in.h; Python's socket module names it from 3.14 on
_DATAGRAMS_PER_WAKEUP: Final = 64  # then other sockets get their turn
_PORT_TRIES: Final = 20

Send = Callable[[bytes], None]
"""Sends one message back to where another came from, now or later."""

_ANSWER = Callable[[bytes, Endpoint, Endpoint, Send], list[bytes] | None]

_RECEIVE_BUFFER: Final = 4 << 20
"""Octets, if the system grants them: ten thousand acknowledgements may come within a moment."""


class ListenError(Exception):
    """An address cannot be listened on; says cause and fix."""


def bind_pair(endpoint: Endpoint) -> tuple[socket.socket, socket.socket]:
    """Bind a TCP and a UDP socket to one endpoint; port 0 takes one that is free for both.

    Raises :exc:`ListenError`.
    """
    tries = _PORT_TRIES if endpoint[1] == 0 else 1
    while True:
        tries -= 1
        stream = bind(endpoint, socket.SOCK_STREAM, "listen")
        try:
            datagram = bind((endpoint[0], port_of(stream)), socket.SOCK_DGRAM, "listen")
        except ListenError:
            stream.close()
            if not tries:
                raise
            continue
        return stream, datagram


def bind(endpoint: Endpoint, kind: socket.SocketKind, setting: str) -> socket.socket:
    """Bind one socket. ``setting`` is the configuration key that a complaint should name."""
    host, port = endpoint
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    opened: socket.socket | None = None
    try:
        opened = socket.socket(family, kind)
        opened.setblocking(False)
        if family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if kind == socket.SOCK_STREAM:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind((host, port))
        if kind == socket.SOCK_STREAM:
            opened.listen(128)
    except OSError as error:
        if opened is not None:
            opened.close()
        raise ListenError(_sentence(endpoint, setting, error)) from error
    return opened


def port_of(bound: socket.socket) -> int:
    """Return the port that a socket is bound to."""
    return int(bound.getsockname()[1])


def endpoint_of(bound: socket.socket) -> Endpoint:
    """Return the endpoint that a socket is bound to."""
    host, port = bound.getsockname()[:2]
    return str(host), int(port)


def _sentence(endpoint: Endpoint, setting: str, error: OSError) -> str:
    host = f"[{endpoint[0]}]" if ":" in endpoint[0] else endpoint[0]
    cause, fix = error.strerror or str(error), f"change [serve] {setting}"
    if error.errno == errno.EADDRINUSE:
        cause = "in use by another program"
        fix = f"choose another [serve] {setting} or stop it"
    elif error.errno in (errno.EACCES, errno.EPERM):
        cause = "ports below 1024 are for privileged programs"
        fix = f"run as root, give CAP_NET_BIND_SERVICE, or choose another [serve] {setting}"
    elif error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
        cause = "this machine has no such address"
        fix = f"take it out of [serve] {setting}"
    return f"cannot listen on {host}:{endpoint[1]}: {cause}; {fix}"


class DatagramServer:
    """Answers the datagrams of one bound UDP socket with ``answer(data, source, local, send)``:
    what it returns is sent at once, ``send`` takes what comes later. ``local`` is the address and
    port that were asked, from which the answers leave."""

    def __init__(self, bound: socket.socket, answer: _ANSWER) -> None:
        self._socket = bound
        self._answer = answer
        self._bound = (str(bound.getsockname()[0]), port_of(bound))
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
        if not _LINUX:
            return
        if bound.family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        else:
            bound.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)

    def start(self) -> None:
        """Begin to answer, on the running event loop."""
        asyncio.get_running_loop().add_reader(self._socket.fileno(), self._readable)

    def close(self) -> None:
        """Stop and close the socket."""
        asyncio.get_running_loop().remove_reader(self._socket.fileno())
        self._socket.close()

    def _readable(self) -> None:
        for _ in range(_DATAGRAMS_PER_WAKEUP):
            try:
                data, notes, _, source = self._socket.recvmsg(65535, 128)
            except BlockingIOError:
                return
            except OSError:
                continue  # an ICMP error of an earlier answer
            back = [_answer_from(*note) for note in notes if _is_packet_info(note)]
            send = partial(self._send, back, source)
            asker = (str(source[0]), int(source[1]))
            for answer in self._answer(data, asker, self._local(back), send) or ():
                send(answer)

    def _local(self, back: list[tuple[int, int, bytes]]) -> Endpoint:
        """Return the address and port that were asked."""
        for level, _, data in back:
            if level == socket.IPPROTO_IPV6:
                return socket.inet_ntop(socket.AF_INET6, data[:16]), self._bound[1]
            return socket.inet_ntop(socket.AF_INET, data[4:8]), self._bound[1]
        return self._bound

    def tell(self, target: Endpoint, local: Endpoint, wire: bytes) -> bool:
        """Send what nobody asked for now, from ``local``; return false if the socket is full."""
        back = [_from_address(local[0])] if _LINUX else []
        try:
            self._socket.sendmsg([wire], back, 0, target)
        except BlockingIOError:
            return False
        except OSError:
            return True  # unreachable: the acknowledgement will not come
        return True

    def _send(
        self, back: list[tuple[int, int, bytes]], source: tuple[str, int], answer: bytes
    ) -> None:
        try:
            self._socket.sendmsg([answer], back, 0, source)
        except OSError:
            return  # unreachable, or the buffer is full: UDP may lose an answer


def _is_packet_info(note: tuple[int, int, bytes]) -> bool:
    return note[:2] in ((socket.IPPROTO_IP, _IP_PKTINFO), (socket.IPPROTO_IPV6, _IPV6_PKTINFO))


def _answer_from(level: int, kind: int, data: bytes) -> tuple[int, int, bytes]:
    """Turn "it came to this address" into "send from this address"."""
    if level == socket.IPPROTO_IPV6:
        return level, kind, data
    # struct in_pktinfo: interface, local address, header's destination. Interface 0: by routing.
    return level, kind, bytes(4) + data[4:8] + bytes(4)


def _from_address(address: str) -> tuple[int, int, bytes]:
    if ":" in address:
        packed = socket.inet_pton(socket.AF_INET6, address)
        return socket.IPPROTO_IPV6, _IPV6_PKTINFO, packed + bytes(4)
    packed = socket.inet_pton(socket.AF_INET, address)
    return socket.IPPROTO_IP, _IP_PKTINFO, bytes(4) + packed + bytes(4)


_IPV6_PKTINFO: Final = getattr(socket, "IPV6_PKTINFO", 50)
