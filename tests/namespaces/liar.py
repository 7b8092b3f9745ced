"""A host that was taken over, on a real network: its keys, and datagrams from wherever it likes.

The keys are those that ``keys export`` hands to a person; what is made of them is sealed by the law
(``fastpath/reference``) and sent by a small program in another machine's name.
"""

from __future__ import annotations

import csv
from ipaddress import IPv6Address
from pathlib import Path

from fastpath.reference.esp import InboundSa, OutboundSa
from fastpath.types import Mode, Opened, SaParams, Suite, Traffic
from tests.namespaces.homes import Home
from tunnel.io.lab import Namespace
from tunnel.mobility import header
from tunnel.mobility.header import Message, Unrecognised

MOBILITY = 135
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
        peer = home.host.peer(other.label)
        assert peer is not None
        (child,) = [one for one in peer["children"] if one["traffic"] == f"protocol {MOBILITY}"]
        ids = home.host.status()["host"]["id"], peer["id"]
        self.ours, self.theirs = (IPv6Address(one) for one in ids)
        keys = _keys(home, other.label)

        def params(spi: str) -> SaParams:
            return SaParams(
                spi=int(spi, 16),
                suite=Suite(child["suite"]),
                key=keys[int(spi, 16)],
                local_id=self.ours.packed,
                peer_id=self.theirs.packed,
                esn=child["esn"],
                mode=Mode(child["mode"]),
                traffic=Traffic(protocol=MOBILITY),
            )

        assert child["mode"] == "transport"
        self._out = OutboundSa(params(child["spi_out"]), child["tx_packets"] + AHEAD)
        self._in = InboundSa(params(child["spi_in"]))

    def says(
        self, message: Message, place: Namespace, port: int = 4500, wait: float = 30.0
    ) -> Message | Unrecognised | None:
        """It says this from a port of another machine; what comes back there within ``wait``
        seconds."""
        octets = header.pack(message, self.ours, self.theirs)
        datagram = self._out.seal(octets, MOBILITY)
        said = place.run(
            *("python3", "-c", _SEND, str(port), self._target, str(wait), datagram.hex()),
            timeout=wait + 30,
        )
        if not said.stdout.strip():
            return None
        opened = self._in.open(bytes.fromhex(said.stdout.strip()))
        assert isinstance(opened, Opened), opened
        assert opened.next_header == MOBILITY
        return header.read(opened.payload, self.theirs, self.ours)


def _keys(home: Home, label: str) -> dict[int, bytes]:
    """The keys of all SAs with a peer, by SPI."""
    folder: Path = home.host.machine.folder / "keys"
    config = ("-c", str(home.host.config))
    home.host.cli("keys", "export", "--wireshark", label, "--dir", str(folder), "--yes", *config)
    with (folder / "esp_sa").open() as file:
        return {int(line[3], 16): bytes.fromhex(line[5][2:]) for line in csv.reader(file)}
