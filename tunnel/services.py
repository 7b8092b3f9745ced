"""What this host advertises to its account, and what it finds there (RFC 6763, decision 0046).

Only the owner's word puts a service into the zone, and it stands until the owner takes it back: the
list outlives the process. Before one is published, the zone is asked whether another host has that
name; the first who has it keeps it. What was withdrawn is remembered until the zone has let go of
it, however long the rendezvous is away.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import dns.name

from discovery import records, services
from discovery.services import MAX_SERVICES, ServiceError
from discovery.types import Changed, HostRecords, RecordsFound, Service, ServicesFound
from tunnel.commands import (
    Advertised,
    Browsed,
    Keep,
    NotReached,
    RecordsSaid,
    ServicesStirred,
)
from tunnel.core import Core

_PATIENCE: Final = 8.0  # seconds that an advertiser waits for the zone
_CHECK_AGAIN: Final = 60.0  # seconds until a name that is taken, or unknown, is looked at again
_NO_ACCOUNT: Final = "this host has no account, so there is no zone to advertise in"


@dataclass(slots=True)
class _Offer:
    """One service of ours. ``free``: nobody else has its name; ``new``: advertised just now, and
    given up at once if its name is taken."""

    service: Service
    free: bool = False
    published: bool = False
    new: bool = False
    reason: str | None = None
    check_at: float | None = None
    waiters: dict[int, float] = field(default_factory=dict)  # ticket: until when

    def as_json(self) -> dict[str, Any]:
        """For ``advertise --list``."""
        state = "published" if self.published else "waiting" if self.reason is None else "refused"
        return {**service_json(self.service), "state": state, "reason": self.reason}


class Services:
    """The services of one host. ``publish`` writes the host's records anew."""

    def __init__(
        self,
        core: Core,
        publish: Callable[[], None],
        offered: Iterable[Service] = (),
        withdrawn: Iterable[Service] = (),
    ) -> None:
        self._core = core
        self._publish = publish
        self._offers = [_Offer(service) for service in offered]
        self._withdrawn = {service: dict[int, float]() for service in withdrawn}
        self._asking: dict[tuple[dns.name.Name, int], list[int]] = {}
        self._browsing: dict[str, list[int]] = {}
        self._watched: Counter[str] = Counter()  # types, or "" for all, by how many who watch
        self._types: tuple[str, ...] = ()  # that were found last
        self._followed: set[dns.name.Name] = set()
        self._hand_over()

    # --- Life -------------------------------------------------------------------------------

    def start(self) -> None:
        """Asks whether the names of what was advertised before are still free."""
        for offer in self._offers:
            self._check(offer)

    def transport_up(self) -> None:
        """The rendezvous can be asked again."""
        for offer in self._offers:
            if not offer.free:
                self._check(offer)

    def advance(self) -> None:
        """Looks at names again, and lets nobody wait too long."""
        now = self._core.now
        for offer in self._offers:
            if offer.check_at is not None and offer.check_at <= now:
                self._check(offer)
        for waiters in self._waiting():
            for ticket in [ticket for ticket, until in waiters.items() if until <= now]:
                del waiters[ticket]
                self._core.emit(Advertised(ticket, done=False))

    def timers(self) -> list[float]:
        """When something is due."""
        checks = [offer.check_at for offer in self._offers if offer.check_at is not None]
        return checks + [until for waiters in self._waiting() for until in waiters.values()]

    def status(self) -> list[dict[str, Any]]:
        """What is advertised, for ``advertise --list``."""
        return [offer.as_json() for offer in self._offers]

    def _waiting(self) -> list[dict[int, float]]:
        return [*(offer.waiters for offer in self._offers), *self._withdrawn.values()]

    # --- The owner's word -------------------------------------------------------------------

    def advertise(self, ticket: int, service: Service) -> None:
        """Publish ``service``, in place of one of the same type and name; ends in ``Advertised``
        or ``NotReached``."""
        core = self._core
        if core.zone is None or core.identity.domain is None:
            core.emit(NotReached(ticket, _NO_ACCOUNT))
            return
        try:
            services.instance_name(service, core.identity.domain)
        except ServiceError as problem:
            core.emit(NotReached(ticket, str(problem)))
            return
        old = self._find(service.type, service.name)  # DNS names know no case
        if old is None and len(self._offers) >= MAX_SERVICES:
            reason = f"this host advertises {MAX_SERVICES} services already; withdraw one"
            core.emit(NotReached(ticket, reason))
            return
        offer = _Offer(service, new=old is None, waiters={ticket: core.now + _PATIENCE})
        if old is not None:
            offer.free = old.free
            self._offers.remove(old)
            self._answer(old.waiters, done=True)
        self._withdrawn.pop(service, None)
        self._offers.append(offer)
        self._keep()
        if offer.free:
            self._changed()
        else:
            self._check(offer)

    def withdraw(self, ticket: int, kind: str, name: str) -> None:
        """Take a service back; ends in ``Advertised`` or ``NotReached``."""
        offer = self._find(kind, name)
        if offer is None:
            reason = f"this host does not advertise {name!r} ({kind}); see `autotunnel advertise`"
            self._core.emit(NotReached(ticket, reason))
            return
        self._offers.remove(offer)
        self._answer(offer.waiters, done=False)
        while len(self._withdrawn) >= MAX_SERVICES:  # the lease takes the oldest away
            self._answer(self._withdrawn.pop(next(iter(self._withdrawn))), done=False)
        self._withdrawn[offer.service] = {ticket: self._core.now + _PATIENCE}
        self._keep()
        self._changed()

    def _find(self, kind: str, name: str) -> _Offer | None:
        for offer in self._offers:
            same_type = offer.service.type == kind.lower()
            if same_type and offer.service.name.casefold() == name.casefold():
                return offer
        return None

    # --- Into the zone ----------------------------------------------------------------------

    def _check(self, offer: _Offer) -> None:
        """Asks whose name it is."""
        core = self._core
        if core.zone is None or core.identity.domain is None or core.ending:
            return
        offer.check_at = core.now + _CHECK_AGAIN
        name = services.instance_name(offer.service, core.identity.domain)
        core.zone_said(core.zone.ask(name, records.SRV, core.now, core.unix))

    def _checked(self, offer: _Offer, found: RecordsFound) -> None:
        core = self._core
        assert core.identity.domain is not None
        if offer.free or found.reason:
            return  # nothing learnt; it is asked again
        place = services.place_in(found.answer, core.identity.domain)
        if place is None or place[0] == core.identity.label:
            offer.free, offer.new, offer.reason, offer.check_at = True, False, None, None
            self._changed()
            return
        offer.reason = (
            f"{place[0]} advertises {offer.service.name!r} ({offer.service.type}) already; "
            "choose another --name"
        )
        waiters, offer.waiters = offer.waiters, {}
        for ticket in waiters:
            core.emit(NotReached(ticket, offer.reason))
        if offer.new:
            self._offers.remove(offer)
            self._keep()
        else:
            core.log("warning", offer.reason)

    def published(self, stands: HostRecords | None) -> None:
        """These records of ours stand in the zone now."""
        if stands is None:
            return
        for offer in self._offers:
            if offer.service in stands.services:
                offer.published = True
                self._answer(offer.waiters, done=True)
        gone = [service for service in self._withdrawn if service in stands.withdrawn]
        for service in gone:
            self._answer(self._withdrawn.pop(service), done=True)
        if gone:
            self._hand_over()
            self._keep()

    def _answer(self, waiters: dict[int, float], *, done: bool) -> None:
        for ticket in waiters:
            self._core.emit(Advertised(ticket, done))
        waiters.clear()

    def _changed(self) -> None:
        self._hand_over()
        self._publish()

    def _hand_over(self) -> None:
        self._core.services = tuple(offer.service for offer in self._offers if offer.free)
        self._core.withdrawn = tuple(self._withdrawn)

    def _keep(self) -> None:
        offered = [offer.service for offer in self._offers]
        self._core.emit(Keep("services", to_json(offered, self._withdrawn)))

    # --- What others offer ------------------------------------------------------------------

    def browse(self, ticket: int, kind: str) -> None:
        """All services of a type, or all; ends in ``Browsed`` or ``NotReached``."""
        core = self._core
        if core.zone is None:
            core.emit(NotReached(ticket, _NO_ACCOUNT))
            return
        self._browsing.setdefault(kind, []).append(ticket)
        core.zone_said(core.zone.browse(kind, core.now, core.unix))

    def ask(self, ticket: int, name: dns.name.Name, rdtype: int) -> None:
        """The zone's records at a name; ends in ``RecordsSaid``, or ``NotReached`` without zone."""
        core = self._core
        if core.zone is None:
            core.emit(NotReached(ticket, _NO_ACCOUNT))
            return
        self._asking.setdefault((name, rdtype), []).append(ticket)
        core.zone_said(core.zone.ask(name, rdtype, core.now, core.unix))

    def watch(self, kind: str, more: int) -> None:
        """One more (1) or one fewer (-1) wants to hear of changes among the services of a type, or
        of all; each is told by ``ServicesStirred``."""
        self._watched[kind] += more
        self._watched += Counter()  # without those that nobody watches any more
        self._follow()

    def _follow(self) -> None:
        """Subscribes to the lists that are watched, and to no others."""
        core = self._core
        domain = core.identity.domain
        if core.zone is None or domain is None or core.ending:
            return
        kinds = set(self._watched) | (set(self._types) if self._watched[""] else set())
        wanted = {services.type_name(kind, domain) for kind in kinds if kind}
        wanted |= {services.types_name(domain)} if self._watched[""] else set()
        for name in sorted(wanted - self._followed):
            core.zone_said(core.zone.subscribe(name, records.PTR, core.now, core.unix))
        for name in sorted(self._followed - wanted):
            core.zone_said(core.zone.unsubscribe(name, records.PTR, core.now, core.unix))
        self._followed = wanted

    def handle(self, answer: Changed | RecordsFound | ServicesFound) -> None:
        """Takes what the zone client found, and what it was told of changes."""
        core = self._core
        if isinstance(answer, Changed):
            if answer.rdtype == records.PTR and answer.name in self._followed:
                core.emit(ServicesStirred())
            return
        if isinstance(answer, ServicesFound):
            if not answer.type and not answer.reason:
                self._types = tuple(sorted({one.service.type for one in answer.services}))[:64]
                self._follow()
            for ticket in self._browsing.pop(answer.type, ()):
                failed = NotReached(ticket, answer.reason)
                core.emit(failed if answer.reason else Browsed(ticket, answer.services))
            return
        for ticket in self._asking.pop((answer.name, answer.rdtype), ()):
            core.emit(RecordsSaid(ticket, answer))
        if answer.rdtype == records.SRV and core.identity.domain is not None:
            for offer in list(self._offers):
                if services.instance_name(offer.service, core.identity.domain) == answer.name:
                    self._checked(offer, answer)


