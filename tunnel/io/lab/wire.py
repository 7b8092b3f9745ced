"""A link that delays, loses, doubles and reorders: two TAP devices, and a program between them.

Linux has netem for that, but many kernels (those of small virtual machines among them) are built
without it; this needs TAP devices only, which the product needs anyway, and draws its chances from
a seed. It runs as a process of its own::

    python -m tunnel.io.lab.wire SEED DELAY JITTER LOSS DUPLICATE DEVICE NETNS DEVICE

Times are seconds, chances from 0 to 1. The first device is made in the process's own namespace, the
second in NETNS; it says ``ready``, and carries until it is ended.
"""

from __future__ import annotations

import ctypes
import fcntl
import heapq
import itertools
import os
import random
import select
import struct
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tunnel.io.lab.leftovers import NETNS_FOLDER
from tunnel.io.lab.namespace import Namespace
from tunnel.io.lab.scenario import Links

_TUNSETIFF = 0x400454CA  # linux/if_tun.h
_IFF_TAP, _IFF_NO_PI = 0x0002, 0x1000
_CLONE_NEWNET = 0x40000000  # linux/sched.h
_FRAME = 65_536 + 14
_WAITING = 4096  # frames in each direction: what a router would hold, and then drops
_READY_SECONDS = 60.0


def connect_badly(
    here: Namespace, device: str, there: Namespace, other: str, links: Links, seed: int
) -> None:
    """Join two namespaces as :func:`tunnel.io.lab.topology.connect` does, by a link of that kind.
    It stands as long as the lab does."""
    chances = (links.delay_ms / 1000, links.jitter_ms / 1000, links.loss / 100)
    numbers = [str(seed), *(str(one) for one in chances), str(links.duplicate / 100)]
    root = {"PYTHONPATH": str(Path(__file__).resolve().parents[3])}
    module = (sys.executable, "-m", "tunnel.io.lab.wire")
    wire = here.start(*module, *numbers, device, there.name, other, name=f"wire-{device}", env=root)
    wire.wait_for("ready", _READY_SECONDS)
    for machine, name in ((here, device), (there, other)):
        machine.ip("link", "set", name, "mtu", str(links.mtu), "up")


@dataclass(frozen=True, slots=True)
class Chances:
    """What happens to a frame."""

    delay: float
    jitter: float
    loss: float
    duplicate: float


class Wire:
    """The frames that are on their way. Pure: ``now`` is in seconds."""

    def __init__(self, chances: Chances, seed: int) -> None:
        self._chances, self._random = chances, random.Random(seed)  # noqa: S311 - weather, no secret
        self._order = itertools.count()
        self._waiting: list[tuple[float, int, int, bytes]] = []

    def take(self, frame: bytes, to: int, now: float) -> None:
        """A frame goes in; it comes out at end ``to``, late, twice or not at all."""
        chances, draw = self._chances, self._random.random
        copies = 2 if draw() < chances.duplicate else 1
        for _ in range(copies):
            lost = draw() < chances.loss
            at = now + chances.delay + draw() * chances.jitter
            if not lost and len(self._waiting) < _WAITING:
                heapq.heappush(self._waiting, (at, next(self._order), to, frame))

    def due(self, now: float) -> list[tuple[int, bytes]]:
        """The frames that come out by now, and where."""
        out = []
        while self._waiting and self._waiting[0][0] <= now:
            _, _, to, frame = heapq.heappop(self._waiting)
            out.append((to, frame))
        return out

    def wait(self, now: float) -> float | None:
        """Seconds until the next one comes out."""
        return max(0.0, self._waiting[0][0] - now) if self._waiting else None


def _make_tap(name: str) -> int:
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI))
    return device


def _enter(netns: str) -> None:
    """This process makes its next devices in that namespace. (``os.setns`` came with 3.12.)"""
    libc = ctypes.CDLL(None, use_errno=True)
    with (NETNS_FOLDER / netns).open() as opened:
        if libc.setns(opened.fileno(), _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"cannot enter {netns}")


def _carry(ends: tuple[int, int], wire: Wire) -> None:
    other = {ends[0]: ends[1], ends[1]: ends[0]}
    while True:
        readable, _, _ = select.select(ends, (), (), wire.wait(time.monotonic()))
        for end in readable:
            try:
                frame = os.read(end, _FRAME)
            except OSError:
                continue  # the device is not up
            wire.take(frame, other[end], time.monotonic())
        for end, frame in wire.due(time.monotonic()):
            try:
                os.write(end, frame)
            except OSError:
                continue  # it is down, or its queue is full: lost, as on any link


def main(arguments: list[str]) -> None:
    """As the module says."""
    seed, *numbers, device, netns, other = arguments
    chances = Chances(*(float(one) for one in numbers))
    here = _make_tap(device)
    _enter(netns)
    ends = (here, _make_tap(other))
    print("ready", flush=True)
    _carry(ends, Wire(chances, int(seed)))


if __name__ == "__main__":
    main(sys.argv[1:])
