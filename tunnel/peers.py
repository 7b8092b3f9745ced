"""The peer table: who is out there, as this host knows it, and who owns which host id."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv6Address

from fastpath.types import RELAY_PORT, Endpoint, SaCounters
from keys.ike.types import ChildPolicy, ChildSa, PeerPolicy, Ppk, Traffic
from tunnel.pmtu import PathMtu

DEFAULT_SUITES = ("aes128gcm16", "aes256gcm16", "chacha20poly1305")
_ULA_FIRST = 0xFC  # fc00::/7, RFC 4193 §3.1


def is_unique_local(address: IPv6Address) -> bool:
    """Whether it may be a host id (RFC 4193)."""
    return address.packed[0] & 0xFE == _ULA_FIRST


RELAYED = Traffic(41)
"""Nested packets, IPv6 in IPv6: what travels in a relay SA between a host and its home agent."""

SIGNALS = Traffic(135)
"""Mobility Headers."""

OWN = (ChildPolicy(RELAYED, "transport"), ChildPolicy(SIGNALS, "transport"))
"""Children for ourselves: what applications send never goes on them. Any host of the account may
have the second with any other, and the first with a home agent: what comes in it may say to be of
any third one."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this host is. ``domain``, ``label``, ``psk`` are ``None`` on a host without an account.

    ``name`` is its IKE identity, ``<label>.<domain>``; ``target`` the ``AutoTunnel-<EUI64>`` label;
    ``info`` the TXT strings that it publishes.
    """

    name: str
    host_id: IPv6Address
    target: str = ""
    label: str | None = None
    domain: str | None = None
    psk: bytes | None = field(default=None, repr=False)
    info: tuple[str, ...] = ()
    suites: tuple[str, ...] = DEFAULT_SUITES


@dataclass(frozen=True, slots=True)
class StaticPeer:
    """A peer of the configuration, which needs no zone."""

    name: str
    host_id: IPv6Address
    endpoint: Endpoint
    psk: bytes | None = field(default=None, repr=False)  # None: it shows a certificate
    ppk: Ppk | None = None
    suites: tuple[str, ...] = DEFAULT_SUITES
    mode: str = "tunnel"
    more: tuple[ChildPolicy, ...] = ()


class PeerState(StrEnum):
    """What ``status`` calls the state of a peer."""

    IDLE = "idle"
    LOOKING = "looking"  # the zone is asked for it
    CONNECTING = "connecting"  # IKE is under way
    UP = "up"
    FAILED = "failed"  # the last attempt failed; ``reason`` says why


@dataclass(slots=True)
class Attempt:
    """One try to make the tunnel: lookup, then the candidate endpoints in order."""

    until: float
    looking: bool = False
    host_id: IPv6Address | None = None  # whom the candidates are tried for
    candidates: list[Endpoint] = field(default_factory=list)
    tried: list[Endpoint] = field(default_factory=list)
    others: list[Endpoint] = field(default_factory=list)  # who answered there is not the peer
    reasons: list[str] = field(default_factory=list)
    next_at: float | None = None  # when the next candidate joins the race


@dataclass(slots=True)
class Waiter:
    """Somebody who waits for the tunnel: a ``reach``, or a ``ping`` that goes on from there."""

    ticket: int
    ping: bool
    until: float


@dataclass(slots=True)
class Tally:
    """Packets and octets of the SAs that are gone, so that counters never run backwards."""

    packets: int = 0
    octets: int = 0
    drops: dict[str, int] = field(default_factory=dict)

    def add(self, counters: SaCounters | None) -> None:
        """Takes over what a leaving SA had counted."""
        if counters is None:
            return
        self.packets += counters.packets
        self.octets += counters.octets
        for name, count in counters.drops.items():
            self.drops[name] = self.drops.get(name, 0) + count


@dataclass(slots=True)
class Peer:
    """One other host. ``label`` is ``None`` for a static peer."""

    name: str
    label: str | None
    host_id: IPv6Address | None = None
    endpoints: tuple[Endpoint, ...] = ()
    target: str = ""
    info: tuple[str, ...] = ()
    home_agents: tuple[IPv6Address, ...] = ()  # host ids of those that relay for it
    suites: tuple[str, ...] = DEFAULT_SUITES
    mode: str = "tunnel"
    more: tuple[ChildPolicy, ...] = ()  # children beside the one for everything
    psk: bytes | None = field(default=None, repr=False)
    records_at: float | None = None  # when the zone last said so

    attempt: Attempt | None = None
    waiters: list[Waiter] = field(default_factory=list)
    failures: int = 0
    not_before: float = float("-inf")
    failed: bool = False
    reason: str | None = None
    hinted_at: float = float("-inf")

    children: dict[int, ChildSa] = field(default_factory=dict)  # by inbound SPI
    current: ChildSa | None = None  # the one whose outbound SA the flow names
    narrow: dict[Traffic, ChildSa] = field(default_factory=dict)  # what it names beside that
    endpoint: Endpoint | None = None  # where the flow sends to
    endpoint_at: float = float("-inf")
    seen: Endpoint | None = None  # where its newest packets come from, if not from ``endpoint``
    hint: Endpoint | None = None  # where it seems to be now, until that is proven or given up
    hint_tries: int = 0
    hint_at: float = float("inf")  # when the hint is tried next
    candidate: Endpoint | None = None  # the hint while an exchange proves it
    candidate_until: float = float("inf")

    inbound: dict[int, SaCounters] = field(default_factory=dict)
    outbound: dict[int, SaCounters] = field(default_factory=dict)
    received: Tally = field(default_factory=Tally)
    sent: Tally = field(default_factory=Tally)
    last_in: float | None = None
    last_out: float | None = None
    behind_nat: bool = False  # a NAT stands before us, on the way to it
    carrier: str | None = None  # the home agent by which there is a way
    relay_reason: str | None = None  # why that one was taken
    kept_alive_at: float = float("-inf")
    keepalive: float | None = None  # seconds between two, if it needs any
    rtt: float | None = None
    trip: float | None = None  # seconds there and back on the present path, at most of late
    pmtu: PathMtu | None = None  # while there is a flow

    @property
    def static(self) -> bool:
        """Whether it is a peer of the configuration."""
        return self.label is None

    @property
    def relay_endpoint(self) -> Endpoint | None:
        """Where it is reached through a home agent, as if IKE were spoken there (I48)."""
        return None if self.host_id is None else (str(self.host_id), RELAY_PORT)

    @property
    def is_relayed(self) -> bool:
        """Whether data goes to it through a home agent now."""
        return self.endpoint is not None and self.endpoint == self.relay_endpoint

    @property
    def up(self) -> bool:
        """Whether packets to it can be sealed now."""
        return self.current is not None

    @property
    def state(self) -> PeerState:
        """What ``status`` says."""
        if self.up:
            return PeerState.UP
        if self.attempt is not None:
            return PeerState.LOOKING if self.attempt.looking else PeerState.CONNECTING
        return PeerState.FAILED if self.failed else PeerState.IDLE

    def carries(self, spi_in: int) -> bool:
        """Whether this inbound SA is one of those that say where the peer is: not one that has been
        replaced, nor that of its signals, which go to endpoints that are yet to be proven."""
        narrow = (child for traffic, child in self.narrow.items() if traffic != SIGNALS)
        used = (self.current, *narrow)
        return any(child is not None and child.spi_in == spi_in for child in used)

    def policy(self, local_id: IPv6Address, *, relay: bool = False) -> PeerPolicy:
        """What it may have: exactly its own host id, and ours. ``relay``: we are a home agent, and
        so it may have a relay SA, too."""
        assert self.host_id is not None
        granted = OWN if relay else tuple(one for one in OWN if one.traffic != RELAYED)
        return PeerPolicy(
            name=self.name,
            local_id=local_id,
            peer_id=self.host_id,
            suites=self.suites,
            mode=self.mode,
            more=self.more,
            granted=() if self.static else granted,
        )


class PeerTable:
    """Peers by name and by host id; a host id has one owner. Names are lower case."""

    def __init__(self, identity: Identity, static: tuple[StaticPeer, ...], limit: int) -> None:
        self._identity = identity
        self._limit = limit
        self._by_name: dict[str, Peer] = {}
        self._by_id: dict[IPv6Address, Peer] = {}
        for entry in static:
            peer = Peer(
                name=entry.name.lower(),
                label=None,
                endpoints=(entry.endpoint,),
                suites=entry.suites,
                mode=entry.mode,
                more=entry.more,
                psk=entry.psk,
            )
            self._by_name[peer.name] = peer
            self.give(peer, entry.host_id)

    def full_name(self, name: str) -> str:
        """The IKE name for what a person typed: a label, or a name with or without last dot."""
        name = name.lower().rstrip(".")
        domain = self._identity.domain
        if name in self._by_name or domain is None or "." in name:
            return name
        return f"{name}.{domain}"

    def label_of(self, name: str) -> str | None:
        """The label of a full name right below the account's domain, else ``None``."""
        domain = self._identity.domain
        if domain is None or not name.endswith("." + domain):
            return None
        label = name[: -len(domain) - 1]
        return label if label and "." not in label else None

    def named(self, name: str) -> Peer | None:
        """The peer of this full name."""
        return self._by_name.get(name)

    def labelled(self, label: str) -> Peer | None:
        """The account's peer of this label."""
        peer = self._by_name.get(f"{label.lower()}.{self._identity.domain}")
        return None if peer is None or peer.static else peer

    def owner(self, host_id: IPv6Address) -> Peer | None:
        """The peer to which this host id belongs."""
        return self._by_id.get(host_id)

    def ensure(self, label: str) -> Peer | None:
        """The account's peer of this label, made if need be; ``None`` for ourselves, for a name
        that a static peer has, and when the table is full."""
        name = f"{label.lower()}.{self._identity.domain}"
        peer = self._by_name.get(name)
        if peer is not None:
            return None if peer.static else peer
        if name == self._identity.name or len(self._by_name) >= self._limit:
            return None
        peer = Peer(name=name, label=label.lower(), suites=self._identity.suites)
        self._by_name[name] = peer
        return peer

    def give(self, peer: Peer, host_id: IPv6Address) -> str | None:
        """Makes ``peer`` the owner of ``host_id``; the reason if that cannot be."""
        if not is_unique_local(host_id):
            return f"{peer.name} names {host_id} as its host id, which is no unique local address"
        if host_id == self._identity.host_id:
            return f"{peer.name} names our own host id {host_id} as its own"
        owner = self._by_id.get(host_id)
        if owner is not None and owner is not peer:
            return f"{peer.name} names the host id {host_id}, which belongs to {owner.name}"
        if peer.host_id is not None:
            self._by_id.pop(peer.host_id, None)
        peer.host_id = host_id
        self._by_id[host_id] = peer
        return None

    def remove(self, peer: Peer) -> None:
        """Forgets ``peer``."""
        self._by_name.pop(peer.name, None)
        if peer.host_id is not None and self._by_id.get(peer.host_id) is peer:
            del self._by_id[peer.host_id]

    def by_inbound(self, spi: int) -> Peer | None:
        """The peer that sends to us with this SPI."""
        return next((peer for peer in self if spi in peer.children), None)

    def by_outbound(self, spi: int) -> Peer | None:
        """The peer to which we send with this SPI."""
        return next((p for p in self if any(c.spi_out == spi for c in p.children.values())), None)

    def at(self, source: Endpoint) -> Peer | None:
        """The peer that is known to be at this endpoint; by the address alone if that is one."""
        exact = [p for p in self if source == p.endpoint or source in p.endpoints]
        near = [p for p in self if source[0] in {host for host, _ in p.endpoints}]
        for found in (exact, near):
            if len(found) == 1:
                return found[0]
        return None

    def __iter__(self) -> Iterator[Peer]:
        return iter(list(self._by_name.values()))

    def __len__(self) -> int:
        return len(self._by_name)