# --- The list on disk -----------------------------------------------------------------------


def service_json(service: Service) -> dict[str, Any]:
    """A service as JSON: ``type``, ``name``, ``port``, ``texts``."""
    texts = list(service.texts)
    return {"type": service.type, "name": service.name, "port": service.port, "texts": texts}


def service_from(entry: object) -> Service:
    """The service that :func:`service_json` wrote. Raises :exc:`ServiceError`."""
    if not isinstance(entry, dict) or not isinstance(entry.get("texts", []), list):
        raise ServiceError("a service is an object with type, name, port and texts")
    texts = entry.get("texts", [])
    return services.checked_service(entry.get("type"), entry.get("port"), entry.get("name"), texts)


def to_json(offered: Iterable[Service], withdrawn: Iterable[Service]) -> bytes:
    """The list of a host's services as it is kept on disk."""
    kept = {
        "services": [service_json(service) for service in offered],
        "withdrawn": [service_json(service) for service in withdrawn],
    }
    return json.dumps(kept, indent=1, ensure_ascii=False).encode() + b"\n"


def from_json(octets: bytes) -> tuple[tuple[Service, ...], tuple[Service, ...]]:
    """What :func:`to_json` wrote: offered and withdrawn services. Raises :exc:`ServiceError`."""
    try:
        kept = json.loads(octets)
    except (ValueError, RecursionError):
        raise ServiceError("it is not JSON") from None
    if not isinstance(kept, dict):
        raise ServiceError("it is not an object")
    lists = []
    for key in ("services", "withdrawn"):
        entries = kept.get(key, [])
        if not isinstance(entries, list) or len(entries) > MAX_SERVICES:
            raise ServiceError(f'"{key}" is not a list of at most {MAX_SERVICES} services')
        lists.append(tuple(dict.fromkeys(service_from(entry) for entry in entries)))
    return lists[0], lists[1]
