"""The border between a node and an engine: what each event and each command is on the other side.

The driver crosses it with a pump, the simulator with the reference data path.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from fastpath import types as engine
from fastpath.types import Endpoint, SaCounters
from tunnel import commands as do
from tunnel.node import Node

if TYPE_CHECKING:
    from fastpath.reference.datapath import Datapath

Call: TypeAlias = tuple[Callable[..., list[do.Command]], tuple[Any, ...]]
"""A method of the node, and its arguments before the time."""

Removed: TypeAlias = Callable[[int, bool, SaCounters | None], None]
"""Takes an SPI that leaves, whether it is inbound, and its last counters."""


Tables: TypeAlias = "engine.Pump | Datapath"
"""Whose tables the commands change."""


def call_of(node: Node, event: engine.Event) -> Call:
    """How the node hears of an engine's event."""
    match event:
        case engine.AcquireEvent(packet):
            return node.acquire, (packet,)
        case engine.ControlEvent(data, source, _, 0):
            return node.datagram, (data, source)
        case engine.ControlEvent(data, source, _, relay):
            return node.nested, (relay, data, source)
        case engine.MobilityEvent(spi, source, message):
            return node.mobility, (spi, source, message)
        case engine.NewSourceEvent(spi, source):
            return node.new_source, (spi, source)
        case engine.LifetimeEvent(spi):
            return node.lifetime, (spi,)
        case engine.UnknownSpiEvent(spi, source):
            return node.unknown_spi, (spi, source)
        case engine.DummyEvent(spi, octets, head):
            return node.dummy, (spi, octets, head)
        case engine.TooBigEvent(quote, largest):
            return node.too_big, (quote, largest)


def change(
    tables: Tables,
    command: do.Command,
    removed: Removed,
    outer: Callable[[Endpoint], Endpoint] = lambda endpoint: endpoint,
) -> bool:
    """Carries out a command on the tables; false if it is about something else. ``outer`` says
    what an endpoint is on this machine's own network."""
    match command:
        case do.InstallInbound(sa):
            tables.install_inbound(sa)
        case do.InstallOutbound(sa):
            tables.install_outbound(sa)
        case do.RemoveInbound(spi):
            removed(spi, True, tables.inbound_counters(spi))
            tables.remove_inbound(spi)
        case do.RemoveOutbound(spi):
            removed(spi, False, tables.outbound_counters(spi))
            tables.remove_outbound(spi)
        case do.SetFlow(host_id, spi, endpoint, mtu, largest, narrow):
            tables.set_flow(host_id.packed, spi, outer(endpoint), mtu, largest, narrow)
        case do.ClearFlow(host_id):
            tables.clear_flow(host_id.packed)
        case do.SetRelay(host_id, spi, endpoint, forward):
            tables.set_relay(host_id.packed, spi, outer(endpoint), forward)
        case do.ClearRelay(host_id):
            tables.clear_relay(host_id.packed)
        case do.SetRelayLimit(octets):
            tables.set_relay_limit(octets)
        case _:
            return False
    return True
