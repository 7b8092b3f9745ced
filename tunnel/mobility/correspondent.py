"""The correspondent's side: who says that he is somewhere has to receive there, too (I12–I21).

A binding update is accepted only from the endpoint that it names (:mod:`tunnel.mobility.claims`),
traffic *from* there at once, but nothing is sent there, the test apart, before the mobile has
answered it with a nonce that it can know only from there. It is asked at its home address at the
same time, by the home agent, and a binding takes effect when both answers are there, whichever
comes first (I10, I22). The proof of the home address lasts as long as the mobility SA; when that is
rekeyed, who is bound is asked once more, and whoever is not has to prove it again with his next
binding. A test is one small packet for one small packet; three a second go to a peer and a hundred
to all, so that nobody can aim them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from hmac import compare_digest

from fastpath.types import Endpoint
from tunnel.mobility.claims import Claim
from tunnel.mobility.commands import (
    Accepted,
    Command,
    DropBinding,
    HomeProven,
    HomeSilent,
    Invited,
    KeepProofs,
    Refused,
    Send,
    UseEndpoint,
)
from tunnel.mobility.header import (
    Aotc,
    Aotr,
    Aots,
    BindingAck,
    BindingUpdate,
    Status,
    Verdict,
)
from tunnel.mobility.limits import (
    INITIAL_BINDACK_TIMEOUT,
    NATKATIMEOUT,
    Deadlines,
    MobilitySettings,
    Rate,
    is_old,
)
from tunnel.mobility.options import NEVER, NONCE_OCTETS, UNIT, NatDetection, is_unicast
from tunnel.mobility.proofs import Proofs
from tunnel.pending import Bucket


class Purpose(StrEnum):
    """What a test is for, and so what follows its success."""

    BINDING = "binding"  # BA
    EARLY = "early"  # AOTS 1
    HOME = "home"  # what waits for it


@dataclass(slots=True)
class _Test:
    """A nonce on its way to ``address``. It stays open after success (I17). ``nat``: the endpoint
    is a NAT's, or may be, since an AOTO does not say."""

    nonce: bytes
    address: Endpoint
    purpose: Purpose
    until: float
    nat: bool
    answered: bool = False  # and what follows waits for the home address


@dataclass(slots=True)
class Binding:
    """Where one mobile is. After its end, ``sequence`` alone is kept, so that an old message that
    was late makes no binding again."""

    sequence: int
    care_of: Endpoint | None = None  # as last said
    nat: bool = False
    lifetime: int = 0  # granted, in seconds
    until: float = 0.0
    used: Endpoint | None = None  # proven, where our traffic goes
    tests: list[_Test] = field(default_factory=list)
    relay: Endpoint = ("", 0)  # its relay endpoint
    at_home: bool = False  # it has answered there
    asked: int = 0  # times it was asked there without an answer; 0 if nobody asks
    home_tests: list[_Test] = field(default_factory=list)
    updates: Rate = field(default_factory=Rate)
    acks: Rate = field(default_factory=Rate)
    challenges: Rate = field(default_factory=Rate)
    verdicts: Rate = field(default_factory=Rate)


