"""What the parts of the node share: the tables, the two machines below, and the commands gathered.

A call into the node sets the clock, lets one part act, and then works off what the IKE endpoint
and the zone client answered, until nothing is left; so no part ever calls back into another one
in the middle of its work.
"""

from __future__ import annotations

import itertools
from collections import deque
from ipaddress import IPv6Address
from typing import TYPE_CHECKING, TypeAlias

from discovery.types import ClientCommand, Service
from fastpath.types import NARROW_WAYS, RELAY_PORT, Endpoint, Source, Traffic
from keys.ike import types as ike_types
from keys.ike.endpoint import IkeEndpoint
from keys.ike.selectors import narrowness
from tunnel.commands import (
    ClearFlow,
    Command,
    Deliver,
    Log,
    SendDummy,
    SendIke,
    SendInner,
    SendKeepalive,
    SetFlow,
)
from tunnel.icmpv6 import destination_unreachable
from tunnel.journal import Journal, What
from tunnel.peers import OWN, Identity, Peer, PeerTable, is_unique_local
from tunnel.pending import Bucket, PacketQueues
from tunnel.pmtu import PathMtu
from tunnel.settings import NodeSettings
from tunnel.status import endpoint_text

if TYPE_CHECKING:
    from discovery.client import ZoneClient

Answer: TypeAlias = ike_types.Command | ClientCommand


