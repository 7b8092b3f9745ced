"""The state of one IKE SA, and the few things that every exchange does with it (RFC 7296).

::

    initiator  CONNECTING ─> AUTHENTICATING ─┐
                                             ├─> ESTABLISHED ─> REKEYED or CLOSING ─> CLOSED
    responder  HALF_OPEN ──> ASKING ─────────┘

What the exchanges say is in their own files; message ids are the window's. An SA that closes
drops its keys at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Protocol

from keys.ike import fragments, natd
from keys.ike.additional import Rounds
from keys.ike.child import Child, ChildState, rekey_after
from keys.ike.cipher import MessageCipher, Opened
from keys.ike.context import Context
from keys.ike.header import HEADER_OCTETS, NO_SPI, Exchange, Header
from keys.ike.intauth import IntAuth
from keys.ike.keymat import IkeKeys, Nonces
from keys.ike.notify import NotifyType
from keys.ike.payloads import Contents, Payload, encode_chain
from keys.ike.signature import HashId
from keys.ike.types import (
    EVERYTHING,
    Endpoint,
    IkeFailed,
    InstallOutbound,
    PeerDown,
    PeerPolicy,
    RemoveChild,
    Traffic,
)
from keys.ike.window import Datagrams, Window


class SaState(Enum):
    """Where an IKE SA stands."""

    CONNECTING = "connecting"  # IKE_SA_INIT sent
    AUTHENTICATING = "authenticating"  # IKE_AUTH sent
    HALF_OPEN = "half-open"  # IKE_SA_INIT answered
    ASKING = "asking"  # the peer proved its name; its owner is asked
    ESTABLISHED = "established"
    RESERVED = "reserved"  # its SPI stands in a rekey; no keys yet
    REKEYED = "rekeyed"  # another IKE SA took over; waits for its Delete
    CLOSING = "closing"  # our Delete is under way
    CLOSED = "closed"


ATTEMPTS = (SaState.CONNECTING, SaState.AUTHENTICATING)
STRANGERS = (SaState.HALF_OPEN, SaState.ASKING, SaState.RESERVED)


class Task(Protocol):
    """One exchange that we begin. Tasks of an SA run one after the other (window of one)."""

    exchange: Exchange
    about_child: bool  # creates, rekeys or closes a CHILD_SA (RFC 7296 §2.25)

    def request(self, sa: IkeSa, now: float) -> Contents | None:
        """What to ask; None if there is nothing to ask any more."""

    def answered(self, sa: IkeSa, answer: Contents, now: float) -> None:
        """What the answer changes. Raises IkeError if it is not a right answer."""

    def tries(self, sa: IkeSa) -> int:
        """How often the request is sent before the peer counts as gone."""


class ForChild:
    """A task that has taken an SPI for the child that it asks for; 0 while it has none.

    ``closed`` are SPIs that the peer has closed meanwhile and that we do not know: one of them
    may be of this child, whose answer was lost on its way.
    """

    spi_in = 0
    closed: frozenset[bytes] = frozenset()

    def peer_closed(self, spi: bytes) -> None:
        """Remembers one; an honest peer closes no more than the one."""
        self.closed = frozenset((*tuple(self.closed)[:15], spi))


@dataclass(slots=True)
class Init:
    """What IKE_SA_INIT leaves behind for AUTH: the real messages (RFC 7296 §2.15)."""

    request: bytes = b""
    response: bytes = b""
    use_ppk: bool = False  # both sides said so
    without_ppk: IkeKeys | None = field(default=None, repr=False)
    intermediate: IntAuth = field(default_factory=IntAuth)
    hashes: frozenset[HashId] = frozenset()  # that the peer takes in signatures (RFC 7427 §4)


@dataclass(frozen=True, slots=True)
class Pending:
    """What a verified IKE_AUTH request wants, while the owner is asked."""

    request: Contents
    initial_contact: bool


@dataclass(slots=True, eq=False)
class Series:
    """A rekey of the peer that waits for its next IKE_FOLLOWUP_KE (RFC 9370 §2.2.4)."""

    link: bytes
    rounds: Rounds
    nonces: Nonces
    old: Child | None  # the child to be replaced
    new: IkeSa | None  # the IKE SA that is being made
    until: float
    finish: Callable[[bytes, float], Callable[[], None]]  # from the secrets to what follows
    cancel: Callable[[float], None]


class IkeSa:
    """One IKE SA. ``initiator`` is whether we began it (the I flag)."""

    def __init__(
        self, ctx: Context, remote: Endpoint, *, initiator: bool, state: SaState, now: float
    ) -> None:
        self.ctx = ctx
        self.remote = remote
        self.initiator = initiator
        self._source = remote
        self._state = SaState.CLOSED
        self.state = state
        self.local_spi = ctx.new_spi()
        self.remote_spi = NO_SPI
        self._name: str | None = None
        self.policy: PeerPolicy | None = None
        self.window = Window(ctx.settings, ctx.uniform)
        self.queue: deque[Task] = deque()
        self.task: Task | None = None
        self.init = Init()
        self.keys: IkeKeys | None = None
        self.nonces = Nonces(b"", b"")
        self.group = ""
        self.ppk = False
        self.additional: tuple[str, ...] = ()  # additional key exchanges, by name
        self.rounds = Rounds()  # those of them that are still to be done before IKE_AUTH
        self.authentication = ""
        self.peer_certificates: tuple[bytes, ...] = ()
        self._seal: MessageCipher | None = None
        self._open: MessageCipher | None = None
        self.fragmentation = False
        self.asked = fragments.Assembly(ctx.settings)  # the peer's request, in pieces
        self.told = fragments.Assembly(ctx.settings)  # the peer's answer, in pieces
        self.pending: Pending | None = None
        self.series: Series | None = None
        self.lost_series = 0  # STATE_NOT_FOUND, one after the other
        self.children: dict[int, Child] = {}
        self.sending: dict[Traffic, Child] = {}  # on which of them our packets travel
        self.request_digest: bytes | None = None
        self.ticket: int | None = None
        self.created_order = ctx.order()
        self.established_order = 0
        self.established_at = now
        self.last_heard = now
        self.unanswered_since: float | None = None
        self.hinted_at = float("-inf")
        self.rtt: float | None = None
        self.behind_nat: bool | None = None
        self.peer_behind_nat: bool | None = None
        self.nat_seen: bytes | None = None  # NAT_DETECTION_DESTINATION_IP, as the peer last had it
        self.mobike = False
        self.race: tuple[Endpoint, ...] = ()  # where else its IKE_SA_INIT goes, until one answers
        self.lost: tuple[Endpoint, ...] = ()  # who was too late
        self.answered_at: float | None = None  # its IKE_SA_INIT, by one of them
        self.elsewhere: tuple[Endpoint, ...] = ()  # where a peer that is silent is looked for, too
        self.leads = initiator  # began the first of these IKE SAs (RFC 4555 §1.3)
        self.put_off: tuple[float, float] | None = None  # by TEMPORARY_FAILURE: first, last
        self.echoes = True  # our last answer may be had again when this SA is gone: not "it stands"
        self.moves = 0
        self.moved_early = False  # our own endpoint changed before it stood
        self.peer_addresses: tuple[Endpoint, ...] = ()
        self.sends_to: Endpoint | None = None
        self.proven: Endpoint | None = None  # where the peer has shown that it hears us
        self.unproven = False
        self.redundant = False
        self.reason = ""
        self.complete_at: float | None = None  # when we ask for the children that are missing
        self.rekey_at: float | None = None
        self.expires_at: float | None = None
        self.mine: IkeSa | None = None
        self.theirs: IkeSa | None = None
        self.reserved: IkeSa | None = None
        ctx.add(self)

    @property
    def state(self) -> SaState:
        """Where it stands; half-open ones are counted by the source that they began from."""
        return self._state

    @state.setter
    def state(self, state: SaState) -> None:
        was, self._state = self._state, state
        if state is SaState.HALF_OPEN and was is not state:
            self.ctx.half_open.add(self._source)
        elif was is SaState.HALF_OPEN and state is not was:
            self.ctx.half_open.remove(self._source)

    # --- who ---

    @property
    def name(self) -> str | None:
        """The peer's name as it says it, in lower case; None before it said one."""
        return self._name

    @name.setter
    def name(self, name: str | None) -> None:
        self.ctx.rename(self, name)
        self._name = name

    @property
    def spi_i(self) -> bytes:
        """The initiator's SPI."""
        return self.local_spi if self.initiator else self.remote_spi

    @property
    def spi_r(self) -> bytes:
        """The responder's SPI."""
        return self.remote_spi if self.initiator else self.local_spi

    @property
    def is_established(self) -> bool:
        """Whether exchanges about children may run on it."""
        return self.state is SaState.ESTABLISHED

    @property
    def is_relayed(self) -> bool:
        """Whether the peer is reached at its host id, through a home agent."""
        return self.policy is not None and self.remote[0] == str(self.policy.peer_id)

    @property
    def peer(self) -> str:
        """How a sentence names the other side."""
        return self.name or f"{self.remote[0]} port {self.remote[1]}"

    def use_keys(self, keys: IkeKeys) -> None:
        """From now on messages are protected with these."""
        self.keys = keys
        ours, theirs = (keys.ei, keys.er) if self.initiator else (keys.er, keys.ei)
        self._seal = MessageCipher(keys.suite, ours)
        self._open = MessageCipher(keys.suite, theirs)

    # --- messages ---

    def header(self, exchange: Exchange, message_id: int, *, response: bool) -> Header:
        """The header of a message of ours."""
        return Header(
            self.spi_i,
            self.spi_r,
            exchange,
            message_id,
            response=response,
            initiator=self.initiator,
        )

    def encode(
        self, exchange: Exchange, message_id: int, contents: Contents, *, response: bool
    ) -> Datagrams:
        """A whole message: protected, unless it belongs to IKE_SA_INIT; cut if it must be."""
        header = self.header(exchange, message_id, response=response)
        if exchange is Exchange.IKE_SA_INIT:
            return (plain_message(header, contents.encode()),)
        assert self._seal is not None
        first, chain = encode_chain(contents.encode())
        if exchange is Exchange.IKE_INTERMEDIATE:
            self.vouch(header.encode(), Opened(first, 0, chain + b"\0"), ours=True)
        limit = fragments.room(self.ctx.settings, self.remote) if self.fragmentation else None
        return fragments.seal(self._seal, header, first, chain, limit)

    def vouch(self, head: bytes, opened: Opened, *, ours: bool) -> None:
        """A message of IKE_INTERMEDIATE went or came: AUTH will cover it."""
        assert self.keys is not None
        initiator = self.initiator is ours
        self.init.intermediate.add(
            self.keys, head, opened.first, opened.flags, opened.chain, initiator=initiator
        )

    def open(self, data: bytes) -> Opened:
        """What a protected message holds; raises IntegrityError."""
        assert self._open is not None
        return self._open.open(data)

    def open_fragment(self, data: bytes) -> Opened:
        """What one fragment of a protected message holds; raises IntegrityError."""
        assert self._open is not None
        return self._open.open_fragment(data)

    def enqueue(self, task: Task, now: float) -> None:
        """Runs a task as soon as the window allows."""
        if len(self.queue) < self.ctx.settings.queue_limit:
            self.queue.append(task)
        self.pump(now)

    def pump(self, now: float) -> None:
        """Starts the next task if none is under way."""
        while self.task is None and self.queue and self.state is not SaState.CLOSED:
            task = self.queue.popleft()
            contents = task.request(self, now)
            if contents is None:
                continue
            self.task = task
            data = self.encode(task.exchange, self.window.next_id, contents, response=False)
            self.window.sent(data, now, task.tries(self))
            self.ctx.send(data, self.remote)

    def release(self, task: Task) -> None:
        """Nothing comes of a task: what it has taken is given back."""
        if isinstance(task, ForChild):
            self.ctx.free_spi(task.spi_in)
            task.spi_in = 0

    def is_stuck(self, kind: int, now: float) -> bool:
        """The peer refused an exchange about an SA; whether it has said TEMPORARY_FAILURE to all of
        them for minutes, so that the two sides must be out of step (RFC 7296 §2.25)."""
        if kind != NotifyType.TEMPORARY_FAILURE:
            self.put_off = None
            return False
        first, last = self.put_off or (now, now)
        lapsed = now - last > 6 * self.ctx.settings.rekey_retry
        self.put_off = (now if lapsed else first, now)
        return now - self.put_off[0] >= self.ctx.settings.rekey_patience

    def answered_by(self, source: Endpoint, now: float) -> None:
        """Our IKE_SA_INIT was answered there: from now on we talk with that one alone. An answer
        from an address where we did not ask leaves us where we asked."""
        all_of_them = (self.remote, *self.race)
        if source in self.race:
            self.remote = source
        self.lost += tuple(one for one in all_of_them if one != self.remote)
        self.race = ()
        if self.answered_at is None:
            self.answered_at = now

    def clear_queue(self) -> None:
        """Nothing more is asked on this SA, but for what is under way."""
        while self.queue:
            self.release(self.queue.popleft())

    def reply(self, exchange: Exchange, contents: Contents, remote: Endpoint | None = None) -> None:
        """Answers the request that the window accepted last."""
        data = self.encode(exchange, self.window.expected - 1, contents, response=True)
        self.window.responded(data)
        self.echoes = exchange is not Exchange.IKE_AUTH or contents.auth is None
        self.ctx.send(data, remote or self.remote)

    def schedule(self, now: float) -> None:
        """Starts the lifetime of an IKE SA that has come to stand."""
        lifetime = self.ctx.settings.ike_lifetime
        self.rekey_at = now + rekey_after(self.ctx, lifetime)
        self.expires_at = now + lifetime

    def heard(self, now: float, remote: Endpoint | None = None) -> None:
        """A fresh authenticated message came (RFC 7296 §2.4); the peer is where it came from,
        unless we are behind a NAT ourselves and might be deceived (§2.23), or it would tell us
        (MOBIKE). An initiator moves
        to port 4500 with its IKE_AUTH request, in any case.

        Only IKE follows at once: ESP goes there when the peer has answered from there too.
        """
        self.last_heard = max(self.last_heard, now)
        self.unanswered_since = None
        begins = self.state is SaState.HALF_OPEN
        # An answer to our IKE_AUTH shows that the peer got it where it went, and no more.
        follow = begins or (self.state not in ATTEMPTS and not (self.behind_nat or self.mobike))
        if remote is not None and remote != self.remote and follow:
            self.remote = remote
            self.moves += 1
            self.unproven = self.is_established

    def learn_nat(self, contents: Contents) -> bool:
        """Reads the peer's NAT detection (RFC 7296 §2.23); whether it sees us elsewhere than it
        did before. Only for messages in which both SPIs stand."""
        seen = contents.notify(NotifyType.NAT_DETECTION_DESTINATION_IP)
        if seen is None:
            return False
        natted = natd.we_are_behind_nat(contents, self.spi_i, self.spi_r, self.ctx.own)
        self.behind_nat = self.behind_nat if natted is None else natted
        before, self.nat_seen = self.nat_seen, seen.data
        return before is not None and before != seen.data

    # --- children ---

    def active_child(self, traffic: Traffic = EVERYTHING) -> Child | None:
        """The child that carries the traffic: the newest that nothing has replaced."""
        return next((c for c in self.active_children() if c.sa.traffic == traffic), None)

    def active_children(self) -> list[Child]:
        """The active child for each traffic."""
        live = [c for c in self.children.values() if c.state is ChildState.ACTIVE]
        return list({child.sa.traffic: child for child in live}.values())

    def sends_on(self, child: Child) -> bool:
        """Whether our packets travel on this child."""
        return self.sending.get(child.sa.traffic) is child

    def child_by_outbound(self, spi: int) -> Child | None:
        """The child whose inbound SPI at the peer is ``spi``."""
        return next((c for c in self.children.values() if c.sa.spi_out == spi), None)

    def add_child(self, child: Child) -> None:
        """Keeps a child by its inbound SPI."""
        self.children[child.sa.spi_in] = child

    def send_on(self, child: Child) -> None:
        """Our packets travel on this child from now on, to where the peer has proven to be: IKE
        may be trying another endpoint just now."""
        where = self.proven or self.remote
        self.sending[child.sa.traffic], self.sends_to = child, where
        self.ctx.emit(InstallOutbound(child.sa, where))

    def carry_on(self, other: IkeSa) -> None:
        """Our packets travel here instead of on ``other``, with the same peer; what that one has
        proven of the endpoint where IKE is counts here, too."""
        if other.sends_to == self.remote:
            self.proven = self.remote
        for child in self.active_children():
            self.send_on(child)

    def send_all(self) -> None:
        """The peer has proven that it is where IKE is now: our packets travel there."""
        self.proven = self.remote
        for child in list(self.sending.values()):
            self.send_on(child)

    def remove_child(self, child: Child) -> None:
        """Both directions are gone."""
        if self.children.pop(child.sa.spi_in, None) is None:
            return
        if self.sends_on(child) and self.is_established:
            self._pass_on(child)
        self.ctx.free_spi(child.sa.spi_in)
        self.ctx.emit(RemoveChild(child.sa.peer, child.sa.spi_in, child.sa.spi_out))

    def _pass_on(self, child: Child) -> None:
        """The child that we send on is gone before its time: another carries our traffic."""
        heir = child.heir()
        if heir is None or heir.sa.spi_in not in self.children:
            heir = self.active_child(child.sa.traffic)
        if heir is None:
            del self.sending[child.sa.traffic]
        else:
            self.send_on(heir)

    def bequeath(self, new: IkeSa, now: float) -> None:
        """A rekey is done: ``new`` inherits the children and what waits to be asked (§2.8)."""
        new.children, self.children = self.children, {}
        new.sending, self.sending = self.sending, {}
        new.sends_to = self.sends_to
        new.remote, new.proven = self.remote, self.proven
        self.retire(now)
        while self.queue:
            new.enqueue(self.queue.popleft(), now)

    def cancel_series(self, now: float) -> None:
        """The peer's rekey comes to nothing."""
        series, self.series = self.series, None
        if series is not None:
            series.cancel(now)

    def retire(self, now: float) -> None:
        """Waits for its creator's Delete, and is forgotten if that never comes."""
        self.state = SaState.REKEYED
        self.cancel_series(now)
        self.rekey_at = self.complete_at = None
        self.expires_at = now + self.ctx.settings.half_open_timeout

    # --- the end ---

    def drop(self, reason: str, now: float) -> None:
        """This SA is gone, its keys are forgotten; the owner is told if it was the last."""
        if self.state is SaState.CLOSED:
            return
        was = self.state
        if self.theirs is not None and self.children:
            self.bequeath(self.theirs, now)  # closed by the peer in the midst of crossing rekeys
        self.state = SaState.CLOSED
        self.cancel_series(now)
        if self.reserved is not None:
            self.reserved.drop(reason, now)
        self._hand_over()
        for child in list(self.children.values()):
            self.remove_child(child)
        if self.echoes:
            self.ctx.echoes.keep(self.window.last, now)
        self.ctx.remove(self)
        self._forget()
        if self.name is None or self.ctx.standing(self.name):
            return
        if was in ATTEMPTS:
            others = any(sa.state in ATTEMPTS for sa in self.ctx.named(self.name))
            remote = None if self.answered_at is None else self.remote
            self.ctx.emit(IkeFailed(self.name, reason, remote, others))
        elif was not in STRANGERS:
            self.ctx.emit(PeerDown(self.name, reason))

    def _hand_over(self) -> None:
        """Another SA with this peer takes the traffic before the children of this one go."""
        heir = self.ctx.current(self.name) if self.name and self.children else None
        if heir is not None:
            heir.carry_on(self)

    def _forget(self) -> None:
        self.keys = self._seal = self._open = None
        self.asked.forget()
        self.told.forget()
        if self.task is not None:
            self.release(self.task)
        self.task = None
        self.clear_queue()
        self.window.outstanding = None
        self.init = Init()
        self.nonces = Nonces(b"", b"")
        self.mine = self.theirs = self.reserved = None
        self.pending = None
        self.sending = {}


def plain_message(header: Header, payloads: list[Payload]) -> bytes:
    """An unprotected message: IKE_SA_INIT, and errors to strangers."""
    first, chain = encode_chain(payloads)
    whole = replace(header, next_payload=first, length=HEADER_OCTETS + len(chain))
    return whole.encode() + chain
