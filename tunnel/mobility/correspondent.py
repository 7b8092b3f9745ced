"""The correspondent's side: who says that he is somewhere has to receive there, too (I12–I21).

A binding update is accepted only from the endpoint that it names (:mod:`tunnel.mobility.claims`),
traffic *from* there at once, but nothing is sent there, the test apart, before the mobile has
answered it with a nonce that it can know only from there. A test is one small packet for one
small packet; three a second go to a peer and a hundred to all, so that nobody can aim them.
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
from tunnel.mobility.limits import NATKATIMEOUT, Deadlines, MobilitySettings, Rate, is_old
from tunnel.mobility.options import NEVER, NONCE_OCTETS, UNIT, NatDetection, is_unicast
from tunnel.mobility.proofs import Proofs
from tunnel.pending import Bucket


class Purpose(StrEnum):
    """What a test is for, and so what follows its success."""

    BINDING = "binding"  # BA
    EARLY = "early"  # AOTS 1
    HOME = "home"  # nothing on the wire


@dataclass(slots=True)
class _Test:
    """A nonce on its way to ``address``. It stays open after success (I17). ``nat``: the endpoint
    is a NAT's, or may be, since an AOTO does not say."""

    nonce: bytes
    address: Endpoint
    purpose: Purpose
    until: float
    nat: bool


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
        home: Endpoint,
        now: float,
        unix: int,
    ) -> list[Command]:
        """A BU without H. ``home`` is the peer's relay endpoint: from there comes what the home
        agent passed on, and whoever says to be there is at home."""
        claim = Claim.read(message.options)
        if source == home and message.lifetime and claim.endpoint not in (None, home):
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
        if message.lifetime == 0 or source == home:
            return self._taken_back(peer, binding, message, source, now)
        if not is_unicast(source):
            return [Refused(peer, source, "not_unicast")]
        if not claim.holds(source):
            refusal = BindingAck(Status.INVALID_CARE_OF, message.sequence, 0)
            sent = [Send(peer, source, refusal)] if binding.acks.allows(now) else []
            return [Refused(peer, source, "care_of"), *sent]
        return self._bind(peer, binding, message, source, now, unix)

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
        now: float,
        unix: int,
    ) -> list[Command]:
        settings = self._settings
        binding.sequence, binding.care_of = message.sequence, source
        binding.nat = Claim.read(message.options).passed_nat(source)
        binding.lifetime = min(message.lifetime, settings.longest) // UNIT * UNIT
        binding.until = now + binding.lifetime
        self._ends.set(peer, binding.until)
        proven = binding.used == source or self._proofs.holds(peer, source, unix)
        commands: list[Command] = [Accepted(peer, source, proven)]
        if not proven:
            return commands + self._test(peer, binding, source, Purpose.BINDING, now)
        if binding.used != source:
            binding.used = source
            commands.append(UseEndpoint(peer, source))
        if message.acknowledge:
            commands += self._ack(peer, binding, source, Status.ACCEPTED, now)
        return commands

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
        self, peer: str, source: Endpoint, home: Endpoint, now: float, unix: int
    ) -> list[Command]:
        """An AOTO from the address that shall be tested (I20, I25, I28), which is not ``home``."""
        binding = self._bindings.get(peer)
        if binding is None or binding.care_of is None:
            return [Refused(peer, source, "unregistered")]
        if source == home or not is_unicast(source):
            return [Refused(peer, source, "not_unicast")]
        proven = binding.used == source or self._proofs.holds(peer, source, unix)
        if self._settings.early and not proven:
            return self._test(peer, binding, source, Purpose.EARLY, now)
        verdict = Verdict.VALID if self._settings.early else Verdict.NOT_ALLOWED
        return self._verdict(peer, binding, source, verdict, now)

    def check_home(self, peer: str, home: Endpoint, now: float) -> list[Command]:
        """Ask a registered mobile at its home address (I21); ``home`` is its relay endpoint."""
        binding = self._bindings.get(peer)
        if binding is None or binding.care_of is None:
            return []
        return self._test(peer, binding, home, Purpose.HOME, now)

    def answered(
        self, peer: str, message: Aotr, source: Endpoint, now: float, unix: int
    ) -> list[Command]:
        """An AOTR: looked up by the endpoint that it came from (I27)."""
        binding = self._bindings.get(peer)
        test = None if binding is None else self._open_test(binding, message.nonce, source, now)
        if binding is None or test is None:
            return [Refused(peer, source, "nonce")]
        if test.purpose is Purpose.HOME:
            return [HomeProven(peer)]
        fresh = self._proofs.add(peer, source, unix, test.nat)
        commands: list[Command] = [KeepProofs()] if fresh else []
        if binding.care_of == source and binding.used != source:
            binding.used = source
            commands.append(UseEndpoint(peer, source))
        if test.purpose is Purpose.EARLY:
            return commands + self._verdict(peer, binding, source, Verdict.VALID, now)
        if binding.care_of == source:
            commands += self._ack(peer, binding, source, Status.ACCEPTED, now)
        return commands

    @staticmethod
    def _open_test(binding: Binding, nonce: bytes, source: Endpoint, now: float) -> _Test | None:
        for test in binding.tests:
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
        test = _Test(nonce, address, purpose, until, nat)
        binding.tests = [*binding.tests, test][-self._settings.tests :]
        return [Send(peer, address, Aotc(nonce))]

    def _verdict(
        self, peer: str, binding: Binding, source: Endpoint, verdict: Verdict, now: float
    ) -> list[Command]:
        if not binding.verdicts.allows(now):
            return [Refused(peer, source, "flood")]
        return [Send(peer, source, Aots(verdict))]

    # --- Ends ---------------------------------------------------------------------------------

    def left(self, peer: str, endpoint: Endpoint) -> list[Command]:
        """Our traffic does not go to ``peer`` at ``endpoint`` any more, since nothing came back:
        what was proven there has to be proven again."""
        binding = self._bindings.get(peer)
        if binding is not None and binding.used == endpoint:
            binding.used = None
        return [KeepProofs()] if self._proofs.drop(peer, endpoint) else []

    def forget(self, peer: str) -> list[Command]:
        """``peer`` is no peer any more, or its mobility SA is gone: nothing of it is kept but its
        proofs."""
        binding = self._bindings.pop(peer, None)
        if binding is None:
            return []
        return self._end(peer, binding, "its tunnel is gone")

    def advance(self, now: float) -> list[Command]:
        """Ends the bindings whose time is over."""
        commands: list[Command] = []
        for peer in self._ends.due(now):
            commands += self._end(peer, self._bindings[peer], "its binding ended")
        return commands

    def next_timer(self) -> float | None:
        """When the first binding ends."""
        return self._ends.next()

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
