"""The zone client: publishes this host, looks up the others, and says what is wrong (B36-B41, B48).

Pure: DNS messages in bytes, ``now`` in monotonic seconds, ``unix`` the wall clock in whole seconds;
every method returns commands (:mod:`discovery.types`). Everything sent is signed, and only answers
signed over our request's MAC count (B58, B59).

A request's life: it is signed and sent (:meth:`ZoneClient._send`), sent again with a fresh
signature when the transport comes back, retransmitted on UDP, and ends with its answer, with the
word of the server that it does not take our signature, or with its deadline.

A problem is told once, and :class:`~discovery.types.ZoneFine` once when it is over.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import dns.name

from discovery import exchange
from discovery.browse import Ask, Browse
from discovery.exchange import Rejection, Request, Response
from discovery.feed import Feed
from discovery.lookup import Lookup, Question
from discovery.registration import Registration, RegistrationSettings
from discovery.subscription import Subscriptions, Ways
from discovery.subscription_poll import Poll, Polled
from discovery.texts import Change, ChangeTexts, ReadTexts, change_message
from discovery.types import (
    ClientCommand,
    HostNotFound,
    HostRecords,
    RecordsFound,
    SendZone,
    ServicesFound,
    TsigKey,
    ZoneFine,
    ZoneProblem,
)

_GRACE: Final = 1.0
"""Seconds for which a request waits on after an unproven refusal: anybody could have sent that one
over UDP, and the true answer may still come (RFC 8945 §5.4)."""


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """Times in seconds.

    ``reliable``: the transport is TLS or TCP, and nothing is retransmitted but after a reconnect;
    on UDP requests are sent again after ``first_retransmission``, doubling. ``timeout`` ends a
    lookup or list as a whole, and each UPDATE. ``max_lookups`` bounds the lookups under way.
    ``secure``: the transport is TLS, and the rendezvous' key was proven: there may be DNS Push.
    """

    reliable: bool = True
    secure: bool = True
    timeout: float = 10.0
    first_retransmission: float = 1.0
    max_lookups: int = 64
    registration: RegistrationSettings = field(default_factory=RegistrationSettings)


_Search: TypeAlias = Lookup | ReadTexts | Ask | Browse | Poll
_Job: TypeAlias = _Search | ChangeTexts | Registration


@dataclass(slots=True)
class _Pending:
    """A request that waits for its answer. ``unsigned`` is kept to sign it afresh."""

    job: _Job
    question: Question | None
    unsigned: bytes
    request: Request
    deadline: float
    resend_at: float
    interval: float
    hint: Rejection | None = None


class ZoneClient:
    """One host's side of its account's zone. ``label`` is this host's own label."""

    def __init__(
        self,
        *,
        domain: str,
        label: str,
        key: TsigKey,
        random: Callable[[int], bytes],
        settings: ClientSettings = ClientSettings(),
    ) -> None:
        self._domain = domain
        self._key = key
        self._random = random
        self._settings = settings
        self._registration = Registration(domain, label, random, settings.registration)
        self._jobs: dict[str, _Search] = {}
        self._pending: dict[int, _Pending] = {}
        ways = Ways(settings.secure, settings.reliable, settings.secure)
        self._subscriptions = Subscriptions(domain, key, random, self._is_taken, ways)
        self._feed = Feed(self._subscriptions, domain)
        self._up = self._lost = False
        self._down_reason = "there is no connection yet"
        self._told: dict[str, bool] = {}  # kind of problem -> whether only an UPDATE can mend it
        self.counters: dict[str, int] = {"foreign": 0, "answered": 0, "timeouts": 0}

    # --- What is asked of the client ---

    def publish(self, records: HostRecords, now: float, unix: int) -> list[ClientCommand]:
        """Make the zone say ``records`` of this host, and go on refreshing them.

        Raises :exc:`~discovery.records.RecordsError` for records that cannot be written.
        """
        self._registration.want(records, now)
        return self._register(now, unix)

    def withdraw(self, now: float, unix: int) -> list[ClientCommand]:
        """Remove our records. :class:`Withdrawn` follows, or a :class:`ZoneProblem` (in at most
        ``withdraw_timeout``) that says that they stay."""
        self._forget(self._registration)
        commands = self._registration.withdraw(now)
        return commands + self._register(now, unix)

    def lookup(self, label: str, now: float, unix: int) -> list[ClientCommand]:
        """Find a host. :class:`HostFound` or :class:`HostNotFound` follows, one for all lookups of
        the same label under way."""
        lowered = label.lower()
        if f"host {lowered}" in self._jobs:
            return []
        if len(self._jobs) >= self._settings.max_lookups:
            return [HostNotFound(lowered, "too many lookups are under way", definite=False)]
        try:
            job = Lookup(lowered, self._domain)
        except ValueError as error:
            return [HostNotFound(lowered, str(error), definite=True)]
        return self._start(f"host {lowered}", job, now, unix)

    def read_texts(self, prefix: str, now: float, unix: int) -> list[ClientCommand]:
        """Read the messages at ``<prefix>.<domain>``. :class:`TextsFound` follows."""
        if f"texts {prefix}" in self._jobs:
            return []
        job = ReadTexts(prefix, self._domain)
        return self._start(f"texts {prefix}", job, now, unix)

    def change_texts(
        self, ticket: str, changes: tuple[Change, ...], now: float, unix: int
    ) -> list[ClientCommand]:
        """Leave and remove messages, all of these changes or none. :class:`TextsChanged` follows.

        Raises :exc:`~discovery.records.RecordsError` for a message that is too long.
        """
        unsigned = change_message(changes, self._domain, self._identity())
        deadline = now + self._settings.timeout
        return self._send(ChangeTexts(ticket), None, unsigned, deadline, now, unix)

    def browse(self, kind: str, now: float, unix: int) -> list[ClientCommand]:
        """Find the services of one type, or of all where ``kind`` is empty.
        :class:`ServicesFound` follows, one for all who asked the same meanwhile."""
        if f"browse {kind}" in self._jobs:
            return []
        if len(self._jobs) >= self._settings.max_lookups:
            return [ServicesFound(kind, (), "too many lookups are under way")]
        return self._start(f"browse {kind}", Browse(kind, self._domain), now, unix)

    def ask(self, name: dns.name.Name, rdtype: int, now: float, unix: int) -> list[ClientCommand]:
        """Ask for the records at a name. :class:`RecordsFound` follows, as for :meth:`browse`."""
        job = f"ask {rdtype} {name.canonicalize().to_text()}"
        if job in self._jobs:
            return []
        if len(self._jobs) >= self._settings.max_lookups:
            return [RecordsFound(name, rdtype, (), False, "too many lookups are under way")]
        return self._start(job, Ask(name, rdtype), now, unix)

    # --- What is subscribed to ---

    def subscribe(
        self, name: dns.name.Name, rdtype: int, now: float, unix: int
    ) -> list[ClientCommand]:
        """Hear of changes there, until as many :meth:`unsubscribe`. A
        :class:`~discovery.types.Changed` with what stands there follows, and one per change."""
        return self._feed.subscribe(name, rdtype, now, unix)

    def unsubscribe(
        self, name: dns.name.Name, rdtype: int, now: float, unix: int
    ) -> list[ClientCommand]:
        """Hear of changes there no more."""
        return self._feed.unsubscribe(name, rdtype, now, unix)

    def watch_hosts(self, now: float, unix: int) -> list[ClientCommand]:
        """Hear of the list of hosts: :class:`HostsListed` now and with each change."""
        return self._feed.watch_hosts(now, unix)

    def watch(self, label: str, now: float, unix: int) -> list[ClientCommand]:
        """Hear of a host: as for :meth:`lookup`, now and with each change."""
        return self._feed.watch(label, now, unix)

    def unwatch(self, label: str, now: float, unix: int) -> list[ClientCommand]:
        """Hear of a host no more."""
        return self._feed.unwatch(label, now, unix)

    @property
    def watched(self) -> frozenset[str]:
        """The labels of the watched hosts."""
        return self._feed.watched

    @property
    def step(self) -> str | None:
        """How changes reach us now: "push", "llq", "poll"; ``None`` for not at all."""
        return self._subscriptions.step

    @property
    def holds(self) -> bool:
        """Whether the connection carries a session, and must be made anew when it is closed."""
        return self._subscriptions.holds

    @property
    def unreachable(self) -> bool:
        """Whether the rendezvous was found to be out of reach; false before the first try."""
        return self._lost

    def _start(self, name: str, job: _Search, now: float, unix: int) -> list[ClientCommand]:
        self._jobs[name] = job
        return self._ask(job, job.first(), now + self._settings.timeout, now, unix)

    # --- What happens to the client ---

    def receive(self, wire: bytes, now: float, unix: int) -> list[ClientCommand]:
        """Take a message from the rendezvous, or from whoever sends in its name."""
        pending = self._pending.get(int.from_bytes(wire[:2])) if len(wire) >= 2 else None
        if pending is None:
            commands = self._subscriptions.receive(wire, now, unix)
            self.counters["foreign"] += commands is None
            return self._feed.pass_on(commands or [], now, unix)
        judgement = exchange.judge(pending.request, wire, unix)
        if isinstance(judgement, Rejection):
            return self._rejected(pending, judgement, now, unix)
        del self._pending[pending.request.identity]
        self.counters["answered"] += 1
        commands = self._answered(pending, judgement, now, unix)
        return commands + self._register(now, unix)

    def transport_up(self, now: float, unix: int) -> list[ClientCommand]:
        """A new connection stands: all that waits is signed afresh and sent again."""
        self._up, self._lost = True, False
        commands: list[ClientCommand] = []
        for pending in self._pending.values():
            pending.request = self._signed(pending.unsigned, pending.question, unix)
            pending.hint = None
            commands += self._transmit(pending, now)
        self._registration.again(now)
        commands += self._register(now, unix)
        return commands + self._fed(self._subscriptions.transport_up(now, unix), now, unix)

    def transport_down(self, reason: str, now: float, unix: int) -> list[ClientCommand]:
        """The rendezvous cannot be reached; the transport goes on trying."""
        del unix  # the same signature as all events
        self._up, self._lost, self._down_reason = False, True, reason
        self._subscriptions.transport_down(now)
        return self._unreachable()

    def _unreachable(self) -> list[ClientCommand]:
        reason = f"the rendezvous cannot be reached: {self._down_reason}"
        return self._trouble(_transport_kind(reason), reason)

    def advance(self, now: float, unix: int) -> list[ClientCommand]:
        """Do what is due: retransmissions, deadlines, refreshes."""
        commands: list[ClientCommand] = []
        for pending in list(self._pending.values()):
            if pending.request.identity not in self._pending:
                continue  # ended with another request of its job
            if now >= pending.deadline:
                commands += self._expired(pending, now, unix)
            elif self._up and now >= pending.resend_at:
                commands += self._transmit(pending, now)
        commands += self._registration.give_up(now)
        commands += self._register(now, unix)
        return commands + self._fed(self._subscriptions.advance(now, unix), now, unix)

    def _fed(self, commands: list[ClientCommand], now: float, unix: int) -> list[ClientCommand]:
        """Pass on what the subscriptions say, and poll where that is due."""
        told = self._feed.pass_on(commands, now, unix)
        poll = self._subscriptions.poll(now)
        return told if poll is None else told + self._start("poll", poll, now, unix)

    def next_timer(self) -> float | None:
        """Return when :meth:`advance` is due, in monotonic seconds, or ``None``."""
        times = [pending.deadline for pending in self._pending.values()]
        if self._up:
            times += [pending.resend_at for pending in self._pending.values()]
        others = (self._registration.next_timer(self._up), self._subscriptions.next_timer())
        times += [at for at in others if at is not None]
        return min((time for time in times if time != float("inf")), default=None)

    # --- Requests ---

    def _ask(
        self, job: _Job, questions: list[Question], deadline: float, now: float, unix: int
    ) -> list[ClientCommand]:
        commands: list[ClientCommand] = []
        for question in questions:
            unsigned = exchange.query(question.name, question.rdtype, self._identity())
            commands += self._send(job, question, unsigned, deadline, now, unix)
        return commands

    def _register(self, now: float, unix: int) -> list[ClientCommand]:
        """Let the registration send what it wants to send now."""
        if not self._up:
            return []
        deadline = now + self._registration.timeout(self._settings.timeout)
        question = self._registration.survey(now)
        if question is not None:
            return self._ask(self._registration, [question], deadline, now, unix)
        unsigned = self._registration.message(now, self._identity())
        if unsigned is None:
            return []
        return self._send(self._registration, None, unsigned, deadline, now, unix)

    def _identity(self) -> int:
        return exchange.fresh_identity(self._random, self._is_taken)

    def _is_taken(self, identity: int) -> bool:
        return identity in self._pending

    def _send(
        self,
        job: _Job,
        question: Question | None,
        unsigned: bytes,
        deadline: float,
        now: float,
        unix: int,
    ) -> list[ClientCommand]:
        request = self._signed(unsigned, question, unix)
        interval = self._settings.first_retransmission
        pending = _Pending(job, question, unsigned, request, deadline, now, interval)
        self._pending[request.identity] = pending
        return self._transmit(pending, now) if self._up else []

    def _signed(self, unsigned: bytes, question: Question | None, unix: int) -> Request:
        return exchange.sign_request(unsigned, question, self._key, unix)

    def _transmit(self, pending: _Pending, now: float) -> list[ClientCommand]:
        pending.resend_at = float("inf")
        if not self._settings.reliable:
            pending.resend_at = now + pending.interval
            pending.interval *= 2
        return [SendZone(pending.request.wire)]

    def _forget(self, job: _Job) -> None:
        self._pending = {i: p for i, p in self._pending.items() if p.job is not job}

    # --- Their ends ---

    def _answered(
        self, pending: _Pending, response: Response, now: float, unix: int
    ) -> list[ClientCommand]:
        if isinstance(pending.job, Registration):
            return self._registered(pending, response, now)
        if isinstance(pending.job, ChangeTexts):
            return [*self._fine(by_update=False), pending.job.updated(response)]
        assert pending.question is not None
        fine = self._fine(by_update=False)
        step = pending.job.take(pending.question, response)
        if isinstance(step, list):
            return fine + self._ask(pending.job, step, pending.deadline, now, unix)
        self._finish(pending.job)
        return fine + self._outcome(step, now, unix)

    def _outcome(
        self, outcome: ClientCommand | Polled, now: float, unix: int
    ) -> list[ClientCommand]:
        if not isinstance(outcome, Polled):
            return [outcome]
        return self._fed(self._subscriptions.polled(outcome, now, unix), now, unix)

    def _registered(self, pending: _Pending, response: Response, now: float) -> list[ClientCommand]:
        if pending.question is not None:
            self._registration.surveyed(response.at(*pending.question))
            return self._fine(by_update=False)
        refusal = self._registration.updated(response, now)
        if refusal:
            return self._trouble(f"refused {response.rcode}", refusal, mended_by_update=True)
        return self._fine(by_update=True) + self._registration.outcome()

    def _rejected(
        self, pending: _Pending, rejection: Rejection, now: float, unix: int
    ) -> list[ClientCommand]:
        if rejection.kind == "foreign":
            self.counters["foreign"] += 1
            if pending.hint is None:
                pending.hint = rejection
            return []
        if not rejection.proven:
            pending.hint = rejection
            pending.deadline = min(pending.deadline, now + _GRACE)
            return []
        return self._fail(pending, rejection.kind, rejection.reason, now, unix)

    def _expired(self, pending: _Pending, now: float, unix: int) -> list[ClientCommand]:
        self.counters["timeouts"] += 1
        if pending.hint is not None:
            reason = pending.hint.reason
            if pending.hint.kind == "foreign":
                reason = f"no acceptable answer came from the rendezvous: {reason}"
            return self._fail(pending, pending.hint.kind, reason, now, unix)
        if not self._up:
            reason = f"the rendezvous cannot be reached: {self._down_reason}"
            return self._fail(pending, _transport_kind(reason), reason, now, unix)
        reason = (
            "the rendezvous does not answer; check that it runs and that no firewall is between"
        )
        return self._fail(pending, "silence", reason, now, unix)

    def _fail(
        self, pending: _Pending, kind: str, reason: str, now: float, unix: int
    ) -> list[ClientCommand]:
        """End the whole job of a request, and say what is wrong if that is news."""
        self._forget(pending.job)
        commands = self._trouble(kind, reason)
        if isinstance(pending.job, Registration):
            self._registration.failed(now)
            return commands
        if not isinstance(pending.job, ChangeTexts):
            self._finish(pending.job)
        return commands + self._outcome(pending.job.failed(reason), now, unix)

    def _finish(self, job: _Search) -> None:
        self._forget(job)
        self._jobs = {name: other for name, other in self._jobs.items() if other is not job}

    # --- Problems ---

    def _trouble(
        self, kind: str, reason: str, *, mended_by_update: bool = False
    ) -> list[ClientCommand]:
        if kind in self._told:
            return []
        self._told[kind] = mended_by_update
        return [ZoneProblem(reason, kind)]

    def _fine(self, *, by_update: bool) -> list[ClientCommand]:
        """A signed answer came: the problems that this disproves are over."""
        if not self._told:
            return []
        self._told = {k: only for k, only in self._told.items() if only and not by_update}
        return [] if self._told else [ZoneFine()]


def _transport_kind(reason: str) -> str:
    """Tell problems of the transport apart, but not by the figures in them, which change."""
    return "transport " + "".join("#" if letter.isdigit() else letter for letter in reason)
