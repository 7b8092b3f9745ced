"""A small internet in memory: real nodes, real data path, real zone, on a virtual clock.

Everything that happens is an event in one heap, and every choice comes from one seeded generator,
so a run is repeated exactly by its seed. The network loses, delays, doubles and overtakes; it
asserts on every single datagram that nothing of the inside shows outside.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from ipaddress import IPv6Address
from typing import Protocol

from discovery import types as zone_types
from discovery.client import ClientSettings, ZoneClient
from discovery.io_store import SqliteStore
from discovery.types import HostRecords, Service, TsigKey
from fastpath import types as pump
from fastpath.reference.datapath import Datapath, Output, SendDatagram, WritePacket
from fastpath.types import Endpoint
from keys import hostid
from keys.account import Account
from keys.ike import groups
from keys.issuer import Issuer
from tests.sim.nat import STUN, Nat, answer_stun, delay_of
from tests.sim.rendezvous import Rendezvous
from tunnel import commands as do
from tunnel.border import call_of, change
from tunnel.credentials import Credentials
from tunnel.node import Node
from tunnel.peers import Identity, StaticPeer
from tunnel.recording import Recorder
from tunnel.settings import NodeSettings

DOMAIN = "alice.members.example"
SECRET = bytes(range(32))
PLAINTEXT = b"nobody on the wire may read this"
UNIX = 1_800_000_000
EVENTS_AT_MOST = 400_000


@dataclass(frozen=True)
class Weather:
    """What the network does to a datagram. Times are seconds, the rest probabilities."""

    latency: float = 0.02
    jitter: float = 0.0  # as large as the gap between packets, it overtakes
    loss: float = 0.0
    duplication: float = 0.0
    mtu: int = 65_535  # octets of a UDP payload that no link needs to fragment
    fragments: bool = True  # whether those of a larger one arrive


@dataclass(frozen=True)
class Way:
    """Of a datagram. ``forged``: somebody sent it on who is not its author."""

    source: Endpoint
    target: Endpoint
    forged: bool = False


class Watch(Protocol):
    """Sees each datagram that a host sends, and each that comes to one."""

    def sent(self, host: SimHost, data: bytes, target: Endpoint) -> None: ...

    def came(self, host: SimHost, data: bytes, way: Way, author: SimHost | None) -> None: ...


class World:
    """The clock, the network and the rendezvous."""

    def __init__(self, seed: int, weather: Weather | None = None, *, tells: bool = True) -> None:
        self.seed = seed
        self.random = random.Random(seed)
        self.zone_random = random.Random(f"{seed} zone")  # what is said there moves nothing else
        self.weather = weather or Weather()
        self.now = 1000.0
        self.account = Account(DOMAIN, SECRET)
        self.zone_store = SqliteStore(":memory:")
        self.rendezvous = Rendezvous(self, self.account, self.zone_store, tells=tells)
        self.zone = self.rendezvous.server
        self.zone_up = True
        self.hosts: dict[Endpoint, SimHost] = {}
        self.nats: dict[str, Nat] = {}  # by the address inside
        self._outsides: dict[str, Nat] = {}  # by the address on the internet
        self._cuts: set[frozenset[str]] = set()
        self._inner: dict[str, Nat] = {}  # those behind another, by the address between them
        self.places = 0  # networks that hosts have stood in (tests.sim.places)
        self.watch: Watch | None = None
        self.watch_random = random.Random(f"{seed} watch")
        self.wire: list[tuple[float, bytes]] = []
        self.secrets: set[bytes] = {PLAINTEXT}
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._order = itertools.count()  # of events that are due at the same time

    @property
    def unix(self) -> int:
        return UNIX + int(self.now)

    # --- Time -------------------------------------------------------------------------------

    def at(self, when: float, action: Callable[[], None]) -> None:
        self._count += 1
        assert self._count < EVENTS_AT_MOST, f"seed {self.seed}: the world does not come to rest"
        heapq.heappush(self._events, (max(when, self.now), next(self._order), action))

    def run(self, seconds: float, until: Callable[[], bool] = lambda: False) -> bool:
        """Lets time pass; true as soon as ``until`` holds."""
        end = self.now + seconds
        while not until():
            if not self._events or self._events[0][0] > end:
                self.now = end
                return until()
            self.now, _, action = heapq.heappop(self._events)
            action()
        return True

    # --- The network ------------------------------------------------------------------------

    def send(self, data: bytes, source: Endpoint, target: Endpoint, *, whole: bool = False) -> None:
        for secret in self.secrets:
            assert secret not in data, f"seed {self.seed}: plaintext on the wire at {self.now}"
        self.wire.append((self.now, data))
        weather = self.weather
        if len(data) > weather.mtu and (whole or not weather.fragments):
            return  # a black hole: nobody says so
        author = self.hosts.get(source)
        inside = self._share_a_lan(source, target)
        seen = source if inside else self._outward(source, target)
        if self.watch is not None and author is not None:
            self.watch.sent(author, data, target)
        if seen is None:
            return
        copies = 2 if self.random.random() < weather.duplication else 1
        for _ in range(copies):
            if self.random.random() >= weather.loss:
                delay = weather.latency + self.random.random() * weather.jitter
                there = self.arrive_inside if inside else self.arrive
                self.at(self.now + delay, partial(there, data, Way(seen, target), author))

    def _share_a_lan(self, source: Endpoint, target: Endpoint) -> bool:
        """Whether both stand in one local network, behind the same router."""
        nat = self.nats.get(source[0])
        return nat is not None and self.nats.get(target[0]) is nat

    def _outward(self, source: Endpoint, target: Endpoint) -> Endpoint | None:
        """Where the internet sees a datagram come from, if it gets there."""
        nat = self.nats.get(source[0])
        seen: Endpoint | None = source
        while nat is not None and seen is not None:
            seen, nat = nat.out(seen, target, self.now), nat.outer
        return seen

    def _inward(self, source: Endpoint, target: Endpoint) -> SimHost | None:
        """Which host a datagram on the internet gets to."""
        if target[0] in self.nats:
            return None  # an inner address means nothing here
        nat = self._outsides.get(target[0])
        inside: Endpoint | None = target
        while nat is not None and inside is not None:
            inside = nat.into(source, inside, self.now)
            nat = None if inside is None else self._inner.get(inside[0])
        return None if inside is None else self.hosts.get(inside)

    def arrive(self, data: bytes, way: Way, author: SimHost | None) -> None:
        """A datagram is there; ``author`` is the host that made it."""
        if frozenset((way.source[0], way.target[0])) in self._cuts:
            return
        if way.target in STUN:
            reply = answer_stun(data, way.source) if self.zone_up else None
            if reply is not None:
                later = self.now + delay_of(data)
                self.at(later, partial(self.send, reply, way.target, way.source))
            return
        self._arrive_at(self._inward(way.source, way.target), data, way, author)

    def arrive_inside(self, data: bytes, way: Way, author: SimHost | None) -> None:
        """A datagram is there that crossed no router."""
        self._arrive_at(self.hosts.get(way.target), data, way, author)

    def _arrive_at(
        self, host: SimHost | None, data: bytes, way: Way, author: SimHost | None
    ) -> None:
        if host is None:
            return
        if self.watch is not None and host.alive:
            self.watch.came(host, data, way, author)
        host.from_network(data, way.source)

    def cut(self, one: str, other: str, *, whole: bool = False) -> None:
        """Nothing passes between these two outer addresses any more; or again, if ``whole``."""
        change = self._cuts.discard if whole else self._cuts.add
        change(frozenset((one, other)))

    def behind(self, inside: str, nat: Nat) -> None:
        """Put the host with this address behind a NAT, which may itself be behind another."""
        self.nats[inside] = nat
        while nat.outer is not None:
            self._inner[nat.address] = nat
            nat = nat.outer
        self._outsides[nat.address] = nat

    def reboot(self, nat: Nat, address: str) -> None:
        """The outermost router comes back with another address, and knows nothing of before."""
        self._outsides.pop(nat.address, None)
        nat.reboot(address)
        self._outsides[address] = nat

    # --- The rendezvous ---------------------------------------------------------------------

    def set_zone(self, up: bool) -> None:
        """The rendezvous goes away or comes back; every host's transport notices."""
        self.zone_up = up
        for host in set(self.hosts.values()):
            host.zone_changed(up)

    def publish(self, label: str, endpoint: Endpoint) -> None:
        """Puts the records of a host that is never simulated itself into the zone."""
        eui = b"\x02" + self.random.randbytes(7)
        key = TsigKey(self.account.tsig_name, self.account.tsig_secret)
        client = ZoneClient(domain=DOMAIN, label=label, key=key, random=self.random.randbytes)
        records = HostRecords(
            label=label,
            host_id=hostid.host_id(eui, self.random.randbytes(7)),
            target=hostid.target_label(eui),
            endpoints=(endpoint,),
        )
        todo = client.transport_up(self.now, self.unix)
        todo += client.publish(records, self.now, self.unix)
        while todo:
            command = todo.pop(0)
            if isinstance(command, zone_types.SendZone):
                self.at(self.now, self.rendezvous.work)
                for answer in self.zone.handle(command.wire, ("192.0.2.1", 1), "tls", self.unix):
                    todo += client.receive(answer, self.now, self.unix)

    def zone_says(self, text: str) -> bool:
        """Whether there is a record in the zone whose data are ``text``."""
        sets = self.zone.content(DOMAIN).sets()
        return any(str(item.rdata) == text for one in sets for item in one.items)

    def labels_in_zone(self) -> set[str]:
        owners = {str(one.name).lower() for one in self.zone.content(DOMAIN).sets()}
        return {owner.split(".")[0] for owner in owners}


