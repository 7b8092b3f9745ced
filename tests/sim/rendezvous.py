"""The rendezvous of the simulation: the real zone server, and the ways to it.

TLS is in order and without loss while a connection stands; each host has one, which ends when the
rendezvous goes away, when the host moves, and when either side says so. UDP has the weather.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from discovery.held import ZoneAccount
from discovery.io_store import SqliteStore
from discovery.ways import End, Tell, Unasked, Way
from discovery.zone import ZoneServer
from fastpath.types import Endpoint
from keys.account import Account

if TYPE_CHECKING:
    from tests.sim.world import SimHost, World

_PLACE: Endpoint = ("192.0.2.53", 53)
_AT_ONCE = 64  # unasked messages, between which questions may come


class Rendezvous:
    """One server. ``tells``: it has long-lived queries and DNS Push."""

    def __init__(self, world: World, account: Account, store: SqliteStore, *, tells: bool) -> None:
        serve = ZoneAccount(
            account.domain, account.tsig_secret, account.secret, account.invitation_key
        )
        random = world.zone_random.randbytes if tells else None
        self._world = world
        self.server = ZoneServer([serve], store, unix=world.unix, random=random)
        self._connections: dict[int, SimHost] = {}
        self._numbers = 0
        self._alarm = float("inf")

    # --- Connections --------------------------------------------------------------------------

    def connect(self, host: SimHost) -> int:
        """A new connection of ``host``; the number that it has."""
        self._numbers += 1
        self._connections[self._numbers] = host
        return self._numbers

    def leave(self, connection: int) -> None:
        """The connection is gone."""
        if self._connections.pop(connection, None) and self.server.subscriptions is not None:
            self.server.subscriptions.gone(connection)

    def way_of(self, host: SimHost) -> Way:
        """How a message of ``host`` comes now."""
        if host.config.zone_transport == "udp":
            return Way("udp", host.endpoint, _PLACE)
        return Way("tls", host.endpoint, connection=host.connection)

    # --- Messages -----------------------------------------------------------------------------

    def ask(self, host: SimHost, wire: bytes) -> None:
        """A message of ``host`` is on its way to the server."""
        way = self.way_of(host)
        self._carry(way, lambda: self._arrived(wire, way))

    def _arrived(self, wire: bytes, way: Way) -> None:
        world = self._world
        if not world.zone_up or (way.connection and way.connection not in self._connections):
            return
        answers = self.server.handle(
            wire, way.source, way.transport, world.unix, way=way, now=world.now
        )
        for answer in answers:
            self._tell(way, answer)
        self.work()

    def _tell(self, way: Way, wire: bytes) -> None:
        self._carry(way, lambda: self._told(way, wire))

    def _told(self, way: Way, wire: bytes) -> None:
        if way.connection:
            host = self._connections.get(way.connection)
        else:
            host = self._world.hosts.get(way.source)
        if host is not None:
            host.from_zone(wire)

    def _carry(self, way: Way, arrive: Callable[[], None]) -> None:
        world, weather = self._world, self._world.weather
        if way.transport == "tls":
            world.at(world.now + weather.latency, arrive)
            return
        copies = 2 if world.random.random() < weather.duplication else 1
        for _ in range(copies):
            if world.random.random() >= weather.loss:
                delay = weather.latency + world.random.random() * weather.jitter
                world.at(world.now + delay, arrive)

    # --- What it says unasked -----------------------------------------------------------------

    def work(self) -> None:
        """Send what nobody asked for at this moment, and wake up for what comes later."""
        told, world = self.server.subscriptions, self._world
        if told is None:
            return
        while told.is_ready:
            for one in told.take(_AT_ONCE, world.now, world.unix):
                self._unasked(one)
        if told.next_alarm < self._alarm and told.next_alarm != float("inf"):
            self._alarm = told.next_alarm
            world.at(self._alarm, self._ring)

    def _unasked(self, one: Unasked) -> None:
        if isinstance(one, Tell):
            self._tell(one.way, one.wire)
            return
        assert isinstance(one, End)
        host = self._connections.get(one.connection)
        self.leave(one.connection)
        if host is not None and host.alive and self._world.zone_up:
            self._world.at(self._world.now, host.reconnect)

    def _ring(self) -> None:
        self._alarm = float("inf")
        if self.server.subscriptions is not None:
            self.server.subscriptions.tick(self._world.now)
        self.work()
