"""A host that was taken over, on a real network: its keys, and datagrams from wherever it likes.

The keys are those that ``keys export`` hands to a person; what is made of them is sealed by the law
(``fastpath/reference``) and sent by a small program in another machine's name.
"""

from __future__ import annotations

from fastpath.reference.esp import OutboundSa
from fastpath.types import Opened
from tests.namespaces.homes import Home
from tests.namespaces.overheard import MOBILITY, MobilitySas
from tunnel.io.lab import Namespace
from tunnel.mobility import header
from tunnel.mobility.header import Message, Unrecognised

AHEAD = 500
"""Packets before which the host's own numbers are: within every replay window."""
_SEND = """
import socket, sys
port, target, wait, datagram = int(sys.argv[1]), sys.argv[2], float(sys.argv[3]), sys.argv[4]
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.bind(("", port))
sock.settimeout(wait)
sock.sendto(bytes.fromhex(datagram), (target, 4500))
try:
    print(sock.recv(2048).hex())
except TimeoutError:
    pass
"""


class Liar:
    """Speaks for ``home`` in its SA for mobility messages with ``other``."""

    def __init__(self, home: Home, other: Home) -> None:
        self._target = other.outer
        self._sas = MobilitySas(home, other)
        child = self._sas.children[-1]
        self._out = OutboundSa(self._sas.params(child, "spi_out"), child["tx_packets"] + AHEAD)
        self._in = self._sas.inbound()

    def says(
        self, message: Message, place: Namespace, port: int = 4500, wait: float = 30.0
    ) -> Message | Unrecognised | None:
        """It says this from a port of another machine; what comes back there within ``wait``
        seconds."""
        octets = header.pack(message, self._sas.ours, self._sas.theirs)
        datagram = self._out.seal(octets, MOBILITY)
        said = place.run(
            *("python3", "-c", _SEND, str(port), self._target, str(wait), datagram.hex()),
            timeout=wait + 30,
        )
        if not said.stdout.strip():
            return None
        datagram = bytes.fromhex(said.stdout.strip())
        opened = self._in[datagram[:4]].open(datagram)
        assert isinstance(opened, Opened), opened
        assert opened.next_header == MOBILITY
        return header.read(opened.payload, self._sas.theirs, self._sas.ours)
