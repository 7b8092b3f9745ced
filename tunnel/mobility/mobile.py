"""The mobile's side: to say where we are, to a home agent or a correspondent, until it knows.

::

    IDLE ── register ──> SAID ── AOTC: AOTR ──> ANSWERED ── BA ──> BOUND ── 3/4 of its life ──> SAID
                          │  └──────────── BA (known already, or a home agent) ──> BOUND
                          └── BA ≥ 128 ──> REFUSED ── a minute ──> SAID

Without an answer a binding update is repeated after 1 s (the first to a home agent: 1.5 s), then
after twice as long, up to 32 s, each with a greater sequence number (RFC 6275 §11.8). A lost
acknowledgement after a test is asked for with the same AOTR (I17), and after three of them with
a binding update again, since the correspondent may have forgotten.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, StrEnum

from fastpath.types import Endpoint, Source
from tunnel.mobility.claims import Claim
from tunnel.mobility.commands import (
    Command,
    EarlyProof,
    NotRegistered,
    Refused,
    Registered,
    Send,
    Unheard,
)
from tunnel.mobility.header import (
    UNKNOWN_TYPE,
    Aotc,
    Aoto,
    Aotr,
    Aots,
    BindingAck,
    BindingError,
    BindingUpdate,
    Status,
    Verdict,
)
from tunnel.mobility.limits import (
    FIRST_REGISTRATION_TIMEOUT,
    INITIAL_BINDACK_TIMEOUT,
    MAX_BINDACK_TIMEOUT,
    Deadlines,
    MobilitySettings,
    Rate,
    following,
    is_old,
)
from tunnel.mobility.options import NEVER, NatDetection, RefreshAdvice, first

_LEAST_REFRESH = 1.0  # seconds between an acknowledgement and the next binding update


class Phase(StrEnum):
    """Where a registration stands."""

    IDLE = "idle"
    SAID = "said"
    ANSWERED = "answered"
    BOUND = "bound"
    REFUSED = "refused"


class _By(Enum):
    """The ways by which one binding update goes."""

    RELAY = "relay"
    DIRECT = "direct"


@dataclass(slots=True)
class _Opening:
    """An AOTO on its way: the way it goes, from where, and how often it went. ``invite``: a relay
    endpoint, and what the peer may hear there of where the AOTO comes from."""

    via: Endpoint
    source: Source | None
    invite: tuple[Endpoint, Claim] | None = None
    tries: int = 0
    next_at: float = 0.0


@dataclass(slots=True)
class Registration:
    """What one correspondent or home agent knows of us. Times are monotonic, in seconds."""

    sequence: int
    via: Endpoint = ("", 0)
    invite: Endpoint | None = None
    claim: Claim = field(default_factory=Claim)
    inviting: Claim | None = None  # what is said by way of the home agent, if that is another
    home: bool = False
    lifetime: int = 0  # that we ask for; 0 while we take the binding back
    phase: Phase = Phase.IDLE
    tries: int = 0  # binding updates since the last answer
    unsaid: tuple[_By, ...] = ()  # of the last one, while the rate does not allow it
    pause: float = INITIAL_BINDACK_TIMEOUT
    next_at: float | None = None
    said_at: float = 0.0
    until: float | None = None  # the end of the binding as it was granted
    nonce: bytes = b""
    answers: int = 0  # AOTRs with it
    challenger: Endpoint = ("", 0)
    opening: _Opening | None = None
    updates: Rate = field(default_factory=Rate)
    responses: Rate = field(default_factory=Rate)
    opens: Rate = field(default_factory=Rate)

    def timers(self) -> list[float]:
        """When something is due."""
        due = [self.next_at, self.until, self.opening.next_at if self.opening else None]
        return [at for at in due if at is not None]


class Mobile:
    """All registrations of one host. ``random(n)`` gives n octets that nobody can guess."""

    def __init__(
        self, random: Callable[[int], bytes], settings: MobilitySettings | None = None
    ) -> None:
        self._random = random
        self._settings = settings or MobilitySettings()
        self._registrations: dict[str, Registration] = {}
        self._due: Deadlines[str] = Deadlines()

    @property
    def registrations(self) -> dict[str, Registration]:
        """By peer's name; not to be changed."""
        return self._registrations

    # --- What the owner wants -----------------------------------------------------------------

    def register(
        self,
        peer: str,
        via: Endpoint,
        claim: Claim,
        now: float,
        home: bool = False,
        invite: Endpoint | None = None,
        inviting: Claim | None = None,
    ) -> list[Command]:
        """Tell ``peer`` where we are, with messages to ``via``, and go on until it knows.

        ``invite``: a relay endpoint by which it hears of our endpoint, too, as long as ``via`` may
        be closed to us; ``inviting`` is what it hears there, if not ``claim``. Once more with
        another claim or way after a move; what is known stays.
        """
        known = self._registrations.get(peer)
        if known is None:
            known = Registration(int.from_bytes(self._random(2)))
            self._registrations[peer] = known
        first_home = home and known.until is None
        known.via, known.claim, known.home = via, claim, home
        known.invite, known.inviting = invite, inviting
        known.lifetime = self._settings.home_lifetime if home else self._settings.lifetime
        known.pause = FIRST_REGISTRATION_TIMEOUT if first_home else INITIAL_BINDACK_TIMEOUT
        return self._again(peer, known, now)

    def redirect(self, peer: str, via: Endpoint, claim: Claim) -> None:
        """The next binding update goes this way, with this claim; when it goes stays."""
        known = self._registrations.get(peer)
        if known is not None:
            known.via, known.claim = via, claim

    def rest(self, peer: str) -> None:
        """Say nothing more to ``peer`` until asked to; what it knows of us ends by itself."""
        known = self._registrations.get(peer)
        if known is not None:
            known.phase, known.next_at, known.until, known.opening = Phase.IDLE, None, None, None
            self._due.clear(peer)

    def deregister(self, peer: str, now: float, via: Endpoint | None = None) -> list[Command]:
        """Tell ``peer`` that we are at our home address only."""
        known = self._registrations.get(peer)
        if known is None or known.phase is Phase.IDLE:
            return []
        known.via, known.invite, known.lifetime = via or known.via, None, 0
        known.pause, known.opening = INITIAL_BINDACK_TIMEOUT, None
        return self._again(peer, known, now)

    def open(
        self,
        peer: str,
        via: Endpoint,
        now: float,
        source: Source | None = None,
        invite: tuple[Endpoint, Claim] | None = None,
    ) -> list[Command]:
        """Have the address proven that we send from towards ``via``, or ``source``, before it is
        needed (I20). ``invite``: if there is no answer, the peer hears by this relay endpoint where
        we shall come from, so that its NAT lets us in.

        Nothing where we are not registered with ``peer`` (I25). The next binding update ends it,
        and nobody is told: so an AOTC that comes meanwhile from ``via`` is about this address, and
        is answered from it.
        """
        known = self._registrations.get(peer)
        if known is None or known.phase is not Phase.BOUND or known.home:
            return []
        known.opening = _Opening(via, source, invite)
        return self._scheduled(peer, known, self._open(peer, known, now))

    def place(
        self, peer: str, source: Source, relay: Endpoint, claim: Claim, now: float
    ) -> list[Command]:
        """It is found out where ``peer`` sees what we send from ``source``: it hears that by
        ``relay``, its relay endpoint, and two more AOTOs follow. Nothing where no opening of that
        source has been unheard, or its place is known."""
        known = self._registrations.get(peer)
        opening = None if known is None else known.opening
        if known is None or opening is None or opening.source != source:
            return []
        if opening.tries < 2 or opening.invite is not None:
            return []
        opening.invite, opening.tries = (relay, claim), 1
        opening.next_at = now + INITIAL_BINDACK_TIMEOUT
        return self._scheduled(peer, known, self._invite(peer, known, opening, now))

    def forget(self, peer: str) -> None:
        """``peer`` is no peer any more."""
        self._registrations.pop(peer, None)
        self._due.clear(peer)

    # --- What peers say -----------------------------------------------------------------------

    def acknowledged(
        self, peer: str, message: BindingAck, source: Endpoint, now: float
    ) -> list[Command]:
        """A BA. One that answers nothing is not heeded (RFC 6275 §11.7.3)."""
        known = self._registrations.get(peer)
        unasked: list[Command] = [Refused(peer, source, "unasked")]
        if known is None or known.phase not in (Phase.SAID, Phase.ANSWERED):
            return unasked
        if message.status == Status.SEQUENCE:
            if not is_old(known.sequence, message.sequence):
                return unasked
            known.sequence = message.sequence
            return self._again(peer, known, now)
        if message.sequence != known.sequence:
            return unasked
        if message.accepted:
            return self._bound(peer, known, message, now)
        if message.status == Status.INVALID_CARE_OF and known.claim.may_be_wrong:
            known.claim = known.claim.without_address()
            return self._again(peer, known, now)
        return self._refused(peer, known, message.status, now, "it refused the binding update")

    def challenged(
        self, peer: str, message: Aotc, source: Endpoint, relay: Endpoint, now: float
    ) -> list[Command]:
        """An AOTC: answered from where it came to, to where it came from (I21, I27).

        ``relay`` is the peer's relay endpoint: what comes from there came to our home address, and
        is answered as long as the peer may know of us (I21). It says nothing about the address
        that is being registered.
        """
        known = self._registrations.get(peer)
        at_home = source == relay
        if known is None or known.home or (known.phase is Phase.IDLE and not at_home):
            return [Refused(peer, source, "unasked")]
        if not known.responses.allows(now):
            return [Refused(peer, source, "flood")]
        if at_home:
            return [Send(peer, source, Aotr(message.nonce))]
        if known.opening is not None and known.opening.via == source:
            return [Send(peer, source, Aotr(message.nonce), known.opening.source)]
        if known.phase is Phase.SAID:
            known.phase, known.nonce, known.challenger = Phase.ANSWERED, message.nonce, source
            known.answers, known.next_at = 1, now + INITIAL_BINDACK_TIMEOUT
        elif known.phase is Phase.ANSWERED:
            known.nonce, known.challenger = message.nonce, source
        answer = Send(peer, source, Aotr(message.nonce))
        return self._scheduled(peer, known, [answer])

    def judged(self, peer: str, message: Aots, source: Endpoint) -> list[Command]:
        """An AOTS: the end of an early proof."""
        known = self._registrations.get(peer)
        if known is None or known.opening is None:
            return [Refused(peer, source, "unasked")]
        return self._opened(peer, known, message.code == Verdict.VALID)

    def asked(self, peer: str, source: Endpoint, now: float) -> list[Command]:
        """A BRR: the correspondent wants to keep the binding."""
        known = self._registrations.get(peer)
        if known is None or known.phase is not Phase.BOUND:
            return [Refused(peer, source, "unasked")]
        return self._again(peer, known, now)

    def failed(
        self, peer: str, message: BindingError, source: Endpoint, now: float
    ) -> list[Command]:
        """A BE: what we sent is unknown there, or its sense (RFC 6275 §11.3.6)."""
        known = self._registrations.get(peer)
        if known is None or known.phase is Phase.IDLE:
            return [Refused(peer, source, "unasked")]
        if message.status != UNKNOWN_TYPE:
            return self._again(peer, known, now) if known.phase is Phase.BOUND else []
        if known.opening is not None:
            return self._opened(peer, known, False)
        if known.phase in (Phase.SAID, Phase.ANSWERED):
            return self._refused(peer, known, None, now, "it does not speak our mobility messages")
        return [Refused(peer, source, "unasked")]

    # --- Time ---------------------------------------------------------------------------------

    def advance(self, now: float) -> list[Command]:
        """Repeats what has no answer, refreshes, and notices the end of what was not refreshed."""
        commands: list[Command] = []
        for peer in self._due.due(now):
            known = self._registrations[peer]
            if known.until is not None and known.until <= now:
                known.until = None
                words = "the binding ended"
                commands.append(NotRegistered(peer, None, known.tries, words))
            if known.opening is not None and known.opening.next_at <= now:
                commands += self._open(peer, known, now)
            if known.next_at is not None and known.next_at <= now:
                commands += self._tick(peer, known, now)
            self._scheduled(peer, known, [])
        return commands

    def next_timer(self) -> float | None:
        """When something is due."""
        return self._due.next()

    # --- Inside -------------------------------------------------------------------------------

    def _tick(self, peer: str, known: Registration, now: float) -> list[Command]:
        if known.phase is Phase.ANSWERED:
            if known.answers < self._settings.answers:
                return self._answer_again(peer, known, now)
            if now < known.said_at + known.pause:
                # Who tests us and never acknowledges is told less and less often, too.
                known.next_at = known.said_at + known.pause
                return []
        if known.lifetime == 0 and known.tries >= self._settings.farewells:
            return self._ended(peer, known)
        return self._update(peer, known, now)

    def _again(self, peer: str, known: Registration, now: float) -> list[Command]:
        """A binding update now, or as soon as the rate allows. What had to wait goes first: else a
        full rate could go to the other way alone, each time."""
        known.tries = 0
        waited = known.unsaid
        known.unsaid = (*waited, *(by for by in _By if by not in waited))
        return self._scheduled(peer, known, self._update(peer, known, now))

    def _update(self, peer: str, known: Registration, now: float) -> list[Command]:
        """One binding update, or what is left of the last one."""
        left = known.unsaid if known.phase is Phase.SAID else ()
        known.phase, known.opening, known.unsaid = Phase.SAID, None, left or tuple(_By)
        commands: list[Command] = []
        while known.unsaid:
            if (way := self._way(known, known.unsaid[0])) is not None:
                if not known.updates.allows(now):
                    known.next_at = known.updates.free_at(now)
                    return commands
                known.sequence = following(known.sequence)
                options = way[1].options if known.lifetime else ()
                message = BindingUpdate(known.sequence, known.lifetime, options, home=known.home)
                commands.append(Send(peer, way[0], message))
            known.unsaid = known.unsaid[1:]
        known.tries += 1
        known.said_at, known.next_at = now, now + known.pause
        known.pause = min(known.pause * 2, MAX_BINDACK_TIMEOUT)
        if known.tries > 1 and known.lifetime:
            words = "it does not answer"
            commands.append(NotRegistered(peer, None, known.tries - 1, words))
        return commands

    @staticmethod
    def _way(known: Registration, by: _By) -> tuple[Endpoint, Claim] | None:
        if by is _By.DIRECT:
            return known.via, known.claim
        inviting = known.inviting or known.claim
        # Who names no endpoint there says that it is at home.
        if known.invite is None or inviting.endpoint is None:
            return None
        return known.invite, inviting

    def _answer_again(self, peer: str, known: Registration, now: float) -> list[Command]:
        if not known.responses.allows(now):
            known.next_at = known.responses.free_at(now)
            return []
        known.next_at = now + INITIAL_BINDACK_TIMEOUT * 2**known.answers
        known.answers += 1
        return [Send(peer, known.challenger, Aotr(known.nonce))]

    def _bound(
        self, peer: str, known: Registration, message: BindingAck, now: float
    ) -> list[Command]:
        if known.lifetime == 0:
            return self._scheduled(peer, known, self._ended(peer, known))
        if message.lifetime == 0:
            return self._refused(peer, known, message.status, now, "it granted no time")
        fresh = known.until is None
        life = float(min(message.lifetime, known.lifetime))
        advice = first(message.options, RefreshAdvice)
        refresh = life * self._settings.refresh_at
        if advice is not None and advice.seconds:
            refresh = min(refresh, float(advice.seconds))
        known.phase, known.tries, known.pause = Phase.BOUND, 0, INITIAL_BINDACK_TIMEOUT
        known.until = known.said_at + life
        known.next_at = max(known.said_at + refresh, now + _LEAST_REFRESH)
        seen = first(message.options, NatDetection)
        nat = seen is not None and seen.refresh not in (0, NEVER)
        where = known.claim.endpoint or ("", 0)
        told = Registered(peer, where, message.lifetime, nat, fresh)
        return self._scheduled(peer, known, [told])

    def _ended(self, peer: str, known: Registration) -> list[Command]:
        known.phase, known.next_at, known.until = Phase.IDLE, None, None
        return [NotRegistered(peer, None, known.tries, "we took it back")]

    def _refused(
        self, peer: str, known: Registration, status: int | None, now: float, reason: str
    ) -> list[Command]:
        known.phase, known.until = Phase.REFUSED, None
        known.pause = INITIAL_BINDACK_TIMEOUT
        known.next_at = now + self._settings.refused_pause
        told = NotRegistered(peer, status, known.tries, reason)
        known.tries = 0
        return self._scheduled(peer, known, [told])

    def _open(self, peer: str, known: Registration, now: float) -> list[Command]:
        opening = known.opening
        assert opening is not None
        if opening.tries >= self._settings.opens:
            return self._opened(peer, known, False)
        if not known.opens.allows(now):
            opening.next_at = known.opens.free_at(now)
            return []
        opening.tries += 1
        opening.next_at = now + INITIAL_BINDACK_TIMEOUT * 2 ** (opening.tries - 1)
        said: list[Command] = [Send(peer, opening.via, Aoto(), opening.source)]
        if opening.tries > 1:
            said += self._invite(peer, known, opening, now)
        if opening.tries == 2 and opening.invite is None and opening.source is not None:
            said.append(Unheard(peer, opening.via, opening.source))
        return said

    @staticmethod
    def _invite(peer: str, known: Registration, opening: _Opening, now: float) -> list[Command]:
        """The peer hears where we shall come from; that binds nothing."""
        if opening.invite is None or not known.updates.allows(now):
            return []
        relay, claim = opening.invite
        known.sequence = following(known.sequence)
        return [Send(peer, relay, BindingUpdate(known.sequence, known.lifetime, claim.options))]

    def _opened(self, peer: str, known: Registration, valid: bool) -> list[Command]:
        opening, known.opening = known.opening, None
        assert opening is not None
        told = EarlyProof(peer, opening.via, valid, opening.source)
        return self._scheduled(peer, known, [told])

    def _scheduled(self, peer: str, known: Registration, commands: list[Command]) -> list[Command]:
        due = known.timers()
        if due:
            self._due.set(peer, min(due))
        else:
            self._due.clear(peer)
        return commands
