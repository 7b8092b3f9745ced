"""A world of two, one of whom stands in two networks and has the other one proven early (I20)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fastpath.types import Source
from tests.model.post import Action, Letter
from tests.model.worlds import RELAYS, UNIX, Honest, Host, UnsafeError
from tunnel.mobility.commands import Command, Send
from tunnel.mobility.header import Aoto, Aots, Message
from tunnel.mobility.mobile import Phase

INDEX = 2  # of the interface that is not in use


@dataclass
class Second(Honest):
    """The one with two networks is ``a``; a move is that it uses the other one. ``budget`` has
    openings, too. Both have found each other when it begins."""

    @classmethod
    def standing(cls, **budget: int) -> Second:
        """Both are bound."""
        world = cls.begin()
        assert isinstance(world, Second)
        host = world.hosts["a"]
        host.been = {place.seen for place in world.places["a"]}
        while not world.arrived() or world.letters:
            world.step_without_loss()
        world.budget = budget
        return world

    # --- Actions --------------------------------------------------------------------------

    def actions(self) -> Iterator[Action]:
        """All that can happen now. ``b`` stays where it is."""
        yield from (action for action in super().actions() if action != ("move", "b"))
        known = self.hosts["a"].mobile.registrations["b"]
        if self.budget.get("open") and known.phase is Phase.BOUND and known.opening is None:
            yield ("open",)

    def take(self, action: Action) -> None:
        """Lets it happen; nobody holds a proof of where a host never was."""
        if action == ("open",):
            self.budget["open"] -= 1
            host = self.hosts["a"]
            source = self._other(host)
            self._done(host, host.mobile.open(host.peer, host.via, self.now, source))
        else:
            super().take(action)
        for host in self.hosts.values():
            proven = host.correspondent._proofs._peers.get(host.peer, {})
            if not set(proven) <= self.hosts[host.peer].been:
                raise UnsafeError(f"{host.name} holds proofs of {sorted(proven)}")

    def _other(self, host: Host) -> Source:
        return self.places[host.name][1 - host.place].seen[0], INDEX

    def _deliver(self, letter: Letter, source: tuple[str, int] | None = None) -> None:
        """It hears what comes to either network, and not to which of them."""
        host = self.hosts["b" if letter.sender == "a" else "a"]
        here, other = (self.places[host.name][n].seen for n in (host.place, 1 - host.place))
        if host.name == "a" and letter.destination == other:
            letter = Letter(letter.sender, letter.source, here, letter.message)
        super()._deliver(letter, source)

    def _heard(self, host: Host, source: tuple[str, int], message: Message) -> None:
        match message:
            case Aoto():
                way = source, RELAYS[host.peer], self.now, UNIX
                self._done(host, host.correspondent.opened(host.peer, *way))
            case Aots():
                self._done(host, host.mobile.judged(host.peer, message, source))
            case _:
                super()._heard(host, source, message)

    def _done(self, host: Host, commands: list[Command]) -> None:
        for command in commands:
            if isinstance(command, Send) and command.source is not None:
                self._leave(host, command, command.source)
            else:
                super()._done(host, [command])

    def _leave(self, host: Host, said: Send, source: Source) -> None:
        """It leaves from the network that it names, whichever is in use by then."""
        place = next(n for n, one in enumerate(self.places[host.name]) if one.seen[0] == source[0])
        host.place, used = place, host.place
        self._post(host, said.endpoint, said.message)
        host.place = used

    # --- Properties -----------------------------------------------------------------------

    def key(self) -> object:
        """As for the others, and where an opening stands."""
        known = self.hosts["a"].mobile.registrations["b"]
        binding = self.hosts["b"].correspondent.bindings.get("a")
        opening: object = None
        if known.opening is not None:
            due = round(known.opening.next_at - self.now, 3)
            opening = known.opening.via, known.opening.source, known.opening.tries, due
        rates = [known.opens] if binding is None else [known.opens, binding.verdicts]
        lately = [
            round(at - self.now, 3) for one in rates for at in one._times if at > self.now - 1
        ]
        return super().key(), opening, tuple(lately)
