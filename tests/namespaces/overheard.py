"""The mobility messages of two hosts on a real wire, opened with the keys of one of them.

A capture shows sealed packets; the SPI tells which of them are mobility messages, and the keys that
``keys export`` hands to a person what they say: ``tests/sim/ladder.py``, of a real link.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any

from fastpath.reference.esp import InboundSa
from fastpath.types import Endpoint, Mode, Opened, SaParams, Suite, Traffic
from tests.namespaces.homes import Home
from tunnel.io.lab.pcap import read_packets
from tunnel.mobility import header
from tunnel.mobility.header import Message, Unrecognised

MOBILITY = 135


@dataclass(frozen=True, slots=True)
class Said:
    """One message as it was on the wire."""

    source: Endpoint
    target: Endpoint
    message: Message | Unrecognised


class MobilitySas:
    """Of ``home`` with ``other``, and their keys: one SA, or two if both have asked for it."""

    def __init__(self, home: Home, other: Home) -> None:
        peer = home.host.peer(other.label)
        assert peer is not None
        self.children: list[dict[str, Any]] = [
            one for one in peer["children"] if one["traffic"] == f"protocol {MOBILITY}"
        ]
        assert {one["mode"] for one in self.children} == {"transport"}
        ids = home.host.status()["host"]["id"], peer["id"]
        self.ours, self.theirs = (IPv6Address(one) for one in ids)
        self._keys = _keys(home, other.label)

    def params(self, child: dict[str, Any], direction: str) -> SaParams:
        """Of ``"spi_in"`` or ``"spi_out"``."""
        spi = int(child[direction], 16)
        return SaParams(
            spi=spi,
            suite=Suite(child["suite"]),
            key=self._keys[spi],
            local_id=self.ours.packed,
            peer_id=self.theirs.packed,
            esn=child["esn"],
            mode=Mode(child["mode"]),
            traffic=Traffic(protocol=MOBILITY),
        )

    def inbound(self, direction: str = "spi_in") -> dict[bytes, InboundSa]:
        """By the first octets of a packet: what opens it."""
        sas = (InboundSa(self.params(child, direction)) for child in self.children)
        return {sa.params.spi.to_bytes(4): sa for sa in sas}

    def said(self, file: Path) -> list[Said]:
        """What both said in a capture, directly; what went by a home agent is sealed once more."""
        ways = (
            (self.inbound("spi_out"), (self.ours, self.theirs)),
            (self.inbound("spi_in"), (self.theirs, self.ours)),
        )
        found = []
        for packet in read_packets(file):
            for sas, ends in ways:
                if packet.payload[:4] in sas:
                    opened = sas[packet.payload[:4]].open(packet.payload)
                    assert isinstance(opened, Opened), opened
                    message = header.read(opened.payload, *ends)
                    found.append(Said(packet.source, packet.target, message))
        return found


def _keys(home: Home, label: str) -> dict[int, bytes]:
    """The keys of all SAs with a peer, by SPI."""
    folder: Path = home.host.machine.folder / "keys"
    config = ("-c", str(home.host.config))
    home.host.cli("keys", "export", "--wireshark", label, "--dir", str(folder), "--yes", *config)
    with (folder / "esp_sa").open() as file:
        return {int(line[3], 16): bytes.fromhex(line[5][2:]) for line in csv.reader(file)}
