"""The mobility messages of whole hosts: all that are said, those that get lost, those of a liar."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Any

from fastpath.reference.datapath import Datapath, Output, SendDatagram
from fastpath.reference.esp import NEXT_HEADER_IPV6
from fastpath.types import Endpoint
from tests.sim.world import SimHost, Way, World
from tunnel.mobility import header
from tunnel.mobility.header import Message, Unrecognised
from tunnel.peers import RELAYED, SIGNALS, Peer

_IPV6_OCTETS = 40


@dataclass(frozen=True)
class Said:
    """One message: when, by whom, to which endpoint, and what."""

    at: float
    host: SimHost
    endpoint: Endpoint
    message: Message | Unrecognised
    lost: bool

    def __str__(self) -> str:
        return f"{self.host.config.label} {type(self.message).__name__} to {self.endpoint[0]}"


class Ladder:
    """What these hosts say from now on, also by relay. ``lose`` tells what does not leave."""

    def __init__(
        self, *hosts: SimHost, lose: Callable[[Message | Unrecognised], bool] = lambda _: False
    ) -> None:
        self.said: list[Said] = []
        self.lose = lose
        for host in hosts:
            self._listen(host)

    def of(self, kind: type, host: SimHost | None = None) -> list[Said]:
        """The messages of this kind, of one host or of all."""
        return [
            one for one in self.said if isinstance(one.message, kind) and host in (None, one.host)
        ]

    def _listen(self, host: SimHost) -> None:
        send = host.datapath.send_inner

        def heard(spi: int, endpoint: Endpoint, packet: bytes, *more: Any) -> list[Output]:
            ends = IPv6Address(packet[8:24]), IPv6Address(packet[24:40])
            message = header.read(packet[_IPV6_OCTETS:], *ends)
            lost = self.lose(message)
            self.said.append(Said(host.world.now, host, endpoint, message, lost))
            return [] if lost else send(spi, endpoint, packet, *more)

        host.datapath.send_inner = heard


def table(one: SimHost, label: str) -> Peer:
    """What a host knows of another one."""
    peer = one.node._core.peers.labelled(label)
    assert peer is not None
    return peer


def unheeded(one: SimHost) -> dict[str, int]:
    """The mobility messages that a host did not heed, as ``status --json`` has them."""
    refused: dict[str, int] = one.node.status(one.world.now)["mobility"]["refused"]
    return refused


def drops(one: SimHost) -> dict[str, int]:
    """The packets that its engine dropped, as ``host.drops`` of ``status --json`` has them."""
    counters = one.datapath.counters().items()
    return {name.removeprefix("drop_"): n for name, n in counters if name.startswith("drop_") and n}


def after(one: SimHost, label: str) -> int:
    """A sequence number that is greater than the last one of this peer."""
    bindings = one.node._parts.relaying.signals.machine.correspondent.bindings
    return (bindings[table(one, label).name].sequence + 1) % 65536


def sealed(liar: SimHost, other: SimHost, octets: bytes, *, data: bool = False) -> bytes:
    """A Mobility Header of a host that was taken over: right keys, and whatever it likes; ``data``:
    in the SA for everything else."""
    peer = table(liar, other.config.label)
    child = peer.current if data else peer.narrow[SIGNALS]
    assert child is not None
    packet = header.packet(octets, child.local_id, child.peer_id)
    (sent,) = Datapath.send_inner(liar.datapath, child.spi_out, ("192.0.2.1", 1), packet)
    assert isinstance(sent, SendDatagram)
    return sent.data


def says(
    liar: SimHost, other: SimHost, message: Message, source: Endpoint, *, data: bool = False
) -> bytes:
    """It says this directly, from a source of its choice; the datagram."""
    octets = header.pack(message, liar.host_id, other.host_id)
    datagram = sealed(liar, other, octets, data=data)
    arrives(liar.world, datagram, source, other, liar)
    return datagram


def arrives(
    world: World, datagram: bytes, source: Endpoint, other: SimHost, author: SimHost
) -> None:
    """A datagram comes to a host now, whoever made it and whoever sends it."""
    world.arrive(datagram, Way(source, other.endpoint, forged=True), author)


def says_by_relay(liar: SimHost, other: SimHost, message: Message) -> None:
    """It says this by way of the home agent."""
    peer = table(liar, other.config.label)
    assert peer.relay_endpoint is not None
    child = peer.narrow[SIGNALS]
    octets = header.pack(message, liar.host_id, other.host_id)
    packet = header.packet(octets, child.local_id, child.peer_id)
    now = liar.world.now
    liar._outputs(
        Datapath.send_inner(liar.datapath, child.spi_out, peer.relay_endpoint, packet, now)
    )


def writes(liar: SimHost, to: str, nested: bytes) -> None:
    """It seals a nested packet of its own invention for whoever its relay SA with this host is."""
    peer = table(liar, to)
    assert peer.endpoint is not None
    entry = liar.datapath._outbound[peer.narrow[RELAYED].spi_out]
    liar._outputs([SendDatagram(entry.sa.seal(nested, NEXT_HEADER_IPV6), peer.endpoint)])
