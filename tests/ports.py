"""Ports for servers that tests start."""

from __future__ import annotations

import contextlib
import random
import socket

PORTS = range(20_000, 32_000)
"""Below those that the system gives to whoever asks for any: none of these is taken by chance
between its choice here and the start of the server that it is for."""
_DICE = random.SystemRandom()  # that of several processes of tests must not go alike


def free_port() -> int:
    """A port that nobody has for UDP or TCP, at any address of IPv4 or IPv6."""
    while True:
        port = _DICE.choice(PORTS)
        with contextlib.suppress(OSError), contextlib.ExitStack() as probes:
            for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
                probe = probes.enter_context(socket.socket(socket.AF_INET6, kind))
                probe.bind(("::", port))
            return port
