"""Being told of changes by long-lived queries (RFC 8764): the client's side (B43-B47).

Each question has its own::

    InitialRequest ── challenge ──> SecondaryRequest ── ACK + Answers ──> Established
       │ 3 requests unanswered          │                │ refresh at 80, 90, 95 % of the lease;
       v                                v                │ NO-SUCH-LLQ: at once anew
     Poll  <── SERV-FULL, STATIC, no LLQ option ─────────┘ no answer: the server is down

Requests are signed and their answers proven like any question's (B58). An event comes unasked: one
that the account's key signed, or that came over a proven connection, is believed; any other is a
hint to ask, since its 64-bit id alone could have been seen on its way. Both are acknowledged, so
that they are not repeated; nothing is sent for an id that is not ours.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from discovery import exchange, llq
from discovery.exchange import Rejection, Request, Response, fresh_identity
from discovery.llq import LlqOption
from discovery.lookup import Question
from discovery.rcodes import NOERROR
from discovery.standing import Standing
from discovery.types import ClientCommand, SendZone, TsigKey

LEASE: Final = llq.MAXIMUM_LEASE  # asked for, seconds
RETRANSMIT: Final = (2.0, 4.0, 8.0)  # seconds after each request, RFC 8764 §5.1
RETRY_DOWN: Final = 3600.0  # seconds until a server that was silent is tried again, §5.1
POLL_ONLY: Final = 900.0  # seconds until one without long-lived queries is tried again, §5.2.1
REFRESH_AT: Final = (0.80, 0.90, 0.95)  # of the lease, §5.3
_FAULTS_AT_MOST: Final = 3600.0
_EVENTS_KEPT: Final = 8  # IDs of events that were heard, so that a repeated one changes nothing


class State(StrEnum):
    """Where one long-lived query is (RFC 8764 §5)."""

    INITIAL = "initial"  # the setup request is under way
    SECONDARY = "secondary"  # the challenge was answered
    ESTABLISHED = "established"
    WAITING = "waiting"  # not to be asked before ``again_at``


@dataclass(slots=True)
class _Query:
    question: Question
    state: State = State.INITIAL
    id: int = 0
    lease: int = LEASE
    granted_at: float = 0.0
    request: Request | None = None
    sent: int = 0  # requests of this step, or refreshes of this lease
    due: float = float("inf")  # when the next of them is
    again_at: float = 0.0
    heard: deque[int] = field(default_factory=lambda: deque(maxlen=_EVENTS_KEPT))


class LongLivedQueries:
    """All long-lived queries of this host. Learns into ``standing``."""

    def __init__(
        self,
        standing: Standing,
        key: TsigKey,
        random: Callable[[int], bytes],
        taken: Callable[[int], bool],
        *,
        reliable: bool,
        proven: bool,
    ) -> None:
        self._standing = standing
        self._key = key
        self._random = random
        self._taken = taken
        self._reliable = reliable
        self._proven = proven  # the connection itself proves who speaks
        self._queries: dict[Question, _Query] = {}
        self._running = False
        self._barred_until = float("-inf")
        self.doubtful: set[Question] = set()
        """Questions of which something may have changed that nobody has proven: poll them."""

    @property
    def lease(self) -> int | None:
        """The shortest lease that is running, in seconds."""
        return min((q.lease for q in self._queries.values() if self._stands(q)), default=None)

    @staticmethod
    def _stands(query: _Query) -> bool:
        return query.state is State.ESTABLISHED

    @property
    def running(self) -> bool:
        """Whether queries stand or are being made."""
        return self._running

    @property
    def may_begin_at(self) -> float:
        """When they may be tried."""
        return self._barred_until

    def covers(self, question: Question) -> bool:
        """Whether the server tells us of changes there."""
        query = self._queries.get(question)
        return query is not None and self._stands(query)

    # --- What is wanted ---

    def begin(self, now: float, unix: int) -> list[ClientCommand]:
        """Ask for all that is wanted."""
        self.end()
        self._running = True
        return [c for one in self._standing.questions for c in self.add(one, now, unix)]

    def end(self) -> None:
        """The way to the server is another one now: all queries are void (RFC 8764 §5.4)."""
        self._running = False
        self._queries.clear()
        self.doubtful.clear()

    def add(self, question: Question, now: float, unix: int) -> list[ClientCommand]:
        """Begin the handshake for one more question."""
        if not self._running or question in self._queries:
            return []
        query = self._queries[question] = _Query(question)
        return self._set_up(query, now, unix)

    def remove(self, question: Question, unix: int) -> list[ClientCommand]:
        """Give one up: a refresh with a lease of zero; its answer matters to nobody."""
        query = self._queries.pop(question, None)
        self.doubtful.discard(question)
        if query is None or not query.id:
            return []
        option = LlqOption(llq.REFRESH, llq.NO_ERROR, query.id, 0)
        return [SendZone(self._signed(question, option, unix).wire)]

    def give_up(self, unix: int) -> list[ClientCommand]:
        """Give all of them up, since there is a better way now."""
        commands = [c for question in list(self._queries) for c in self.remove(question, unix)]
        self.end()
        return commands

    def _set_up(self, query: _Query, now: float, unix: int) -> list[ClientCommand]:
        query.state, query.id, query.lease, query.sent = State.INITIAL, 0, LEASE, 0
        return self._request(query, LlqOption(llq.SETUP, lease=LEASE), now, unix)

    def anew(self, question: Question, now: float, unix: int) -> list[ClientCommand]:
        """Events of this one do not reach us (a NAT forgot us, or took another port): again."""
        query = self._queries.get(question)
        if query is None or not self._stands(query):
            return []
        return self._set_up(query, now, unix)

    # --- Sending ---

    def _request(
        self, query: _Query, option: LlqOption, now: float, unix: int
    ) -> list[ClientCommand]:
        query.request = self._signed(query.question, option, unix)
        query.sent, query.due = 1, now + RETRANSMIT[0]
        if self._reliable:  # nothing is lost on its way: sent once, and waited for as long
            query.sent, query.due = len(RETRANSMIT), now + sum(RETRANSMIT)
        return [SendZone(query.request.wire)]

    def _signed(self, question: Question, option: LlqOption, unix: int) -> Request:
        used = {q.request.identity for q in self._queries.values() if q.request is not None}
        identity = fresh_identity(self._random, lambda one: one in used or self._taken(one))
        unsigned = exchange.query(*question, identity, {llq.OPTION_CODE: option.pack()})
        return exchange.sign_request(unsigned, question, self._key, unix)

    # --- What comes ---

    def receive(self, wire: bytes, now: float, unix: int) -> list[ClientCommand] | None:
        """Take a message if it belongs to a long-lived query, else return ``None``."""
        identity = int.from_bytes(wire[:2])
        for query in self._queries.values():
            if query.request is not None and query.request.identity == identity:
                return self._answered(query, wire, now, unix)
        return self._event(wire, unix)

    def _answered(
        self, query: _Query, wire: bytes, now: float, unix: int
    ) -> list[ClientCommand] | None:
        assert query.request is not None
        said = exchange.judge(query.request, wire, unix)
        if isinstance(said, Rejection):
            return None if said.kind == "foreign" else self._bar(now, POLL_ONLY)
        option = said.llq
        if said.rcode != NOERROR or option is None or option.opcode == llq.EVENT:
            return self._bar(now, POLL_ONLY)  # it knows no long-lived queries
        if option.error:
            return self._refused(query, option, now, unix)
        if option.opcode == llq.REFRESH:
            return self._refreshed(query, option, now)
        if query.state is State.INITIAL:
            return self._challenged(query, option, now, unix)
        if query.state is State.SECONDARY and option.id == query.id:
            self._established(query, option, said, now)
        return []

    def _challenged(
        self, query: _Query, option: LlqOption, now: float, unix: int
    ) -> list[ClientCommand]:
        """The server has given us an id: show that we can hear it (B44)."""
        if not option.id or not option.lease:
            return self._bar(now, POLL_ONLY)
        query.state, query.id, query.lease, query.sent = State.SECONDARY, option.id, option.lease, 0
        again = LlqOption(llq.SETUP, llq.NO_ERROR, option.id, option.lease)
        return self._request(query, again, now, unix)

    def _established(self, query: _Query, option: LlqOption, said: Response, now: float) -> None:
        query.state, query.request = State.ESTABLISHED, None
        query.lease = max(1, min(option.lease or query.lease, llq.MAXIMUM_LEASE))
        self._leased(query, now)
        found = said.at(*query.question)
        if said.truncated:  # the rest follows as events (RFC 8764 §5.2.4)
            self._standing.begin(query.question, now)
            for rdata in found:
                self._standing.add(query.question, rdata)
        else:
            self._standing.replace(query.question, found)

    def _leased(self, query: _Query, now: float) -> None:
        query.granted_at, query.sent = now, 0
        query.due = now + REFRESH_AT[0] * query.lease

    def _refreshed(self, query: _Query, option: LlqOption, now: float) -> list[ClientCommand]:
        if self._stands(query) and option.id == query.id:
            query.request = None
            query.lease = max(1, min(option.lease or query.lease, llq.MAXIMUM_LEASE))
            self._leased(query, now)
        return []

    def _refused(
        self, query: _Query, option: LlqOption, now: float, unix: int
    ) -> list[ClientCommand]:
        if option.error == llq.NO_SUCH_LLQ:  # it forgot us, or we came from elsewhere
            return self._set_up(query, now, unix)
        if option.error == llq.SERV_FULL:
            return self._wait(query, now + min(max(option.lease, 1), _FAULTS_AT_MOST))
        return self._wait(query, now + POLL_ONLY)

    def _wait(self, query: _Query, until: float) -> list[ClientCommand]:
        query.state, query.request, query.due, query.id = State.WAITING, None, until, 0
        return []

    def _bar(self, now: float, seconds: float) -> list[ClientCommand]:
        self.end()
        self._barred_until = now + seconds
        return []

    def _event(self, wire: bytes, unix: int) -> list[ClientCommand] | None:
        event = exchange.read_event(wire, self._key, unix)
        if event is None:
            return None
        query = next((q for q in self._queries.values() if q.id and q.id == event.llq.id), None)
        if query is None or query.question != event.question:
            return []
        if not (event.signed or self._proven):
            self.doubtful.add(query.question)
        elif event.identity not in query.heard:
            query.heard.append(event.identity)
            for rdata, gone in event.changes:
                if gone:
                    self._standing.remove(query.question, rdata)
                else:
                    self._standing.add(query.question, rdata)
        return [SendZone(exchange.acknowledge(event, self._key, unix))]

    # --- Time ---

    def advance(self, now: float, unix: int) -> list[ClientCommand]:
        """Send again, refresh, give up, begin anew: what is due."""
        commands: list[ClientCommand] = []
        for query in list(self._queries.values()):
            if not self._running:
                break  # given up by one of them
            if query.due > now:
                continue
            if query.state is State.WAITING:
                commands += self._set_up(query, now, unix)
            elif self._stands(query):
                commands += self._refresh(query, now, unix)
            elif query.sent >= len(RETRANSMIT):
                commands += self._bar(now, RETRY_DOWN)
            else:
                assert query.request is not None
                query.due = now + RETRANSMIT[query.sent]
                query.sent += 1
                commands.append(SendZone(query.request.wire))
        return commands

    def _refresh(self, query: _Query, now: float, unix: int) -> list[ClientCommand]:
        if query.sent >= len(REFRESH_AT):
            return self._bar(now, RETRY_DOWN)  # the lease has run out unanswered
        option = LlqOption(llq.REFRESH, llq.NO_ERROR, query.id, query.lease)
        query.request = self._signed(query.question, option, unix)
        query.sent += 1
        later = (*REFRESH_AT, 1.0)[query.sent]
        query.due = query.granted_at + later * query.lease
        return [SendZone(query.request.wire)]

    def next_timer(self) -> float | None:
        """When :meth:`advance` is due."""
        return min((query.due for query in self._queries.values()), default=None)
