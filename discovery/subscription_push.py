"""Being told of changes by DNS Push (RFC 8765) on the TLS connection to the rendezvous: the client.

A session's life::

    fresh ── Keepalive answered NOERROR ──> open ── Retry Delay, broken rules ──┐
      │                                       │                                 v
      └── NOTIMP, refused, silent ──> barred  └── the connection ends ──> a new one

The messages of a session carry no signature (RFC 8490 §5.4.5). We believe the rendezvous because we
proved the connection's key (decision 0003); it believes us because a signed question for the SOA of
``_push.<domain>``, which is asked nowhere but on a proven connection, comes first (decision 0042).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import dns.name
import dns.rdatatype

from discovery import dso, push, rcodes
from discovery.dso import DsoError, DsoMessage, Keepalive, RetryDelay, Tlv
from discovery.exchange import fresh_identity, signed_query
from discovery.lookup import Question
from discovery.standing import Standing
from discovery.types import ClientCommand, DropZone, SendZone, TsigKey

RESPONSE_TIMEOUT: Final = 30.0  # seconds, RFC 8490 §5.1
BARRED: Final = 3600.0  # seconds without DSO towards a server that has none, RFC 8490 §5.1
BROKEN: Final = 300.0  # seconds after a server broke the rules: what §6.2.2 has for "other" errors
MAX_AWAY: Final = 3600.0  # seconds: no server may send us away for longer

INTERVAL_MS: Final = 300_000
"""Asked for: often enough for the NATs between, seldom enough for a server with many hosts."""

_SOA: Final = int(dns.rdatatype.SOA)
_BLOCK: Final = 128  # octets, RFC 8467 §4.1


@dataclass(slots=True)
class _Subscription:
    question: Question
    deadline: float  # of the answer; infinite once it came
    live: bool = False


class PushSession:
    """The session on the present connection, and whether there may be one on the next.

    Learns into ``standing``; ``taken`` says which message IDs the connection uses otherwise.
    """

    def __init__(
        self,
        standing: Standing,
        domain: str,
        key: TsigKey,
        random: Callable[[int], bytes],
        taken: Callable[[int], bool],
    ) -> None:
        self._standing = standing
        self._name = dns.name.from_text(f"{push.SESSION_LABEL}.{domain.rstrip('.')}.")
        self._key = key
        self._random = random
        self._taken = taken
        self._subscriptions: dict[int, _Subscription] = {}  # by the ID of the SUBSCRIBE
        self._introduction: int | None = None  # the ID of the question, until it is answered
        self._keepalive: tuple[int, float] | None = None  # ID and deadline of the request
        self._interval = dso.DEFAULT_TIMEOUT_MS / 1000
        self._sent_at = 0.0
        self._running = False  # on a connection that we may speak on
        self._barred_until = float("-inf")
        self._refused: dict[Question, float] = {}  # questions that may not be asked again yet
        self.established = False
        """Whether the server has accepted the session (RFC 8490 §5.1)."""
        self.reason = ""
        """Why there is no session, in words."""

    # --- The connection ---

    @property
    def may_begin_at(self) -> float:
        """When a session may be tried."""
        return self._barred_until

    @property
    def running(self) -> bool:
        """Whether a session stands or is being made."""
        return self._running

    def begin(self, now: float, unix: int) -> list[ClientCommand]:
        """A new connection stands: ask for a session; all that is wanted follows its acceptance,
        so that a server without DSO gets one message that it does not know, not a hundred."""
        self.end()
        self._running = True
        self._introduction = self._identity()
        asks = signed_query(self._name, _SOA, self._introduction, self._key, unix)
        identity = self._identity()
        self._keepalive = identity, now + RESPONSE_TIMEOUT
        asked = Keepalive(dso.INFINITE_MS, INTERVAL_MS)
        return [SendZone(asks.wire), self._send(DsoMessage(identity, (asked.tlv(),)), now)]

    def is_greeting(self, wire: bytes) -> bool:
        """Whether a message is the answer to our introduction. What it says will show: without
        one, nothing can be subscribed to."""
        if self._introduction is None or int.from_bytes(wire[:2]) != self._introduction:
            return False
        self._introduction = None
        return True

    def end(self) -> None:
        """The connection is gone."""
        self._running = self.established = False
        self._subscriptions.clear()
        self._introduction = self._keepalive = None
        self._interval = dso.DEFAULT_TIMEOUT_MS / 1000
        self._standing.forget_session()

    def lost(self, now: float) -> None:
        """The connection was lost. While a session was only asked for, that is how servers answer
        that cannot parse the question (RFC 8490 §5.1): not again for a while."""
        if self._running and not self.established:
            self._bar(now, BROKEN, "the connection ends when a session is asked for")
        self.end()

    @property
    def live(self) -> bool:
        """Whether the server tells us of anything."""
        return any(one.live for one in self._subscriptions.values())

    def covers(self, question: Question) -> bool:
        """Whether the server tells us of changes there."""
        return any(one.live and one.question == question for one in self._subscriptions.values())

    # --- What is wanted ---

    def add(self, question: Question, now: float) -> list[ClientCommand]:
        """Subscribe, if there is a session and the server has not just refused it."""
        if not self.established or self._refused.get(question, now) > now:
            return []
        self._refused.pop(question, None)
        identity = self._identity()
        self._subscriptions[identity] = _Subscription(question, now + RESPONSE_TIMEOUT)
        wanted = push.Subscribe(question.name, question.rdtype)
        return [self._send(DsoMessage(identity, (wanted.tlv(),)), now)]

    def remove(self, question: Question, now: float) -> list[ClientCommand]:
        """Unsubscribe."""
        self._refused.pop(question, None)
        for identity, one in list(self._subscriptions.items()):
            if one.question == question:
                del self._subscriptions[identity]
                return [self._send(DsoMessage(0, (push.Unsubscribe(identity).tlv(),)), now)]
        return []

    # --- What comes ---

    def receive(self, wire: bytes, now: float) -> list[ClientCommand]:
        """Take a DSO message of the server."""
        if not self._running:
            return []
        try:
            said = DsoMessage.parse(wire)
            if said.response:
                return self._answered(said, now)
            if said.id:
                raise DsoError("the server asks something of a client of DNS Push")
            return self._told(said, wire, now)
        except DsoError as error:
            return self._abort(str(error), now)

    def _told(self, said: DsoMessage, wire: bytes, now: float) -> list[ClientCommand]:
        primary = said.primary
        if primary is None:
            raise DsoError("a message without a TLV")
        if primary.type == push.PUSH:
            self._pushed(push.parse_push(wire))
            return []
        if primary.type == dso.KEEPALIVE:
            self._timeouts(Keepalive.parse(primary.data))
            return []
        if primary.type == dso.RETRY_DELAY:
            return self._sent_away(RetryDelay.parse(primary.data).delay_ms / 1000, said.rcode, now)
        raise DsoError(f"an unknown unidirectional TLV {primary.type}")

    def _pushed(self, changes: tuple[push.Change, ...]) -> None:
        questions = [one.question for one in self._subscriptions.values() if one.live]
        for change in changes:
            for question in questions:
                if question.name != change.name:
                    continue
                every = change.rdata is None and push.TYPE_ANY in (change.rdtype, change.rdclass)
                if not every and question.rdtype != change.rdtype:
                    continue
                if change.rdata is None or change.ttl == push.REMOVE_ONE:
                    self._standing.remove(question, change.rdata)
                else:
                    self._standing.add(question, change.rdata)

    def _timeouts(self, given: Keepalive) -> None:
        if given.interval_ms < dso.MINIMUM_INTERVAL_MS:
            raise DsoError(f"a keepalive interval of {given.interval_ms} ms is too short")
        self._interval = given.interval_ms / 1000
        if given.interval_ms == dso.INFINITE_MS:
            self._interval = float("inf")

    def _sent_away(self, delay: float, rcode: int, now: float) -> list[ClientCommand]:
        delay = min(delay, MAX_AWAY)
        reason = f"the rendezvous ends the session (RCODE {rcode}) for {delay:.0f} s"
        self._bar(now, delay, reason)
        self.end()
        return [DropZone(reason, delay)]

    def _answered(self, said: DsoMessage, now: float) -> list[ClientCommand]:
        if self._keepalive is not None and said.id == self._keepalive[0]:
            return self._kept(said, now)
        one = self._subscriptions.get(said.id)
        if one is None or one.live:
            if said.id and said.rcode:
                return []  # NOTIMP to something that we gave up
            raise DsoError(f"an answer to the unknown message {said.id}")
        if said.rcode == rcodes.NOERROR:
            one.live = True
            one.deadline = float("inf")
            self._standing.begin(one.question, now)
            return []
        del self._subscriptions[said.id]
        delay = _delay(said)
        if said.rcode not in (rcodes.NOTIMP, rcodes.DSOTYPENI, rcodes.NOTAUTH):
            self._refused[one.question] = now + delay
            if self._subscriptions:
                return []  # this question only
        return self._give_up(f"the rendezvous has no DNS Push (RCODE {said.rcode})", delay, now)

    def _kept(self, said: DsoMessage, now: float) -> list[ClientCommand]:
        self._keepalive = None
        if said.rcode == rcodes.NOERROR and said.primary is not None:
            if said.primary.type == dso.KEEPALIVE:
                self._timeouts(Keepalive.parse(said.primary.data))
            before, self.established = self.established, True
            wanted = [] if before else self._standing.questions
            return [command for question in wanted for command in self.add(question, now)]
        reason = f"the rendezvous has no DNS sessions (RCODE {said.rcode})"
        return self._give_up(reason, _delay(said), now)

    def _give_up(self, reason: str, delay: float, now: float) -> list[ClientCommand]:
        """No session on this connection; it serves everything else as before."""
        self._bar(now, delay, reason)
        self.end()
        return []

    def _abort(self, reason: str, now: float) -> list[ClientCommand]:
        reason = f"the rendezvous broke the rules of DNS sessions: {reason}"
        self._bar(now, BROKEN, reason)
        self.end()
        return [DropZone(reason)]

    def _bar(self, now: float, delay: float, reason: str) -> None:
        self._barred_until, self.reason = now + delay, reason

    # --- Time ---

    def advance(self, now: float) -> list[ClientCommand]:
        """Keep the session alive; end one that does not answer; ask again what was refused."""
        if not self._running:
            return []
        deadlines = [one.deadline for one in self._subscriptions.values()]
        if self._keepalive is not None:
            deadlines.append(self._keepalive[1])
        if deadlines and min(deadlines) <= now:
            reason = "the rendezvous does not answer on its DNS session"
            self._bar(now, BROKEN if self.established else BARRED, reason)
            self.end()
            return [DropZone(reason)]
        commands: list[ClientCommand] = []
        if self.established and self._keepalive is None and self._keep_at <= now:
            identity = self._identity()
            self._keepalive = identity, now + RESPONSE_TIMEOUT
            asked = Keepalive(dso.INFINITE_MS, INTERVAL_MS)
            commands.append(self._send(DsoMessage(identity, (asked.tlv(),)), now))
        for question in [one for one, at in self._refused.items() if at <= now]:
            commands += self.add(question, now)
        return commands

    @property
    def _keep_at(self) -> float:
        return self._sent_at + 0.9 * self._interval  # the server waits for twice the interval

    def next_timer(self) -> float | None:
        """When :meth:`advance` is due."""
        if not self._running:
            return None
        times = [one.deadline for one in self._subscriptions.values()]
        times += self._refused.values()
        if self._keepalive is not None:
            times.append(self._keepalive[1])
        elif self.established:
            times.append(self._keep_at)
        return min((at for at in times if at != float("inf")), default=None)

    # --- Sending ---

    def _identity(self) -> int:
        def used(identity: int) -> bool:
            kept = self._keepalive is not None and identity == self._keepalive[0]
            mine = kept or identity in self._subscriptions or identity == self._introduction
            return identity == 0 or mine or self._taken(identity)

        return fresh_identity(self._random, used)

    def _send(self, message: DsoMessage, now: float) -> SendZone:
        self._sent_at = now
        wire = message.pack()
        padding: Tlv = dso.padding_for(len(wire), _BLOCK)
        return SendZone(DsoMessage(message.id, (*message.tlvs, padding)).pack())


def _delay(said: DsoMessage) -> float:
    """How long not to ask again, in seconds: the server's word, or what RFC 8765 §6.2.2 has."""
    told = said.additional(dso.RETRY_DELAY)
    if told is None:
        return push.retry_delay_ms(said.rcode) / 1000
    return min(RetryDelay.parse(told.data).delay_ms / 1000, MAX_AWAY)
