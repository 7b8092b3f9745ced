"""Keeping the peer table true to the zone: our records out, the others' records in (B6, B48)."""

from __future__ import annotations

from collections import deque
from ipaddress import IPv6Address
from typing import Any

from discovery import types as zone_types
from discovery.types import HostRecords
from tunnel.asks import Asks
from tunnel.attempts import Attempts
from tunnel.calls import BEHIND
from tunnel.candidates import about_lan, lan_of
from tunnel.commands import AddRoute, ClearFlow, Found, Keep, NotReached, RemoveRoute
from tunnel.core import Core
from tunnel.following import Following
from tunnel.home_agents import OFFER
from tunnel.journal import What
from tunnel.peers import Peer
from tunnel.remembered import Remembered
from tunnel.status import endpoint_text

_INQUIRIES = 256  # lookups of the person under way
_PLACES = 8  # endpoints of one host, where its neighbours told some
_REFUSALS = ("secret", "clock")
_LOOKUPS = 16  # of a list of hosts at once, so that those on demand find room (B42: no storms)


class Directory:
    """What the zone says, and what we say there."""

    def __init__(
        self,
        core: Core,
        attempts: Attempts,
        asks: Asks,
        following: Following,
        remembered: tuple[HostRecords, ...] = (),
    ) -> None:
        self._core = core
        self._remembered = Remembered(core, remembered)
        self._attempts = attempts
        self._asks = asks
        self._following = following
        self._inquiries: dict[int, tuple[str, float]] = {}  # ticket: label, end
        self._to_look: deque[str] = deque()  # listed labels that wait for their lookup
        self._looking: set[str] = set()
        self._labels: set[str] = set()  # of the hosts of the account, as last listed
        self.published = False
        self._lease: int | None = None
        self._standing: HostRecords | None = None  # ours, as the zone last took them
        self._problem: str | None = None
        self.refusal: str | None = None
        self.withdrawn = core.zone is None

    # --- Ours -------------------------------------------------------------------------------

    def start(self) -> None:
        """Routes to the static peers; the list of hosts is told from now on."""
        core = self._core
        for peer in core.peers:
            if peer.host_id is not None:
                core.emit(AddRoute(peer.host_id))
        if core.zone is not None:
            self._recall()
            self.publish()
            core.zone_said(core.zone.watch_hosts(core.now, core.unix))

    def _recall(self) -> None:
        """The hosts as the zone last told an earlier run of us; its next word replaces them."""
        for records in self._remembered.hosts:
            peer = self._core.peers.ensure(records.label)
            if peer is None or peer.host_id is not None:
                continue
            self._take(peer, records)
            if self._new_host_id(peer, records.host_id):
                peer.records_at = float("-inf")  # known, and never fresh
                self._explain(peer, "an earlier run of ours was told this of it")

    def _take(self, peer: Peer, records: HostRecords) -> None:
        peer.endpoints, peer.target, peer.info = records.endpoints, records.target, records.info
        peer.home_agents = records.home_agents
        self._core.stirred.add(peer.name)

    def publish(self) -> None:
        """Puts our records into the zone, once we have an endpoint (B36)."""
        core, identity = self._core, self._core.identity
        if core.zone is None or not core.endpoints or core.ending or identity.label is None:
            return
        records = HostRecords(
            label=identity.label,
            host_id=identity.host_id,
            target=identity.target,
            endpoints=core.endpoints,
            info=(*identity.info, *_about_relays(core), *_about_nat(core), *about_lan(core)),
            services=core.services,
            withdrawn=core.withdrawn,
            home_agents=core.home_agents,
        )
        core.zone_said(core.zone.publish(records, core.now, core.unix))

    def withdraw(self) -> None:
        """Takes our records away."""
        core = self._core
        self._keep()
        if core.zone is not None:
            core.zone_said(core.zone.withdraw(core.now, core.unix))

    def transport_up(self) -> None:
        """The rendezvous can be asked again."""
        core = self._core
        if core.zone is None:
            return
        core.explain(None, What.ZONE, "the rendezvous can be asked")
        core.zone_said(core.zone.transport_up(core.now, core.unix))
        for peer in core.peers:
            if not peer.static:
                self._attempts.forgive(peer)

    def transport_down(self, reason: str) -> None:
        """The rendezvous cannot be asked for now."""
        core = self._core
        if core.zone is not None:
            core.explain(None, What.ZONE, f"the rendezvous cannot be asked: {reason}")
            core.zone_said(core.zone.transport_down(reason, core.now, core.unix))
        for peer in core.peers:
            if peer.attempt is not None and peer.attempt.looking and peer.endpoints:
                reason = "the rendezvous cannot be asked"
                self._attempts.lookup_failed(peer, reason, no_such_host=False)

    # --- Theirs -----------------------------------------------------------------------------

    def handle(self, answer: object) -> None:
        """Takes what the zone client says."""
        match answer:
            case zone_types.HostsListed(labels):
                self._listed(labels)
            case zone_types.HostFound(records):
                self._found(records)
            case zone_types.HostNotFound(label, reason, definite):
                self._not_found(label, reason, definite)
            case zone_types.Published(lease, records):
                self._published(lease, records)
            case zone_types.Withdrawn():
                self.withdrawn, self.published = True, False
            case zone_types.ZoneProblem(reason, kind):
                self._problem = reason
                if kind in _REFUSALS:
                    self.refusal = reason
                self._core.log("warning", reason)
            case zone_types.ZoneFine():
                self._problem = self.refusal = None
                self._core.log("info", "the zone can be used again")

    def _published(self, lease: int | None, records: HostRecords | None) -> None:
        self.published, self._lease = True, lease
        if records is not None and records != self._standing:
            self._standing = records
            self._core.log("info", "the zone has this host's records", at=_where(records))
            self._core.explain(None, What.ZONE, "the zone has our records", at=records.endpoints)

    def _listed(self, labels: tuple[str, ...]) -> None:
        core = self._core
        self._labels = {label.lower() for label in labels}
        for peer in core.peers:
            if peer.label is not None and peer.label not in self._labels:
                self._remembered.gone(peer.label)
                self._vanished(peer)
        self._watch()
        watched = core.zone.watched if core.zone is not None else frozenset()
        for label in sorted(self._labels - watched):
            known = core.peers.ensure(label)
            queued = label in self._looking or label in self._to_look
            if known is not None and known.records_at is None and not queued:
                self._to_look.append(label)
        self._look_on()

    def _watch(self) -> None:
        """Hears of the hosts of the account: of those in use first, of the others as far as there
        is room (B6). Those without a place are looked up when they are wanted."""
        core = self._core
        if core.zone is None or core.ending:
            return
        wanted = [
            label
            for label in sorted(self._labels, key=lambda label: (not self._in_use(label), label))
            if core.peers.ensure(label) is not None
        ][: core.settings.watched]
        for label in sorted(core.zone.watched.difference(wanted)):
            core.zone_said(core.zone.unwatch(label, core.now, core.unix))
        for label in wanted:
            if label not in core.zone.watched:
                core.zone_said(core.zone.watch(label, core.now, core.unix))

    def in_use(self, peer: Peer) -> None:
        """There is a tunnel to ``peer`` now: it gets a place among those that we hear of."""
        zone = self._core.zone
        if zone is not None and peer.label in self._labels and peer.label not in zone.watched:
            self._watch()

    def _in_use(self, label: str) -> bool:
        peer = self._core.peers.labelled(label)
        return peer is not None and bool(peer.children or peer.attempt or peer.waiters)

    def _look_on(self, done: str | None = None) -> None:
        """Lookups of the list, a few at a time."""
        if done is not None:
            self._looking.discard(done.lower())
        while self._to_look and len(self._looking) < _LOOKUPS:
            label = self._to_look.popleft()
            self._looking.add(label)
            self._core.look_up(label)

    def nearby(self, records: HostRecords) -> None:
        """A host of the account is on our local network. While the zone can be asked, its word
        counts; without it this is all there is."""
        core = self._core
        if core.zone is None or not core.zone.unreachable or core.ending:
            return
        peer = core.peers.ensure(records.label)
        if peer is None:
            return
        fresh = tuple(dict.fromkeys((*records.endpoints, *peer.endpoints)))[:_PLACES]
        if peer.host_id == records.host_id and peer.endpoints == fresh:
            return
        core.log("info", f"{peer.name} is on the local network", at=_where(records))
        peer.endpoints, peer.target = fresh, records.target
        self._explain(peer, "it called out on the local network")
        known = peer.host_id == records.host_id or self._new_host_id(peer, records.host_id)
        if known:
            peer.records_at = core.now if peer.records_at is None else peer.records_at
            self._attempts.forgive(peer)
            self._following.told(peer)
            self._asks.records_came(peer)
            self._attempts.records_came(peer)

    def _found(self, records: HostRecords) -> None:
        core, peer = self._core, self._core.peers.ensure(records.label)
        self._look_on(records.label)
        self._tell_inquirers(records.label, records)
        if peer is None or core.ending:
            return
        self._remembered.found(records)
        before, inside = peer.endpoints, lan_of(peer)
        changed = before != records.endpoints
        self._take(peer, records)
        peer.records_at = core.now
        if peer.host_id != records.host_id:
            changed = self._new_host_id(peer, records.host_id) or changed
        if changed:
            core.log("info", f"the zone says where {peer.name} is", at=_where(records))
            self._explain(peer, "the zone says where it is")
            self._attempts.forgive(peer)
            self._following.told(peer, before)
        elif lan_of(peer) != inside:
            self._following.nearer(peer)
        self._asks.records_came(peer)
        self._attempts.records_came(peer)

    def _explain(self, peer: Peer, why: str) -> None:
        facts = {"host_id": peer.host_id, "info": peer.info or None}
        self._core.explain(peer, What.RECORDS, why, at=peer.endpoints, **facts)

    def _new_host_id(self, peer: Peer, host_id: IPv6Address) -> bool:
        """``peer`` has restarted its machine (B54), or is new; false if it may not have that id."""
        core, old = self._core, peer.host_id
        refusal = core.peers.give(peer, host_id)
        if refusal is not None:
            if peer.reason != refusal:
                core.log("warning", refusal)
            peer.reason = refusal
            return False
        if old is not None:
            core.log("info", f"{peer.name} has a new host id", old=old, new=host_id)
            core.ownerless.add(old)
            core.emit(ClearFlow(old), RemoveRoute(old))
            core.refuse_packets(core.queues.take(peer.name))
            if peer.current is not None and peer.current.peer_id == old:
                # Bound to the old host id, so nobody has the other end any more.
                core.unpoint(peer)
                core.ike_said(core.ike.close(peer.name, core.now))
        core.emit(AddRoute(host_id))
        return True

    def _not_found(self, label: str, reason: str, definite: bool) -> None:
        peer = self._core.peers.labelled(label)
        self._look_on(label)
        self._tell_inquirers(label, None, reason, definite)
        self._asks.lookup_failed(label, reason)
        if definite:
            self._remembered.gone(label)
        if peer is None:
            return
        self._core.explain(peer, What.RECORDS, reason)
        self._attempts.lookup_failed(peer, reason, no_such_host=definite)
        if definite or peer.host_id is None:
            self._vanished(peer)  # if it does exist, the next list brings it back

    def _vanished(self, peer: Peer) -> None:
        """The zone does not know ``peer`` any more; its tunnel, if there is one, may go on."""
        peer.records_at = None
        if peer.attempt is None and not peer.children and not peer.waiters:
            self.forget(peer)

    def tidy(self, peer: Peer) -> None:
        """The last SA with ``peer`` is gone: so is the peer, if the zone knew it no more."""
        if not peer.static and peer.records_at is None and peer.attempt is None:
            self.forget(peer)

    def forget(self, peer: Peer) -> None:
        """Removes ``peer`` and its route."""
        core = self._core
        core.refuse_packets(core.queues.take(peer.name))
        core.peers.remove(peer)
        if peer.host_id is not None:
            core.ownerless.add(peer.host_id)
            core.emit(RemoveRoute(peer.host_id))

    # --- Questions of the person ------------------------------------------------------------

    def inquire(self, ticket: int, name: str) -> None:
        """What does the zone say of ``name`` now?"""
        core = self._core
        full = core.peers.full_name(name)
        peer, label = core.peers.named(full), core.peers.label_of(full)
        if peer is not None and peer.static and peer.host_id is not None:
            core.emit(Found(ticket, peer.name, peer.host_id, "", peer.endpoints, ()))
        elif label is None or core.zone is None:
            core.emit(NotReached(ticket, f"{full} is not a name of this account", True))
        elif len(self._inquiries) >= _INQUIRIES:
            core.emit(NotReached(ticket, "too many lookups at once; try again later"))
        else:
            self._inquiries[ticket] = label, core.now + core.settings.wait
            core.look_up(label)

    def _tell_inquirers(
        self, label: str, records: HostRecords | None, reason: str = "", definite: bool = False
    ) -> None:
        core, label = self._core, label.lower()
        for ticket in [t for t, (asked, _) in self._inquiries.items() if asked == label]:
            del self._inquiries[ticket]
            if records is None:
                core.emit(NotReached(ticket, reason, definite))
                continue
            name = f"{label}.{core.identity.domain}"
            core.emit(
                Found(
                    ticket, name, records.host_id, records.target, records.endpoints, records.info
                )
            )

    # --- Time and status --------------------------------------------------------------------

    def advance(self) -> None:
        """Ends the questions that waited too long, and keeps what was learnt."""
        core = self._core
        self._keep()
        for ticket, (_, until) in list(self._inquiries.items()):
            if until <= core.now:
                del self._inquiries[ticket]
                core.emit(NotReached(ticket, "the rendezvous did not answer in time"))

    def _keep(self) -> None:
        kept = self._remembered.write()
        if kept is not None:
            self._core.emit(Keep("records", kept))

    def timers(self) -> list[float]:
        """When something is due."""
        return [until for _, until in self._inquiries.values()] + self._remembered.timers()

    def status(self) -> dict[str, Any]:
        """The ``zone`` part of ``status --json``."""
        return {
            "server": None,
            "transport": None,
            "lease_s": self._lease,
            "llq": None if self._core.zone is None else self._core.zone.step,
            "published": self.published,
            "problem": self._problem,
        }


def _where(records: HostRecords) -> str:
    return ", ".join(filter(None, map(endpoint_text, records.endpoints)))


def _about_relays(core: Core) -> tuple[str, ...]:
    """What the others must know to be relayed by us."""
    return (OFFER,) if core.settings.home_agent is not None else ()


def _about_nat(core: Core) -> tuple[str, ...]:
    """What peers must know to meet us: how our NAT maps, where no router opens it for us."""
    return (f"{BEHIND}{core.mapping}",) if core.mapping else ()
