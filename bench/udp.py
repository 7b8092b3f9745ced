"""Small UDP packets, many for one system call: sends them as fast as it can or at a pace, or counts
what arrives.

iperf3 takes one system call a packet and so measures itself; here ``sendmmsg`` and ``recvmmsg``
move up to 64 at once, over ``ctypes``. What still limits it is the kernel's own path of a packet
through the sender's socket and device (about a microsecond), which is work of this process and so
takes half of a machine with two cores. Packets are never joined (no UDP_SEGMENT, no UDP_GRO): the
tunnel gets them one by one, as it would from many programs.

    python -m bench.udp receive ADDRESS PORT          says "ready", and at SIGTERM its count
    python -m bench.udp send ADDRESS PORT SECONDS RATE    rate 0: as fast as it can
"""

from __future__ import annotations

import argparse
import ctypes
import errno
import json
import os
import signal
import socket
import struct
import sys
import time
from pathlib import Path

PAYLOAD = 64  # octets
BATCH = 64  # packets of one system call
TICK = 0.0002  # seconds between two bursts of a paced sender
SILENCE = 0.2  # seconds after which nothing more is on its way
ROOM = 128  # octets for one packet
BUFFER_OCTETS = 8 * 2**20
SO_RCVBUFFORCE = 33
PR_SET_TIMERSLACK = 29
MSG_WAITFORONE = 0x10000

ENVIRONMENT = {"PYTHONPATH": str(Path(__file__).parents[1])}

_libc = ctypes.CDLL(None, use_errno=True)


def command(*arguments: str) -> tuple[str, ...]:
    """The command line of this program."""
    return (sys.executable, "-m", "bench.udp", *arguments)


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("octets", ctypes.c_size_t))


class _Msghdr(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_octets", ctypes.c_uint32),
        ("iov", ctypes.POINTER(_Iovec)),
        ("iov_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_octets", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Mmsghdr(ctypes.Structure):
    _fields_ = (("header", _Msghdr), ("octets", ctypes.c_uint))


class _Messages:
    """``BATCH`` messages of ``size`` octets, each with its own place in one buffer."""

    def __init__(self, size: int) -> None:
        self.buffer = ctypes.create_string_buffer(BATCH * ROOM)
        start = ctypes.addressof(self.buffer)
        self.vectors = (_Iovec * BATCH)(*(_Iovec(start + i * ROOM, size) for i in range(BATCH)))
        self.array = (_Mmsghdr * BATCH)()
        for message, vector in zip(self.array, self.vectors, strict=True):
            message.header.iov = ctypes.pointer(vector)
            message.header.iov_count = 1


def send(address: str, port: int, seconds: float, rate: int) -> dict[str, float]:
    """``sent`` packets within ``seconds``; what a pace could not send in time is sent later."""
    _libc.prctl(PR_SET_TIMERSLACK, 1)
    messages = _Messages(PAYLOAD)
    sent = 0
    with _socket(address) as udp:
        udp.connect((address, port))
        fd, array, call = udp.fileno(), messages.array, _libc.sendmmsg
        begun = now = time.monotonic()
        while now - begun < seconds:
            due = BATCH if not rate else int((now - begun) * rate) + 1 - sent
            if due > 0:
                done = call(fd, array, min(due, BATCH), 0)
                if done < 0:
                    _retry_or_raise()
                else:
                    sent += done
            else:
                time.sleep(TICK)
            now = time.monotonic()
    return {"sent": sent, "seconds": now - begun}


def receive(address: str, port: int) -> dict[str, float]:
    """``received`` packets until SIGTERM and silence, and the ``seconds`` from first to last."""
    messages = _Messages(ROOM)
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: asked.append(number))
    received = 0
    first = last = 0.0
    with _socket(address) as udp:
        udp.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_OCTETS)
        timeout = struct.pack("ll", 0, int(SILENCE * 1e6))
        udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeout)
        udp.bind((address, port))
        fd, array, call = udp.fileno(), messages.array, _libc.recvmmsg
        print("ready", flush=True)
        while True:
            got = call(fd, array, BATCH, MSG_WAITFORONE, None)
            if got > 0:
                last = time.monotonic()
                first = first or last
                received += got
            elif ctypes.get_errno() == errno.EINTR:
                continue
            elif ctypes.get_errno() != errno.EAGAIN:
                _retry_or_raise()
            elif asked:
                return {"received": received, "seconds": last - first}


def _retry_or_raise() -> None:
    """An ICMP error of an earlier packet, or a full queue, is no reason to end."""
    code = ctypes.get_errno()
    if code not in (errno.EINTR, errno.ECONNREFUSED, errno.ENOBUFS, errno.EAGAIN):
        raise OSError(code, os.strerror(code))


def _socket(address: str) -> socket.socket:
    return socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.udp", description=__doc__)
    parser.add_argument("what", choices=["send", "receive"])
    parser.add_argument("address")
    parser.add_argument("port", type=int)
    parser.add_argument("seconds", type=float, nargs="?", default=1.0)
    parser.add_argument("rate", type=int, nargs="?", default=0, help="packets a second")
    options = parser.parse_args()
    if options.what == "send":
        found = send(options.address, options.port, options.seconds, options.rate)
    else:
        found = receive(options.address, options.port)
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
