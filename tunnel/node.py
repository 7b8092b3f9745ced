"""Node: one host of the account as a pure machine; what it promises, and to whom it listens.

It composes the IKE endpoint (:mod:`keys.ike`), the zone client (:mod:`discovery.client`) and the
peer table, and speaks in the commands of :mod:`tunnel.commands`. Every method takes ``now``
(seconds, monotonic and suspend-aware) and ``unix`` (wall clock, for TSIG only) and returns the
commands to carry out, in order. What it decides is decided in its parts (:mod:`tunnel` has them
all): :mod:`tunnel.attempts` makes tunnels on demand, :mod:`tunnel.asks` checks who wants one with
us, :mod:`tunnel.directory` keeps the table true to the zone, :mod:`tunnel.flows` the engine true to
IKE, :mod:`tunnel.following` follows peers, :mod:`tunnel.silence` misses them,
:mod:`tunnel.relaying` reaches them through home agents; :mod:`tunnel.answers` gives each part what
IKE and the zone answered.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from ipaddress import IPv6Address
from typing import TYPE_CHECKING, Any

from discovery import types as zone_types
from discovery.nat.stun import is_stun
from discovery.types import Service
from fastpath.types import Endpoint, SaCounters, Source
from keys.ike import groups
from keys.ike.endpoint import IkeEndpoint
from keys.ike.export import WiresharkTables
from keys.issuer import Issuer, Ledger
from tunnel.answers import Answers
from tunnel.commands import Command, Finished
from tunnel.core import Core
from tunnel.credentials import Credentials
from tunnel.early import MOST
from tunnel.explaining import explanation
from tunnel.journal import What
from tunnel.parts import Parts
from tunnel.peers import Identity, PeerTable, StaticPeer
from tunnel.settings import NodeSettings
from tunnel.silence import LOOK
from tunnel.status import peer_status

if TYPE_CHECKING:
    from dns.name import Name

    from discovery.client import ZoneClient


class Node:
    """One host. ``zone`` is ``None`` on a host that has static peers only.

    ``random(n)`` gives n octets that nobody can guess; ``services`` are what its owner advertised
    before, ``withdrawn`` what the zone may still say of that; ``remembered`` is what the zone said
    of the other hosts when it could last be asked (:mod:`tunnel.remembered`); ``proofs`` are where
    these have proven to be (:mod:`tunnel.mobility.proofs`). ``encapsulate`` is
    the one thing by chance that does not come from ``random`` (decision 0010).
    """

    def __init__(
        self,
        identity: Identity,
        *,
        zone: ZoneClient | None,
        static: tuple[StaticPeer, ...] = (),
        random: Callable[[int], bytes],
        settings: NodeSettings | None = None,
        credentials: Credentials | None = None,
        issuer: Issuer | None = None,
        services: tuple[Service, ...] = (),
        withdrawn: tuple[Service, ...] = (),
        remembered: tuple[zone_types.HostRecords, ...] = (),
        proofs: bytes = b"",
        encapsulate: groups.Encapsulate = groups.encapsulate,
    ) -> None:
        settings = settings or NodeSettings()
        peers = PeerTable(identity, static, settings.peers)
        ike = IkeEndpoint(
            local_name=identity.name,
            secret_for=self._secret_for,
            random=random,
            settings=settings.ike,
            ppks={peer.name: peer.ppk for peer in static if peer.ppk is not None},
            certification=credentials,
            encapsulate=encapsulate,
        )
        self._core = Core(identity, peers, ike, zone, settings)
        self._parts = Parts(
            self._core,
            random,
            credentials=credentials,
            issuer=issuer,
            services=services,
            withdrawn=withdrawn,
            remembered=remembered,
            proofs=proofs,
        )
        self._answers = Answers(self._core, self._parts, self._look_soon)
        self._finished = False
        self.look_after = float("inf")
        """Seconds until :meth:`activity` is wanted again: rarely where nothing moves."""

    def _look_soon(self) -> None:
        self.look_after = min(self.look_after, LOOK)

    def _secret_for(self, name: str) -> bytes | None:
        """The pre-shared key for a peer that says it is ``name``."""
        peer = self._core.peers.named(name.lower())
        if peer is not None and peer.static:
            return peer.psk
        return self._core.identity.psk if self._core.peers.label_of(name.lower()) else None

    # --- Life -------------------------------------------------------------------------------

    def start(self, now: float, unix: int) -> list[Command]:
        """Begins: routes to the static peers, and the first questions to the zone."""
        self._turn(now, unix)
        self._parts.directory.start()
        self._parts.services.start()
        self._parts.relaying.start()
        self._parts.calls.start()
        return self._done()

    def shutdown(self, now: float, unix: int) -> list[Command]:
        """Ends: DELETE to every peer, records withdrawn; ``Finished`` within a few seconds."""
        self._turn(now, unix)
        core = self._core
        if not core.ending:
            core.ending = True
            for peer in core.peers:
                peer.attempt = None
                self._parts.attempts.give_up(peer, "this host is ending")
            self._parts.farewell.begin(self._parts.relaying.carriers())
            self._parts.directory.withdraw()
        return self._done()

    # --- Inner packets ----------------------------------------------------------------------

    def acquire(self, packet: bytes, now: float, unix: int) -> list[Command]:
        """The pump has no flow for this inner packet."""
        self._turn(now, unix)
        self._parts.attempts.packet(packet)
        return self._done()

    # --- The network ------------------------------------------------------------------------

    def datagram(self, data: bytes, source: Endpoint, now: float, unix: int) -> list[Command]:
        """An IKE message, or an answer of STUN, came from ``source``; its marker is stripped."""
        self._turn(now, unix)
        if is_stun(data):
            optimising = self._parts.relaying.optimising
            if not (
                self._parts.keepalives.received(data, source) or optimising.received(data, source)
            ):
                self._parts.outside.received(data, source)
        else:
            self._core.ike_said(self._core.ike.receive(data, source, now))
        return self._done()

    def new_source(self, spi: int, source: Endpoint, now: float, unix: int) -> list[Command]:
        """The newest authenticated packet of inbound ``spi`` came from another endpoint."""
        self._turn(now, unix)
        if not self._parts.relaying.new_source(spi, source):
            self._parts.following.new_source(spi, source)
        return self._done()

    def nested(
        self, relay: int, data: bytes, source: Endpoint, now: float, unix: int
    ) -> list[Command]:
        """As :meth:`datagram`, for an IKE message that came nested in inbound relay SA ``relay``:
        ``source`` is a relay endpoint."""
        self._turn(now, unix)
        detour = self._parts.relaying.nested(relay, source)
        if detour is not None:
            self._core.ike_said(self._core.ike.receive(data, source, now))
            self._settle()
            self._parts.relaying.answered(detour)
        return self._done()

    def mobility(
        self, spi: int, source: Endpoint, message: bytes, now: float, unix: int
    ) -> list[Command]:
        """A Mobility Header came in inbound ``spi``, from ``source`` on the wire, which is a relay
        endpoint where it came nested (I30)."""
        self._turn(now, unix)
        self._parts.relaying.signals.received(spi, source, message)
        return self._done()

    def lifetime(self, spi: int, now: float, unix: int) -> list[Command]:
        """Outbound ``spi`` has sent nearly all it may."""
        self._turn(now, unix)
        peer = self._core.peers.by_outbound(spi)
        if peer is not None:
            self._core.ike_said(self._core.ike.rekey(peer.name, now, spi))
        return self._done()

    def unknown_spi(self, spi: int, source: Endpoint, now: float, unix: int) -> list[Command]:
        """ESP of no SA of ours: a peer at ``source`` may still hold one from before our restart.

        Nothing about it is authenticated, so all it can do is to make us connect, seldom, to a
        peer that is known to be there; INITIAL_CONTACT then replaces what the peer holds.
        """
        self._turn(now, unix)
        peer, settings = self._core.peers.at(source), self._core.settings
        self._core.ike_said(self._core.ike.orphan(spi, source, now))
        if peer is not None and not peer.up and now - peer.hinted_at >= settings.hint_interval:
            peer.hinted_at = now
            self._core.log("debug", f"{peer.name} uses an SA of before", spi=f"{spi:08x}")
            self._parts.attempts.begin(peer, "it uses an SA of before our restart")
        return self._done()

    def dummy(self, spi: int, octets: int, head: bytes, now: float, unix: int) -> list[Command]:
        """An authenticated dummy packet of inbound ``spi`` carried ``octets``, ``head`` first."""
        self._turn(now, unix)
        self._parts.path_mtus.dummy(spi, octets, head)
        return self._done()

    def too_big(self, quote: bytes, largest: int, now: float, unix: int) -> list[Command]:
        """The pump refused an inner packet, whose first octets are ``quote``, for its size."""
        self._turn(now, unix)
        self._parts.path_mtus.too_big(quote, largest)
        return self._done()

    def moved(self, now: float, unix: int) -> list[Command]:
        """Our own addresses have changed (B34, step 4): every peer is told at once, from the new
        ones. What others can reach is published when it is known, by :meth:`set_endpoints`."""
        self._turn(now, unix)
        self._core.explain(None, What.MOVED, "our own addresses changed: every peer is told")
        self._core.ike_said(self._core.ike.move((), now))
        self._notice_move()
        return self._done()

    def resumed(self, now: float, unix: int) -> list[Command]:
        """The machine has slept. Where we are may be as it was, but NATs have forgotten us: every
        peer is shown where we come from, and the outside is asked."""
        self._turn(now, unix)
        self._core.explain(None, What.MOVED, "the machine has slept: every peer is told")
        self._core.ike_said(self._core.ike.move(self._core.endpoints, now))
        self._notice_move()
        self._parts.outside.hurry()
        return self._done()

    def set_local(self, local: tuple[Endpoint, ...], now: float, unix: int) -> list[Command]:
        """Our own endpoints as our network has them, inside whatever NAT there is; those that are
        of a local network are published beside the others (:mod:`tunnel.candidates`)."""
        self._turn(now, unix)
        if local != self._core.local:
            self._core.local = local
            self._core.ike_said(self._core.ike.set_inner(local))
            self._parts.directory.publish()
            self._look_near()
        return self._done()

    def set_other_ways(
        self, others: tuple[Source, ...], servers: tuple[Endpoint, ...], now: float, unix: int
    ) -> list[Command]:
        """Other networks that we could leave by, beside those that :meth:`set_local` tells of: our
        address in each, and its interface. Peers get proofs of them before we move (I20).
        ``servers``: STUN, which can be asked from there, too."""
        self._turn(now, unix)
        self._core.other_servers, others = servers, others[:MOST]
        if others != self._core.others:
            self._core.others = others
            addresses = [host for host, _ in others] or None
            words = "another network to leave by" if others else "no other network to leave by"
            self._core.explain(None, What.NETWORK, f"there is {words}", ours=addresses)
            self._parts.relaying.optimising.other_ways()
        return self._done()

    def look_outside(self, servers: tuple[Endpoint, ...], now: float, unix: int) -> list[Command]:
        """Ask these STUN servers where the outside sees us, as long as no router maps our port;
        ``OutsideSeen`` tells. Nobody: it need not be known any more."""
        self._turn(now, unix)
        self._parts.outside.ask(servers)
        return self._done()

    def noted(
        self, what: str, why: str, fields: tuple[tuple[str, str], ...], now: float, unix: int
    ) -> list[Command]:
        """Something that our driver learnt and decided itself, such as a router's answer: kept for
        :meth:`explain`, with ``what`` one of :class:`tunnel.journal.What`."""
        self._turn(now, unix)
        self._core.explain(None, What(what), why, **dict(fields))
        return self._done()

    def _look_near(self) -> None:
        for peer in self._core.peers:
            self._parts.following.nearer(peer)

    def _notice_move(self) -> None:
        self._parts.flows.announce()
        self._parts.path_mtus.restart()
        self._parts.keepalives.moved()
        self._parts.relaying.moved()
        for peer in self._core.peers:
            self._parts.attempts.forgive(peer)

    def set_endpoints(
        self, endpoints: tuple[Endpoint, ...], now: float, unix: int
    ) -> list[Command]:
        """Our outer endpoints as others reach us, at most one of each family: publishes them,
        and lets every peer notice at once if they changed."""
        self._turn(now, unix)
        if endpoints != self._core.endpoints:
            self._core.endpoints = endpoints
            self._core.explain(None, What.NETWORK, "others reach us there", at=endpoints)
            self._core.ike_said(self._core.ike.move(endpoints, now))
            self._parts.directory.publish()
            self._notice_move()
            self._look_near()
        return self._done()

    def activity(
        self,
        inbound: Mapping[int, SaCounters],
        outbound: Mapping[int, SaCounters],
        now: float,
        unix: int,
    ) -> list[Command]:
        """What the SAs have passed so far, by SPI; call it after :attr:`look_after` seconds, and
        before :meth:`status`. It feeds liveness checks (RFC 7296 §2.4) and keepalives."""
        self._turn(now, unix)
        moved = self._parts.flows.activity(inbound, outbound)
        self._parts.silence.activity()
        self.look_after = min(self._parts.silence.look_after, LOOK if moved else float("inf"))
        self._parts.path_mtus.activity()
        self._parts.relaying.activity()
        return self._done()

    def removed(self, spi: int, inbound: bool, counters: SaCounters | None) -> None:
        """``RemoveInbound`` or ``RemoveOutbound`` was carried out; ``counters`` are the last of
        that SA, so that a peer's totals are right to the packet over every rekey."""
        self._parts.flows.removed(spi, inbound, counters)

    # --- The zone ---------------------------------------------------------------------------

    def zone_message(self, wire: bytes, now: float, unix: int) -> list[Command]:
        """A DNS message came from the rendezvous."""
        self._turn(now, unix)
        if self._core.zone is not None:
            self._core.zone_said(self._core.zone.receive(wire, now, unix))
        return self._done()

    def zone_up(self, now: float, unix: int) -> list[Command]:
        """The transport to the rendezvous stands."""
        self._turn(now, unix)
        self._parts.directory.transport_up()
        self._parts.services.transport_up()
        return self._done()

    def zone_down(self, reason: str, now: float, unix: int) -> list[Command]:
        """The transport to the rendezvous is gone."""
        self._turn(now, unix)
        self._parts.directory.transport_down(reason)
        return self._done()

    def nearby(self, records: zone_types.HostRecords, now: float, unix: int) -> list[Command]:
        """A host of the account called out on the local network."""
        self._turn(now, unix)
        self._parts.directory.nearby(records)
        return self._done()

    # --- Certificates -----------------------------------------------------------------------

    def invited(self, until: int, now: float, unix: int) -> list[Command]:
        """``autotunnel invite`` made an invitation of this issuer, open until ``until`` (unix)."""
        self._turn(now, unix)
        self._parts.signing.invited(until)
        return self._done()

    def ledger_changed(self, ledger: Ledger, now: float, unix: int) -> list[Command]:
        """Another process wrote this issuer's ledger."""
        self._turn(now, unix)
        self._parts.signing.ledger_changed(ledger)
        return self._done()

    # --- Requests ---------------------------------------------------------------------------

    def reach(self, ticket: int, name: str, now: float, unix: int) -> list[Command]:
        """Make the tunnel to ``name``; ends in ``Reached`` or ``NotReached``."""
        self._turn(now, unix)
        self._parts.attempts.reach(ticket, name)
        return self._done()

    def ping(self, ticket: int, name: str, now: float, unix: int) -> list[Command]:
        """One round trip to ``name``, the tunnel made if need be; ends in ``Pong``."""
        self._turn(now, unix)
        self._parts.attempts.reach(ticket, name, ping=True)
        return self._done()

    def lookup(self, ticket: int, name: str, now: float, unix: int) -> list[Command]:
        """What the zone says of ``name`` now; ends in ``Found`` or ``NotReached``."""
        self._turn(now, unix)
        self._parts.directory.inquire(ticket, name)
        return self._done()

    # --- Services ---------------------------------------------------------------------------

    def advertise(self, ticket: int, service: Service, now: float, unix: int) -> list[Command]:
        """The owner offers a service to the account; ends in ``Advertised`` or ``NotReached``."""
        self._turn(now, unix)
        self._parts.services.advertise(ticket, service)
        return self._done()

    def withdraw_service(
        self, ticket: int, kind: str, name: str, now: float, unix: int
    ) -> list[Command]:
        """The owner takes a service back; ends in ``Advertised`` or ``NotReached``."""
        self._turn(now, unix)
        self._parts.services.withdraw(ticket, kind, name)
        return self._done()

    def browse(self, ticket: int, kind: str, now: float, unix: int) -> list[Command]:
        """The account's services of one type, or all; ends in ``Browsed`` or ``NotReached``."""
        self._turn(now, unix)
        self._parts.services.browse(ticket, kind)
        return self._done()

    def watch_services(self, kind: str, more: int, now: float, unix: int) -> list[Command]:
        """One more (1) or one fewer (-1) watches the services of a type, or all (``""``):
        ``ServicesStirred`` follows whenever the zone tells of a change."""
        self._turn(now, unix)
        self._parts.services.watch(kind, more)
        return self._done()

    def ask_zone(
        self, ticket: int, name: Name, rdtype: int, now: float, unix: int
    ) -> list[Command]:
        """What stands at a name of the zone; ends in ``RecordsSaid`` or ``NotReached``."""
        self._turn(now, unix)
        self._parts.services.ask(ticket, name, rdtype)
        return self._done()

    # --- Time -------------------------------------------------------------------------------

    def advance(self, now: float, unix: int) -> list[Command]:
        """Does what is due at ``now``."""
        self._turn(now, unix)
        core = self._core
        core.ike_said(core.ike.advance(now))
        if core.zone is not None:
            core.zone_said(core.zone.advance(now, unix))
        self._settle()
        for part in self._parts.timed:
            part.advance()
            self._settle()
        return self._done()

    def next_timer(self) -> float | None:
        """When :meth:`advance` should be called next."""
        if self._finished:
            return None
        core = self._core
        due = [core.ike.next_timer(), core.zone.next_timer() if core.zone else None]
        due += self._parts.farewell.timers()
        for part in self._parts.timed:
            due.extend(part.timers())
        return min((at for at in due if at is not None), default=None)

    # --- What it shows ----------------------------------------------------------------------

    def status(self, now: float) -> dict[str, Any]:
        """The ``certificate``, ``zone``, ``strangers``, ``home_agents``, ``home_agent``,
        ``mobility`` and ``peers`` parts of ``status --json``; ``server`` and ``transport`` of the
        zone are the driver's to fill in, as is what the engine of a home agent has relayed."""
        views = {view.name: view for view in self._core.ike.views()}
        peers = sorted(self._core.peers, key=lambda peer: peer.name)
        return {
            "certificate": self._parts.signing.status(),
            "zone": self._parts.directory.status(),
            "strangers": {
                "half_open": self._core.ike.half_open(),
                "counters": dict(sorted(self._core.ike.counters().items())),
            },
            **self._parts.relaying.status(),
            "peers": [peer_status(peer, views.get(peer.name), now) for peer in peers],
        }

    def explain(self, name: str, now: float) -> dict[str, Any] | None:
        """How the path to ``name`` (label or full name) was chosen, as ``explain --json`` prints
        it; ``None`` for somebody of whom we know nothing."""
        full = self._core.peers.full_name(name)
        view = next((one for one in self._core.ike.views() if one.name == full), None)
        return explanation(self._core, full, view, now)

    def services(self) -> list[dict[str, Any]]:
        """What this host advertises: each service, its ``state`` and ``reason``."""
        return self._parts.services.status()

    def name_of(self, host_id: IPv6Address) -> str | None:
        """The full name of the peer to which a host id belongs."""
        peer = self._core.peers.owner(host_id)
        return None if peer is None else peer.name

    def export_keys(self, name: str) -> WiresharkTables:
        """The keys of the SAs with ``name`` (label or full name) that stand now."""
        return self._core.ike.export_keys(self._core.peers.full_name(name))

    def spis(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Inbound and outbound SPIs of all SAs, whose counters :meth:`activity` wants."""
        children = [child for peer in self._core.peers for child in peer.children.values()]
        return (
            tuple(child.spi_in for child in children),
            tuple(child.spi_out for child in children),
        )

    @property
    def identity(self) -> Identity:
        """Who this host is."""
        return self._core.identity

    @property
    def published(self) -> bool:
        """Whether our records stand in the zone."""
        return self._parts.directory.published

    @property
    def zone_refusal(self) -> str | None:
        """Why the zone will never accept us as we are (wrong secret, clock skew), or ``None``."""
        return self._parts.directory.refusal

    # --- Inside -----------------------------------------------------------------------------

    def _turn(self, now: float, unix: int) -> None:
        self._core.now, self._core.unix = max(now, self._core.now), unix
        self._core.ike.wall_clock(unix)

    def _done(self) -> list[Command]:
        self._settle()
        if self._core.ending:
            self._parts.farewell.advance()
            self._settle()
        over = self._core.ending and self._parts.farewell.is_over(self._parts.directory.withdrawn)
        if over and not self._finished:
            self._finished = True
            for peer in self._core.peers:
                self._parts.flows.drop_all(peer)
            self._core.emit(Finished())
        return self._core.take()

    def _settle(self) -> None:
        while (answer := self._core.next_answer()) is not None:
            self._answers.handle(answer)
            self._parts.relaying.settle()
        self._parts.relaying.settle()
