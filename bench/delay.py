"""A line that takes its time: ``python -m bench.delay MILLISECONDS`` between two devices.

Whatever frame comes in at ``in`` leaves at ``out`` so much later, and the other way round. It
stands in for netem, which not every kernel has.
"""

from __future__ import annotations

import contextlib
import select
import socket
import sys
import time
from collections import deque

DEVICES = ("in", "out")
_ALL = 3  # ETH_P_ALL
_AT_ONCE = 64  # frames that are read before others are sent
_FRAME = 65_535


def carry(seconds: float) -> None:
    """Carries frames both ways until the process ends."""
    ends = [socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL)) for _ in DEVICES]
    for end, device in zip(ends, DEVICES, strict=True):
        end.bind((device, 0))
        end.setblocking(False)
    waiting: deque[tuple[float, socket.socket, bytes]] = deque()  # the same delay: in order
    others = {ends[0]: ends[1], ends[1]: ends[0]}
    print("carrying", flush=True)
    while True:
        wait = None if not waiting else max(0.0, waiting[0][0] - time.monotonic())
        for end in select.select(ends, [], [], wait)[0]:
            for _ in range(_AT_ONCE):
                try:
                    frame, about = end.recvfrom(_FRAME)
                except BlockingIOError:
                    break
                if about[2] != socket.PACKET_OUTGOING:
                    waiting.append((time.monotonic() + seconds, others[end], frame))
        now = time.monotonic()
        while waiting and waiting[0][0] <= now:
            _, end, frame = waiting.popleft()
            with contextlib.suppress(OSError):  # a device that is down: lost, as on any line
                end.send(frame)


if __name__ == "__main__":
    carry(float(sys.argv[1]) / 1000)
