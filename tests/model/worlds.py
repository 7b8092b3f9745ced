"""A world of two honest hosts in a bad network, each mobile and correspondent of the other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

from fastpath.types import Endpoint
from tests.model.post import Action, Letter, arriving, fates
from tunnel.mobility.claims import Claim
from tunnel.mobility.commands import (
    Accepted,
    Command,
    DropBinding,
    Invited,
    Send,
    UseEndpoint,
)
from tunnel.mobility.correspondent import Binding, Correspondent
from tunnel.mobility.header import (
    Aotc,
    Aotr,
    Aots,
    BindingAck,
    BindingUpdate,
    Message,
    Verdict,
)
from tunnel.mobility.limits import MobilitySettings
from tunnel.mobility.mobile import Mobile, Phase
from tunnel.mobility.proofs import Proofs

UNIX = 1_800_000_000
VICTIM = ("192.0.2.66", 4500)
RELAYS: dict[str, Endpoint] = {"a": ("fd00::a", 500), "b": ("fd00::b", 500)}
SETTINGS = MobilitySettings(lifetime=64, nonce_life=20.0)
AT_ONCE = 4  # messages on their way by the home agent, and as many directly; one more is lost


class UnsafeError(AssertionError):
    """Traffic would go to an endpoint where the peer never was, or to a peer of whom nobody knows
    that it is at its home address; or such a peer would be told that it is bound."""


class Numbers:
    """Octets that differ each time; nonces are told apart by them, and sequences begin with 2."""

    def __init__(self) -> None:
        self.last = 0

    def __call__(self, count: int) -> bytes:
        self.last += 1
        return self.last.to_bytes(count)


@dataclass(frozen=True)
class Place:
    """A network that a host can be in: where others see it, and what it says of that."""

    seen: Endpoint
    claim: Claim


def own(endpoint: Endpoint) -> Place:
    """A place without a NAT."""
    return Place(endpoint, Claim.at(endpoint))


PLACES = {
    "a": (own(("198.51.100.1", 4500)), own(("198.51.100.2", 4500))),
    "b": (own(("203.0.113.1", 4500)), own(("203.0.113.2", 4500))),
}
BEHIND_NATS = {
    "a": (
        Place(("198.51.100.1", 61000), Claim("198.51.100.1", 4500, "10.0.0.2")),
        Place(("198.51.100.2", 62000), Claim("192.0.2.200", 4500, "10.0.0.3")),  # it errs
    ),
    "b": (
        own(("203.0.113.1", 4500)),
        Place(("203.0.113.2", 63000), Claim("203.0.113.2", 63000, "10.1.1.1")),
    ),
}
UNKNOWN = {
    "a": (PLACES["a"][0], Place(("198.51.100.2", 62000), Claim(None, None, "10.0.0.3"))),
    "b": BEHIND_NATS["b"],
}


@dataclass
class Host:
    """An honest host with one peer, and what its owner does with what the machines say."""

    name: str
    peer: str
    mobile: Mobile
    correspondent: Correspondent
    place: int = 0
    been: set[Endpoint] = field(default_factory=set)
    via: Endpoint = ("", 0)  # where it says to the peer where it is
    used: Endpoint | None = None  # where it sends its traffic; by the home agent if nowhere
    read: tuple[bytes, ...] = ()  # the nonces that came to its home address, the last few
    proven: bool = False  # the peer has sent one back that it read there


@dataclass
class Honest:
    """Two hosts that want to be found by each other; ``budget`` is what may still be done to them:
    moves, repeated messages, changed sources, rekeys, and other IKE SAs. What goes from home
    address to home address goes by the home agent: a way of its own, where it may be lost or
    overtaken like anything else."""

    places: dict[str, tuple[Place, ...]]
    budget: dict[str, int]
    now: float = 1000.0
    hosts: dict[str, Host] = field(default_factory=dict)
    letters: list[Letter] = field(default_factory=list)

    goal: ClassVar[int] = 100  # steps without loss, after which both must have found each other

    @classmethod
    def begin(cls, places: dict[str, tuple[Place, ...]] | None = None, **budget: int) -> Honest:
        """Both know where the other was seen last, and begin at once, by the home agent too."""
        world = cls(places or PLACES, budget)
        for name, peer in ("a", "b"), ("b", "a"):
            numbers = Numbers()
            correspondent = Correspondent(numbers, Proofs(), SETTINGS)
            world.hosts[name] = Host(name, peer, Mobile(numbers, SETTINGS), correspondent)
            world.hosts[name].via = world.places[peer][0].seen
            world.hosts[name].been = {world.places[name][0].seen}
        for host in world.hosts.values():
            world._register(host)
        return world

    # --- Actions --------------------------------------------------------------------------

    def actions(self) -> Iterator[Action]:
        """All that can happen now."""
        yield from fates(self.letters, self.budget)
        for number, letter in enumerate(self.letters):
            if self.budget.get("change") and letter.source != RELAYS[letter.sender]:
                yield "change", number
        for name in self.hosts:
            if self.budget.get("move"):
                yield "move", name
            if self.budget.get("rekey"):
                yield "rekey", name
        if self.budget.get("renew"):
            yield ("renew",)
        yield ("wait",)

    def take(self, action: Action) -> None:
        """Lets it happen."""
        arrived = arriving(self.letters, self.budget, action)
        if arrived is not None:
            for letter in arrived:
                self._deliver(letter)
            return
        match action:
            case ("change", int(number)):
                self.budget["change"] -= 1
                self._deliver(self.letters.pop(number), VICTIM)
            case ("move", str(name)):
                self.budget["move"] -= 1
                host = self.hosts[name]
                host.place = 1 - host.place
                host.been.add(self.places[name][host.place].seen)
                self._register(host)
            case ("rekey", str(name)):
                self.budget["rekey"] -= 1
                host = self.hosts[name]
                self._done(host, host.correspondent.rekeyed(host.peer, self.now))
            case ("renew",):
                self.budget["renew"] -= 1
                self._renew()
            case _:
                self._wait()

    def _renew(self) -> None:
        """Another IKE SA takes the place of this one: with the old SAs goes what was on its way,
        and what it has proven."""
        self.letters.clear()
        for host in self.hosts.values():
            host.proven = False
            self._done(host, host.correspondent.forget(host.peer))
        for host in self.hosts.values():
            self._register(host)

    def _deliver(self, letter: Letter, source: Endpoint | None = None) -> None:
        """To who is there; who changes sources gets what is sent to the victim, and brings it."""
        host = self.hosts["b" if letter.sender == "a" else "a"]
        here = self.places[host.name][host.place].seen
        if letter.destination not in (here, RELAYS[host.name], VICTIM):
            return
        other, message = self.hosts[letter.sender], letter.message
        nested = letter.destination == RELAYS[host.name] and letter.source == RELAYS[other.name]
        if nested and isinstance(message, Aotc):
            host.read = (*host.read, message.nonce)[-8:]
        if nested and isinstance(message, Aotr) and message.nonce in other.read:
            host.proven = True
        self._heard(host, source or letter.source, message)

    def _heard(self, host: Host, source: Endpoint, message: Message) -> None:
        mobile, correspondent, peer, now = host.mobile, host.correspondent, host.peer, self.now
        match message:
            case BindingUpdate():
                way = source, RELAYS[peer], now, UNIX
                commands = correspondent.update(peer, message, *way)
            case Aotr():
                commands = correspondent.answered(peer, message, source, now, UNIX)
            case BindingAck():
                commands = mobile.acknowledged(peer, message, source, now)
            case Aotc():
                commands = mobile.challenged(peer, message, source, RELAYS[peer], now)
            case _:
                commands = []
        self._done(host, commands)

    def _wait(self) -> None:
        """Until the next timer of anybody."""
        timers = [(at, host) for host in self.hosts.values() if (at := _next(host)) is not None]
        at, host = min(timers, key=lambda one: (one[0], one[1].name))
        self.now = max(self.now, at)
        commands = host.mobile.advance(self.now) + host.correspondent.advance(self.now)
        self._done(host, commands)

    def _register(self, host: Host) -> None:
        claim = self.places[host.name][host.place].claim
        invite = RELAYS[host.peer]
        self._done(
            host,
            host.mobile.register(host.peer, host.via, claim, self.now, invite=invite),
        )

    def _done(self, host: Host, commands: list[Command]) -> None:
        """The owner's part: follow the peer with our updates, send traffic where it was proven."""
        for command in commands:
            match command:
                case Send(_, endpoint, message):
                    if binds(message) and not host.proven:
                        raise UnsafeError(f"{host.name} acknowledges, but asked nobody at home")
                    self._post(host, endpoint, message)
                case UseEndpoint(_, endpoint):
                    if endpoint not in self.hosts[host.peer].been:
                        raise UnsafeError(f"{host.name} sends to {endpoint}")
                    if not host.proven:
                        raise UnsafeError(f"{host.name} sends directly, but asked nobody at home")
                    host.used = endpoint
                    self._follow(host, endpoint)
                case DropBinding():
                    host.used = None
                case Invited(_, endpoint) | Accepted(_, endpoint, _):
                    self._follow(host, endpoint)
                case _:
                    pass

    def _post(self, host: Host, endpoint: Endpoint, message: Message) -> None:
        home = RELAYS.values()
        nested = endpoint in home
        source = RELAYS[host.name] if nested else self.places[host.name][host.place].seen
        if sum((one.destination in home) == nested for one in self.letters) < AT_ONCE:
            self.letters.append(Letter(host.name, source, endpoint, message))

    def _follow(self, host: Host, endpoint: Endpoint) -> None:
        if endpoint != host.via:
            host.via = endpoint
            self._register(host)

    # --- Properties -----------------------------------------------------------------------

    def arrived(self) -> bool:
        """Whether both are registered, and send to where the other is."""
        return all(
            host.mobile.registrations[host.peer].phase is Phase.BOUND
            and host.used == self.places[host.peer][self.hosts[host.peer].place].seen
            for host in self.hosts.values()
        )

    def quiet(self) -> bool:
        """Whether nothing is on its way."""
        return not self.letters

    def step_without_loss(self) -> None:
        """What happens where nothing goes wrong."""
        self.take(("bring", 0) if self.letters else ("wait",))

    def key(self) -> object:
        """The same for worlds that differ only in time, sequence numbers and nonces."""
        names: dict[bytes, int] = {}
        sent = {
            name: host.mobile.registrations[host.peer].sequence for name, host in self.hosts.items()
        }
        return (
            tuple(_host_key(host, self.now, sent, names) for host in self.hosts.values()),
            tuple(
                (
                    *(one.sender, one.source, one.destination, message_key(one, sent, names)),
                    isinstance(one.message, Aotr)
                    and one.message.nonce in self.hosts[one.sender].read,
                )
                for one in sorted(self.letters, key=_order)
            ),
            tuple(sorted(self.budget.items())),
        )


