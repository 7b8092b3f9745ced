"""Every decision of the pump, as a pure machine: packet in, outputs out.

The simulator and the portable pump run this very class; the native pump does the same in C
and is held to it by the conformance suite. In the order a packet meets them:

    TUN ─ outbound ─ source ours? ─ flow? ─ fits? ─ split ─ wrap ─ seal ─> SendDatagram
    UDP ─ inbound ─ classify ─ open ─ unwrap (selectors) ─> WritePacket
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from fastpath.reference import inner, traffic
from fastpath.reference.classify import MARKER_OCTETS, Kind, classify
from fastpath.reference.esp import NEXT_HEADER_DUMMY, InboundSa, OutboundSa
from fastpath.types import (
    DUMMY_EVENTS_PER_SECOND,
    DUMMY_HEAD_OCTETS,
    MINIMUM_MTU,
    NARROW_WAYS,
    NO_LIMIT,
    QUOTE_OCTETS,
    SOFT_LIMIT_PACKETS,
    TOO_BIG_EVENTS_PER_SECOND,
    UNKNOWN_SPI_EVENTS_PER_SECOND,
    AcquireEvent,
    ControlEvent,
    Drop,
    DummyEvent,
    Endpoint,
    Event,
    LifetimeEvent,
    NewSourceEvent,
    Opened,
    SaCounters,
    SaParams,
    SequenceExhausted,
    TooBigEvent,
    Traffic,
    UnknownSpiEvent,
)

MAX_DATAGRAM_OCTETS = 65_507  # what UDP over IPv4 can carry
SMALLEST_MTU = 256  # of a flow: room for the headers of a packet that is cut


@dataclass(frozen=True, slots=True)
class SendDatagram:
    """Send a UDP payload to ``endpoint``."""

    data: bytes
    endpoint: Endpoint
    whole: bool = False  # never fragmented: a probe


@dataclass(frozen=True, slots=True)
class WritePacket:
    """Write an inner packet to the TUN device."""

    packet: bytes


Output: TypeAlias = SendDatagram | WritePacket | Event


@dataclass(slots=True)
class _Passed:
    """What one SA has passed and dropped."""

    packets: int = 0
    octets: int = 0
    last_used: float | None = None
    drops: Counter[Drop] = field(default_factory=Counter)

    def count(self, octets: int, now: float) -> None:
        self.packets += 1
        self.octets += octets
        self.last_used = now

    def snapshot(self) -> SaCounters:
        drops = {drop.name.lower(): count for drop, count in self.drops.items()}
        return SaCounters(self.packets, self.octets, self.last_used, drops)


class _Rate:
    """At most ``limit`` in any window of one second that starts with an allowed one."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._started = float("-inf")
        self._used = 0

    def allows(self, now: float) -> bool:
        if now - self._started >= 1.0:
            self._started, self._used = now, 0
        self._used += 1
        return self._used <= self._limit


@dataclass(slots=True)
class _Inbound:
    sa: InboundSa
    source: Endpoint | None = None
    passed: _Passed = field(default_factory=_Passed)
    dummies: _Rate = field(default_factory=lambda: _Rate(DUMMY_EVENTS_PER_SECOND))


@dataclass(slots=True)
class _Outbound:
    sa: OutboundSa
    asked: bool = False  # LifetimeEvent was given
    passed: _Passed = field(default_factory=_Passed)


@dataclass(slots=True)
class _Flow:
    """How inner packets to one peer go; see :meth:`fastpath.types.Pump.set_flow`."""

    spi: int
    endpoint: Endpoint
    mtu: int
    largest: int
    narrow: tuple[tuple[Traffic, int], ...]
    told: _Rate = field(default_factory=lambda: _Rate(TOO_BIG_EVENTS_PER_SECOND))