class Core:
    """Shared by all parts of one node. ``zone`` is ``None`` on a host without an account."""

    def __init__(
        self,
        identity: Identity,
        peers: PeerTable,
        ike: IkeEndpoint,
        zone: ZoneClient | None,
        settings: NodeSettings,
    ) -> None:
        self.identity = identity
        self.peers = peers
        self.ike = ike
        self.zone = zone
        self.settings = settings
        self.queues = PacketQueues(settings)
        self.journal = Journal()
        self.now = float("-inf")
        self.unix = 0
        self.ending = False
        self.endpoints: tuple[Endpoint, ...] = ()
        self.local: tuple[Endpoint, ...] = ()  # ours, as our own network has them
        self.others: tuple[Source, ...] = ()  # other networks that we could leave by
        self.other_servers: tuple[Endpoint, ...] = ()  # of STUN, that can be asked from there
        self.mapping = ""  # how our NAT maps, while no router maps for us (tunnel.outside)
        self.services: tuple[Service, ...] = ()  # that shall stand in the zone
        self.withdrawn: tuple[Service, ...] = ()  # that shall stand there no more
        self.home_agents: tuple[IPv6Address, ...] = ()  # that relay for us
        self.relayed: set[str] = set()  # host ids to which the engine knows a way by relay
        self.stirred: set[str] = set()  # peers that are elsewhere, or have other SAs, than before
        self.ownerless: set[IPv6Address] = set()  # host ids that were a peer's
        self._probes = itertools.count(1)
        self._errors = Bucket(settings.errors_per_second)
        self._answers: deque[Answer] = deque()
        self._commands: list[Command] = []

    def emit(self, *commands: Command) -> None:
        """Adds to what the present call returns."""
        self._commands.extend(commands)

    def log(self, level: str, text: str, **fields: object) -> None:
        """Adds a line for the log."""
        self.emit(Log(level, text, tuple((key, str(value)) for key, value in fields.items())))

    def explain(self, peer: Peer | None, what: What, why: str, **fields: object) -> None:
        """Keeps what was learnt or decided, for ``autotunnel explain``; ``None``: about ourselves.
        ``why`` is a sentence; what differs from time to time belongs into ``fields``, where an
        endpoint is written as one and what is ``None`` is left out."""
        texts = {key: _text(value) for key, value in fields.items() if value is not None}
        self.journal.add(None if peer is None else peer.name, self.now, what, why, texts)

    def take(self) -> list[Command]:
        """What was gathered since the last call, less what would show a host id on the wire: to a
        relay endpoint nothing goes that cannot be nested (I50)."""
        commands, self._commands = self._commands, []
        return [command for command in commands if not self._is_bare(command)]

    def _is_bare(self, command: Command) -> bool:
        match command:
            case SendIke(_, remote) | SendKeepalive(remote):
                return self._leads_nowhere(remote)
            case SendDummy() | SendInner() | SetFlow():
                return self._leads_nowhere(command.endpoint)
            case _:
                return False

    def _leads_nowhere(self, endpoint: Endpoint) -> bool:
        """Whether it is a host id without a way by relay; or looks like the relay endpoint of a
        host that we do not know, whom a home agent may have made up."""
        host, port = endpoint
        if ":" not in host or host in self.relayed:
            return False
        if self.is_host(host):
            return True
        if port != RELAY_PORT or not is_unique_local(IPv6Address(host.partition("%")[0])):
            return False
        return not any(endpoint in peer.endpoints for peer in self.peers)

    def is_host(self, address: str) -> bool:
        """Whether it is a host id, ours or a peer's: nobody *is* at one, on any network."""
        if ":" not in address:
            return False
        host_id = IPv6Address(address.partition("%")[0])
        return host_id == self.identity.host_id or self.peers.owner(host_id) is not None

    def ike_said(self, answers: list[ike_types.Command]) -> None:
        """Queues what the IKE endpoint answered."""
        self._answers.extend(answers)

    def zone_said(self, answers: list[ClientCommand]) -> None:
        """Queues what the zone client answered."""
        self._answers.extend(answers)

    def next_answer(self) -> Answer | None:
        """The next one to work off."""
        return self._answers.popleft() if self._answers else None

    def look_up(self, label: str) -> None:
        """Asks the zone for one host."""
        if self.zone is not None:
            self.zone_said(self.zone.lookup(label, self.now, self.unix))

    def policy(self, peer: Peer) -> ike_types.PeerPolicy:
        """What ``peer`` may have with us."""
        relay = self.settings.home_agent is not None
        return peer.policy(self.identity.host_id, relay=relay)

    def point(self, peer: Peer, endpoint: Endpoint) -> None:
        """Sends what goes to ``peer`` to ``endpoint`` from now on."""
        assert peer.current is not None
        if peer.pmtu is None:
            peer.pmtu = PathMtu(self.settings.mtu, self.settings.pmtu, self._probes)
        if endpoint != peer.endpoint:
            self.explain(peer, What.PATH, "data goes there from now on", to=endpoint)
            peer.endpoint, peer.endpoint_at, peer.trip = endpoint, self.now, None
            peer.pmtu.restart(self.now, nested=peer.is_relayed)
        self.set_flow(peer)

    def set_flow(self, peer: Peer) -> None:
        """Tells the engine how data goes to ``peer`` now."""
        self.stirred.add(peer.name)
        if peer.current is not None and peer.endpoint is not None and peer.pmtu is not None:
            way = peer.current.peer_id, peer.current.spi_out, peer.endpoint
            narrow = _ways(peer) if peer.narrow else ()
            self.emit(SetFlow(*way, peer.pmtu.mtu, peer.pmtu.largest, narrow))

    def unpoint(self, peer: Peer) -> None:
        """Nothing goes to ``peer`` any more until there is a new SA."""
        self.stirred.add(peer.name)
        if peer.current is not None:
            self.emit(ClearFlow(peer.current.peer_id))
            self.explain(peer, What.PATH, "nothing goes to it any more: the SA is gone")
        peer.current = peer.endpoint = peer.pmtu = None
        peer.candidate = peer.hint = peer.seen = None

    def refuse_packets(self, packets: list[bytes]) -> None:
        """Tells the application of each packet that its destination is unreachable."""
        for packet in packets:
            error = destination_unreachable(packet)
            if error is not None and self._errors.allows(self.now):
                self.emit(Deliver(error))


def _ways(peer: Peer) -> tuple[tuple[Traffic, int], ...]:
    """The peer's narrow children as a flow wants them, the narrowest first. Those for which it has
    no room are left out, and their packets go with all others. Those for ourselves carry nothing of
    applications: that a host speaks for itself is what they stand for."""
    ours = {child.traffic for child in OWN}
    found = [one for one in peer.narrow.values() if peer.static or one.traffic not in ours]
    found.sort(key=lambda child: narrowness(child.traffic), reverse=True)
    return tuple((engine_traffic(one.traffic), one.spi_out) for one in found[:NARROW_WAYS])


def _text(value: object) -> str:
    match value:
        case (str(host), int(port)):
            return endpoint_text((host, port)) or ""
        case tuple() | list():
            return ", ".join(_text(one) for one in value)
        case _:
            return str(value)


def engine_traffic(traffic: ike_types.Traffic) -> Traffic:
    """The same in the data path's words."""
    return Traffic(traffic.protocol, traffic.local_ports, traffic.peer_ports)
