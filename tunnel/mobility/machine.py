"""All of mobility behind one door: octets and endpoints in, commands out, nothing else between.

What comes was opened by the mobility SA with ``peer``, so it is that peer who speaks; yet a peer
may be compromised, and anybody can send its packets on from elsewhere. What is not heeded is
counted by name (:data:`tunnel.mobility.commands.REASONS`) and changes nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv6Address

from fastpath.types import RELAY_PORT, Endpoint, Source
from tunnel.mobility import header
from tunnel.mobility.claims import Claim
from tunnel.mobility.commands import Command, HomeSilent, Refused, Send, SendMobility
from tunnel.mobility.correspondent import Correspondent
from tunnel.mobility.header import (
    UNKNOWN_TYPE,
    Aotc,
    Aoto,
    Aotr,
    Aots,
    BindingAck,
    BindingError,
    BindingUpdate,
    Message,
    RefreshRequest,
    Status,
    Unrecognised,
)
from tunnel.mobility.home import HomeAgent
from tunnel.mobility.limits import MobilitySettings, Rate
from tunnel.mobility.mobile import Mobile
from tunnel.mobility.options import MobilityError
from tunnel.mobility.proofs import Proofs
from tunnel.pending import Bucket

HEARD_PER_SECOND = 30
"""So many messages of one peer are looked at."""


@dataclass(slots=True)
class _Known:
    """A peer as its owner made it known."""

    home: IPv6Address
    heard: Bucket = field(default_factory=lambda: Bucket(HEARD_PER_SECOND))
    errors: Rate = field(default_factory=Rate)

    @property
    def relay(self) -> Endpoint:
        """Where it is by way of the home agent."""
        return str(self.home), RELAY_PORT


class Mobility:
    """One host's mobility. ``home`` is our host id; ``home_agent`` is there if we are one."""

    def __init__(
        self,
        home: IPv6Address,
        random: Callable[[int], bytes],
        proofs: Proofs | None = None,
        settings: MobilitySettings | None = None,
        home_agent: HomeAgent | None = None,
    ) -> None:
        settings = settings or MobilitySettings()
        self._home = home
        self._known: dict[str, _Known] = {}
        self.proofs = Proofs() if proofs is None else proofs
        self.mobile = Mobile(random, settings)
        self.correspondent = Correspondent(random, self.proofs, settings)
        self.home_agent = home_agent
        self.refused: Counter[str] = Counter()

    # --- Peers --------------------------------------------------------------------------------

    def know(self, peer: str, home: IPv6Address) -> None:
        """There is a mobility SA with ``peer``, whose host id is ``home``."""
        if peer not in self._known or self._known[peer].home != home:
            self._known[peer] = _Known(home)

    def renewed(self, peer: str) -> list[Command]:
        """The mobility SA with ``peer`` is of another IKE_AUTH than the last: what it proved as a
        mobile it has to prove again, its home address before all (I22)."""
        return self._out(self.correspondent.forget(peer))

    def forget(self, peer: str) -> list[Command]:
        """There is none any more."""
        self._known.pop(peer, None)
        self.mobile.forget(peer)
        commands = self.correspondent.forget(peer)
        if self.home_agent is not None:
            commands += self.home_agent.forget(peer, "its tunnel is gone")
        return self._out(commands)

    # --- What the owner wants -----------------------------------------------------------------

    def register(
        self,
        peer: str,
        via: Endpoint,
        claim: Claim,
        now: float,
        home: bool = False,
        invite: bool = False,
        inviting: Claim | None = None,
    ) -> list[Command]:
        """Tell ``peer`` where we are; see :meth:`Mobile.register`. ``home``: it is our home agent.
        ``invite``: by way of its home agent, too, where we say ``inviting``."""
        if peer not in self._known:
            return []
        relay = self._known[peer].relay if invite else None
        return self._out(self.mobile.register(peer, via, claim, now, home, relay, inviting))

    def deregister(self, peer: str, now: float, via: Endpoint | None = None) -> list[Command]:
        """Tell ``peer`` that we are at home only; ``via`` is its relay endpoint where the direct
        path is lost."""
        return self._out(self.mobile.deregister(peer, now, via))

    def left(self, peer: str, endpoint: Endpoint) -> list[Command]:
        """Nothing goes to ``peer`` there any more; see :meth:`Correspondent.left`."""
        return self._out(self.correspondent.left(peer, endpoint))

    def open(
        self,
        peer: str,
        via: Endpoint,
        now: float,
        source: Source | None = None,
        inviting: Claim | None = None,
    ) -> list[Command]:
        """Have our address towards ``via`` proven early, or ``source`` (I20); ``inviting`` is what
        the peer hears of it by its home agent if it does not answer."""
        if peer not in self._known:
            return []
        invite = None if inviting is None else (self._known[peer].relay, inviting)
        return self._out(self.mobile.open(peer, via, now, source, invite))

    def place(self, peer: str, source: Source, claim: Claim, now: float) -> list[Command]:
        """Where ``peer`` sees what we send from ``source``; see :meth:`Mobile.place`."""
        if peer not in self._known:
            return []
        return self._out(self.mobile.place(peer, source, self._known[peer].relay, claim, now))

    def rekeyed(self, peer: str, now: float) -> list[Command]:
        """The mobility SA with ``peer`` was replaced by a new one; see
        :meth:`Correspondent.rekeyed`."""
        return self._out(self.correspondent.rekeyed(peer, now))

    # --- What peers say -----------------------------------------------------------------------

    def received(
        self, peer: str, source: Endpoint, octets: bytes, now: float, unix: int
    ) -> list[Command]:
        """A Mobility Header of ``peer``, opened by the SA with it, came from ``source``."""
        known = self._known.get(peer)
        if known is None:
            return self._out([Refused(peer, source, "stranger")])
        if not known.heard.allows(now):
            return self._out([Refused(peer, source, "flood")])
        try:
            message = header.read(octets, known.home, self._home)
        except MobilityError:
            return self._out([Refused(peer, source, "malformed")])
        if isinstance(message, Unrecognised):
            return self._out(self._unrecognised(peer, known, source, now))
        return self._out(self._heed(peer, known, message, source, now, unix))

    def _heed(
        self, peer: str, known: _Known, message: Message, source: Endpoint, now: float, unix: int
    ) -> list[Command]:
        match message:
            case BindingUpdate(home=True):
                return self._home_update(peer, known, message, source, now)
            case BindingUpdate():
                heeded = self.correspondent.update
                return heeded(peer, message, source, known.relay, now, unix)
            case Aoto():
                return self.correspondent.opened(peer, source, known.relay, now, unix)
            case Aotr():
                return self.correspondent.answered(peer, message, source, now, unix)
            case BindingAck():
                return self.mobile.acknowledged(peer, message, source, now)
            case Aotc():
                return self.mobile.challenged(peer, message, source, known.relay, now)
            case Aots():
                return self.mobile.judged(peer, message, source)
            case RefreshRequest():
                return self.mobile.asked(peer, source, now)
            case BindingError():
                return self.mobile.failed(peer, message, source, now)

    def _home_update(
        self, peer: str, known: _Known, message: BindingUpdate, source: Endpoint, now: float
    ) -> list[Command]:
        if self.home_agent is not None and source != known.relay:
            return self.home_agent.update(peer, message, source, now)
        refused: list[Command] = [Refused(peer, source, "home_registration")]
        if known.errors.allows(now):
            no = BindingAck(Status.NO_HOME_REGISTRATION, message.sequence, 0)
            refused.append(Send(peer, source, no))
        return refused

    @staticmethod
    def _unrecognised(peer: str, known: _Known, source: Endpoint, now: float) -> list[Command]:
        refused: list[Command] = [Refused(peer, source, "unrecognised")]
        if known.errors.allows(now):
            refused.append(Send(peer, source, BindingError(UNKNOWN_TYPE, known.home)))
        return refused

    # --- Time ---------------------------------------------------------------------------------

    def advance(self, now: float) -> list[Command]:
        """Does what is due."""
        commands = self.mobile.advance(now) + self.correspondent.advance(now)
        if self.home_agent is not None:
            commands += self.home_agent.advance(now)
        return self._out(commands)

    def next_timer(self) -> float | None:
        """When something is due."""
        due = [self.mobile.next_timer(), self.correspondent.next_timer()]
        if self.home_agent is not None:
            due.append(self.home_agent.next_timer())
        return min((at for at in due if at is not None), default=None)

    def _out(self, commands: list[Command]) -> list[Command]:
        """Messages become octets between the two home addresses; refusals are counted."""
        out: list[Command] = []
        for command in commands:
            if isinstance(command, Refused):
                self.refused[command.reason] += 1
            if isinstance(command, HomeSilent):
                self.refused["home"] += 1
            if isinstance(command, Send):
                octets = header.pack(command.message, self._home, self._known[command.peer].home)
                command = SendMobility(command.peer, command.endpoint, octets, command.source)
            out.append(command)
        return out
