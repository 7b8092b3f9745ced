"""The closed vocabulary between an IKE endpoint and its owner (RFC 7296).

An :class:`~keys.ike.endpoint.IkeEndpoint` is pure: it takes datagrams, requests and ``now``
(seconds, monotonic), and returns the commands below. It reads no clock, socket or entropy;
randomness is a function that its owner passes in.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv6Address
from typing import TypeAlias

Endpoint: TypeAlias = tuple[str, int]
"""An outer (address text, UDP port)."""


ANY_PORT = (0, 65535)


@dataclass(frozen=True, slots=True)
class Traffic:
    """Which packets between two host ids a child is for: the number of the upper layer's protocol
    (0: any), and ports, first and last. ICMPv6 and the Mobility Header have types instead of ports
    (RFC 7296 §3.13.1)."""

    protocol: int = 0
    local_ports: tuple[int, int] = ANY_PORT
    peer_ports: tuple[int, int] = ANY_PORT


EVERYTHING = Traffic()


@dataclass(frozen=True, slots=True)
class ChildPolicy:
    """One more child with a peer, beside the one for everything."""

    traffic: Traffic
    mode: str = "tunnel"


@dataclass(frozen=True, slots=True)
class PeerPolicy:
    """What one peer may have: its host id, our own, and the ESP suites in order of preference.

    ``more`` are children that we ask for as soon as we have made the first one, for everything.
    A peer may ask for narrow children without being named there: it has no more by them.
    ``granted`` says in which modes it may have those; all others are tunnels.
    """

    name: str
    local_id: IPv6Address
    peer_id: IPv6Address
    suites: tuple[str, ...] = ("aes128gcm16", "aes256gcm16")
    esn: tuple[bool, ...] = (True, False)
    mode: str = "tunnel"
    more: tuple[ChildPolicy, ...] = ()
    granted: tuple[ChildPolicy, ...] = ()

    def mode_of(self, traffic: Traffic) -> str:
        """The mode that a child for ``traffic`` should have."""
        named = (*self.more, *self.granted)
        return next((child.mode for child in named if child.traffic == traffic), self.mode)


@dataclass(frozen=True, slots=True)
class Ppk:
    """A post-quantum pre-shared key for one peer (RFC 8784): at least 256 random bits, and the
    name by which both sides call it. ``required``: no connection without it."""

    identity: bytes
    secret: bytes = field(repr=False)
    required: bool = False


@dataclass(frozen=True, slots=True)
class ChildSa:
    """A pair of ESP SAs ready for an engine. Keys are cipher key followed by salt.

    ``session`` is the same for all children that follow from one IKE_AUTH with the peer, over every
    rekey, and another one for each IKE_AUTH.
    """

    peer: str
    spi_in: int
    spi_out: int
    suite: str
    key_in: bytes = field(repr=False)
    key_out: bytes = field(repr=False)
    esn: bool
    mode: str
    local_id: IPv6Address
    peer_id: IPv6Address
    traffic: Traffic = EVERYTHING
    session: int = 0


# --- Commands --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SendIke:
    """Send an IKE message (no marker) to ``remote``; the driver adds the non-ESP marker on 4500."""

    data: bytes
    remote: Endpoint


@dataclass(frozen=True, slots=True)
class AskPeer:
    """A peer proved that it is ``name`` and claims ``claimed`` as its host id: is that right?

    Answer with ``IkeEndpoint.authorise(ticket, policy, now)`` or ``refuse(ticket, reason, now)``.
    The exchange waits (bounded); retransmissions of the peer are absorbed meanwhile.
    """

    ticket: int
    name: str
    claimed: IPv6Address
    remote: Endpoint


@dataclass(frozen=True, slots=True)
class InstallInbound:
    """Be ready to receive on ``child.spi_in`` before anything else happens (rekey order)."""

    child: ChildSa


@dataclass(frozen=True, slots=True)
class InstallOutbound:
    """Send on ``child.spi_out`` from now on; it replaces older SAs to the same peer that are for
    the same traffic."""

    child: ChildSa
    remote: Endpoint


@dataclass(frozen=True, slots=True)
class RemoveChild:
    """Both directions of this child are gone."""

    peer: str
    spi_in: int
    spi_out: int


@dataclass(frozen=True, slots=True)
class PeerUp:
    """An IKE SA with ``name`` stands. ``initiator``: whether we began it."""

    name: str
    remote: Endpoint
    initiator: bool


@dataclass(frozen=True, slots=True)
class PeerDown:
    """No IKE SA with ``name`` is left; ``reason`` is one clear sentence."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class IkeFailed:
    """Our attempt to reach ``name`` failed; ``reason`` says which side wanted what.

    ``remote`` is where somebody had answered, who then was not the peer; ``others``: there are
    attempts at other endpoints of it, which go on.
    """

    name: str
    reason: str
    remote: Endpoint | None = None
    others: bool = False


@dataclass(frozen=True, slots=True)
class ProbeAnswered:
    """A liveness exchange came back after ``rtt`` seconds.

    ``remote`` is the endpoint where the peer has thereby been proven to be; None: the request
    went to more than one, so that the answer proves none of them (RFC 4555 §3.7).
    """

    name: str
    rtt: float
    remote: Endpoint | None = None


@dataclass(frozen=True, slots=True)
class IkeLog:
    """Something worth a line: ``level`` is debug, info or warning; already rate limited."""

    level: str
    text: str


Command: TypeAlias = (
    SendIke
    | AskPeer
    | InstallInbound
    | InstallOutbound
    | RemoveChild
    | PeerUp
    | PeerDown
    | IkeFailed
    | ProbeAnswered
    | IkeLog
)


@dataclass(frozen=True, slots=True)
class ChildLifetime:
    """When one child is rekeyed and ends (monotonic seconds), and what it may still carry in
    each direction before its rekey; None: nothing has been counted yet."""

    spi_in: int
    rekey_at: float
    expires_at: float
    packets_left: int | None = None
    octets_left: int | None = None


@dataclass(frozen=True, slots=True)
class SaView:
    """What ``status`` shows of one IKE SA and its children."""

    name: str
    remote: Endpoint
    initiator: bool
    established_at: float
    encryption: str
    prf: str
    key_exchange: str
    authentication: str
    children: tuple[ChildSa, ...]
    rtt: float | None
    behind_nat: bool | None = None
    """Whether the peer sees us at another endpoint than our own; None: nobody can tell."""
    peer_behind_nat: bool | None = None
    """Whether the peer is behind a NAT, or says so to get encapsulation as we do."""
    ppk: bool = False
    """Whether a post-quantum pre-shared key is in the keys (RFC 8784)."""
    fragmentation: bool = False
    """Whether the peer joins IKE fragments (RFC 7383)."""
    mobike: bool = False
    """Whether either side may move by telling the other (RFC 4555)."""
    rekey_at: float | None = None
    expires_at: float | None = None
    """When the IKE SA is rekeyed and when it ends, monotonic seconds."""
    lifetimes: tuple[ChildLifetime, ...] = ()
    """What is left of each child, in the order of ``children``."""