def _order(letter: Letter) -> tuple[str, Endpoint, str, int | bytes]:
    """Worlds that differ only in the order of what is on its way are one."""
    message = letter.message
    number: int | bytes = 0
    if isinstance(message, BindingUpdate | BindingAck):
        number = message.sequence
    elif isinstance(message, Aotc | Aotr):
        number = message.nonce
    return letter.sender, letter.destination, type(message).__name__, number


def binds(message: Message) -> bool:
    """Whether this says that a binding stands, or that an address is proven."""
    if isinstance(message, Aots):
        return message.code == Verdict.VALID
    return isinstance(message, BindingAck) and message.accepted and message.lifetime > 0


def _next(host: Host) -> float | None:
    due = (host.mobile.next_timer(), host.correspondent.next_timer())
    return min((at for at in due if at is not None), default=None)


def message_key(letter: Letter, sent: dict[str, int], names: dict[bytes, int]) -> object:
    """The same for messages that differ only in sequence numbers and nonces."""
    message, other = letter.message, "b" if letter.sender == "a" else "a"
    match message:
        case BindingUpdate(sequence, lifetime, options):
            return "BU", sent[letter.sender] - sequence, lifetime, options
        case BindingAck(status, sequence, lifetime):
            return "BA", status, sent[other] - sequence, lifetime
        case Aotc(nonce) | Aotr(nonce):
            return type(message).__name__, names.setdefault(nonce, len(names))
        case _:
            return message


