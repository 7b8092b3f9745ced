"""A few questions to charon over vici, its control protocol: what ``swanctl`` speaks.

Starting ``swanctl`` costs more than the handshake that it asks for, so that a measurement has to
speak for itself. Only requests with flat text arguments, and only whether they succeeded.
"""

from __future__ import annotations

import socket
import struct
from pathlib import Path

from tunnel.io.lab import LabError

_LENGTH = struct.Struct(">I")
# strongSwan, src/libcharon/plugins/vici/README.md: packet types, and elements of a message.
_REQUEST, _RESPONSE = 0, 1
_KEY_VALUE = 3
_PATIENCE = 30.0  # seconds


class Vici:
    """One connection to the control socket of a charon."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(_PATIENCE)
        self._socket.connect(str(path))

    def close(self) -> None:
        """Ends the connection."""
        self._socket.close()

    def ask(self, command: str, **arguments: str) -> None:
        """Sends a request and waits for its answer. Raises LabError unless charon succeeded."""
        name = command.encode()
        body = b"".join(_pair(key, value) for key, value in arguments.items())
        packet = bytes([_REQUEST, len(name)]) + name + body
        self._socket.sendall(_LENGTH.pack(len(packet)) + packet)
        answer = self._read(_LENGTH.unpack(self._read(_LENGTH.size))[0])
        if answer[:1] != bytes([_RESPONSE]) or _pair("success", "yes") not in answer:
            raise LabError(f"charon did not {command}: {answer!r}")

    def _read(self, octets: int) -> bytes:
        read = b""
        while len(read) < octets:
            more = self._socket.recv(octets - len(read))
            if not more:
                raise LabError("charon closed its control socket")
            read += more
        return read


def _pair(key: str, value: str) -> bytes:
    name, text = key.encode(), value.encode()
    head = bytes([_KEY_VALUE, len(name)]) + name
    return head + len(text).to_bytes(2, "big") + text
