"""Worlds of one correspondent, and a peer that lies to it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

from fastpath.types import Endpoint
from tests.model.post import Action
from tests.model.worlds import (
    RELAYS,
    SETTINGS,
    UNIX,
    VICTIM,
    Numbers,
    UnsafeError,
    binds,
    tests_key,
)
from tunnel.mobility.claims import Claim
from tunnel.mobility.commands import Command, Send, UseEndpoint
from tunnel.mobility.correspondent import Correspondent
from tunnel.mobility.header import Aotc, Aotr, BindingUpdate
from tunnel.mobility.proofs import Proofs


@dataclass
class Liar:
    """One correspondent, and a peer that says whatever may help it: any number, any address, from
    any source, with every nonce that it received where it really is. It wants the correspondent's
    traffic to go to a victim, where it can send from but not receive (I18).

    ``at_home``: whether it receives at its home address. A thief of credentials does not, and wants
    traffic to go to where it is; it could send from there, which no home agent would let it (I22).
    """

    now: float = 1000.0
    correspondent: Correspondent = field(
        default_factory=lambda: Correspondent(Numbers(), Proofs(), SETTINGS)
    )
    at_home: bool = True
    nonces: tuple[tuple[bytes, Endpoint], ...] = ()  # with where they came
    sequence: int = 0
    proven: bool = False  # in this SA it has answered at home

    goal: ClassVar[int] = 0
    HERE: ClassVar[Endpoint] = ("198.51.100.1", 4500)
    HOME: ClassVar[Endpoint] = RELAYS["a"]

    @classmethod
    def bound(cls) -> Liar:
        """It has a binding, as its host should, where it is."""
        world = cls()
        world.take(("update", cls.HERE, cls.HERE, 1, SETTINGS.lifetime))
        for number, (_, place) in enumerate(world.nonces):
            world.take(("answer", place, number))
        return world

    def actions(self) -> Iterator[Action]:
        """All that the liar can say now."""
        sources = self.HERE, self.HOME, VICTIM
        for source in sources:
            for claimed in (self.HERE, VICTIM, None):
                for back in (0, 1):
                    yield "update", source, claimed, back, SETTINGS.lifetime
            yield "update", source, None, 1, 0
            yield "open", source
            for number in range(len(self.nonces)):
                yield "answer", source, number
            yield "guess", source
        yield ("rekey",)
        yield ("renew",)
        yield ("wait",)

    def take(self, action: Action) -> None:
        """Says it."""
        one, now = self.correspondent, self.now
        match action:
            case ("update", tuple() as source, claimed, int(ahead), int(lifetime)):
                self.sequence += ahead
                options = Claim.at(claimed).options if isinstance(claimed, tuple) else ()
                message = BindingUpdate(self.sequence, lifetime, options)
                commands = one.update("a", message, source, self.HOME, now, UNIX)
            case ("open", tuple() as source):
                commands = one.opened("a", source, self.HOME, now, UNIX)
            case ("answer", tuple() as source, int(number)):
                nonce, place = self.nonces[number]
                self.proven = self.proven or source == place == self.HOME
                commands = one.answered("a", Aotr(nonce), source, now, UNIX)
            case ("guess", tuple() as source):
                commands = one.answered("a", Aotr(b"\xff" * 8), source, now, UNIX)
            case ("rekey",):
                commands = one.rekeyed("a", now)
            case ("renew",):
                self.proven, commands = False, one.forget("a")
            case _:
                self.now += 1.0
                commands = one.advance(self.now)
        for command in commands:
            self._said(command)

    def _said(self, command: Command) -> None:
        match command:
            case Send(_, endpoint, Aotc(nonce)):
                if endpoint == self.HERE or (endpoint == self.HOME and self.at_home):
                    self.nonces = (*self.nonces, (nonce, endpoint))[-3:]
            case UseEndpoint(_, endpoint):
                self._judge(command, endpoint)
            case Send(_, endpoint, message) if binds(message):
                self._judge(command, endpoint)

    def _judge(self, command: Command, endpoint: Endpoint) -> None:
        if endpoint != self.HERE:
            raise UnsafeError(f"{command} for {endpoint}")
        if not self.proven:
            raise UnsafeError(f"{command}, but nobody answered at home")

    def arrived(self) -> bool:
        """A liar need not arrive."""
        return True

    def quiet(self) -> bool:
        """Nothing is ever on its way."""
        return True

    def step_without_loss(self) -> None:
        """Nothing has to follow."""

    def key(self) -> object:
        """As for the honest ones."""
        binding = self.correspondent.bindings.get("a")
        names: dict[bytes, int] = {}

        def soon(at: float) -> float:
            return round(max(at - self.now, -1.0), 3)

        def rate(one: object) -> tuple[float, ...]:
            times: tuple[float, ...] = one._times
            return tuple(soon(at) for at in times if at > self.now - 1.0)

        bound: object = None
        if binding is not None:
            tests = tests_key(binding, self.now, names)
            asked = self.correspondent._asks._at.get("a")
            rates = (binding.updates, binding.acks, binding.challenges, binding.verdicts)
            bound = (
                *(self.sequence - binding.sequence, binding.care_of, binding.used, binding.nat),
                soon(binding.until) if binding.care_of else None,
                *(tests, tuple(rate(one) for one in rates), binding.at_home, binding.asked),
                None if asked is None else soon(asked),
            )
        proofs = tuple(sorted(self.correspondent._proofs._peers.get("a", ())))
        nonces = tuple((names.get(one), place) for one, place in self.nonces)
        return bound, nonces, proofs, self.proven
