"""Routes to host ids appear long after set-up, when the host holds no capability any more.

So a tiny child keeps CAP_NET_ADMIN, and nothing else, for them. It knows one device and one
request: add or remove the route to one unique local address (fc00::/7, always /128) there. It
reads from a socket pair whose other end only the host holds; when that closes, it takes away
every route it added, and the device's address if set-up put it on a persistent device, and ends.
So it does after a request that is not allowed: the host never makes one, so that is no host.

A request is 17 octets: ``+`` or ``-``, then the address. The answer is a 4-octet errno, 0 for
done. The child sends one answer of 0 when it is ready.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any

from tunnel.io import capability, netlink
from tunnel.io.rtnetlink import Rtnetlink

_REQUEST_OCTETS = 17
_ANSWER_OCTETS = 4
_PATIENCE = 10.0  # seconds for one answer; a netlink request takes less than a millisecond


class RouteHelper:
    """The host's end: starts the child, asks it, and ends it.

    ``address`` is taken off the device at the end, where set-up put it on a device that stays.
    """

    def __init__(self, index: int, address: IPv6Address | None) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.settimeout(_PATIENCE)
        self._socket = ours
        number = theirs.fileno()
        arguments = [str(number), str(index), *([str(address)] if address else [])]
        root = str(Path(__file__).parents[2])
        with theirs:
            self._child = subprocess.Popen(
                [sys.executable, "-P", "-m", "tunnel.io.routes", *arguments],
                pass_fds=[number],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env={"PYTHONPATH": root},
            )
        try:
            self._answer()
        except OSError:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._child.pid

    def change(self, add: bool, destination: IPv6Address) -> None:
        """Adds or removes the route to ``destination``/128. Raises OSError."""
        self._socket.send((b"+" if add else b"-") + destination.packed)
        self._answer()

    def _answer(self) -> None:
        answer = self._socket.recv(_ANSWER_OCTETS)
        if len(answer) != _ANSWER_OCTETS:
            raise OSError(errno.EPIPE, "the route helper has ended")
        number = int.from_bytes(answer, "big")
        if number:
            raise OSError(number, os.strerror(number))

    def close(self) -> None:
        """Ends the child, which takes its routes away; returns when it has. Idempotent."""
        self._socket.close()
        try:
            self._child.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()


class RouteTable:
    """The child's side, without the socket: what is allowed, and what is to be undone."""

    def __init__(self, kernel: Any, index: int) -> None:
        self._kernel = kernel
        self._index = index
        self._added: set[IPv6Address] = set()

    def handle(self, request: bytes) -> int:
        """Carries one request out and returns its errno; ``EPERM`` for all that is not allowed."""
        if len(request) != _REQUEST_OCTETS or request[:1] not in (b"+", b"-"):
            return errno.EPERM
        if request[1] & 0xFE != 0xFC:  # RFC 4193 §3.1
            return errno.EPERM
        add, destination = request[:1] == b"+", IPv6Address(request[1:])
        if not add and destination not in self._added:
            return 0  # not ours: leave it, as the person made it
        try:
            changed = netlink.change_route(self._kernel, add, self._index, destination)
        except OSError as problem:
            return problem.errno or errno.EIO
        if add and changed:
            self._added.add(destination)
        elif not add:
            self._added.discard(destination)
        return 0

    def undo(self, address: IPv6Address | None) -> None:
        """Takes away what was added, and ``address``; a device that is gone took all with it."""
        for destination in self._added:
            _quietly(netlink.change_route, self._kernel, False, self._index, destination)
        self._added.clear()
        if address is not None:
            _quietly(netlink.remove_address, self._kernel, self._index, address)


def _quietly(call: Any, *arguments: Any) -> None:
    try:
        call(*arguments)
    except OSError:
        return


def main(arguments: list[str]) -> int:
    """The child: descriptor, device index, and the address to take away at the end (or none)."""
    descriptor, index, *rest = arguments
    address = IPv6Address(rest[0]) if rest else None
    channel = socket.socket(fileno=int(descriptor))
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, signal.SIG_IGN)  # it ends with the host, after the host
    capability.keep_only(frozenset({capability.NET_ADMIN}))
    with Rtnetlink() as kernel, channel:
        table = RouteTable(kernel, int(index))
        try:
            channel.send(bytes(_ANSWER_OCTETS))
            while request := channel.recv(_REQUEST_OCTETS + 1):
                number = table.handle(request)
                channel.send(number.to_bytes(_ANSWER_OCTETS, "big"))
                if number == errno.EPERM:
                    break
        except OSError:
            pass  # the host has gone: that is the end too
        finally:
            table.undo(address)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
