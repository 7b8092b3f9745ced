"""DNS Push at the rendezvous (RFC 8765 over RFC 8490), as a pure machine.

::

    connected ── signed SOA? _push.<domain> ──> introduced (decision 0042)
        │ first DSO request, answered NOERROR        │
        v                                            v
    established ── SUBSCRIBE ──> NOERROR, PUSH of what stands there ──> PUSH of every change
        │ silent, idle, or Retry Delay sent          │ UNSUBSCRIBE
        v                                            v
      ended                                       forgotten

Whatever a compliant client can never do is a *fatal error*: the connection is aborted, without a
word (RFC 8490 §5.3). All changes of one commit that concern a session go out together, and
sessions that are told the same share the octets.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, TypeAlias

import dns.name

from discovery import dso, push, rcodes
from discovery.alarms import NEVER, Alarms, Rings
from discovery.content import CNAME, ZoneChange, ZoneContent
from discovery.dso import DsoError, DsoMessage, Keepalive, RetryDelay, Tlv
from discovery.push import REMOVE_ALL, REMOVE_ONE, TYPE_ANY, Change, Subscribe
from discovery.store import RecordSet
from discovery.ways import End, Tell, Unasked, Way

SHORTEST_INACTIVITY_MS: Final = 15_000
LONGEST_INACTIVITY_MS: Final = 300_000
LONGEST_INTERVAL_MS: Final = 3_600_000  # RFC 8490 §6.5.2 recommends to grant 60 minutes

GRACE: Final = 5.0
"""Seconds that an idle client has at least to close, and any client after a Retry Delay."""

SPREAD_MS: Final = 10_000
"""Clients that are sent away together come back spread over this time (RFC 8490 §6.6.1)."""

_BLOCK: Final = 468  # octets to which padded responses are padded, RFC 8467 §4.1

_SERVER_ONLY: Final = frozenset({push.PUSH, dso.RETRY_DELAY})
_ONE_WAY: Final = frozenset({push.UNSUBSCRIBE, push.RECONFIRM})
_REQUESTS: Final = frozenset({dso.KEEPALIVE, push.SUBSCRIBE})


@dataclass(frozen=True, slots=True)
class PushLimits:
    """How many subscriptions: in all, per account, and on one session."""

    total: int = 100_000
    per_account: int = 20_000
    per_session: int = 2_000


DEFAULT_LIMITS: Final = PushLimits()

_Place: TypeAlias = tuple[dns.name.Name, int]
_Seen: TypeAlias = tuple[tuple[_Place, bool], ...]
"""Which changed sets a session sees, and whether it sees all types of the name."""


class _Session(Rings):
    """One TLS connection that was introduced or has spoken DSO."""

    __slots__ = (
        "active_at",
        "closing",
        "established",
        "heard_at",
        "inactivity",
        "interval",
        "places",
        "subscriptions",
        "way",
        "zone",
    )

    def __init__(self, way: Way, now: float) -> None:
        super().__init__()
        self.way = way
        self.zone: ZoneContent | None = None  # of the account that it was introduced to
        self.established = False
        self.closing = False
        self.inactivity = self.interval = dso.DEFAULT_TIMEOUT_MS / 1000
        self.heard_at = self.active_at = now
        self.subscriptions: dict[int, Subscribe] = {}
        self.places: set[tuple[dns.name.Name, int, int]] = set()

    def ends_at(self) -> float:
        """When the server's patience ends (RFC 8490 §6.4, §6.5)."""
        silent = self.heard_at + 2 * self.interval
        if self.subscriptions or not self.established:
            return silent if self.established else NEVER
        return min(silent, self.active_at + max(GRACE, 2 * self.inactivity))