@dataclass
class Config:
    """What a host of the simulation is made with."""

    label: str
    endpoint: Endpoint
    mac: bytes = b""
    secret: bytes = SECRET
    static: tuple[StaticPeer, ...] = ()
    settings: NodeSettings = field(default_factory=NodeSettings)
    account: bool = True
    host_id: IPv6Address | None = None
    credentials: Credentials | None = None
    issuer: Issuer | None = None
    services: tuple[Service, ...] = ()
    withdrawn: tuple[Service, ...] = ()
    remembered: tuple[HostRecords, ...] = ()
    zone_transport: str = "tls"  # or "udp", which loses and doubles as the weather has it
    recorder: Recorder | None = None  # of this host's node


class SimHost:
    """One machine: a node, its data path, its applications."""

    def __init__(self, world: World, config: Config) -> None:
        self.world = world
        self.config = config
        self.endpoint = config.endpoint
        self.others: dict[pump.Source, Endpoint] = {}  # other networks (tests.sim.networks)
        mac = config.mac or world.random.randbytes(6)
        eui = hostid.eui64_from_mac(bytes([mac[0] & 0xFC]) + mac[1:])
        self.host_id = config.host_id or hostid.host_id(eui, world.random.randbytes(7))
        self.config.mac = mac
        account = Account(DOMAIN, config.secret)
        identity = Identity(
            name=f"{config.label}.{DOMAIN}" if config.account else config.label,
            host_id=self.host_id,
            target=hostid.target_label(eui),
            label=config.label if config.account else None,
            domain=DOMAIN if config.account else None,
            psk=account.psk if config.account and not config.credentials else None,
        )
        recorder = config.recorder
        self.zone = self._client(account) if config.account else None
        self.node = Node(
            identity,
            zone=self.zone,
            static=config.static,
            random=world.random.randbytes if recorder is None else recorder.random,
            settings=config.settings,
            credentials=config.credentials,
            issuer=config.issuer,
            services=config.services,
            withdrawn=config.withdrawn,
            remembered=config.remembered,
            encapsulate=groups.encapsulate if recorder is None else recorder.encapsulate,
        )
        if recorder is not None:
            recorder.made()
        self.kept: dict[str, bytes] = {}
        self.datapath = Datapath(self.host_id.packed)
        self.alive = True
        self.finished = False
        self.routes: set[IPv6Address] = set()
        self.received: list[bytes] = []
        self.arrived: deque[float] = deque(maxlen=10_000)
        self.answers: dict[int, do.Command] = {}
        self.logs: list[tuple[float, str, str]] = []
        self.keepalives = 0
        self.seen: list[Endpoint] = []  # by the outside
        self.stirred = 0  # how often the node said that services have changed
        self.connection = 0  # to the rendezvous; 0 is none
        self.from_rendezvous: deque[bytes] = deque(maxlen=10_000)
        self._ticket = 0
        self._timer: float | None = None
        self.acquired = 0
        world.secrets |= {self.host_id.packed, config.label.encode() + b"." + DOMAIN.encode()}
        world.hosts[self.endpoint] = self

    def _client(self, account: Account) -> ZoneClient:
        key = TsigKey(account.tsig_name, account.tsig_secret)
        tls = self.config.zone_transport == "tls"
        recorder, zone_random = self.config.recorder, self.world.zone_random.randbytes
        return ZoneClient(
            domain=DOMAIN,
            label=self.config.label,
            key=key,
            random=zone_random if recorder is None else recorder.random,
            settings=ClientSettings(reliable=tls, secure=tls),
        )

    # --- Life -------------------------------------------------------------------------------

    def start(self, *, settled: bool = True) -> SimHost:
        """``settled``: it knows at once where others reach it."""
        self.tell(self.node.start)
        self.tell(self.node.set_local, (self.endpoint,))
        if settled:
            self.tell(self.node.set_endpoints, (self.endpoint,))
        if self.world.zone_up:
            self.zone_changed(True)
        else:
            self.zone_changed(False)
        self._activity()
        return self

    def kill(self) -> None:
        """As by kill -9 or a pulled plug: nobody is told."""
        self.alive = False
        self.world.rendezvous.leave(self.connection)
        if self.world.hosts.get(self.endpoint) is self:
            del self.world.hosts[self.endpoint]

    def restart(self, *, reboot: bool = False) -> SimHost:
        """The same machine again; after a reboot with another host id (B54)."""
        self.kill()
        self.config.host_id = None if reboot else self.host_id
        return SimHost(self.world, self.config).start()

    def move(self, endpoint: Endpoint) -> None:
        """Another network: another source address, and the old one is gone."""
        del self.world.hosts[self.endpoint]
        self.endpoint = endpoint
        self.world.hosts[endpoint] = self
        self.tell(self.node.set_local, (endpoint,))
        self.tell(self.node.set_endpoints, (endpoint,))
        if self.config.account and self.world.zone_up:
            self.reconnect()

    def shutdown(self) -> None:
        self.tell(self.node.shutdown)

    # --- What its applications do ------------------------------------------------------------

    def reach(self, name: str) -> int:
        self._ticket += 1
        self.tell(self.node.reach, self._ticket, name)
        return self._ticket

    def ping(self, name: str) -> int:
        self._ticket += 1
        self.tell(self.node.ping, self._ticket, name)
        return self._ticket

    def lookup(self, name: str) -> int:
        self._ticket += 1
        self.tell(self.node.lookup, self._ticket, name)
        return self._ticket

    def ask(self, method: Callable[..., list[do.Command]], *arguments: object) -> int:
        """A request about services."""
        self._ticket += 1
        self.tell(method, self._ticket, *arguments)
        return self._ticket

    def send(self, to: IPv6Address, number: int = 0) -> bytes:
        packet = udp_packet(self.host_id, to, number)
        self.from_application(packet)
        return packet

    def from_application(self, packet: bytes) -> None:
        if self.alive:
            self._outputs(self.datapath.outbound(packet, self.world.now))

    def peer(self, label: str) -> dict[str, object]:
        status = self.node.status(self.world.now)
        name = f"{label}.{DOMAIN}"
        return next((peer for peer in status["peers"] if peer["name"] in (name, label)), {})

    # --- What comes to it -------------------------------------------------------------------

    def from_network(self, data: bytes, source: Endpoint) -> None:
        if self.alive:
            self._outputs(self.datapath.inbound(data, source, self.world.now))

    def from_zone(self, wire: bytes) -> None:
        self.from_rendezvous.append(wire)
        self.tell(self.node.zone_message, wire)

    def zone_changed(self, up: bool) -> None:
        self.world.rendezvous.leave(self.connection)
        if up:
            self.connection = self.world.rendezvous.connect(self)
            self.tell(self.node.zone_up)
        else:
            self.connection = 0
            self.tell(self.node.zone_down, "connection refused")

    def reconnect(self) -> None:
        """The connection to the rendezvous is made anew."""
        self.zone_changed(self.world.zone_up)

    def _outputs(self, outputs: list[Output]) -> None:
        for output in outputs:
            match output:
                case SendDatagram(data, endpoint, whole, source):
                    leaving = self.endpoint if source is None else self.others.get(source)
                    if leaving is not None:
                        self.world.send(data, leaving, endpoint, whole=whole)
                case WritePacket(packet):
                    self.received.append(packet)
                    self.arrived.append(self.world.now)
                case _:
                    self.acquired += isinstance(output, pump.AcquireEvent)
                    method, arguments = call_of(self.node, output)
                    self.tell(method, *arguments)

    # --- What the node does -----------------------------------------------------------------

    def tell(self, method: Callable[..., list[do.Command]], *arguments: object) -> None:
        if not self.alive:
            return
        now, unix = self.world.now, self.world.unix
        commands = method(*arguments, now, unix)
        if self.config.recorder is not None:
            self.config.recorder.called(method.__name__, arguments, now, unix, commands)
        for command in commands:
            self._carry_out(command)
        self._set_timer()

    def _removed(self, spi: int, inbound: bool, counters: pump.SaCounters | None) -> None:
        self.node.removed(spi, inbound, counters)
        if self.config.recorder is not None:
            self.config.recorder.called("removed", (spi, inbound, counters), 0.0, 0, [])

    def _set_timer(self) -> None:
        at = self.node.next_timer()
        if at is None or (self._timer is not None and self._timer <= at):
            return
        self._timer = at
        self.world.at(at, lambda: self._tick(at))

    def _tick(self, at: float) -> None:
        if self._timer != at:
            return
        self._timer = None
        due = self.node.next_timer()
        if due is not None and due <= self.world.now:
            self.tell(self.node.advance)
        else:
            self._set_timer()

    def _activity(self) -> None:
        if not self.alive:
            return
        spis_in, spis_out = self.node.spis()
        path = self.datapath
        inbound = {spi: one for spi in spis_in if (one := path.inbound_counters(spi))}
        outbound = {spi: one for spi in spis_out if (one := path.outbound_counters(spi))}
        self.tell(self.node.activity, inbound, outbound)
        self.world.at(self.world.now + min(self.node.look_after, 1.0), self._activity)

    def _carry_out(self, command: do.Command) -> None:
        if isinstance(command, do.OutsideSeen):
            if command.endpoint is not None:
                self.seen.append(command.endpoint)
                self.tell(self.node.set_endpoints, (command.endpoint,))
        elif not self._change_table(command) and not self._say_to_zone(command):
            self._act(command)

    def _say_to_zone(self, command: do.Command) -> bool:
        world = self.world
        match command:
            case do.SendZone(wire):
                world.rendezvous.ask(self, wire)
            case do.DropZone(pause):
                world.rendezvous.leave(self.connection)
                world.at(world.now + pause, self.reconnect)
            case _:
                return False
        return True

    def _act(self, command: do.Command) -> None:
        if self._send(command):
            return
        match command:
            case do.Reached() | do.NotReached() | do.Pong() | do.Found():
                self.answers[command.ticket] = command
            case do.Advertised() | do.Browsed() | do.RecordsSaid():
                self.answers[command.ticket] = command
            case do.Keep(what, content):
                self.kept[what] = content
            case do.ServicesStirred():
                self.stirred += 1
            case do.Finished():
                self.finished = True
            case do.Log(level, text):
                self.logs.append((self.world.now, level, text))

    def _send(self, command: do.Command) -> bool:
        path, now = self.datapath, self.world.now
        match command:
            case do.SendIke(data, remote, source):
                self._outputs(path.send(bytes(4) + data, remote, now, source))
            case do.SendKeepalive(remote):
                self.keepalives += 1
                self._outputs(path.send(b"\xff", remote, now))
            case do.SendDummy(spi, endpoint, body, whole):
                self._outputs(path.dummy(spi, endpoint, body, whole, now))
            case do.SendInner(spi, endpoint, packet, source):
                self._outputs(path.send_inner(spi, endpoint, packet, now, source))
            case do.Inject(packet):
                self._outputs(path.outbound(packet, now))
            case do.Deliver(packet):
                self.received.append(packet)
            case _:
                return False
        return True

    def _change_table(self, command: do.Command) -> bool:
        match command:
            case do.AddRoute(host_id):
                self.routes.add(host_id)
            case do.RemoveRoute(host_id):
                self.routes.discard(host_id)
            case _:
                return change(self.datapath, command, self._removed)
        return True


def udp_packet(source: IPv6Address, to: IPv6Address, number: int) -> bytes:
    """An inner UDP packet whose payload nobody outside may see."""
    payload = number.to_bytes(4) + PLAINTEXT
    udp = bytes((0x30, 0x39, 0, 9)) + (8 + len(payload)).to_bytes(2) + bytes(2) + payload
    header = bytes((0x60, 0, 0, 0)) + len(udp).to_bytes(2) + bytes((17, 64))
    return header + source.packed + to.packed + udp


def numbers(packets: list[bytes]) -> list[int]:
    """The numbers of the UDP packets among these."""
    return [int.from_bytes(p[48:52]) for p in packets if p[6] == 17]


def unreachables(packets: list[bytes]) -> list[bytes]:
    """The ICMPv6 Destination Unreachable messages among these."""
    return [p for p in packets if p[6] == 58 and p[40] == 1]
