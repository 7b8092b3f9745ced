"""A world of two: a host, and the home agent that it registers with, while messages go astray."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

from fastpath.types import Endpoint
from tests.model.post import Action, Letter, arriving, fates
from tests.model.worlds import (
    AT_ONCE,
    PLACES,
    SETTINGS,
    Numbers,
    UnsafeError,
    message_key,
)
from tunnel.mobility.commands import Command, Send
from tunnel.mobility.header import Aotc, Aotr, BindingAck, BindingUpdate
from tunnel.mobility.home import HomeAgent
from tunnel.mobility.limits import Rate
from tunnel.mobility.mobile import Mobile, Phase


@dataclass
class Registering:
    """A host that registers with its home agent, which never tests an address (I29)."""

    budget: dict[str, int]
    now: float = 1000.0
    mobile: Mobile = field(default_factory=lambda: Mobile(Numbers(), SETTINGS))
    agent: HomeAgent = field(default_factory=lambda: HomeAgent(settings=SETTINGS))
    place: int = 0
    letters: list[Letter] = field(default_factory=list)

    goal: ClassVar[int] = 60
    AGENT: ClassVar[Endpoint] = ("192.0.2.1", 4500)

    @classmethod
    def begin(cls, **budget: int) -> Registering:
        """It has just come up."""
        world = cls(budget)
        world._register()
        return world

    @property
    def here(self) -> Endpoint:
        """Where the host is."""
        return PLACES["a"][self.place].seen

    def _register(self) -> None:
        claim = PLACES["a"][self.place].claim
        self._done(self.mobile.register("h", self.AGENT, claim, self.now, home=True))

    def actions(self) -> Iterator[Action]:
        """All that can happen now."""
        yield from fates(self.letters, self.budget)
        if self.budget.get("move"):
            yield ("move",)
        yield ("wait",)

    def take(self, action: Action) -> None:
        """Lets it happen."""
        arrived = arriving(self.letters, self.budget, action)
        if arrived is not None:
            for letter in arrived:
                self._deliver(letter)
            return
        match action:
            case ("move",):
                self.budget["move"] -= 1
                self.place = 1 - self.place
                self._register()
            case _:
                due = (self.mobile.next_timer(), self.agent.next_timer())
                self.now = max(self.now, min(at for at in due if at is not None))
                self._done(self.mobile.advance(self.now) + self.agent.advance(self.now))

    def _deliver(self, letter: Letter) -> None:
        message = letter.message
        if isinstance(message, BindingUpdate):
            self._done(self.agent.update("a", message, letter.source, self.now))
        elif isinstance(message, BindingAck) and letter.destination == self.here:
            self._done(self.mobile.acknowledged("h", message, letter.source, self.now))

    def _done(self, commands: list[Command]) -> None:
        for command in commands:
            if isinstance(command, Send) and len(self.letters) < AT_ONCE:
                from_host = command.peer == "h"
                source = self.here if from_host else self.AGENT
                sender = "a" if from_host else "h"
                self.letters.append(Letter(sender, source, command.endpoint, command.message))
            elif isinstance(command, Send) and isinstance(command.message, Aotc | Aotr):
                raise UnsafeError(f"{command}: a home agent tests nobody")

    def arrived(self) -> bool:
        """Whether the home agent has it where it is, and it knows that."""
        binding = self.agent.bindings.get("a")
        bound = self.mobile.registrations["h"].phase is Phase.BOUND
        return bound and binding is not None and binding.endpoint == self.here

    def quiet(self) -> bool:
        """Whether nothing is on its way."""
        return not self.letters

    def step_without_loss(self) -> None:
        """What happens where nothing goes wrong."""
        self.take(("bring", 0) if self.letters else ("wait",))

    def key(self) -> object:
        """As for the other ones."""
        known, binding = self.mobile.registrations["h"], self.agent.bindings.get("a")
        sent = {"a": known.sequence, "h": 0}

        def soon(at: float | None) -> float | None:
            return None if at is None else round(max(at - self.now, -1.0), 3)

        def rate(one: Rate) -> tuple[float | None, ...]:
            return tuple(soon(at) for at in one._times if at > self.now - 1.0)

        bound: object = None
        if binding is not None:
            bound = known.sequence - binding.sequence, binding.endpoint, soon(binding.until)
        kept: object = None
        heard = self.agent._heard.get("a")
        if heard is not None and heard.sequence is not None:
            kept = known.sequence - heard.sequence, rate(heard.updates)
        letters = tuple(
            (one.sender, one.source, one.destination, message_key(one, sent, {}))
            for one in self.letters
        )
        mine = known.phase, known.claim, known.tries, known.pause, soon(known.next_at)
        more = soon(known.until), rate(known.updates), self.place
        return mine, more, bound, kept, letters, tuple(sorted(self.budget.items()))
