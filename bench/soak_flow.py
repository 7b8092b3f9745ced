"""One paced UDP flow with numbered packets: ``send`` on one machine, ``receive`` on the other.

Both end with one JSON line: the sender after so many seconds, the receiver on SIGTERM.
"""

from __future__ import annotations

import argparse
import json
import signal
import socket
import struct
import sys
import time

NUMBER = struct.Struct(">Q")
SIZES = (64, 200, 700, 1200)  # octets of payload, in turns
TICK = 0.01  # seconds between two bursts
BUFFER = 16 * 2**20
LISTED = 50  # gaps that are told one by one
SO_RCVBUFFORCE = 33  # Linux: a buffer above what the system grants (as root)
SO_MEMINFO, DROPS = 55, 8  # Linux: statistics of a socket, and where its dropped packets stand


def send(address: str, port: int, rate: int, seconds: float) -> dict[str, object]:
    """``rate`` packets a second; what the kernel has no room for is tried again."""
    sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    sock.connect((address, port))
    number, started = 0, time.monotonic()
    while (passed := time.monotonic() - started) < seconds:
        while number < passed * rate:
            size = SIZES[number % len(SIZES)]
            sock.send(NUMBER.pack(number) + bytes(size - NUMBER.size))
            number += 1
        time.sleep(TICK)
    return {"sent": number}


class Receiver:
    """Counts what came, by number."""

    def __init__(self) -> None:
        self.received = self.doubled = self.late = 0
        self.next = 0
        self.missing: set[int] = set()
        self.gaps: list[tuple[float, int, int]] = []  # unix time, first number, how many

    def take(self, number: int) -> None:
        """A packet came."""
        if number >= self.next:
            if number > self.next:
                self.missing.update(range(self.next, number))
                self.gaps.append((round(time.time(), 3), self.next, number - self.next))
            self.next = number + 1
        elif number in self.missing:
            self.missing.discard(number)
            self.late += 1
        else:
            self.doubled += 1
            return
        self.received += 1


def receive(port: int) -> dict[str, object]:
    """Until SIGTERM."""
    sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
    sock.bind(("::", port))
    sock.settimeout(0.2)
    ended: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: ended.append(number))
    print("ready", flush=True)
    count = Receiver()
    while not ended:
        try:
            count.take(NUMBER.unpack_from(sock.recv(2048))[0])
        except TimeoutError:
            continue
    info = struct.unpack("9I", sock.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, 36))
    return {
        "received": count.received,
        "next": count.next,
        "doubled": count.doubled,
        "late": count.late,
        "no_room": info[DROPS],
        "gaps": count.gaps[:LISTED],
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.soak_flow", description=__doc__)
    parser.add_argument("what", choices=["send", "receive"])
    parser.add_argument("--address", default="")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--rate", type=int, default=1000, help="packets a second")
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()
    if options.what == "send":
        found = send(options.address, options.port, options.rate, options.seconds)
    else:
        found = receive(options.port)
    print(json.dumps(found), file=sys.stdout, flush=True)


if __name__ == "__main__":
    main()
