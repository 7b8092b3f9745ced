"""Who sent what where, seen from above: data goes to nobody who has not proven to be there.

An endpoint is *proven* to a host, for one peer, when a request of the host that went there has
reached the peer, and its answer has come back; or when the peer itself has sent its half of the
first exchanges from there, whose keys nobody else has (DESIGN "Never"). A request is one of IKE,
or the challenge of an address test (AOTC), whose answer (AOTR) must have come from that very
endpoint (I26, I27). Mobility messages travel inside of ESP; the watch has all keys, and believes no
host's own records. To where nothing is proven may go IKE, one octet, and mobility messages.
"""

from __future__ import annotations

from ipaddress import IPv6Address
from typing import TypeAlias

from fastpath.reference.esp import InboundSa
from fastpath.types import Endpoint, Opened
from tests.sim.nat import MARKER
from tests.sim.world import SimHost, Way, Weather, World
from tunnel.mobility import header
from tunnel.mobility.header import Aotc, Aotr, Message, Unrecognised
from tunnel.mobility.options import MobilityError
from tunnel.peers import SIGNALS

_INIT, _AUTH, _INTERMEDIATE = 34, 35, 43  # RFC 7296 §3.1, RFC 9242
_RESPONSE = 0x20
_IPV6 = 41  # the next header of a packet in tunnel mode
_IPV6_OCTETS = 40
FORGER: Endpoint = ("198.51.100.66", 666)

_Asked: TypeAlias = tuple[SimHost, SimHost, object]  # who, whom, and which question


class Proofs:
    """Watches a world. ``forged``: the part of all datagrams that somebody on the path sends on,
    from an address of its own, before they arrive. It leaves the first exchanges of an IKE SA
    alone: the answer to them goes where their request came from, as in any IKE."""

    def __init__(self, world: World, *, forged: float = 0.0) -> None:
        self._world = world
        self._proven: dict[SimHost, set[tuple[str, Endpoint]]] = {}
        self._reached: dict[_Asked, set[Endpoint]] = {}
        self._messages: dict[tuple[SimHost, bytes], Message] = {}
        self.forged, self.copies, self.data, self.tested = forged, 0, 0, 0
        world.watch = self

    def sent(self, host: SimHost, data: bytes, target: Endpoint) -> None:
        """A host sends; if these are data, ``target`` is where their reader has proven to be."""
        world = self._world
        if len(data) > 1 and data[:4] != MARKER and self._message(host, data) is None:
            self.data += 1
            peer = _peer(host, int.from_bytes(data[:4]))
            known = self._proven.get(host, set())
            good = {at for label, at in known if peer is None or label == peer}
            assert target in good, (
                f"seed {world.seed}: at {world.now:.3f} {host.config.label} sends data for {peer} "
                f"to {target}, which is not proven; proven: {sorted(good)}"
            )
        if self.forged and not _begins(data) and world.watch_random.random() < self.forged:
            self.copies += 1
            soon = world.now + world.weather.latency / 4
            way = Way(FORGER, target, forged=True)
            world.at(soon, lambda: world.arrive(data, way, host))

    def came(self, host: SimHost, data: bytes, way: Way, author: SimHost | None) -> None:
        """A datagram comes to a host; ``author`` made it, whoever sent it on."""
        if author is None:
            return
        if _is_ike(data):
            self._ike_came(host, data, way, author)
            return
        match self._message(author, data):
            case Aotc(nonce) if _peer(author, int.from_bytes(data[:4])) == host.config.label:
                self._reached.setdefault((author, host, nonce), set()).add(way.target)
            case Aotr(nonce) if way.source in self._reached.get((host, author, nonce), set()):
                self.tested += 1
                self._prove(host, author, {way.source})

    def _ike_came(self, host: SimHost, data: bytes, way: Way, author: SimHost) -> None:
        if _exchange(data) == _INIT:
            return
        exchange = (data[4:20], data[24:28])  # SPIs and message id
        if data[23] & _RESPONSE:
            self._prove(host, author, self._reached.get((host, author, exchange), set()))
            return
        self._reached.setdefault((author, host, exchange), set()).add(way.target)
        if _begins(data) and not way.forged:
            self._prove(host, author, {way.source})

    def _prove(self, host: SimHost, peer: SimHost, endpoints: set[Endpoint]) -> None:
        known = self._proven.setdefault(host, set())
        known |= {(peer.config.label, endpoint) for endpoint in endpoints}

    def _message(self, author: SimHost, data: bytes) -> Message | None:
        """The mobility message in an ESP packet; read once, since its SA may be gone when it
        arrives."""
        key = author, data[:8]  # SPI and sequence number
        if key not in self._messages and (message := _mobility(author, data)) is not None:
            self._messages[key] = message
        return self._messages.get(key)


def watched(seed: int, weather: Weather | None = None, *, tells: bool = True) -> World:
    """A world in which data goes to nobody who has not proven to be there, whatever happens."""
    world = World(seed, weather, tells=tells)
    Proofs(world)
    return world


def _mobility(author: SimHost, data: bytes) -> Message | None:
    """What an ESP packet says in the SA for mobility messages; ``None`` of any other packet."""
    entry = author.datapath._outbound.get(int.from_bytes(data[:4]))
    traffic = None if entry is None else entry.sa.params.traffic
    if entry is None or traffic is None or traffic.protocol != SIGNALS.protocol:
        return None
    opened = InboundSa(entry.sa.params).open(data)
    if not isinstance(opened, Opened):
        return None
    octets = opened.payload[_IPV6_OCTETS if opened.next_header == _IPV6 else 0 :]
    ends = IPv6Address(entry.sa.params.local_id), IPv6Address(entry.sa.params.peer_id)
    try:
        message = header.read(octets, *ends)
    except MobilityError:
        return None
    return None if isinstance(message, Unrecognised) else message


def _is_ike(data: bytes) -> bool:
    return data[:4] == MARKER and len(data) >= len(MARKER) + 28


def _begins(data: bytes) -> bool:
    """Whether it belongs to the exchanges by which an IKE SA begins."""
    return _is_ike(data) and _exchange(data) in (_INIT, _AUTH, _INTERMEDIATE)


def _exchange(data: bytes) -> int:
    return data[len(MARKER) + 18]


def _peer(host: SimHost, spi: int) -> str | None:
    """For whom packets with this SPI are; ``None`` of an SA that is gone."""
    peer = host.node._core.peers.by_outbound(spi)
    return None if peer is None else peer.label