class PushServer:
    """All sessions of one rendezvous. ``zone_of`` returns the content of the zone that a name
    belongs to. ``now`` is monotonic seconds."""

    def __init__(
        self,
        random: Callable[[int], bytes],
        count: Callable[[str], None],
        zone_of: Callable[[dns.name.Name], ZoneContent | None],
        limits: PushLimits = DEFAULT_LIMITS,
    ) -> None:
        self._random = random
        self._count = count
        self._zone_of = zone_of
        self._limits = limits
        self._sessions: dict[int, _Session] = {}
        self._aborted: set[int] = set()  # whose driver has not yet ended them
        self._interests: dict[dns.name.Name, dict[int, dict[_Session, None]]] = {}
        self._accounts: Counter[dns.name.Name] = Counter()
        self._total = 0
        self._alarms: Alarms[_Session] = Alarms()
        self._ready: deque[Unasked] = deque()

    def __len__(self) -> int:
        return self._total

    # --- Connections ---

    def introduced(self, way: Way, zone: ZoneContent, now: float) -> None:
        """Note that the account of ``zone`` has shown its key on this connection."""
        if way.transport == "tls" and way.connection:
            self._session(way, now).zone = zone

    def heard(self, connection: int, now: float) -> None:
        """Note that another message than DSO's came on a connection."""
        session = self._sessions.get(connection)
        if session is not None:
            session.heard_at = session.active_at = now

    def holds(self, connection: int) -> bool:
        """Say whether a connection is a DSO session: its own timeouts rule then."""
        session = self._sessions.get(connection)
        return session is not None and session.established

    def is_closing(self, connection: int) -> bool:
        """Say whether messages of a connection are to be ignored (RFC 8490 §6.6.1.1)."""
        session = self._sessions.get(connection)
        return connection in self._aborted or (session is not None and session.closing)

    def gone(self, connection: int) -> None:
        """Forget a connection that has ended."""
        self._clear(connection)
        self._aborted.discard(connection)

    def _clear(self, connection: int) -> None:
        session = self._sessions.pop(connection, None)
        if session is not None:
            for identity in list(session.subscriptions):
                self._forget(session, identity)
            self._alarms.cancel(session)

    def abort(self, connection: int, reason: str) -> None:
        """End a connection for a fatal error of its client."""
        self._count(f"dso.{reason}")
        self._ready.append(End(connection, abort=True))
        self._aborted.add(connection)
        self._clear(connection)

    def shut_down(self) -> None:
        """Send everybody away: a Retry Delay each, all different (RFC 8490 §6.6.1)."""
        for session in self._sessions.values():
            if session.established and not session.closing:
                session.closing = True
                delay = int.from_bytes(self._random(2)) * SPREAD_MS >> 16
                farewell = DsoMessage(0, (RetryDelay(delay).tlv(),)).pack()
                self._ready.append(Tell(session.way, farewell))

    def _session(self, way: Way, now: float) -> _Session:
        session = self._sessions.get(way.connection)
        if session is None:
            session = self._sessions[way.connection] = _Session(way, now)
        return session

    # --- Messages ---

    def message(self, wire: bytes, way: Way, now: float) -> list[bytes]:
        """Take a DSO message; return what answers it."""
        if self.is_closing(way.connection):
            return []
        session = self._session(way, now)
        identity = int.from_bytes(wire[:2])
        if wire[2] & 0x80:
            return self._fatal(session, "answer")  # we never ask
        try:
            said = DsoMessage.parse(wire)
            kind = said.tlvs[0].type if said.tlvs else None
            session.heard_at = now
            if kind != dso.KEEPALIVE:
                session.active_at = now
            if not identity:
                return self._unidirectional(session, said, wire)
            if kind in _SERVER_ONLY or kind in _ONE_WAY:
                return self._fatal(session, "misplaced")
            return self._request(session, said)
        except DsoError:
            if not identity:
                return self._fatal(session, "malformed")
            self._count("rcodes.FORMERR")
            return [self._response(DsoMessage(identity), rcodes.FORMERR)]

    def _fatal(self, session: _Session, reason: str) -> list[bytes]:
        self.abort(session.way.connection, reason)
        return []

    def _unidirectional(self, session: _Session, said: DsoMessage, wire: bytes) -> list[bytes]:
        kind = said.tlvs[0].type if said.tlvs else None
        if not session.established or kind not in _ONE_WAY:
            return self._fatal(session, "misplaced")
        if kind == push.UNSUBSCRIBE:
            self._forget(session, push.Unsubscribe.parse(said.tlvs[0].data).subscribe_id)
            self._count("push.unsubscribed")
        else:
            push.Reconfirm.parse(wire)  # we are the source: there is nobody else to ask
            self._count("push.reconfirm")
        return []

    def _request(self, session: _Session, said: DsoMessage) -> list[bytes]:
        primary = said.primary
        if primary is None:
            raise DsoError("a request without a TLV")
        if said.id in session.subscriptions:
            return self._fatal(session, "id in use")
        if primary.type not in _REQUESTS:
            self._count("rcodes.DSOTYPENI")
            return [self._response(said, rcodes.DSOTYPENI)]
        if primary.type == push.SUBSCRIBE:
            return self._subscribe(session, said, primary)
        asked = Keepalive.parse(primary.data)
        granted = Keepalive(
            max(SHORTEST_INACTIVITY_MS, min(asked.inactivity_ms, LONGEST_INACTIVITY_MS)),
            max(dso.MINIMUM_INTERVAL_MS, min(asked.interval_ms, LONGEST_INTERVAL_MS)),
        )
        session.inactivity = granted.inactivity_ms / 1000
        session.interval = granted.interval_ms / 1000
        self._count("dso.keepalive")
        self._establish(session)
        return [self._response(said, rcodes.NOERROR, granted.tlv())]

    def _establish(self, session: _Session) -> None:
        session.established = True
        self._alarms.set(session, session.ends_at())

    def _response(self, said: DsoMessage, rcode: int, *tlvs: Tlv) -> bytes:
        found = list(tlvs)
        if rcode != rcodes.NOERROR:
            found.append(RetryDelay(push.retry_delay_ms(rcode)).tlv())
        answer = DsoMessage(said.id, tuple(found), response=True, rcode=rcode)
        if said.additional(dso.PADDING) is None:
            return answer.pack()
        found.append(dso.padding_for(len(answer.pack()), _BLOCK))
        return DsoMessage(said.id, tuple(found), response=True, rcode=rcode).pack()

    # --- Subscriptions ---

    def _subscribe(self, session: _Session, said: DsoMessage, primary: Tlv) -> list[bytes]:
        wanted = Subscribe.parse(primary.data)
        if (wanted.name, wanted.rdtype, wanted.rdclass) in session.places:
            return self._fatal(session, "subscribed twice")
        zone = self._zone_of(wanted.name)
        rcode = self._verdict(session, wanted, zone)
        self._count(f"push.{_RCODES[rcode]}")
        if zone is None or rcode != rcodes.NOERROR:
            return [self._response(said, rcode)]
        session.subscriptions[said.id] = wanted
        session.places.add((wanted.name, wanted.rdtype, wanted.rdclass))
        types = self._interests.setdefault(wanted.name, {})
        types.setdefault(wanted.rdtype, {})[session] = None
        self._accounts[zone.origin] += 1
        self._total += 1
        self._establish(session)
        found = [
            change
            for content in zone.at(wanted.name).values()
            if wanted.rdtype in (content.rdtype, TYPE_ANY) or content.rdtype == CNAME
            for change in _changes(content, content.ttl)
        ]
        return [self._response(said, rcodes.NOERROR), *push.push_messages(found)]

    def _verdict(self, session: _Session, wanted: Subscribe, zone: ZoneContent | None) -> int:
        if zone is None or wanted.rdclass not in (push.CLASS_IN, push.CLASS_ANY):
            return rcodes.NOTAUTH
        if session.zone is not zone:
            return rcodes.REFUSED
        full = (
            self._total >= self._limits.total
            or self._accounts[zone.origin] >= self._limits.per_account
            or len(session.subscriptions) >= self._limits.per_session
        )
        return rcodes.SERVFAIL if full else rcodes.NOERROR

    def _forget(self, session: _Session, identity: int) -> None:
        """Forget a subscription; one that is not there is nothing (RFC 8765 §6.4.1)."""
        gone = session.subscriptions.pop(identity, None)
        if gone is None:
            return
        session.places.discard((gone.name, gone.rdtype, gone.rdclass))
        other = push.CLASS_ANY if gone.rdclass == push.CLASS_IN else push.CLASS_IN
        if (gone.name, gone.rdtype, other) not in session.places:
            types = self._interests[gone.name]
            del types[gone.rdtype][session]
            if not types[gone.rdtype]:
                del types[gone.rdtype]
            if not types:
                del self._interests[gone.name]
        assert session.zone is not None  # it could not have subscribed
        self._accounts[session.zone.origin] -= 1
        self._total -= 1
        self._alarms.set(session, session.ends_at())

    # --- Changes ---

    def changed(self, change: ZoneChange, now: float) -> None:
        """Push what a commit did to all who subscribed to it."""
        if not self._interests:
            return
        seen: dict[_Session, dict[_Place, bool]] = {}
        for content in (*change.removed, *change.added):
            place = (content.name, content.rdtype)
            for session, all_types in self._interested(content):
                places = seen.setdefault(session, {})
                places[place] = places.get(place, False) or all_types
        if not seen:
            return
        shared: dict[_Seen, list[bytes]] = {}
        for session, places in seen.items():
            told = tuple(places.items())
            if told not in shared:
                shared[told] = self._written(change, places)
            session.heard_at = session.active_at = now
            self._count("push.push")
            self._ready += [Tell(session.way, wire) for wire in shared[told]]

    def _interested(self, content: RecordSet) -> Iterable[tuple[_Session, bool]]:
        types = self._interests.get(content.name, {})
        for rdtype, sessions in types.items():
            if rdtype in (content.rdtype, TYPE_ANY) or content.rdtype == CNAME:
                for session in sessions:
                    yield session, rdtype == TYPE_ANY

    def _written(self, change: ZoneChange, places: dict[_Place, bool]) -> list[bytes]:
        """Return the messages for those who see ``places``, as short as they can be (§6.3.1)."""
        zone = self._zone_of(change.zone)
        changes: list[Change] = []
        emptied: set[dns.name.Name] = set()
        for content in change.removed:
            place = (content.name, content.rdtype)
            if place not in places or content.name in emptied:
                continue
            if places[place] and zone is not None and not zone.at(content.name):
                emptied.add(content.name)
                changes.append(Change(content.name, TYPE_ANY, push.CLASS_IN, REMOVE_ALL, None))
            elif zone is not None and zone.get(*place) is None:
                changes.append(
                    Change(content.name, content.rdtype, push.CLASS_IN, REMOVE_ALL, None)
                )
            else:
                changes += _changes(content, REMOVE_ONE)
        for content in change.added:
            if (content.name, content.rdtype) in places:
                changes += _changes(content, content.ttl)
        return push.push_messages(changes)

    # --- Time ---

    @property
    def is_ready(self) -> bool:
        """Whether :meth:`take` has something."""
        return bool(self._ready)

    def take(self, limit: int) -> list[Unasked]:
        """Return at most ``limit`` of what is to be sent or ended."""
        return [self._ready.popleft() for _ in range(min(limit, len(self._ready)))]

    @property
    def next_alarm(self) -> float:
        """When :meth:`tick` is wanted next; infinite if never."""
        return self._alarms.next

    def tick(self, now: float) -> None:
        """Abort sessions whose clients broke their timeouts."""
        for session in self._alarms.ringing(now):
            ends_at = session.ends_at()
            if ends_at <= now:
                self.abort(session.way.connection, "silent")
            elif ends_at < NEVER:
                self._alarms.set(session, ends_at)


_RCODES: Final = {
    rcodes.NOERROR: "subscribed",
    rcodes.SERVFAIL: "SERVFAIL",
    rcodes.REFUSED: "REFUSED",
    rcodes.NOTAUTH: "NOTAUTH",
}


def _changes(content: RecordSet, ttl: int) -> list[Change]:
    return [
        Change(content.name, content.rdtype, push.CLASS_IN, ttl, item.rdata)
        for item in content.items
    ]
