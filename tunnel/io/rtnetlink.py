"""rtnetlink, as little of it as a host needs: one socket, requests, answers (RFC 3549 §2).

A library for all of netlink takes ten megabytes of memory and a quarter of a second for these few
messages, in a process that sends them only while it starts. Numbers are octets of the machine's
byte order, as <linux/netlink.h> and <linux/rtnetlink.h> lay them out.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
from collections.abc import Iterator
from types import TracebackType
from typing import Self

_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence, port
_ATTRIBUTE = struct.Struct("=HH")  # struct rtattr: length, type
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_REQUEST, _ACK, _DUMP = 0x01, 0x04, 0x300
_TYPE_MASK = 0x3FFF  # without NLA_F_NESTED and NLA_F_NET_BYTEORDER
_ANSWER_OCTETS = 65536
_PATIENCE = 10.0  # seconds; the kernel answers within the call
CREATE_NEW = 0x600  # NLM_F_CREATE | NLM_F_EXCL: EEXIST if it is there


class Rtnetlink:
    """A socket to the kernel's routing tables; every method raises OSError as it answers."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self._socket.settimeout(_PATIENCE)
        self._sequence = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the socket. Idempotent."""
        self._socket.close()

    def change(self, kind: int, body: bytes, flags: int = 0) -> None:
        """A request that the kernel answers with an errno only."""
        self._exchange(kind, _REQUEST | _ACK | flags, body)

    def get(self, kind: int, body: bytes) -> bytes:
        """The one message that answers a question, without its header."""
        (message,) = self._exchange(kind, _REQUEST | _ACK, body)
        return message

    def dump(self, kind: int, body: bytes) -> list[bytes]:
        """All messages of a table, without their headers."""
        return self._exchange(kind, _REQUEST | _DUMP, body)

    def _exchange(self, kind: int, flags: int, body: bytes) -> list[bytes]:
        self._sequence += 1
        header = _HEADER.pack(_HEADER.size + len(body), kind, flags, self._sequence, 0)
        self._socket.sendto(header + body, (0, 0))
        found: list[bytes] = []
        while True:
            for answer, message in self._answers():
                if answer not in (_NLMSG_ERROR, _NLMSG_DONE):
                    found.append(message)
                    continue
                number = -int.from_bytes(message[:4], sys.byteorder, signed=True) if message else 0
                if number:
                    raise OSError(number, os.strerror(number))
                return found

    def _answers(self) -> Iterator[tuple[int, bytes]]:
        """Type and content of the messages of one datagram that answer the last request."""
        datagram, (sender, _) = self._socket.recvfrom(_ANSWER_OCTETS)
        while sender == 0 and len(datagram) >= _HEADER.size:  # 0 is the kernel
            length, kind, _, sequence, _ = _HEADER.unpack_from(datagram)
            if not _HEADER.size <= length <= len(datagram):
                return
            if sequence == self._sequence:
                yield kind, datagram[_HEADER.size : length]
            datagram = datagram[_aligned(length) :]


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded; its value may be attributes, too."""
    length = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(length, kind) + value + bytes(_aligned(length) - length)


def attributes(octets: bytes) -> dict[int, bytes]:
    """The attributes by type; of two of a type, the last one."""
    found = {}
    while len(octets) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(octets)
        if not _ATTRIBUTE.size <= length <= len(octets):
            break
        found[kind & _TYPE_MASK] = octets[_ATTRIBUTE.size : length]
        octets = octets[_aligned(length) :]
    return found


def _aligned(octets: int) -> int:
    return (octets + 3) & ~3
