"""A flood of IKE_SA_INIT requests with invented source addresses (Linux, as root).

``python -m bench.flood_end ADDRESS --rate 20000 --seconds 10`` sends to UDP 4500 of ADDRESS and
ends with one JSON line. Every packet has a source address, port and SPI of its own; they are made
before the first one is sent, and go out in batches, so that the rate is held with little work.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import random
import socket
import struct
import sys
import time

from bench.handshake_end import MARKER, PORT, End

DISTINCT = 16_384  # packets; then they come again
BATCH = 64
SOURCES = 10 << 24 | 1 << 23  # 10.128.0.0/9
_IP = struct.Struct(">BBHHHBBH4s4s")
_UDP = struct.Struct(">HHHH")


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("octets", ctypes.c_size_t))


class _Message(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_octets", ctypes.c_uint32),
        ("vectors", ctypes.POINTER(_Iovec)),
        ("vector_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_octets", ctypes.c_size_t),
        ("flags", ctypes.c_int),
        ("sent", ctypes.c_uint),  # of struct mmsghdr
    )


def packets(address: str, count: int, random_: random.Random) -> list[bytes]:
    """So many IPv4 packets to ``address``; an honest request of ours, with another SPI each."""
    end = End(0, "x25519 and ML-KEM-768")
    end.connect((address, PORT))
    request = end.outbox[0][0]
    made = []
    for _ in range(count):
        payload = MARKER + random_.randbytes(8) + request[8:]
        source = (SOURCES | random_.getrandbits(23)).to_bytes(4, "big")
        udp = _UDP.pack(random_.randrange(1024, 65536), PORT, 8 + len(payload), 0)
        octets = _IP.size + len(udp) + len(payload)
        header = (0x45, 0, octets, 0, 0, 64, socket.IPPROTO_UDP, 0)  # the kernel fills in the sum
        made.append(_IP.pack(*header, source, socket.inet_aton(address)) + udp + payload)
    return made


class Sender:
    """Sends the same packets round and round, :data:`BATCH` with each call."""

    def __init__(self, address: str, made: list[bytes]) -> None:
        self._library = ctypes.CDLL(None, use_errno=True)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        self._socket.connect((address, 0))
        self._kept = [ctypes.create_string_buffer(data, len(data)) for data in made]
        self._vectors = (_Iovec * len(made))(
            *(_Iovec(ctypes.addressof(buffer), len(buffer)) for buffer in self._kept)
        )
        self._messages = (_Message * len(made))()
        octets = ctypes.sizeof(_Iovec)
        for number, message in enumerate(self._messages):
            place = ctypes.addressof(self._vectors) + number * octets
            message.vectors = ctypes.cast(place, ctypes.POINTER(_Iovec))
            message.vector_count = 1
        self._next = 0

    def batch(self) -> int:
        """How many packets went out; 0 when the kernel has no room for any."""
        place = ctypes.byref(self._messages, self._next * ctypes.sizeof(_Message))
        sent = int(self._library.sendmmsg(self._socket.fileno(), place, BATCH, 0))
        if sent <= 0:
            return 0
        self._next = (self._next + BATCH) % len(self._messages)
        return sent


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(prog="bench.flood_end", description=__doc__)
    parser.add_argument("address")
    parser.add_argument("--rate", type=int, default=20_000, help="packets a second")
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()
    sender = Sender(options.address, packets(options.address, DISTINCT, random.Random(1)))
    print("ready", flush=True)
    sent, started = 0, time.monotonic()
    while (passed := time.monotonic() - started) < options.seconds:
        while sent < passed * options.rate:
            sent += sender.batch()
        time.sleep(BATCH / options.rate)
    seconds = time.monotonic() - started
    json.dump({"sent": sent, "seconds": round(seconds, 3)}, sys.stdout)
    print(flush=True)


if __name__ == "__main__":
    main()
