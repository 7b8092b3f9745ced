"""Where this host stands in the network: its addresses, its way in, and what it publishes of both.

On every change, in the order of RFC 6281 §5.1 (B34): the addresses are looked up; behind a NAT a
mapping is asked for (B22); the peers are told at once where we are now; and only when the router
has answered, or has had a moment to, the endpoint is published. Without an answer the network is
taken for a public one (B25). Meanwhile the outside is asked where it sees us: whichever is known
first is published, and the router's word replaces it. The kernel says when something changes; a
look every few seconds finds what it does not say. A router that announces its restart counts as a
change of ours: what it granted may be gone, and it may have another address outside.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Network, ip_address
from typing import Any

from discovery.io_nat import NatLink
from discovery.nat.mapper import Gateway, Way
from discovery.nat.types import Mapping, is_behind_nat
from fastpath.types import Endpoint, Source
from tunnel.config import HostConfig
from tunnel.io import netlink
from tunnel.io.changes import Changes
from tunnel.io.netlink import WayOut
from tunnel.io.outer import in_use, other_ways, outer_endpoints
from tunnel.io.sockets import source_towards
from tunnel.io.surveyor import STUN_PORTS, Questions, Surveyor
from tunnel.journal import What
from tunnel.network_kind import Facts, Kind, kind_of
from tunnel.status import endpoint_text

LOOK_EVERY = 3.0  # seconds, where the kernel says nothing
LOOK_BESIDES = 60.0  # seconds, where it says what changes
TOGETHER = 0.05  # seconds: changes come in flocks
AT_HAND = 0.005  # seconds, where another network is known: the first of the flock may be the move
CALM = 1.0  # seconds without a change before such a first one
PATIENCE = 1.5  # seconds that a router has before our own address is published
ASK_ROUTER = 5.0  # seconds at least between two questions that silent peers bring about
DOUBTS = 10  # a minute: so many restarts of a router count as a change


@dataclass(frozen=True, slots=True)
class Standing:
    """Our own outer endpoints, and the routers before them."""

    endpoints: tuple[Endpoint, ...]
    gateways: tuple[Gateway, ...]


class Network:
    """Watches where we stand. ``stand`` is called with our own endpoints when these changed, then
    ``moved``; ``publish`` with the endpoints at which others reach us, when these did. ``zone_up``
    is whether the rendezvous can be asked, ``imposter`` whether somebody else answers for it;
    ``note`` hears what was found out, and ``translate`` of the prefix of a NAT64 (or that there is
    none any more); ``others`` of other networks that we could leave by, after ``moved``, and of the
    STUN servers to be asked from there."""

    def __init__(
        self,
        config: HostConfig,
        host_id: IPv6Address,
        server: Callable[[], str | None],
        *,
        moved: Callable[[], None],
        publish: Callable[[tuple[Endpoint, ...]], None],
        look_outside: Callable[[tuple[Endpoint, ...]], None],
        stand: Callable[[tuple[Endpoint, ...]], None],
        zone_up: Callable[[], bool] = lambda: True,
        imposter: Callable[[], bool] = lambda: False,
        note: Callable[[What, str, dict[str, str]], None] = lambda _what, _why, _fields: None,
        translate: Callable[[IPv6Network | None], None] = lambda _prefix: None,
        others: Callable[[tuple[Source, ...], tuple[Endpoint, ...]], None] = lambda *_: None,
        questions: Questions | None = None,
    ) -> None:
        self._config, self._host_id, self._server = config, host_id, server
        self._moved, self._publish, self._look_outside = moved, publish, look_outside
        self._stand, self._zone_up, self._note, self._translate = stand, zone_up, note, translate
        self._imposter, self._zone_was_up = imposter, False
        self._tell_others, self._others = others, tuple[Source, ...]()
        self._asked_there: tuple[Endpoint, ...] = ()
        self._changed_at = float("-inf")
        self._surveyor = Surveyor(self._surveyed_anew, questions)
        self._prefix: IPv6Network | None = None
        self._kind: Kind | None = None
        self._answers: dict[tuple[str, str], str] = {}  # of routers, that were noted
        self._nat = NatLink(
            config.nat.methods, self._way, on_answer=self._heard, on_doubt=self._doubt
        )
        self._changes = Changes(self._look_soon)
        self._wake = asyncio.Event()
        self._look_every = LOOK_EVERY
        self._standing = Standing((), ())
        self._stood: tuple[Endpoint, ...] = ()  # our own endpoints, when we last had any
        self._asked_router_at = float("-inf")
        self._doubts: deque[float] = deque(maxlen=DOUBTS)  # when they were
        self._published: tuple[Endpoint, ...] = ()
        self._settled_at = 0.0
        self._granted: dict[bool, float] = {}
        self._asked_outside: tuple[Endpoint, ...] = ()
        self._seen: Endpoint | None = None
        self._outside: Endpoint | None = None  # where we were last, as router or STUN said
        self._mapping = ""

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """What was published last."""
        return self._published

    async def run(self) -> None:
        """Watches until it is cancelled."""
        told = self._changes.start()
        self._look_every = LOOK_BESIDES if told else LOOK_EVERY
        try:
            while True:
                await self._look()
                self._settle()
                self._survey()
                await self._pause()
        finally:
            self._changes.stop()

    async def stop(self) -> None:
        """Give the mapping back (B30)."""
        await self._surveyor.stop()
        await self._nat.stop()

    def status(self) -> dict[str, Any]:
        """The ``nat`` part of ``status --json``."""
        way = self._nat.mapper.way()
        tried = [
            {"gateway": gateway, "method": method, "says": says}
            for (gateway, method), says in sorted(self._nat.mapper.answers.items())
        ]
        about: dict[str, Any] = dict.fromkeys(
            ("method", "gateway", "external", "lifetime_s", "double_nat")
        )
        if way is not None:
            left = self._granted.get(False, 0.0) + way.lifetime - time.monotonic()
            about |= {
                "method": way.method,
                "gateway": way.gateway,
                "external": endpoint_text(way.external),
                "lifetime_s": round(left) if way.lifetime else None,
                "double_nat": way.double_nat,
            }
        elif any("another NAT" in one["says"] for one in tried):
            about["double_nat"] = True
        behind = any(is_behind_nat(one[0]) for one in self._standing.endpoints)
        seen = {"seen": endpoint_text(self._seen), "mapping": self._mapping or None}
        return about | {"private_address": behind, "tried": tried} | seen | self._surveyed()

    def _surveyed(self) -> dict[str, Any]:
        """What kind of network it is, and what that was judged from; ``null`` is not known."""
        found, portal = self._surveyor.surveyed, self._surveyor.portal
        return {
            "kind": None if (kind := self.kind()) is None else str(kind),
            "udp": None if found is None else found.udp,
            "lets_in": None if found is None else found.filtering or None,
            "hairpin": None if found is None else found.hairpin,
            "portal": None if portal is None else portal.where,
            "nat64": None if self._surveyor.nat64 is None else str(self._surveyor.nat64),
        }

    def kind(self) -> Kind | None:
        """What kind of network it is; ``None`` while that is not known."""
        ours = [host for host, _ in self._standing.endpoints]
        found, way = self._surveyor.surveyed, self._nat.mapper.way()
        four = [host for host in ours if ":" not in host]
        seen = None if found is None or found.seen is None else found.seen[0]
        translated = seen is not None and ":" not in seen and seen not in four
        said, silent = self._nat.mapper.answers.values(), found is not None and not found.udp
        return kind_of(
            Facts(
                ipv4=bool(four),
                ipv6=len(four) < len(ours),
                private=translated or any(is_behind_nat(host) for host in four),
                mapped=way is not None,
                double_nat=way.double_nat if way else any("another NAT" in one for one in said),
                mapping=self._mapping,
                udp=None if found is None else found.udp,
                filtering="" if found is None else found.filtering,
                zone_up=self._zone_up(),
                portal=self._surveyor.portal is not None or (silent and self._imposter()),
            )
        )

    # --- Inside -----------------------------------------------------------------------------

    def _survey(self) -> None:
        """Asks what kind of network it is, and says so when it is another one."""
        local, zone_up = self._standing.endpoints, self._zone_up()
        self._zone_was_up = zone_up
        self._surveyor.look(local, self._server(), zone_up, time.monotonic())
        self._news()

    def _surveyed_anew(self, changed: bool) -> None:
        if changed:
            self._news()
        self._look_soon()

    def zone_changed(self) -> None:
        """The rendezvous can be asked, or not any more."""
        if self._zone_up() != self._zone_was_up:
            self._look_soon()

    def _news(self) -> None:
        """Something is known that was not: of the network, or of a router."""
        if self._prefix != self._surveyor.nat64:
            self._prefix = self._surveyor.nat64
            self._translate(self._prefix)
        if (kind := self.kind()) != self._kind:
            self._kind = kind
            found = {key: str(one) for key, one in self._surveyed().items() if one is not None}
            self._note(What.NETWORK, "what kind of network it is", found)
        answers = {(where, str(method)): says for (where, method), says in self._said()}
        for (where, method), says in answers.items() - self._answers.items():
            self._note(What.MAPPING, says, {"gateway": where, "method": method})
        self._answers = answers

    def _said(self) -> list[tuple[tuple[str, str], str]]:
        """What each router answered last, and what is granted."""
        said: list[tuple[tuple[str, str], str]] = list(self._nat.mapper.answers.items())
        for way in filter(None, (self._nat.mapper.way(), self._nat.mapper.way(ipv6=True))):
            granted = f"it opens {endpoint_text(way.external)} for {way.lifetime} s"
            said.append(((way.gateway, way.method), granted))
        return said

    def look(self) -> None:
        """Look now: something may have changed of which the kernel says nothing."""
        self._look_soon()

    def _look_soon(self) -> None:
        self._wake.set()

    async def _pause(self) -> None:
        known = self._standing.endpoints and self._server() is not None
        wait = self._look_every if known else LOOK_EVERY
        wait = min(wait, self._surveyor.wait(time.monotonic()))
        if not self._settled:
            wait = min(wait, max(0.0, self._settled_at - time.monotonic()))
        with suppress(TimeoutError):
            async with asyncio.timeout(wait):
                await self._wake.wait()
                calm = time.monotonic() >= self._changed_at + CALM
                self._changed_at = time.monotonic()
                await asyncio.sleep(AT_HAND if self._others and calm else TOGETHER)
        self._wake.clear()

    async def _look(self) -> None:
        config = self._config
        peers = tuple(peer.address[0] for peer in config.peers)
        found = outer_endpoints(config.host.listen, self._server(), peers, self._host_id)
        ways = _ways_out()
        standing = Standing(found, self._routers(found, ways))
        if standing != self._standing:
            await self._stand_there(standing)
        others = other_ways(ways, found, self._host_id)
        private = any(is_behind_nat(host) for host, _ in others)
        servers = self._servers() if private else ()
        if (others, servers) != (self._others, self._asked_there):
            self._others, self._asked_there = others, servers
            self._tell_others(others, servers)

    async def _stand_there(self, standing: Standing) -> None:
        before, self._standing = self._standing, standing
        # Addresses that were gone for a while may be the same in another network.
        left = self._stood and (standing.endpoints != self._stood or not before.endpoints)
        if standing.endpoints:
            self._stood = standing.endpoints
            self._stand(standing.endpoints)
        if left and standing.endpoints:
            self._asked_outside, self._seen, self._outside = (), None, None
            self._moved()
        if standing.gateways != before.gateways:
            self._settled_at = time.monotonic() + (PATIENCE if standing.gateways else 0.0)
            await self._nat.network(standing.gateways)

    def _routers(
        self, endpoints: tuple[Endpoint, ...], ways: tuple[WayOut, ...]
    ) -> tuple[Gateway, ...]:
        """Whom to ask: where our IPv4 address is private (B22), and before IPv6 a firewall. Those
        of the network in use: what another one's router opens is not where we are."""
        if not self._config.nat.methods:
            return ()
        port, used = self._config.host.listen, in_use(ways, endpoints)
        found = dict[Gateway, None]()
        for way in ways:
            ours = [one for one, _ in endpoints if ip_address(one).version == way.version]
            if way.gateway is None or way.index != used[way.version] or not ours:
                continue
            if way.version == 6 or is_behind_nat(ours[0]):
                local = ours[0] if way.version == 6 else _towards(way.gateway) or ours[0]
                found[Gateway(way.gateway, (local, port))] = None
        return tuple(found)

    @property
    def _settled(self) -> bool:
        """Whether the routers have said something about IPv4, and the outside if need be, or both
        had their time."""
        nat = self._nat.mapper
        if time.monotonic() >= self._settled_at or nat.way() is not None:
            return True
        asked = {one.address for one in self._standing.gateways if "." in one.address}
        answered = {gateway for gateway, _ in nat.answers}
        return asked <= answered and not self._asked_outside

    def _way(self, way: Way) -> None:
        if way.mapping is not None:
            external = way.mapping.external
            self._granted[":" in external[0]] = time.monotonic()
            if ":" not in external[0] and not way.mapping.double_nat:
                self._are_outside_at(external)
        self._news()
        self._settle()

    def _heard(self) -> None:
        """A router has answered."""
        self._news()
        self._settle()

    def _doubt(self) -> None:
        """The router has restarted. RFC 6887 §14.1.3 lets us ask it only after a random pause of up
        to five seconds; the outside and the peers need not wait for that."""
        now = time.monotonic()
        if len(self._doubts) < DOUBTS or now - self._doubts[0] >= 60:
            self._doubts.append(now)
            self._outside = None  # if it is another one, that is no second move
            self._moved()
        self._settle()

    def ask_router(self) -> None:
        """A peer is silent. A router that got another address and did not say so says it now, in
        its answer; what it maps for us it says once more."""
        now = time.monotonic()
        if now >= self._asked_router_at + ASK_ROUTER:
            self._asked_router_at = now
            self._nat.refresh()

    def _settle(self) -> None:
        if not self._standing.endpoints:
            return
        self._ask_outside()
        if self._seen is None and not self._settled:
            return
        mapper = self._nat.mapper
        found = tuple(
            self._outer(one, mapper.way(ipv6=":" in one[0])) for one in self._standing.endpoints
        )
        if found != self._published:
            self._published = found
            self._publish(found)

    def _outer(self, local: Endpoint, way: Mapping | None) -> Endpoint:
        """The endpoint that others can reach: the mapped one, unless another NAT stands behind it;
        else what the outside sees, if a NAT is there at all."""
        doubted = self._nat.mapper.doubted and self._seen is not None
        if way is not None and not way.double_nat and not doubted:
            return way.external
        if self._seen is not None and is_behind_nat(local[0]):
            return self._seen
        return local

    def _ask_outside(self) -> None:
        """STUN, as long as our address is private and no router maps it for us, or what maps it is
        in doubt."""
        mapper = self._nat.mapper
        way = None if mapper.doubted else mapper.way()
        private = any(is_behind_nat(one) for one, _ in self._standing.endpoints)
        needed = private and (way is None or way.double_nat)
        servers = self._servers() if needed else ()
        if servers != self._asked_outside:
            self._asked_outside = servers
            self.seen(None, "")
            self._look_outside(servers)

    def _servers(self) -> tuple[Endpoint, ...]:
        """Both STUN ports of the rendezvous, if it has an IPv4 address."""
        server = self._server()
        if server is None or ":" in server:
            return ()
        return tuple((server, port) for port in STUN_PORTS)

    def seen(self, endpoint: Endpoint | None, mapping: str) -> None:
        """The outside sees us there; ``mapping`` says how our NAT maps."""
        changed = endpoint != self._seen
        self._seen, self._mapping = endpoint, mapping
        if not changed or endpoint is None:
            return
        self._are_outside_at(endpoint)
        self._settle()

    def _are_outside_at(self, endpoint: Endpoint) -> None:
        """If it is another address, and not because we have moved ourselves, our router did."""
        before, self._outside = self._outside, endpoint
        if before is not None and before[0] != endpoint[0]:
            self._moved()


def _ways_out() -> tuple[WayOut, ...]:
    """None where the system has no rtnetlink."""
    try:
        return netlink.ways_out()
    except (AttributeError, OSError):
        return ()


def _towards(gateway: str) -> str | None:
    """Our address on the link to an IPv4 gateway."""
    return source_towards(gateway, 2)