class Correspondent:
    """All bindings of the peers with one host. ``random(n)`` gives n octets nobody can guess."""

    def __init__(
        self,
        random: Callable[[int], bytes],
        proofs: Proofs,
        settings: MobilitySettings | None = None,
    ) -> None:
        self._random = random
        self._proofs = proofs
        self._settings = settings or MobilitySettings()
        self._bindings: dict[str, Binding] = {}
        self._ends: Deadlines[str] = Deadlines()
        self._asks: Deadlines[str] = Deadlines()
        self._tests = Bucket(self._settings.tests_per_second)

    @property
    def bindings(self) -> dict[str, Binding]:
        """By peer's name; not to be changed."""
        return self._bindings

    # --- Binding updates ----------------------------------------------------------------------

    def update(
        self,
        peer: str,
        message: BindingUpdate,
        source: Endpoint,
        relay: Endpoint,
        now: float,
        unix: int,
    ) -> list[Command]:
        """A BU without H. ``relay`` is the peer's relay endpoint: from there comes what the home
        agent passed on, and whoever says to be there is at home."""
        claim = Claim.read(message.options)
        if source == relay and message.lifetime and claim.endpoint not in (None, relay):
            return self._invited(peer, claim, source)
        binding = self._bindings.get(peer)
        if binding is None:
            if len(self._bindings) >= self._settings.bindings:
                refusal = BindingAck(Status.NO_RESOURCES, message.sequence, 0)
                return [Refused(peer, source, "full"), Send(peer, source, refusal)]
            binding = Binding((message.sequence - 1) % 65536)
        if not binding.updates.allows(now):
            return [Refused(peer, source, "flood")]
        if is_old(message.sequence, binding.sequence):
            answer = self._ack(peer, binding, source, Status.SEQUENCE, now)
            return [Refused(peer, source, "sequence"), *answer]
        self._bindings[peer] = binding
        if message.lifetime == 0 or source == relay:
            return self._taken_back(peer, binding, message, source, now)
        if not is_unicast(source):
            return [Refused(peer, source, "not_unicast")]
        if not claim.holds(source):
            refusal = BindingAck(Status.INVALID_CARE_OF, message.sequence, 0)
            sent = [Send(peer, source, refusal)] if binding.acks.allows(now) else []
            return [Refused(peer, source, "care_of"), *sent]
        return self._bind(peer, binding, message, source, relay, now, unix)

    def _invited(self, peer: str, claim: Claim, source: Endpoint) -> list[Command]:
        binding, endpoint = self._bindings.get(peer), claim.endpoint
        if endpoint is None or not is_unicast(endpoint):
            return [Refused(peer, source, "not_unicast")]
        if binding is not None and binding.used == endpoint:
            return []
        return [Invited(peer, endpoint)]

    def _bind(
        self,
        peer: str,
        binding: Binding,
        message: BindingUpdate,
        source: Endpoint,
        relay: Endpoint,
        now: float,
        unix: int,
    ) -> list[Command]:
        settings = self._settings
        binding.sequence, binding.care_of, binding.relay = message.sequence, source, relay
        binding.nat = Claim.read(message.options).passed_nat(source)
        binding.lifetime = min(message.lifetime, settings.longest) // UNIT * UNIT
        binding.until = now + binding.lifetime
        self._ends.set(peer, binding.until)
        proven = binding.used == source or self._proofs.holds(peer, source, unix)
        commands: list[Command] = [Accepted(peer, source, proven and binding.at_home)]
        if not proven:
            commands += self._test(peer, binding, source, Purpose.BINDING, now)
        if not binding.at_home:
            return commands + self._ask_home(peer, binding, now)
        if not proven:
            return commands
        commands += self._use(peer, binding, source)
        if message.acknowledge:
            commands += self._ack(peer, binding, source, Status.ACCEPTED, now)
        return commands

    @staticmethod
    def _use(peer: str, binding: Binding, endpoint: Endpoint) -> list[Command]:
        """Both addresses are proven."""
        if binding.used == endpoint:
            return []
        binding.used = endpoint
        return [UseEndpoint(peer, endpoint)]

    def _taken_back(
        self, peer: str, binding: Binding, message: BindingUpdate, source: Endpoint, now: float
    ) -> list[Command]:
        """A mobile at its home address needs no binding (RFC 6275 §9.5.1)."""
        binding.sequence = message.sequence
        commands = self._end(peer, binding, "it took its binding back", asked=True)
        if message.acknowledge:
            commands += self._ack(peer, binding, source, Status.ACCEPTED, now)
        return commands

    # --- Tests --------------------------------------------------------------------------------

    def opened(
        self, peer: str, source: Endpoint, relay: Endpoint, now: float, unix: int
    ) -> list[Command]:
        """An AOTO from the address that shall be tested (I20, I25, I28), which is not ``relay``."""
        binding = self._bindings.get(peer)
        if binding is None or binding.care_of is None or not binding.at_home:
            return [Refused(peer, source, "unregistered")]
        if source == relay or not is_unicast(source):
            return [Refused(peer, source, "not_unicast")]
        proven = binding.used == source or self._proofs.holds(peer, source, unix)
        if self._settings.early and not proven:
            return self._test(peer, binding, source, Purpose.EARLY, now)
        verdict = Verdict.VALID if self._settings.early else Verdict.NOT_ALLOWED
        return self._verdict(peer, binding, source, verdict, now)

    def answered(
        self, peer: str, message: Aotr, source: Endpoint, now: float, unix: int
    ) -> list[Command]:
        """An AOTR: looked up by the endpoint that it came from (I27)."""
        binding = self._bindings.get(peer)
        test = None if binding is None else self._open_test(binding, message.nonce, source, now)
        if binding is None or test is None:
            return [Refused(peer, source, "nonce")]
        if test.purpose is Purpose.HOME:
            return self._answered_at_home(peer, binding, now, unix)
        if not binding.at_home:
            test.answered = True
            return self._ask_home(peer, binding, now)
        commands = self._keep(peer, test, unix)
        if binding.care_of == source:
            commands += self._use(peer, binding, source)
        if test.purpose is Purpose.EARLY:
            return commands + self._verdict(peer, binding, source, Verdict.VALID, now)
        if binding.care_of == source:
            commands += self._ack(peer, binding, source, Status.ACCEPTED, now)
        return commands

    def _keep(self, peer: str, test: _Test, unix: int) -> list[Command]:
        fresh = self._proofs.add(peer, test.address, unix, test.nat)
        return [KeepProofs()] if fresh else []

    @staticmethod
    def _open_test(binding: Binding, nonce: bytes, source: Endpoint, now: float) -> _Test | None:
        for test in (*binding.tests, *binding.home_tests):
            if test.address == source and test.until > now and compare_digest(test.nonce, nonce):
                return test
        return None

    def _test(
        self, peer: str, binding: Binding, address: Endpoint, purpose: Purpose, now: float
    ) -> list[Command]:
        """A challenge, with a nonce of its own (I24), beside those that are still under way."""
        if not binding.challenges.allows(now) or not self._tests.allows(now):
            return [Refused(peer, address, "flood")]
        nonce = self._random(NONCE_OCTETS)
        until = now + self._settings.nonce_life
        nat = binding.nat if purpose is Purpose.BINDING else ":" not in address[0]
        test, most = _Test(nonce, address, purpose, until, nat), self._settings.tests
        if purpose is Purpose.HOME:
            binding.home_tests = [*binding.home_tests, test][-most:]
        else:
            binding.tests = [*binding.tests, test][-most:]
        return [Send(peer, address, Aotc(nonce))]

    def _verdict(
        self, peer: str, binding: Binding, source: Endpoint, verdict: Verdict, now: float
    ) -> list[Command]:
        if not binding.verdicts.allows(now):
            return [Refused(peer, source, "flood")]
        return [Send(peer, source, Aots(verdict))]

    # --- The home address ---------------------------------------------------------------------

    def rekeyed(self, peer: str, now: float) -> list[Command]:
        """The mobility SA was replaced by another: what was proven in the old one is to be proven
        in the new one (I21). Where a binding stands no answer takes nothing away."""
        binding = self._bindings.get(peer)
        if binding is None:
            return []
        binding.home_tests.clear()
        if binding.care_of is None:
            binding.at_home = False
            return []
        return self._ask_home(peer, binding, now)

    def _ask_home(self, peer: str, binding: Binding, now: float) -> list[Command]:
        """An AOTC by way of the home agent, and again while there is no answer; whoever asks for
        more meanwhile gets no more."""
        return [] if binding.asked else self._ask_again(peer, binding, now)

    def _ask_again(self, peer: str, binding: Binding, now: float) -> list[Command]:
        if binding.asked >= self._settings.home_asks:
            binding.asked = 0
            return [HomeSilent(peer, binding.at_home)]
        self._asks.set(peer, now + INITIAL_BINDACK_TIMEOUT * 2**binding.asked)
        binding.asked += 1
        return self._test(peer, binding, binding.relay, Purpose.HOME, now)

    def _answered_at_home(
        self, peer: str, binding: Binding, now: float, unix: int
    ) -> list[Command]:
        """What waited for this takes effect; an answer that is late counts as long as its nonce."""
        if binding.at_home and not binding.asked:
            return []
        waited, binding.at_home, binding.asked = not binding.at_home, True, 0
        self._asks.clear(peer)
        commands: list[Command] = [HomeProven(peer)]
        for test in binding.tests:
            if waited and test.answered and test.until > now:
                commands += self._keep(peer, test, unix)
        care_of = binding.care_of
        if waited and care_of is not None and self._proofs.holds(peer, care_of, unix):
            commands += self._use(peer, binding, care_of)
            commands += self._ack(peer, binding, care_of, Status.ACCEPTED, now)
        return commands

    # --- Ends ---------------------------------------------------------------------------------

    def left(self, peer: str, endpoint: Endpoint) -> list[Command]:
        """Our traffic does not go to ``peer`` at ``endpoint`` any more, since nothing came back:
        what was proven there has to be proven again."""
        binding = self._bindings.get(peer)
        if binding is not None and binding.used == endpoint:
            binding.used = None
        return [KeepProofs()] if self._proofs.drop(peer, endpoint) else []

    def forget(self, peer: str) -> list[Command]:
        """``peer`` is no peer any more, or its mobility SA is gone: nothing of it is kept but the
        proofs of its care-of addresses."""
        self._asks.clear(peer)
        binding = self._bindings.pop(peer, None)
        if binding is None:
            return []
        return self._end(peer, binding, "its tunnel is gone")

    def advance(self, now: float) -> list[Command]:
        """Ends the bindings whose time is over, and asks again who did not answer at home."""
        commands: list[Command] = []
        for peer in self._ends.due(now):
            commands += self._end(peer, self._bindings[peer], "its binding ended")
        for peer in self._asks.due(now):
            commands += self._ask_again(peer, self._bindings[peer], now)
        return commands

    def next_timer(self) -> float | None:
        """When the first binding ends, or somebody is asked again."""
        due = self._ends.next(), self._asks.next()
        return min((at for at in due if at is not None), default=None)

    def _end(
        self, peer: str, binding: Binding, reason: str, *, asked: bool = False
    ) -> list[Command]:
        self._ends.clear(peer)
        used, binding.care_of, binding.used = binding.used, None, None
        binding.tests.clear()
        return [] if used is None else [DropBinding(peer, reason, asked)]

    def _ack(
        self, peer: str, binding: Binding, endpoint: Endpoint, status: Status, now: float
    ) -> list[Command]:
        """BA with the last accepted sequence number; in the words of RFC 5555, what we saw."""
        if not binding.acks.allows(now):
            return [Refused(peer, endpoint, "flood")]
        bound = status is Status.ACCEPTED and binding.care_of is not None
        seen = NatDetection(NATKATIMEOUT if binding.nat else NEVER, forced=True)
        lifetime, options = (binding.lifetime, (seen,)) if bound else (0, ())
        return [Send(peer, endpoint, BindingAck(status, binding.sequence, lifetime, options))]
