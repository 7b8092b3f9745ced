"""Long-lived queries at the rendezvous (RFC 8764; B42-B47), as a pure machine.

::

    client                                  server
      │── Setup, id 0 ─────────────────────> │  nothing is kept
      │<─ Challenge: id, lease ───────────── │  the id is a MAC over who asked for what
      │── Setup, that id and lease ────────> │  it is ours: the query is established
      │<─ ACK + all answers ──────────────── │  what does not fit follows as events
      │<─ Event: records came, TTL -1 left ─ │  after 2, 4, 8 s without its echo: deleted
      │── the same option, QR set ─────────> │
      │── Refresh, at 80 % of the lease ───> │  lease 0 ends it

The caller has verified the signature of every request, and signs what is answered; events are
signed here, when they leave. All that happened to a question while an event was under way goes
into the next one, and one message is written for all clients that are told the same.
"""

from __future__ import annotations

import hmac
import struct
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Final, TypeVar

import dns.name

from discovery import answers, llq, message, rcodes, tsig
from discovery.alarms import Alarms, Rings
from discovery.content import CNAME, ZoneChange, ZoneContent
from discovery.llq import LlqOption
from discovery.llq_messages import News, events_of, opt_of, options_of, singly
from discovery.message import Question, Request, Writer
from discovery.store import RecordSet
from discovery.types import Endpoint, TsigKey
from discovery.ways import Tell, Way

TRANSMISSIONS: Final = (2.0, 4.0, 8.0)
"""Seconds to wait for the acknowledgement after each transmission of an event (RFC 8764 §6)."""

WINDOW: Final = 128  # seconds in which a repeated Setup gets the same id
_WINDOWS: Final = 256  # the id's first octet counts them
_ID_AT: Final = -12  # where the id of the last option of a message starts

_UNTYPED: Final = frozenset({0, message.TYPE_OPT, *range(128, 256)})  # no data: ANY, AXFR, TSIG, …


@dataclass(frozen=True, slots=True)
class LlqLimits:
    """How many long-lived queries: in all, per account, per source address, and of events (counted
    in changes of the zone) that one may lag behind. ``retry_after``: seconds after which one that
    was refused may ask again."""

    total: int = 100_000
    per_account: int = 20_000
    per_source: int = 2_000
    lag: int = 256
    retry_after: int = 300


DEFAULT_LIMITS: Final = LlqLimits()

_Key = TypeVar("_Key", bound=Hashable)


class _Watch:
    """One question that somebody asks long, with all who ask it."""

    __slots__ = ("askers", "last", "question", "zone")

    def __init__(self, question: Question, zone: ZoneContent) -> None:
        self.question = question
        self.zone = zone
        self.askers: dict[int, _Llq] = {}
        self.last: tuple[tuple[News, ...], tuple[bytes, ...]] = ((), ())

    def present(self) -> list[RecordSet]:
        """Return what stands at the question now."""
        node = self.zone.at(self.question.name)
        wanted = dict.fromkeys((self.question.rdtype, CNAME))
        return [node[rdtype] for rdtype in wanted if rdtype in node]

    def events(self, news: tuple[News, ...]) -> tuple[bytes, ...]:
        """Return the events that tell ``news``, without their ids; those who are told the same
        share them."""
        if self.last[0] is not news and self.last[0] != news:
            self.last = (news, tuple(events_of(self.question, news)))
        return self.last[1]


class _Llq(Rings):
    """One long-lived query of one client."""

    __slots__ = (
        "at",
        "expires",
        "id",
        "key",
        "message_id",
        "news",
        "retry_at",
        "sent",
        "telling",
        "waits",
        "watch",
        "way",
    )

    def __init__(self, identity: int, watch: _Watch, way: Way, key: TsigKey) -> None:
        super().__init__()
        self.id = identity
        self.watch = watch
        self.way = way
        self.key = key
        self.expires = 0.0
        self.news: tuple[News, ...] = ()  # what happened and is not being told yet
        self.telling: tuple[bytes, ...] = ()  # the events of what is being told,
        self.at = 0  # which of them is under way,
        self.sent = 0  # how often it was sent,
        self.message_id = -1  # under which message id
        self.retry_at = 0.0
        self.waits = False  # for its turn to send


