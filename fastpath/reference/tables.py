"""What a data path knows: SAs, flows, relay entries, and what each has passed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from fastpath.reference.esp import InboundSa, OutboundSa
from fastpath.reference.relay import Share
from fastpath.types import (
    DUMMY_EVENTS_PER_SECOND,
    MINIMUM_MTU,
    MOBILITY_EVENTS_PER_SECOND,
    NARROW_WAYS,
    NEW_SOURCE_EVENTS_PER_SECOND,
    RELAYED_PROBES_PER_SECOND,
    TOO_BIG_EVENTS_PER_SECOND,
    Drop,
    Endpoint,
    SaCounters,
    Traffic,
)

SMALLEST_MTU = 256  # of a flow: room for the headers of a packet that is cut


@dataclass(slots=True)
class Passed:
    """What one SA has passed and dropped."""

    packets: int = 0
    octets: int = 0
    last_used: float | None = None
    drops: Counter[Drop] = field(default_factory=Counter)

    def count(self, octets: int, now: float) -> None:
        """One more packet."""
        self.packets += 1
        self.octets += octets
        self.last_used = now

    def snapshot(self) -> SaCounters:
        """As :meth:`fastpath.types.Pump.inbound_counters` has it."""
        drops = {drop.name.lower(): count for drop, count in self.drops.items()}
        return SaCounters(self.packets, self.octets, self.last_used, drops)


class Rate:
    """At most ``limit`` in any window of one second that starts with an allowed one."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._started = float("-inf")
        self._used = 0

    def allows(self, now: float) -> bool:
        """Whether one more may happen."""
        if now - self._started >= 1.0:
            self._started, self._used = now, 0
        self._used += 1
        return self._used <= self._limit


@dataclass(slots=True)
class Inbound:
    """An SA that opens. ``source``: where its newest packet came from."""

    sa: InboundSa
    source: Endpoint | None = None
    passed: Passed = field(default_factory=Passed)
    dummies: Rate = field(default_factory=lambda: Rate(DUMMY_EVENTS_PER_SECOND))
    mobility: Rate = field(default_factory=lambda: Rate(MOBILITY_EVENTS_PER_SECOND))
    moves: Rate = field(default_factory=lambda: Rate(NEW_SOURCE_EVENTS_PER_SECOND))
    probes: Rate = field(default_factory=lambda: Rate(RELAYED_PROBES_PER_SECOND))  # forwarded


@dataclass(slots=True)
class Outbound:
    """An SA that seals."""

    sa: OutboundSa
    asked: bool = False  # LifetimeEvent was given
    passed: Passed = field(default_factory=Passed)


@dataclass(slots=True)
class Flow:
    """How inner packets to one peer go; see :meth:`fastpath.types.Pump.set_flow`."""

    spi: int
    endpoint: Endpoint
    mtu: int
    largest: int
    narrow: tuple[tuple[Traffic, int], ...]
    told: Rate = field(default_factory=lambda: Rate(TOO_BIG_EVENTS_PER_SECOND))


@dataclass(frozen=True, slots=True)
class Relay:
    """How nested packets to one host id go; see :meth:`fastpath.types.Pump.set_relay`.
    ``spi`` 0: not at all, any more."""

    spi: int
    endpoint: Endpoint
    forward: bool = False
    share: Share = field(default_factory=Share, compare=False)  # of the limit


@dataclass(frozen=True, slots=True)
class Hop:
    """Where something goes: to ``endpoint`` as it is, or nested for ``host_id``, in ``entry``."""

    endpoint: Endpoint
    host_id: bytes = b""
    entry: Outbound | None = None


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
class Totals:
    """What all SAs have passed and dropped."""

    rx_packets: int = 0
    tx_packets: int = 0
    rx_octets: int = 0
    tx_octets: int = 0
    relayed_packets: int = 0
    relayed_octets: int = 0
    drops: Counter[Drop] = field(default_factory=Counter)

    def snapshot(self) -> dict[str, int]:
        """As :meth:`fastpath.types.Pump.counters` has it."""
        totals = {
            "rx_packets": self.rx_packets,
            "tx_packets": self.tx_packets,
            "rx_octets": self.rx_octets,
            "tx_octets": self.tx_octets,
            "relayed_packets": self.relayed_packets,
            "relayed_octets": self.relayed_octets,
        }
        return totals | {f"drop_{drop.name.lower()}": n for drop, n in self.drops.items()}
