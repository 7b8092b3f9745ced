"""The home agent's side of a home registration: BU with H, and BA (RFC 6275 §10.3, RFC 5555 §4).

It trusts its hosts and runs no address ownership test (I29, I53): what they send is traceable to
it. It binds the endpoint that a binding update was *observed* to come from, inside ESP, whatever
the message says (RFC 5555 §4.2), and says in the acknowledgement whether a NAT stands between.
That endpoint alone is no reason to send somebody else's packets there: the owner of this machine
forwards to it when IKE has proven it, too (decision 0062).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Address

from fastpath.types import Endpoint
from tunnel.mobility.claims import Claim
from tunnel.mobility.commands import Command, HomeBound, HomeUnbound, Refused, Send
from tunnel.mobility.header import BindingAck, BindingUpdate, Status
from tunnel.mobility.limits import NATKATIMEOUT, Deadlines, MobilitySettings, Rate, is_old
from tunnel.mobility.options import (
    NEVER,
    UNIT,
    Ipv4Acknowledgement,
    Ipv4Home,
    NatDetection,
    Option,
    first,
    is_unicast,
)

_ANY = IPv4Address("0.0.0.0")  # noqa: S104 - asks for an IPv4 home address, binds no socket
_NO_IPV4_HOME, _NO_DYNAMIC_IPV4_HOME = 129, 132  # RFC 5555 §3.2.1


@dataclass(slots=True)
class HomeBinding:
    """One registered host. ``until`` is monotonic, in seconds."""

    endpoint: Endpoint
    sequence: int
    until: float
    nat: bool


@dataclass(slots=True)
class _Heard:
    """What is kept of a host over its registrations, as long as its mobility SA: else a late update
    would register it anew, and who registers and leaves in turn would be heard without limit."""

    sequence: int | None = None
    updates: Rate = field(default_factory=Rate)


class HomeAgent:
    """Bindings of at most ``hosts`` hosts of the account."""

    def __init__(self, hosts: int = 64, settings: MobilitySettings | None = None) -> None:
        self._hosts = hosts
        self._settings = settings or MobilitySettings()
        self._bindings: dict[str, HomeBinding] = {}
        self._heard: dict[str, _Heard] = {}
        self._ends: Deadlines[str] = Deadlines()

    @property
    def bindings(self) -> dict[str, HomeBinding]:
        """Who is registered, by name; not to be changed."""
        return self._bindings

    def update(
        self, peer: str, message: BindingUpdate, source: Endpoint, now: float
    ) -> list[Command]:
        """A BU with H came from ``source``, in the mobility SA with ``peer``."""
        heard = self._heard.setdefault(peer, _Heard())
        if not heard.updates.allows(now):
            return [Refused(peer, source, "flood")]
        if heard.sequence is not None and is_old(message.sequence, heard.sequence):
            refusal = self._ack(Status.SEQUENCE, message, 0, sequence=heard.sequence)
            return [Refused(peer, source, "sequence"), Send(peer, source, refusal)]
        if not is_unicast(source):
            return [Refused(peer, source, "not_unicast")]
        heard.sequence = message.sequence
        if message.lifetime == 0:
            return self._taken_back(peer, message, source)
        if peer not in self._bindings and len(self._bindings) >= self._hosts:
            refusal = self._ack(Status.NO_RESOURCES, message, 0)
            return [Refused(peer, source, "full"), Send(peer, source, refusal)]
        return self._bind(peer, message, source, now)

    def _bind(
        self, peer: str, message: BindingUpdate, source: Endpoint, now: float
    ) -> list[Command]:
        nat = Claim.read(message.options).passed_nat(source)
        granted = min(message.lifetime, self._settings.longest) // UNIT * UNIT
        binding = self._bindings.get(peer)
        moved = binding is None or binding.endpoint != source
        self._bindings[peer] = HomeBinding(source, message.sequence, now + granted, nat)
        self._ends.set(peer, now + granted)
        seen = NatDetection(NATKATIMEOUT if nat else NEVER, forced=True)
        commands: list[Command] = [HomeBound(peer, source)] if moved else []
        answer = self._ack(Status.ACCEPTED, message, granted, (seen,))
        return [*commands, Send(peer, source, answer)]

    def _taken_back(self, peer: str, message: BindingUpdate, source: Endpoint) -> list[Command]:
        commands = self._end(peer, "it took its registration back")
        return [*commands, Send(peer, source, self._ack(Status.ACCEPTED, message, 0))]

    @staticmethod
    def _ack(
        status: int,
        message: BindingUpdate,
        lifetime: int,
        options: tuple[Option, ...] = (),
        sequence: int | None = None,
    ) -> BindingAck:
        """We give no IPv4 home addresses, and say so to who wants one (RFC 5555 §3.2.1)."""
        wanted = first(message.options, Ipv4Home)
        if wanted is not None and status < Status.UNSPECIFIED:
            no = _NO_DYNAMIC_IPV4_HOME if wanted.address == _ANY else _NO_IPV4_HOME
            options = (*options, Ipv4Acknowledgement(no, 0, wanted.address))
        number = message.sequence if sequence is None else sequence
        return BindingAck(status, number, lifetime, options)

    def forget(self, peer: str, reason: str) -> list[Command]:
        """``peer`` is none of ours any more, or its mobility SA is gone."""
        self._heard.pop(peer, None)
        return self._end(peer, reason)

    def _end(self, peer: str, reason: str) -> list[Command]:
        self._ends.clear(peer)
        gone = self._bindings.pop(peer, None)
        return [] if gone is None else [HomeUnbound(peer, reason)]

    def advance(self, now: float) -> list[Command]:
        """Ends the bindings whose time is over."""
        commands: list[Command] = []
        for peer in self._ends.due(now):
            commands += self._end(peer, "its registration ended")
        return commands

    def next_timer(self) -> float | None:
        """When the first binding ends."""
        return self._ends.next()
