"""Word of the kernel that links, addresses or routes changed (rtnetlink(7)'s multicast groups)."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress

_GROUPS = 0x1 | 0x10 | 0x40 | 0x100 | 0x400  # RTMGRP_: LINK, IPV4_IFADDR, IPV4_ROUTE, IPV6_…
_OCTETS = 65_536


class Changes:
    """Calls ``changed`` after every change; what it was, the caller looks up itself.

    Where the system has no rtnetlink there is no word, and the caller's own polling must do.
    """

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._socket: socket.socket | None = None

    def start(self) -> bool:
        """Begin to listen; whether there is something to listen to."""
        try:
            kernel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
            kernel.setblocking(False)
            kernel.bind((0, _GROUPS))
        except (AttributeError, OSError):
            return False
        self._socket = kernel
        asyncio.get_running_loop().add_reader(kernel, self._read)
        return True

    def stop(self) -> None:
        """Listen no more. Idempotent."""
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None

    def _read(self) -> None:
        assert self._socket is not None
        # A queue that overflowed (ENOBUFS) says the same: something changed.
        with suppress(OSError):
            while self._socket.recv(_OCTETS):
                pass
        self._changed()
