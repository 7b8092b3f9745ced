"""How messages reach the rendezvous and how unasked ones leave it.

An answer goes back the way its question came, so :meth:`discovery.zone.ZoneServer.handle` returns
it. What nobody asked for at that moment (an event, a push, the end of a connection) waits until
the driver takes it (:meth:`discovery.subscriptions.Subscriptions.take`) and says where it goes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

from discovery.types import Endpoint

NOWHERE: Final[Endpoint] = ("", 0)


@dataclass(frozen=True, slots=True)
class Way:
    """How a message came, and how others go back: ``transport`` ("udp", "tcp" or "tls") and
    ``source``, the far end. UDP: ``local`` is the address and port that were asked, from which
    everything must leave. TCP and TLS: ``connection`` is a number that is never used twice."""

    transport: str
    source: Endpoint
    local: Endpoint = NOWHERE
    connection: int = 0


@dataclass(frozen=True, slots=True)
class Tell:
    """Send a message that answers nothing."""

    way: Way
    wire: bytes


@dataclass(frozen=True, slots=True)
class End:
    """End a connection: after all that was written, or, with ``abort``, at once."""

    connection: int
    abort: bool


Unasked: TypeAlias = Tell | End
