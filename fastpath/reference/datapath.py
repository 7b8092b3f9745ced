"""Every decision of the pump, as a pure machine: packet in, outputs out.

The simulator and the portable pump run this very class; the native pump does the same in C
and is held to it by the conformance suite. In the order a packet meets them:

    TUN ─ outbound ─ source ours? ─ flow? ─ wrap ─ seal ─> SendDatagram
    UDP ─ inbound ─ classify ─ open ─ unwrap (selectors) ─> WritePacket
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TypeAlias

from fastpath.reference import inner
from fastpath.reference.classify import MARKER_OCTETS, Kind, classify
from fastpath.reference.esp import NEXT_HEADER_DUMMY, InboundSa, OutboundSa
from fastpath.types import (
    SOFT_LIMIT_PACKETS,
    UNKNOWN_SPI_EVENTS_PER_SECOND,
    AcquireEvent,
    ControlEvent,
    Drop,
    Endpoint,
    Event,
    LifetimeEvent,
    NewSourceEvent,
    SaCounters,
    SaParams,
    SequenceExhausted,
    UnknownSpiEvent,
)

MAX_DATAGRAM_OCTETS = 65_507  # what UDP over IPv4 can carry


@dataclass(frozen=True, slots=True)
class SendDatagram:
    """Send a UDP payload to ``endpoint``."""

    data: bytes
    endpoint: Endpoint


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


@dataclass(slots=True)
class _Inbound:
    sa: InboundSa
    source: Endpoint | None = None
    passed: _Passed = field(default_factory=_Passed)


@dataclass(slots=True)
class _Outbound:
    sa: OutboundSa
    asked: bool = False  # LifetimeEvent was given
    passed: _Passed = field(default_factory=_Passed)


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
        self._flows: dict[bytes, tuple[int, Endpoint]] = {}
        self._totals = _Totals()
        self._unknown = _Rate(UNKNOWN_SPI_EVENTS_PER_SECOND)
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

    def set_flow(self, peer_id: bytes, spi: int, endpoint: Endpoint) -> None:
        """Seals inner packets to ``peer_id`` with ``spi`` and sends them to ``endpoint``."""
        self._flows[peer_id] = (spi, endpoint)

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
        spi, endpoint = self._flows.get(destination, (0, ("", 0)))
        entry = self._outbound.get(spi)
        if entry is None:
            self._totals.drops[Drop.NO_FLOW] += 1
            return [AcquireEvent(packet)]
        payload, next_header = inner.wrap(entry.sa.params, packet)
        return self._seal(entry, payload, next_header, endpoint, len(packet))

    def dummy(self, spi: int, endpoint: Endpoint, now: float | None = None) -> list[Output]:
        """One ESP dummy packet (RFC 4303 §2.6) on outbound ``spi``; not counted as traffic."""
        self._tick(now)
        entry = self._outbound.get(spi)
        if entry is None:
            return self._drop(Drop.NO_FLOW)
        return self._seal(entry, b"", NEXT_HEADER_DUMMY, endpoint, None)

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

    def _seal(
        self,
        entry: _Outbound,
        payload: bytes,
        next_header: int,
        endpoint: Endpoint,
        inner_octets: int | None,
    ) -> list[Output]:
        try:
            data = entry.sa.seal(payload, next_header)
        except SequenceExhausted:
            return self._drop(Drop.SEQUENCE_EXHAUSTED, entry.passed) + self._lifetime(entry)
        if len(data) > MAX_DATAGRAM_OCTETS:
            return self._drop(Drop.TOO_BIG, entry.passed)
        if inner_octets is not None:
            entry.passed.count(inner_octets, self._now)
            self._totals.tx_packets += 1
            self._totals.tx_octets += inner_octets
        return [SendDatagram(data, endpoint), *self._lifetime(entry)]

    def _lifetime(self, entry: _Outbound) -> list[Output]:
        if entry.asked or entry.sa.sequence < SOFT_LIMIT_PACKETS:
            return []
        entry.asked = True
        return [LifetimeEvent(entry.sa.params.spi)]

    def _open(self, datagram: bytes, source: Endpoint) -> list[Output]:
        entry = self._inbound[int.from_bytes(datagram[:4], "big")]
        highest = entry.sa.sequence
        opened = entry.sa.open(datagram)
        outputs: list[Output] = []
        if entry.sa.sequence > highest and source != entry.source:  # authenticated, and the newest
            entry.source = source
            outputs.append(NewSourceEvent(entry.sa.params.spi, source))
        if isinstance(opened, Drop):
            return outputs + self._drop(opened, entry.passed)
        packet = inner.unwrap(entry.sa.params, opened)
        if isinstance(packet, Drop):
            return outputs + self._drop(packet, entry.passed)
        entry.passed.count(len(packet), self._now)
        self._totals.rx_packets += 1
        self._totals.rx_octets += len(packet)
        return [*outputs, WritePacket(packet)]

    def _drop(self, drop: Drop, passed: _Passed | None = None) -> list[Output]:
        self._totals.drops[drop] += 1
        if passed is not None:
            passed.drops[drop] += 1
        return []

    def _tick(self, now: float | None) -> None:
        if now is not None:
            self._now = now


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