def _host_key(host: Host, now: float, sent: dict[str, int], names: dict[bytes, int]) -> object:
    known = host.mobile.registrations[host.peer]
    binding = host.correspondent.bindings.get(host.peer)

    def soon(at: float | None) -> float | None:
        return None if at is None else round(max(at - now, -1.0), 3)

    def rate(one: object) -> tuple[float | None, ...]:
        return tuple(soon(at) for at in one._times if at > now - 1.0)

    mobile = (
        *(known.phase, known.via, known.claim, known.tries, known.pause, known.answers),
        *(soon(known.next_at), soon(known.until), known.challenger),
        names.setdefault(known.nonce, len(names)) if known.phase is Phase.ANSWERED else None,
        *(rate(known.updates), rate(known.responses)),
    )
    bound: object = None
    if binding is not None:
        bound = (
            *(sent[host.peer] - binding.sequence, binding.care_of, binding.used, binding.nat),
            soon(binding.until) if binding.care_of else None,
            tests_key(binding, now, names),
            *(binding.at_home, binding.asked, soon(host.correspondent._asks._at.get(host.peer))),
            *(rate(binding.updates), rate(binding.acks), rate(binding.challenges)),
        )
    proofs = tuple(sorted(host.correspondent._proofs._peers.get(host.peer, ())))
    where = host.place, host.via, host.used, tuple(sorted(host.been)), host.proven
    return mobile, bound, proofs, where


def tests_key(binding: Binding, now: float, names: dict[bytes, int]) -> object:
    """The tests that are open, with names for their nonces and times from now on."""
    return tuple(
        (
            *(names.setdefault(one.nonce, len(names)), one.address, one.purpose, one.answered),
            round(one.until - now, 3),
        )
        for one in (*binding.tests, *binding.home_tests)
        if one.until > now
    )


class World(Protocol):
    """What can be explored."""

    goal: ClassVar[int]

    def actions(self) -> Iterator[Action]: ...

    def take(self, action: Action) -> None: ...

    def arrived(self) -> bool: ...

    def quiet(self) -> bool: ...

    def step_without_loss(self) -> None: ...

    def key(self) -> object: ...