class Datapath:
    """The tables and decisions of one host, whose host id is ``host_id`` (16 octets).

    Not thread-safe. Bounded by its tables: it queues nothing.
    """

    def __init__(self, host_id: bytes) -> None:
        if len(host_id) != 16:
            raise ValueError("a host id is 16 octets")
        self.host_id = host_id
        self._inbound: dict[int, _Inbound] = {}
        self._outbound: dict[int, _Outbound] = {}
        self._flows: dict[bytes, _Flow] = {}
        self._totals = _Totals()
        self._unknown = _Rate(UNKNOWN_SPI_EVENTS_PER_SECOND)
        self._splits = 0  # packets that were split so far; their identification
        self._now = 0.0

    # --- Tables: the same calls as types.Pump -----------------------------------------------

    def install_inbound(self, sa: SaParams) -> None:
        """Opens what comes with ``sa.spi``; replaces an SA of the same SPI."""
        self._inbound[sa.spi] = _Inbound(InboundSa(sa))

    def install_outbound(self, sa: SaParams) -> None:
        """Makes ``sa.spi`` ready for a flow; replaces an SA of the same SPI."""
        self._outbound[sa.spi] = _Outbound(OutboundSa(sa))

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
        self._flows[peer_id] = _Flow(spi, endpoint, mtu, largest, tuple(narrow))

    def clear_flow(self, peer_id: bytes) -> None:
        """Inner packets to ``peer_id`` raise :class:`AcquireEvent` from now on."""
        self._flows.pop(peer_id, None)

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
        flow = self._flows.get(destination)
        entry = None if flow is None else self._way(flow, packet)
        if flow is None or entry is None:
            self._totals.drops[Drop.NO_FLOW] += 1
            return [AcquireEvent(packet)]
        if len(packet) > flow.largest:
            self._drop(Drop.TOO_BIG, entry.passed)
            told = flow.told.allows(self._now)
            return [TooBigEvent(packet[:QUOTE_OCTETS], flow.largest)] if told else []
        return self._pass(flow, entry, packet)

    def _way(self, flow: _Flow, packet: bytes) -> _Outbound | None:
        """The SA of an outbound packet: the first narrow one that holds it, else the flow's own."""
        if flow.narrow:
            upper = traffic.upper_of(packet)
            for given, spi in flow.narrow:
                entry = self._outbound.get(spi)
                if entry is not None and traffic.holds(given, upper, outgoing=True):
                    return entry
        return self._outbound.get(flow.spi)

    def _pass(self, flow: _Flow, entry: _Outbound, packet: bytes) -> list[Output]:
        if len(packet) > flow.mtu:
            self._splits = (self._splits + 1) & 0xFFFF_FFFF
        outputs: list[Output] = []
        for piece in inner.split(packet, flow.mtu, self._splits):
            payload, next_header = inner.wrap(entry.sa.params, piece)
            sealed = self._seal(entry, payload, next_header)
            if isinstance(sealed, list):
                return outputs + sealed
            outputs += [SendDatagram(sealed, flow.endpoint), *self._lifetime(entry)]
        entry.passed.count(len(packet), self._now)
        self._totals.tx_packets += 1
        self._totals.tx_octets += len(packet)
        return outputs

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
        sealed = self._seal(entry, body, NEXT_HEADER_DUMMY)
        if isinstance(sealed, list):
            return sealed
        return [SendDatagram(sealed, endpoint, whole), *self._lifetime(entry)]

    def inbound(self, datagram: bytes, source: Endpoint, now: float | None = None) -> list[Output]:
        """A UDP payload from ``source``. Hostile until proven otherwise; never raises."""
        self._tick(now)
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
                self._totals.drops[Drop.UNKNOWN_SPI] += 1
                if not self._unknown.allows(self._now):
                    return []
                return [UnknownSpiEvent(int.from_bytes(datagram[:4], "big"), source)]

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

    # --- The two halves ---------------------------------------------------------------------

    def _seal(self, entry: _Outbound, payload: bytes, next_header: int) -> bytes | list[Output]:
        """The ESP packet; where there is none, what is to be done instead."""
        try:
            data = entry.sa.seal(payload, next_header)
        except SequenceExhausted:
            return self._drop(Drop.SEQUENCE_EXHAUSTED, entry.passed) + self._lifetime(entry)
        if len(data) > MAX_DATAGRAM_OCTETS:
            return self._drop(Drop.TOO_BIG, entry.passed)
        return data

    def _lifetime(self, entry: _Outbound) -> list[Output]:
        if entry.asked or entry.sa.sequence < SOFT_LIMIT_PACKETS:
            return []
        entry.asked = True
        return [LifetimeEvent(entry.sa.params.spi)]

    def _open(self, datagram: bytes, source: Endpoint) -> list[Output]:
        entry = self._inbound[int.from_bytes(datagram[:4], "big")]
        highest = entry.sa.sequence
        opened = entry.sa.open_all(datagram)
        outputs: list[Output] = []
        if entry.sa.sequence > highest and source != entry.source:  # authenticated, and the newest
            entry.source = source
            outputs.append(NewSourceEvent(entry.sa.params.spi, source))
        if isinstance(opened, Drop):
            return outputs + self._drop(opened, entry.passed)
        if opened.next_header == NEXT_HEADER_DUMMY:
            self._drop(Drop.DUMMY, entry.passed)
            return outputs + self._dummy_came(entry, opened)
        packet = inner.unwrap(entry.sa.params, opened)
        if isinstance(packet, Drop):
            return outputs + self._drop(packet, entry.passed)
        entry.passed.count(len(packet), self._now)
        self._totals.rx_packets += 1
        self._totals.rx_octets += len(packet)
        return [*outputs, WritePacket(packet)]

    def _dummy_came(self, entry: _Inbound, opened: Opened) -> list[Output]:
        """Only one that carries something is told, and not too many of them."""
        octets, head = len(opened.payload), opened.payload[:DUMMY_HEAD_OCTETS]
        if not octets or not entry.dummies.allows(self._now):
            return []
        return [DummyEvent(entry.sa.params.spi, octets, head)]

    def _drop(self, drop: Drop, passed: _Passed | None = None) -> list[Output]:
        self._totals.drops[drop] += 1
        if passed is not None:
            passed.drops[drop] += 1
        return []

    def _tick(self, now: float | None) -> None:
        if now is not None:
            self._now = now


def check_flow(mtu: int, largest: int, narrow: int) -> None:
    """Raises :class:`ValueError` for what :meth:`fastpath.types.Pump.set_flow` forbids."""
    if narrow > NARROW_WAYS:
        raise ValueError(f"a flow chooses from {NARROW_WAYS} narrow ways at most, not {narrow}")
    if mtu < SMALLEST_MTU or largest < MINIMUM_MTU:
        raise ValueError(
            f"a flow takes at least {MINIMUM_MTU} octets, and an MTU of {SMALLEST_MTU}; "
            f"not {largest} and {mtu}"
        )


@dataclass(slots=True)
class _Totals:
    rx_packets: int = 0
    tx_packets: int = 0
    rx_octets: int = 0
    tx_octets: int = 0
    drops: Counter[Drop] = field(default_factory=Counter)

    def snapshot(self) -> dict[str, int]:
        totals = {
            "rx_packets": self.rx_packets,
            "tx_packets": self.tx_packets,
            "rx_octets": self.rx_octets,
            "tx_octets": self.tx_octets,
        }
        return totals | {f"drop_{drop.name.lower()}": n for drop, n in self.drops.items()}
