"""The closed vocabulary of the node: all that it can ask of the world.

:class:`tunnel.node.Node` is pure: it takes events and ``now`` and returns lists of these. The
driver in :mod:`tunnel.io` carries them out for real; the simulator in ``tests/sim`` carries
them out in memory on a virtual clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv6Address
from typing import TypeAlias

from discovery.types import FoundService, RecordsFound
from fastpath.types import NO_LIMIT, Endpoint, SaParams, Source, Traffic


@dataclass(frozen=True, slots=True)
class SendIke:
    """Send an IKE message, or STUN, to ``remote``, from ``source`` if one is named (I20); the
    driver frames it (RFC 3948 §2.2)."""

    data: bytes
    remote: Endpoint
    source: Source | None = None


@dataclass(frozen=True, slots=True)
class SendKeepalive:
    """Send the one-octet NAT keepalive to ``remote`` (RFC 3948 §2.3)."""

    remote: Endpoint


@dataclass(frozen=True, slots=True)
class SendZone:
    """Send a DNS message to the rendezvous."""

    wire: bytes


@dataclass(frozen=True, slots=True)
class DropZone:
    """Leave the connection to the rendezvous; make another one after ``pause`` seconds."""

    pause: float


@dataclass(frozen=True, slots=True)
class InstallInbound:
    sa: SaParams


@dataclass(frozen=True, slots=True)
class InstallOutbound:
    sa: SaParams


@dataclass(frozen=True, slots=True)
class RemoveInbound:
    spi: int


@dataclass(frozen=True, slots=True)
class RemoveOutbound:
    spi: int


@dataclass(frozen=True, slots=True)
class SetFlow:
    """Packets to ``host_id`` go out on ``spi`` towards ``endpoint``."""

    host_id: IPv6Address
    spi: int
    endpoint: Endpoint
    mtu: int = NO_LIMIT  # octets of an inner packet that fit the path
    largest: int = NO_LIMIT  # above it, the sender is told
    narrow: tuple[tuple[Traffic, int], ...] = ()  # what goes on another SPI, narrowest first


@dataclass(frozen=True, slots=True)
class ClearFlow:
    host_id: IPv6Address


@dataclass(frozen=True, slots=True)
class SendDummy:
    """Send an ESP dummy packet around ``body`` on outbound ``spi`` (RFC 4303 §2.6).

    ``whole``: a path MTU probe, never fragmented.
    """

    spi: int
    endpoint: Endpoint
    body: bytes = b""
    whole: bool = False


@dataclass(frozen=True, slots=True)
class SendInner:
    """Seal this inner packet of ours in outbound ``spi`` and send it to exactly this endpoint, from
    ``source`` if one is named (I20)."""

    spi: int
    endpoint: Endpoint
    packet: bytes
    source: Source | None = None


@dataclass(frozen=True, slots=True)
class SetRelay:
    """What goes to the relay endpoint of ``host_id`` goes nested, in outbound relay SA ``spi``,
    to ``endpoint``. ``forward``: nested packets of others for that host id go that way, too."""

    host_id: IPv6Address
    spi: int
    endpoint: Endpoint
    forward: bool = False


@dataclass(frozen=True, slots=True)
class ClearRelay:
    host_id: IPv6Address


@dataclass(frozen=True, slots=True)
class SetRelayLimit:
    """Forward at most so many octets a second for others; 0 is any number."""

    octets_per_second: int


@dataclass(frozen=True, slots=True)
class AddRoute:
    """Route this one host id (/128) to the TUN device."""

    host_id: IPv6Address


@dataclass(frozen=True, slots=True)
class RemoveRoute:
    host_id: IPv6Address


@dataclass(frozen=True, slots=True)
class Inject:
    """Send a held inner packet as if it had just come from the TUN device."""

    packet: bytes


@dataclass(frozen=True, slots=True)
class Deliver:
    """Write an inner packet (an ICMPv6 error of ours) to the TUN device."""

    packet: bytes


@dataclass(frozen=True, slots=True)
class Reached:
    """Answer to ``Node.reach(ticket, …)``: the tunnel to ``host_id`` is up."""

    ticket: int
    host_id: IPv6Address


@dataclass(frozen=True, slots=True)
class NotReached:
    """Answer to ``Node.reach`` or ``Node.lookup(ticket, …)``: why not, in one sentence.

    ``no_such_host`` is true when the zone says that there is no host of that name.
    """

    ticket: int
    reason: str
    no_such_host: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """Answer to ``Node.lookup(ticket, …)``: what the zone (or the configuration) says now.

    ``target`` is empty for a static peer.
    """

    ticket: int
    name: str
    host_id: IPv6Address
    target: str
    endpoints: tuple[Endpoint, ...]
    info: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Pong:
    """Answer to ``Node.ping(ticket, …)``: round trip in seconds, or ``None`` with a reason."""

    ticket: int
    rtt: float | None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Advertised:
    """Answer to ``Node.advertise`` or ``Node.withdraw_service(ticket, …)``. ``done``: the zone says
    so; else it is kept, and will be said when the rendezvous answers."""

    ticket: int
    done: bool


@dataclass(frozen=True, slots=True)
class Browsed:
    """Answer to ``Node.browse(ticket, …)``: the services that the zone knows."""

    ticket: int
    services: tuple[FoundService, ...]


@dataclass(frozen=True, slots=True)
class ServicesStirred:
    """Something changed among the services that are watched: browse again."""


@dataclass(frozen=True, slots=True)
class RecordsSaid:
    """Answer to ``Node.ask_zone(ticket, …)``: what stands at a name, or why nobody knows."""

    ticket: int
    found: RecordsFound


@dataclass(frozen=True, slots=True)
class OutsideSeen:
    """Others see this host at ``endpoint``, ``None`` if nobody could say; ``mapping`` tells how
    its NAT maps (:mod:`tunnel.outside`)."""

    endpoint: Endpoint | None
    mapping: str


@dataclass(frozen=True, slots=True)
class AskRouter:
    """If a router maps our port: ask it again for that. A peer is silent; perhaps the router has
    another address outside, and has not said so."""


@dataclass(frozen=True, slots=True)
class Finished:
    """After ``Node.shutdown``: records withdrawn, peers told (or given up); the driver may end."""


@dataclass(frozen=True, slots=True)
class Keep:
    """Write this to its file, so that it outlives the process: ``certificate`` is this host's next
    one (PEM), ``revocations`` the newest list (DER), ``ledger`` the issuer's (JSON, merged),
    ``services`` what this host advertises (JSON), ``records`` and ``proofs`` what it knows of the
    others (JSON)."""

    what: str
    content: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Log:
    """A line for the log: ``level`` is debug, info, warning or error; ``fields`` are key, value."""

    level: str
    text: str
    fields: tuple[tuple[str, str], ...] = ()


Command: TypeAlias = (
    SendIke
    | SendKeepalive
    | SendZone
    | DropZone
    | InstallInbound
    | InstallOutbound
    | RemoveInbound
    | RemoveOutbound
    | SetFlow
    | ClearFlow
    | SendDummy
    | SendInner
    | SetRelay
    | ClearRelay
    | SetRelayLimit
    | AddRoute
    | RemoveRoute
    | Inject
    | Deliver
    | Reached
    | NotReached
    | Found
    | Pong
    | Advertised
    | Browsed
    | RecordsSaid
    | ServicesStirred
    | OutsideSeen
    | AskRouter
    | Finished
    | Keep
    | Log
)
