"""Datagrams with numbers, so many a second, and when each of them arrived.

    python -m bench.numbered receive ADDRESS PORT FILE    says "ready"; ends with SIGTERM
    python -m bench.numbered send ADDRESS PORT RATE       ends with SIGTERM

Both run on one machine, in namespaces, and so have one clock.
"""

from __future__ import annotations

import argparse
import contextlib
import socket
import struct
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

OCTETS = 200  # of a datagram: about what speech has
HEAD = struct.Struct("<Qd")  # its number, and when it was sent (unix seconds)
RECORD = struct.Struct("<Qdd")  # number, sent, arrived
_BUFFER = 4 * 2**20


@dataclass(frozen=True, slots=True)
class Found:
    """What became of the datagrams that were sent within some time."""

    sent: int
    lost: int
    duplicated: int
    reordered: int  # that came after one with a greater number
    gap_ms: float  # the longest time in which none arrived

    def summary(self) -> dict[str, Any]:
        """As it is saved."""
        return {name: getattr(self, name) for name in self.__slots__}


def judge(records: Sequence[tuple[int, float, float]], begun: float, ended: float) -> Found:
    """Of all ``records``, in the order of their arrival, those sent from ``begun`` to ``ended``."""
    within = [one for one in records if begun <= one[1] < ended]
    numbers = [number for number, _, _ in within]
    first, last = min(numbers), max(numbers)
    seen: set[int] = set()
    newest, duplicated, reordered = -1, 0, 0
    for number in numbers:
        duplicated += number in seen
        reordered += number < newest and number not in seen
        seen.add(number)
        newest = max(newest, number)
    gaps = (later - one for (_, _, one), (_, _, later) in pairwise(within))
    return Found(
        sent=last - first + 1,
        lost=last - first + 1 - len(seen),
        duplicated=duplicated,
        reordered=reordered,
        gap_ms=round(max(gaps, default=0.0) * 1000, 1),
    )


def read(file: Path) -> list[tuple[int, float, float]]:
    """All that has arrived so far."""
    data = file.read_bytes()
    whole = len(data) - len(data) % RECORD.size
    return list(RECORD.iter_unpack(data[:whole]))


def command(*arguments: str) -> tuple[str, ...]:
    """The command line of this program."""
    return (sys.executable, "-m", "bench.numbered", *arguments)


def receive(address: str, port: int, file: Path) -> None:
    """Writes a record of each datagram."""
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as udp, file.open("wb", 0) as out:
        udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        udp.bind((address, port))
        print("ready", flush=True)
        while True:
            data = udp.recv(OCTETS)
            out.write(RECORD.pack(*HEAD.unpack_from(data), time.time()))


def send(address: str, port: int, rate: int) -> None:
    """Sends; what the kernel has no room for, or no way, is lost like any other."""
    padding = bytes(OCTETS - HEAD.size)
    number, begun = 0, time.monotonic()
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as udp:
        while True:
            wait = begun + number / rate - time.monotonic()
            if wait > 0:
                time.sleep(wait)
            with contextlib.suppress(OSError):
                udp.sendto(HEAD.pack(number, time.time()) + padding, (address, port))
            number += 1


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.numbered", description=__doc__)
    parser.add_argument("what", choices=["send", "receive"])
    parser.add_argument("address")
    parser.add_argument("port", type=int)
    parser.add_argument("more", help="the file, or datagrams a second")
    options = parser.parse_args()
    if options.what == "send":
        send(options.address, options.port, int(options.more))
    else:
        receive(options.address, options.port, Path(options.more))


if __name__ == "__main__":
    main()