class LlqServer:
    """All long-lived queries of one rendezvous. ``random`` gives octets; ``count`` is told of
    outcomes by name. ``now`` is monotonic seconds, ``unix`` the wall clock for signatures."""

    def __init__(
        self,
        random: Callable[[int], bytes],
        count: Callable[[str], None],
        limits: LlqLimits = DEFAULT_LIMITS,
    ) -> None:
        self._random = random
        self._count = count
        self._limits = limits
        self._secret = random(32)
        self._llqs: dict[int, _Llq] = {}
        self._watches: dict[tuple[dns.name.Name, int], _Watch] = {}
        self._types: dict[dns.name.Name, set[int]] = {}
        self._asked: dict[tuple[Way, dns.name.Name, int], _Llq] = {}
        self._awaited: dict[tuple[Endpoint, int], _Llq] = {}
        self._accounts: Counter[dns.name.Name] = Counter()
        self._sources: Counter[str] = Counter()
        self._held: Counter[Way] = Counter()
        self._ways: dict[Way, Way] = {}  # one object for all queries of a client
        self._streams: Counter[int] = Counter()
        self._alarms: Alarms[_Llq] = Alarms()
        self._ready: deque[_Llq] = deque()

    def __len__(self) -> int:
        return len(self._llqs)

    # --- Requests ---

    def answer(
        self, request: Request, zone: ZoneContent, way: Way, key: TsigKey, now: float
    ) -> bytes:
        """Answer a request that carries LLQ options and was signed with ``key``, the account's of
        ``zone``. Returns the message to sign."""
        options = options_of(request)
        replies: list[LlqOption] = []
        told: list[_Llq] = []
        for question, option in zip(request.questions, options, strict=True):
            reply, found = self._one(question, option, zone, way, key, now)
            self._count(f"llq.{_ERRORS.get(reply.error, 'other')}")
            replies.append(reply)
            told += [found] if found else []
        return self._acknowledge(request, replies, told, way, key)

    def _one(
        self,
        question: Question,
        option: LlqOption | None,
        zone: ZoneContent,
        way: Way,
        key: TsigKey,
        now: float,
    ) -> tuple[LlqOption, _Llq | None]:
        """Return the option that answers one, and the query whose answers belong to it."""
        if option is None:
            return LlqOption(llq.SETUP, llq.FORMAT_ERR), None
        if option.version != llq.VERSION:
            return LlqOption(option.opcode, llq.BAD_VERS), None
        if question.rdclass != message.IN or question.rdtype in _UNTYPED:
            return LlqOption(option.opcode, llq.FORMAT_ERR), None
        if option.opcode == llq.REFRESH:
            return self._refresh(question, option, way, now), None
        if option.opcode != llq.SETUP:
            error = llq.FORMAT_ERR if option.opcode == llq.EVENT else llq.UNKNOWN_ERR
            return LlqOption(option.opcode, error), None
        if not option.id:
            return self._challenge(question, option, zone, way, now), None
        return self._establish(question, option, zone, way, key, now)

    def _challenge(
        self, question: Question, option: LlqOption, zone: ZoneContent, way: Way, now: float
    ) -> LlqOption:
        if (way, question.name, question.rdtype) not in self._asked and self._is_full(zone, way):
            return self._full()
        lease = max(llq.MINIMUM_LEASE, min(option.lease, llq.MAXIMUM_LEASE))
        identity = self._token(question, zone, way, lease, int(now) // WINDOW)
        return LlqOption(llq.SETUP, id=identity, lease=lease)

    def _token(
        self, question: Question, zone: ZoneContent, way: Way, lease: int, window: int
    ) -> int:
        """Return the id that a client is challenged with: nobody else can know it, and we need
        not remember it."""
        bound = "\0".join(
            (way.transport, way.source[0], str(way.source[1]), str(way.connection))
        ).encode()
        fixed = struct.pack("!HIQ", question.rdtype, lease, window)
        names = question.name.to_digestable() + zone.origin.to_digestable()
        mac = hmac.digest(self._secret, fixed + names + bound, "sha256")
        return window % _WINDOWS << 56 | int.from_bytes(mac[:7]) or 1

    def _establish(
        self,
        question: Question,
        option: LlqOption,
        zone: ZoneContent,
        way: Way,
        key: TsigKey,
        now: float,
    ) -> tuple[LlqOption, _Llq | None]:
        known = self._find(question, option.id, way)
        if known is not None:  # our acknowledgement was lost
            remaining = max(1, int(known.expires - now))
            return LlqOption(llq.SETUP, id=known.id, lease=remaining), known
        age = (int(now) // WINDOW - (option.id >> 56)) % _WINDOWS
        issued = int(now) // WINDOW - age
        ours = self._token(question, zone, way, option.lease, issued) if issued >= 0 else 0
        if option.id != ours or age * WINDOW > option.lease + WINDOW:
            return LlqOption(llq.SETUP, llq.NO_SUCH_LLQ), None
        earlier = self._asked.get((way, question.name, question.rdtype))
        if earlier is not None:
            self._drop(earlier)  # the client began anew
        if self._is_full(zone, way):
            return self._full(), None
        made = self._add(option.id, question, zone, way, key)
        made.expires = now + option.lease
        self._alarms.set(made, made.expires)
        return LlqOption(llq.SETUP, id=made.id, lease=option.lease), made

    def _refresh(self, question: Question, option: LlqOption, way: Way, now: float) -> LlqOption:
        known = self._find(question, option.id, way)
        if known is None or known.expires <= now:
            return LlqOption(llq.REFRESH, llq.NO_SUCH_LLQ, option.id)
        if not option.lease:
            self._drop(known)
            return LlqOption(llq.REFRESH, id=option.id)
        lease = max(llq.MINIMUM_LEASE, min(option.lease, llq.MAXIMUM_LEASE))
        known.expires = now + lease
        self._alarms.set(known, known.expires)
        return LlqOption(llq.REFRESH, id=option.id, lease=lease)

    def _find(self, question: Question, identity: int, way: Way) -> _Llq | None:
        """Return the query with this id, if it is this client's and about this question."""
        known = self._llqs.get(identity)
        if known is None or known.watch.question != question:
            return None
        return known if known.way.source[0] == way.source[0] else None

    # --- The table ---

    def _is_full(self, zone: ZoneContent, way: Way) -> bool:
        limits = self._limits
        return (
            len(self._llqs) >= limits.total
            or self._accounts[zone.origin] >= limits.per_account
            or self._sources[way.source[0]] >= limits.per_source
        )

    def _full(self) -> LlqOption:
        return LlqOption(llq.SETUP, llq.SERV_FULL, lease=self._limits.retry_after)

    def _add(
        self, identity: int, question: Question, zone: ZoneContent, way: Way, key: TsigKey
    ) -> _Llq:
        place = (question.name, question.rdtype)
        watch = self._watches.get(place)
        if watch is None:
            watch = self._watches[place] = _Watch(question, zone)
            self._types.setdefault(question.name, set()).add(question.rdtype)
        way = self._ways.setdefault(way, way)
        made = _Llq(identity, watch, way, key)
        self._llqs[identity] = watch.askers[identity] = made
        self._asked[way, watch.question.name, watch.question.rdtype] = made
        self._accounts[zone.origin] += 1
        self._sources[way.source[0]] += 1
        self._held[way] += 1
        if way.connection:
            self._streams[way.connection] += 1
        return made

    def _drop(self, gone: _Llq) -> None:
        watch, question = gone.watch, gone.watch.question
        del self._llqs[gone.id], watch.askers[gone.id]
        del self._asked[gone.way, question.name, question.rdtype]
        self._awaited.pop((gone.way.source, gone.message_id), None)
        self._alarms.cancel(gone)
        gone.news = gone.telling = ()
        _less(self._accounts, watch.zone.origin)
        _less(self._sources, gone.way.source[0])
        if gone.way.connection:
            _less(self._streams, gone.way.connection)
        _less(self._held, gone.way)
        if gone.way not in self._held:
            del self._ways[gone.way]
        if not watch.askers:
            del self._watches[question.name, question.rdtype]
            types = self._types[question.name]
            types.discard(question.rdtype)
            if not types:
                del self._types[question.name]

    def holds(self, connection: int) -> bool:
        """Say whether a connection carries long-lived queries."""
        return connection in self._streams

    def gone(self, connection: int) -> None:
        """Forget the queries of a connection that has ended."""
        if connection in self._streams:
            for found in [a for a in self._llqs.values() if a.way.connection == connection]:
                self._drop(found)

    # --- Answers ---

    def _acknowledge(
        self,
        request: Request,
        replies: list[LlqOption],
        told: list[_Llq],
        way: Way,
        key: TsigKey,
    ) -> bytes:
        """Write options and answers. Over UDP, answers that do not fit follow as events, without
        delay (RFC 8764 §5.2.4)."""
        opt = opt_of(replies)
        limit = message.UDP_PAYLOAD if way.transport == "udp" else message.TCP_PAYLOAD
        out = Writer(limit - tsig.overhead(key) - len(opt))
        for question in request.questions:
            out.question(question)
        written: list[RecordSet] = []
        left_out = False
        for found in told:
            late: list[tuple[RecordSet, bool]] = []
            for record_set in found.watch.present():
                if not late and out.record_set(1, record_set):
                    written.append(record_set)
                    continue
                for record in singly(record_set):
                    if late or not out.record_set(1, record):
                        late.append((record, False))
            if late:
                left_out = True
                self._tell(found, tuple(late))
        if told and not left_out:
            for extra in answers.additional_to(told[0].watch.zone, written):
                out.record_set(3, extra)
        flags = message.response_flags(request.flags, rcodes.NOERROR, authoritative=True)
        return out.finish(request.identity, flags, opt)

    # --- Events ---

    def changed(self, change: ZoneChange) -> None:
        """Let all who asked know what a commit did."""
        news: dict[tuple[dns.name.Name, int], list[tuple[RecordSet, bool]]] = {}
        for sets, removed in ((change.removed, True), (change.added, False)):
            for record_set in sets:
                for place in self._concerned(record_set):
                    news.setdefault(place, []).append((record_set, removed))
        for place, found in news.items():
            told = tuple(found)
            for asker in list(self._watches[place].askers.values()):
                self._tell(asker, told)

    def _concerned(self, record_set: RecordSet) -> Iterable[tuple[dns.name.Name, int]]:
        types = self._types.get(record_set.name)
        if not types:
            return ()
        if record_set.rdtype == CNAME:
            return [(record_set.name, rdtype) for rdtype in types]
        return [(record_set.name, record_set.rdtype)] if record_set.rdtype in types else ()

    def _tell(self, asker: _Llq, news: News) -> None:
        if len(asker.news) >= self._limits.lag:
            self._count("llq.lagging")
            self._drop(asker)
            return
        asker.news = (*asker.news, news)
        self._turn(asker)

    def _turn(self, asker: _Llq) -> None:
        """Let a query that has something to tell wait for its turn, unless an event is under way:
        the acknowledgement will call."""
        if asker.message_id < 0 and not asker.waits and (asker.news or asker.telling):
            asker.waits = True
            self._ready.append(asker)

    @property
    def is_ready(self) -> bool:
        """Whether :meth:`take` has something."""
        return bool(self._ready)

    def take(self, limit: int, now: float, unix: int) -> list[Tell]:
        """Return at most ``limit`` events, signed now; they count as sent."""
        events = []
        for _ in range(min(limit, len(self._ready))):
            asker = self._ready.popleft()
            asker.waits = False
            if self._llqs.get(asker.id) is asker and asker.expires > now:
                events.append(self._send(asker, now, unix))
        return events

    def _send(self, asker: _Llq, now: float, unix: int) -> Tell:
        if not asker.telling:
            asker.telling, asker.at = asker.watch.events(asker.news), 0
            asker.news = ()
        if asker.message_id < 0:
            asker.message_id = self._message_id(asker)
            asker.sent = 0
        if asker.way.connection:  # the stream repeats by itself: wait once, as long as for all
            asker.sent = len(TRANSMISSIONS) - 1
            asker.retry_at = now + sum(TRANSMISSIONS)
        else:
            asker.retry_at = now + TRANSMISSIONS[asker.sent]
        asker.sent += 1
        self._alarms.set(asker, min(asker.retry_at, asker.expires))
        self._count("llq.event")
        event = asker.telling[asker.at]
        wire = asker.message_id.to_bytes(2) + event[2:_ID_AT] + asker.id.to_bytes(8) + event[-4:]
        return Tell(asker.way, tsig.sign(wire, asker.key, unix)[0])

    def _message_id(self, asker: _Llq) -> int:
        while True:
            identity = int.from_bytes(self._random(2))
            if (asker.way.source, identity) not in self._awaited:
                self._awaited[asker.way.source, identity] = asker
                return identity

    def acknowledged(self, wire: bytes, source: Endpoint) -> bool:
        """Take a response (QR set) as the acknowledgement of an event, if it is one."""
        asker = self._awaited.get((source, int.from_bytes(wire[:2])))
        if asker is None:
            return False
        if _ECHO + asker.id.to_bytes(8) not in wire:
            return False
        del self._awaited[source, asker.message_id]
        self._count("llq.acknowledged")
        asker.message_id = -1
        asker.at += 1
        if asker.at == len(asker.telling):
            asker.telling = ()
        self._turn(asker)
        return True

    # --- Time ---

    @property
    def next_alarm(self) -> float:
        """When :meth:`tick` is wanted next; infinite if never."""
        return self._alarms.next

    def tick(self, now: float) -> None:
        """Repeat events, give up clients that do not acknowledge them, end leases."""
        for asker in self._alarms.ringing(now):
            if asker.expires <= now:
                self._count("llq.expired")
                self._drop(asker)
            elif asker.message_id < 0 or asker.retry_at > now:
                under_way = asker.message_id >= 0
                at = min(asker.expires, asker.retry_at) if under_way else asker.expires
                self._alarms.set(asker, at)
            elif asker.sent >= len(TRANSMISSIONS):
                self._count("llq.unreachable")
                self._drop(asker)
            elif not asker.waits:
                asker.waits = True
                self._ready.append(asker)


# An echoed option up to its id. It is searched for and not parsed: ten thousand acknowledgements
# may come at once, and the 64 bits behind it are known to nobody but the client.
_ECHO: Final = llq.pack_options([LlqOption(llq.EVENT)])[:-12]

_ERRORS: Final = {
    llq.NO_ERROR: "granted",
    llq.SERV_FULL: "SERV-FULL",
    llq.FORMAT_ERR: "FORMAT-ERR",
    llq.NO_SUCH_LLQ: "NO-SUCH-LLQ",
    llq.BAD_VERS: "BAD-VERS",
    llq.UNKNOWN_ERR: "UNKNOWN-ERR",
}


def _less(counter: Counter[_Key], key: _Key) -> None:
    """Count one down, and keep no zeros."""
    counter[key] -= 1
    if not counter[key]:
        del counter[key]
