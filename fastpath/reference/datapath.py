"""Every decision of the pump, as a pure machine: packet in, outputs out.

The simulator and the portable pump run this very class; the native pump does the same in C
and is held to it by the conformance suite. In the order a packet meets them:

    TUN ─ outbound ─ source ours? ─ flow? ─ fits? ─ split ─ wrap ─ seal ─ (nest) ─> SendDatagram
    UDP ─ inbound ─ classify ─ open ─ unwrap (selectors) ─> WritePacket, MobilityEvent
                                  └─ a relay SA's: for us? ─> open once more
                                     to be forwarded? ─> seal in another relay SA ─> SendDatagram
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from fastpath.reference import inner, relay, traffic
from fastpath.reference.classify import KEEPALIVE, MARKER_OCTETS, NON_ESP_MARKER, Kind, classify
from fastpath.reference.esp import NEXT_HEADER_DUMMY, NEXT_HEADER_IPV6, InboundSa, OutboundSa
from fastpath.reference.tables import (
    Flow,
    Hop,
    Inbound,
    Outbound,
    Passed,
    Rate,
    Relay,
    Totals,
    check_flow,
)
from fastpath.types import (
    DUMMY_HEAD_OCTETS,
    MOBILITY_OCTETS,
    NO_LIMIT,
    QUOTE_OCTETS,
    RELAYS_REMEMBERED,
    SOFT_LIMIT_PACKETS,
    UNKNOWN_SPI_EVENTS_PER_SECOND,
    AcquireEvent,
    ControlEvent,
    Drop,
    DummyEvent,
    Endpoint,
    Event,
    LifetimeEvent,
    MobilityEvent,
    NewSourceEvent,
    Opened,
    SaCounters,
    SaParams,
    SequenceExhausted,
    Source,
    TooBigEvent,
    Traffic,
    UnknownSpiEvent,
)

MAX_DATAGRAM_OCTETS = 65_507  # what UDP over IPv4 can carry
_MOBILITY_HEADER = 135
_SMALLEST_MOBILITY = 8  # octets of a Mobility Header (RFC 6275 §6.1.1)


@dataclass(frozen=True, slots=True)
class SendDatagram:
    """Send a UDP payload to ``endpoint``."""

    data: bytes
    endpoint: Endpoint
    whole: bool = False  # never fragmented: a probe
    source: Source | None = None  # where it leaves, if not where the routes say


@dataclass(frozen=True, slots=True)
class WritePacket:
    """Write an inner packet to the TUN device."""

    packet: bytes


Output: TypeAlias = SendDatagram | WritePacket | Event


class Datapath:
    """The tables and decisions of one host, whose host id is ``host_id`` (16 octets).

    Not thread-safe. Bounded by its tables: it queues nothing.
    """

    def __init__(self, host_id: bytes) -> None:
        if len(host_id) != 16:
            raise ValueError("a host id is 16 octets")
        self.host_id = host_id
        self._inbound: dict[int, Inbound] = {}
        self._outbound: dict[int, Outbound] = {}
        self._flows: dict[bytes, Flow] = {}
        self._relays: dict[bytes, Relay] = {}
        self._cleared: deque[bytes] = deque()  # host ids whose relay entry has SPI 0, at least once
        self._limit = relay.Limit()
        self._totals = Totals()
        self._unknown = Rate(UNKNOWN_SPI_EVENTS_PER_SECOND)
        self._splits = 0  # packets that were split so far; their identification
        self._now = 0.0

    # --- Tables: the same calls as types.Pump -----------------------------------------------

    def install_inbound(self, sa: SaParams) -> None:
        """Opens what comes with ``sa.spi``; replaces an SA of the same SPI."""
        self._inbound[sa.spi] = Inbound(InboundSa(sa))

    def install_outbound(self, sa: SaParams) -> None:
        """Makes ``sa.spi`` ready for a flow; replaces an SA of the same SPI."""
        self._outbound[sa.spi] = Outbound(OutboundSa(sa))

    def remove_inbound(self, spi: int) -> None:
        """Forgets the SA; an SPI that is not there is fine."""
        self._inbound.pop(spi, None)

    def remove_outbound(self, spi: int) -> None:
        """Forgets the SA; an SPI that is not there is fine."""
        self._outbound.pop(spi, None)

    def set_flow(
        self,
        peer_id: bytes,
        spi: int,
        endpoint: Endpoint,
        mtu: int = NO_LIMIT,
        largest: int = NO_LIMIT,
        narrow: Sequence[tuple[Traffic, int]] = (),
    ) -> None:
        """Seals inner packets to ``peer_id`` with ``spi`` and sends them to ``endpoint``.

        Raises :class:`ValueError` for what :class:`Pump` forbids.
        """
        check_flow(mtu, largest, len(narrow))
        self._flows[peer_id] = Flow(spi, endpoint, mtu, largest, tuple(narrow))

    def clear_flow(self, peer_id: bytes) -> None:
        """Inner packets to ``peer_id`` raise :class:`AcquireEvent` from now on."""
        self._flows.pop(peer_id, None)

    def set_relay(
        self, host_id: bytes, spi: int, endpoint: Endpoint, forward: bool = False
    ) -> None:
        """As :meth:`fastpath.types.Pump.set_relay`."""
        if len(host_id) != 16:
            raise ValueError("a host id is 16 octets")
        if spi == 0:
            raise ValueError("SPI 0 is no SA's (RFC 4303 §2.1)")
        before = self._relays.get(host_id)  # who moves or rekeys has no new share of the limit
        share = before.share if before else relay.Share()
        self._relays[host_id] = Relay(spi, endpoint, forward, share)

    def clear_relay(self, host_id: bytes) -> None:
        """As :meth:`fastpath.types.Pump.clear_relay`."""
        found = self._relays.get(host_id)
        if found is None or found.spi == 0:
            return
        if found.forward:
            del self._relays[host_id]
            return
        self._relays[host_id] = Relay(0, found.endpoint, share=found.share)
        self._cleared.append(host_id)
        if len(self._cleared) > RELAYS_REMEMBERED:
            oldest = self._cleared.popleft()
            known = self._relays.get(oldest)
            if known is not None and known.spi == 0 and oldest not in self._cleared:
                del self._relays[oldest]

    def set_relay_limit(self, octets_per_second: int) -> None:
        """As :meth:`fastpath.types.Pump.set_relay_limit`."""
        if octets_per_second < 0:
            raise ValueError("a limit is 0 or more octets a second")
        self._limit = relay.Limit(octets_per_second)

    # --- Packets ----------------------------------------------------------------------------

    def outbound(self, packet: bytes, now: float | None = None) -> list[Output]:
        """An inner packet from the TUN device. ``now`` left out means: as at the last call."""
        self._tick(now)
        if not inner.is_ipv6(packet):
            return self._drop(Drop.MALFORMED)
        destination = inner.destination_of(packet)
        if inner.never_tunnelled(destination):
            return self._drop(Drop.NO_FLOW)
        if inner.source_of(packet) != self.host_id:
            return self._drop(Drop.FOREIGN_SOURCE)
        if traffic.upper_of(packet).protocol == _MOBILITY_HEADER:
            return self._drop(Drop.NO_FLOW)  # applications do not speak for the host
        flow = self._flows.get(destination)
        entry = None if flow is None else self._way(flow, packet)
        if flow is None or entry is None:
            self._totals.drops[Drop.NO_FLOW] += 1
            return [AcquireEvent(packet)]
        if len(packet) > flow.largest:
            self._drop(Drop.TOO_BIG, entry.passed)
            told = flow.told.allows(self._now)
            return [TooBigEvent(packet[:QUOTE_OCTETS], flow.largest)] if told else []
        hop = self._hop(flow.endpoint)
        return self._pass(flow, entry, packet, hop) if hop else self._not_relayed(entry)

    def _way(self, flow: Flow, packet: bytes) -> Outbound | None:
        """The SA of an outbound packet: the first narrow one that holds it, else the flow's own."""
        if flow.narrow:
            upper = traffic.upper_of(packet)
            for given, spi in flow.narrow:
                entry = self._outbound.get(spi)
                if entry is not None and traffic.holds(given, upper, outgoing=True):
                    return entry
        return self._outbound.get(flow.spi)

    def _pass(self, flow: Flow, entry: Outbound, packet: bytes, hop: Hop) -> list[Output]:
        if len(packet) > flow.mtu:
            self._splits = (self._splits + 1) & 0xFFFF_FFFF
        outputs: list[Output] = []
        for piece in inner.split(packet, flow.mtu, self._splits):
            sent = self._send_sealed(entry, *inner.wrap(entry.sa.params, piece), hop, outputs)
            if not sent:
                return outputs
        self._count_sent(entry, packet)
        return outputs

    def _count_sent(self, entry: Outbound, packet: bytes) -> None:
        entry.passed.count(len(packet), self._now)
        self._totals.tx_packets += 1
        self._totals.tx_octets += len(packet)

    def send(
        self,
        datagram: bytes,
        endpoint: Endpoint,
        now: float | None = None,
        source: Source | None = None,
    ) -> list[Output]:
        """A UDP payload of the control plane: IKE with or without its marker, STUN, or a keepalive;
        from this source."""
        self._tick(now)
        hop = self._hop(endpoint)
        if hop is None or (source is not None and hop.entry is not None):
            return self._drop(Drop.NOT_RELAYED)
        if hop.entry is None:
            return [SendDatagram(datagram, endpoint, source=source)]
        if datagram == KEEPALIVE:  # the home agent's own keep its NAT open
            return self._drop(Drop.KEEPALIVE)
        if len(datagram) > MAX_DATAGRAM_OCTETS:
            return self._drop(Drop.TOO_BIG)
        message = datagram.removeprefix(NON_ESP_MARKER)
        outputs: list[Output] = []
        self._nest(relay.around_ike(self.host_id, hop.host_id, message), hop, outputs)
        return outputs

    def send_inner(
        self,
        spi: int,
        endpoint: Endpoint,
        packet: bytes,
        now: float | None = None,
        source: Source | None = None,
    ) -> list[Output]:
        """One inner packet of our host id, sealed in ``spi``, to exactly this endpoint (I30), and
        from this source (I20)."""
        self._tick(now)
        if not inner.is_ipv6(packet):
            return self._drop(Drop.MALFORMED)
        entry = self._outbound.get(spi)
        if entry is None:
            return self._drop(Drop.NO_FLOW)
        if inner.source_of(packet) != self.host_id:
            return self._drop(Drop.FOREIGN_SOURCE, entry.passed)
        if inner.destination_of(packet) != entry.sa.params.peer_id:
            return self._drop(Drop.SELECTOR, entry.passed)
        hop = self._hop(endpoint)
        if hop is None or (source is not None and hop.entry is not None):
            return self._not_relayed(entry)
        outputs: list[Output] = []
        if self._send_sealed(entry, *inner.wrap(entry.sa.params, packet), hop, outputs):
            self._count_sent(entry, packet)
        return outputs if source is None else [_from(source, output) for output in outputs]

    def dummy(
        self,
        spi: int,
        endpoint: Endpoint,
        body: bytes = b"",
        whole: bool = False,
        now: float | None = None,
    ) -> list[Output]:
        """One ESP dummy packet (RFC 4303 §2.6) on outbound ``spi``; not counted as traffic."""
        self._tick(now)
        entry = self._outbound.get(spi)
        if entry is None:
            return self._drop(Drop.NO_FLOW)
        hop = self._hop(endpoint)
        if hop is None:
            return self._not_relayed(entry)
        outputs: list[Output] = []
        self._send_sealed(entry, body, NEXT_HEADER_DUMMY, hop, outputs, whole)
        return outputs

    def inbound(self, datagram: bytes, source: Endpoint, now: float | None = None) -> list[Output]:
        """A UDP payload from ``source``. Hostile until proven otherwise; never raises.

        A host id is no outer address, neither to send to nor to come from: what it would say of the
        way that a packet took is for a home agent to say.
        """
        self._tick(now)
        if self._is_inside(source):
            return self._drop(Drop.FOREIGN_SOURCE)
        match classify(datagram, self._inbound):
            case Kind.ESP:
                return self._open(datagram, source)
            case Kind.IKE:
                return [ControlEvent(datagram[MARKER_OCTETS:], source, marker=True)]
            case Kind.BARE_IKE:
                return [ControlEvent(datagram, source, marker=False)]
            case Kind.KEEPALIVE:
                return self._drop(Drop.KEEPALIVE)
            case Kind.MALFORMED:
                return self._drop(Drop.MALFORMED)
            case Kind.UNKNOWN_SPI:
                return self._unknown_spi(datagram, source)

    # --- Counters ---------------------------------------------------------------------------

    def count_drop(self, drop: Drop) -> None:
        """Counts a drop that the caller made (its TUN write or UDP send failed)."""
        self._totals.drops[drop] += 1

    def counters(self) -> dict[str, int]:
        """Totals, as :meth:`fastpath.types.Pump.counters` names them."""
        return self._totals.snapshot()

    def inbound_counters(self, spi: int) -> SaCounters | None:
        """What inbound ``spi`` has passed and dropped; ``None`` when there is no such SA."""
        entry = self._inbound.get(spi)
        return entry.passed.snapshot() if entry else None

    def outbound_counters(self, spi: int) -> SaCounters | None:
        """What outbound ``spi`` has sealed; ``None`` when there is no such SA."""
        entry = self._outbound.get(spi)
        return entry.passed.snapshot() if entry else None

    # --- Sealing ----------------------------------------------------------------------------

    def _hop(self, endpoint: Endpoint) -> Hop | None:
        """How to reach an endpoint; ``None`` for a host id without a way.

        A host id is never an outer address: what goes there would come back through TUN.
        """
        host_id = relay.host_of(endpoint[0])
        if host_id is None or not self._is_host(host_id):
            return Hop(endpoint)
        return self._next_hop(host_id, self._relays.get(host_id))

    def _next_hop(self, host_id: bytes, way: Relay | None) -> Hop | None:
        entry = None if way is None else self._outbound.get(way.spi)
        if way is None or entry is None or not relay.is_relay(entry.sa.params):
            return None
        outer = relay.host_of(way.endpoint[0])
        if outer is not None and self._is_host(outer):
            return None  # it is nested once
        return Hop(way.endpoint, host_id, entry)

    def _is_inside(self, source: Endpoint) -> bool:
        """Whether an outer source is a host id that we know."""
        host_id = relay.host_of(source[0])
        return host_id is not None and relay.is_host_id(host_id) and self._is_host(host_id)

    def _is_host(self, address: bytes) -> bool:
        return address in self._relays or address in self._flows or address == self.host_id

    def _send_sealed(
        self,
        entry: Outbound,
        payload: bytes,
        next_header: int,
        hop: Hop,
        outputs: list[Output],
        whole: bool = False,
    ) -> bool:
        """Adds the ESP packet, nested where it goes so; false where there is none."""
        data = self._seal(entry, payload, next_header, outputs)
        if data is None:
            return False
        if hop.entry is None:
            outputs.append(SendDatagram(data, hop.endpoint, whole))
            return True
        packet = relay.around_esp(self.host_id, hop.host_id, data, whole)
        return self._nest(packet, hop, outputs, whole)

    def _nest(self, packet: bytes, hop: Hop, outputs: list[Output], whole: bool = False) -> bool:
        assert hop.entry is not None
        data = self._seal(hop.entry, packet, NEXT_HEADER_IPV6, outputs)
        if data is None:
            return False
        hop.entry.passed.count(len(packet), self._now)
        outputs.append(SendDatagram(data, hop.endpoint, whole))
        return True

    def _seal(
        self, entry: Outbound, payload: bytes, next_header: int, outputs: list[Output]
    ) -> bytes | None:
        """The ESP packet; where there is none, the drop is counted. An event may be added."""
        data = None
        try:
            data = entry.sa.seal(payload, next_header)
        except SequenceExhausted:
            self._drop(Drop.SEQUENCE_EXHAUSTED, entry.passed)
        if data is not None and len(data) > MAX_DATAGRAM_OCTETS:
            self._drop(Drop.TOO_BIG, entry.passed)
            return None
        outputs += self._lifetime(entry)
        return data

    def _lifetime(self, entry: Outbound) -> list[Output]:
        if entry.asked or entry.sa.sequence < SOFT_LIMIT_PACKETS:
            return []
        entry.asked = True
        return [LifetimeEvent(entry.sa.params.spi)]

    # --- Opening ----------------------------------------------------------------------------

    def _open(self, datagram: bytes, source: Endpoint) -> list[Output]:
        entry = self._inbound[int.from_bytes(datagram[:4], "big")]
        highest = entry.sa.sequence
        opened = entry.sa.open_all(datagram)
        outputs: list[Output] = []
        newest = entry.sa.sequence > highest  # and authenticated
        if newest and source != entry.source and entry.moves.allows(self._now):
            entry.source = source
            outputs.append(NewSourceEvent(entry.sa.params.spi, source))
        if isinstance(opened, Drop):
            return outputs + self._drop(opened, entry.passed)
        if opened.next_header == NEXT_HEADER_DUMMY:
            self._drop(Drop.DUMMY, entry.passed)
            return outputs + self._dummy_came(entry, opened)
        if relay.is_relay(entry.sa.params):
            return outputs + self._relayed(entry, opened)
        packet = inner.unwrap(entry.sa.params, opened)
        if isinstance(packet, Drop):
            return outputs + self._drop(packet, entry.passed)
        if traffic.upper_of(packet).protocol == _MOBILITY_HEADER:
            return outputs + self._mobility_came(entry, packet, source)
        self._count_received(entry, packet)
        return [*outputs, WritePacket(packet)]

    def _count_received(self, entry: Inbound, packet: bytes) -> None:
        entry.passed.count(len(packet), self._now)
        self._totals.rx_packets += 1
        self._totals.rx_octets += len(packet)

    def _mobility_came(self, entry: Inbound, packet: bytes, source: Endpoint) -> list[Output]:
        """It stands right behind the IPv6 header (I6): no extensions, no fragments."""
        message = packet[inner.IPV6_HEADER_OCTETS :]
        fits = _SMALLEST_MOBILITY <= len(message) <= MOBILITY_OCTETS
        if packet[6] != _MOBILITY_HEADER or not fits:
            return self._drop(Drop.MALFORMED, entry.passed)
        if not entry.mobility.allows(self._now):
            return self._drop(Drop.QUEUE_FULL, entry.passed)
        self._count_received(entry, packet)
        return [MobilityEvent(entry.sa.params.spi, source, message)]

    def _unknown_spi(self, packet: bytes, source: Endpoint) -> list[Output]:
        self._totals.drops[Drop.UNKNOWN_SPI] += 1
        if not self._unknown.allows(self._now):
            return []
        return [UnknownSpiEvent(int.from_bytes(packet[:4], "big"), source)]

    # --- Nested packets ---------------------------------------------------------------------

    def _relayed(self, entry: Inbound, opened: Opened) -> list[Output]:
        """What came out of a relay SA: authentic, but its inside is whatever somebody wrote."""
        nested = relay.read(opened)
        if isinstance(nested, Drop):
            return self._drop(nested, entry.passed)
        if nested.destination != self.host_id:
            return self._forward(entry, nested)
        if nested.source == self.host_id or not relay.is_host_id(nested.source):
            return self._drop(Drop.FOREIGN_SOURCE, entry.passed)
        inside = (
            None if nested.is_ike else self._inbound.get(int.from_bytes(nested.body[:4], "big"))
        )
        if inside is not None and relay.is_relay(inside.sa.params):  # nested in a nested packet
            return self._drop(Drop.NOT_RELAYED, entry.passed)
        if inside is not None and inside.sa.params.peer_id != nested.source:
            return self._drop(Drop.FOREIGN_SOURCE, entry.passed)
        entry.passed.count(len(nested.packet), self._now)
        source = relay.endpoint_of(nested.source)
        if nested.is_ike:
            relay_spi = entry.sa.params.spi
            return [ControlEvent(nested.body, source, marker=False, relay=relay_spi)]
        if inside is None:
            return self._unknown_spi(nested.body, source)
        return self._open(nested.body, source)

    def _forward(self, entry: Inbound, nested: relay.Nested) -> list[Output]:
        """Home agent only. A host speaks for itself alone, so none is forwarded twice."""
        sender = entry.sa.params.peer_id
        way = self._relays.get(nested.destination)
        if way is None or not way.forward or nested.destination == sender:
            return self._drop(Drop.NOT_RELAYED, entry.passed)
        if nested.source != sender:
            return self._drop(Drop.FOREIGN_SOURCE, entry.passed)
        hop = self._next_hop(nested.destination, way)
        if hop is None or nested.hop_limit <= 1:
            return self._drop(Drop.NOT_RELAYED, entry.passed)
        if nested.whole and not entry.probes.allows(self._now):
            return self._drop(Drop.RELAY_LIMIT, entry.passed)
        octets, known = len(nested.packet), self._relays.get(sender)
        share = known.share if known is not None and known.forward else None
        if not self._limit.allows(octets, self._now, share):
            return self._drop(Drop.RELAY_LIMIT, entry.passed)
        entry.passed.count(octets, self._now)
        outputs: list[Output] = []
        if self._nest(relay.next_hop(nested), hop, outputs, nested.whole):
            self._totals.relayed_packets += 1
            self._totals.relayed_octets += octets
        return outputs

    def _not_relayed(self, entry: Outbound) -> list[Output]:
        return self._drop(Drop.NOT_RELAYED, entry.passed)

    def _dummy_came(self, entry: Inbound, opened: Opened) -> list[Output]:
        """Only one that carries something is told, and not too many of them."""
        octets, head = len(opened.payload), opened.payload[:DUMMY_HEAD_OCTETS]
        if not octets or not entry.dummies.allows(self._now):
            return []
        return [DummyEvent(entry.sa.params.spi, octets, head)]

    def _drop(self, drop: Drop, passed: Passed | None = None) -> list[Output]:
        self._totals.drops[drop] += 1
        if passed is not None:
            passed.drops[drop] += 1
        return []

    def _tick(self, now: float | None) -> None:
        if now is not None:
            self._now = now


def _from(source: Source, output: Output) -> Output:
    return replace(output, source=source) if isinstance(output, SendDatagram) else output
