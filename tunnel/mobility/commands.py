"""What the mobility machines ask of their owner, and tell it: a closed vocabulary.

A ``peer`` is a peer's IKE name; endpoints are outer ones, or a relay endpoint (a host id, 500),
through which something comes by the home agent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from fastpath.types import Endpoint, Source
from tunnel.mobility.header import Message


@dataclass(frozen=True, slots=True)
class Send:
    """A message for ``peer``, to exactly this endpoint. Between the machines and their owner's
    door (:mod:`tunnel.mobility.machine`), which makes a :class:`SendMobility` of it."""

    peer: str
    endpoint: Endpoint
    message: Message
    source: Source | None = None


@dataclass(frozen=True, slots=True)
class SendMobility:
    """The same in octets: a whole Mobility Header, to be sent from our host id to the peer's in
    their mobility SA, to exactly this endpoint, whether it is proven or not. ``source``: from
    there, if the message is about another address of ours than the one in use (I20)."""

    peer: str
    endpoint: Endpoint
    message: bytes
    source: Source | None = None


@dataclass(frozen=True, slots=True)
class UseEndpoint:
    """``peer`` is proven to be there, and at its home address, too: traffic may go there from now
    on (I16, I22)."""

    peer: str
    endpoint: Endpoint


@dataclass(frozen=True, slots=True)
class DropBinding:
    """``peer`` is at no endpoint that we know: traffic goes by the home agent from now on.
    ``asked``: it said so itself."""

    peer: str
    reason: str
    asked: bool = False


@dataclass(frozen=True, slots=True)
class Accepted:
    """``peer`` says that it is at ``endpoint``, and its message came from there: its traffic is
    taken from there at once; ``proven`` tells whether ours may go there, too (I16): that this
    address and its home address are proven."""

    peer: str
    endpoint: Endpoint
    proven: bool


@dataclass(frozen=True, slots=True)
class Invited:
    """``peer`` says by the home agent that it is at ``endpoint``: nothing of it is proven, and no
    binding is made; a few octets there open our NAT, so that its messages can come from there."""

    peer: str
    endpoint: Endpoint


@dataclass(frozen=True, slots=True)
class Refused:
    """A message of ``peer`` was not heeded; ``reason`` is one of :data:`REASONS`."""

    peer: str
    source: Endpoint
    reason: str


@dataclass(frozen=True, slots=True)
class Registered:
    """``peer`` (a correspondent, or a home agent) knows where we are, for ``lifetime`` seconds.

    ``nat``: it saw us elsewhere than we said; ``fresh``: it did not know before.
    """

    peer: str
    endpoint: Endpoint
    lifetime: int
    nat: bool = False
    fresh: bool = True


@dataclass(frozen=True, slots=True)
class NotRegistered:
    """``peer`` does not know where we are: ``status`` of its refusal, or ``None`` where it did not
    answer (``tries`` binding updates so far), or the binding came to its end."""

    peer: str
    status: int | None
    tries: int
    reason: str


@dataclass(frozen=True, slots=True)
class EarlyProof:
    """The end of an AOTO: whether ``peer`` holds a proof for the address it was sent from, which is
    ``source``, or the one that we send from to ``endpoint`` anyway."""

    peer: str
    endpoint: Endpoint
    valid: bool
    source: Source | None = None


@dataclass(frozen=True, slots=True)
class Unheard:
    """The first AOTO from ``source`` brought nothing, and nobody knows the place to let us in from:
    who finds it says so (:meth:`tunnel.mobility.machine.Mobility.place`)."""

    peer: str
    endpoint: Endpoint
    source: Source


@dataclass(frozen=True, slots=True)
class HomeProven:
    """``peer`` answered at its home address, by the home agent (I21)."""

    peer: str


@dataclass(frozen=True, slots=True)
class HomeSilent:
    """``peer`` was asked at its home address several times, and nobody answered. ``before``: it did
    in the last mobility SA, and its binding stays; else it gets none (I22)."""

    peer: str
    before: bool


@dataclass(frozen=True, slots=True)
class HomeBound:
    """At the home agent: packets for ``peer`` go to ``endpoint`` (a new binding, or it moved)."""

    peer: str
    endpoint: Endpoint


@dataclass(frozen=True, slots=True)
class HomeUnbound:
    """At the home agent: ``peer`` is not registered any more."""

    peer: str
    reason: str


@dataclass(frozen=True, slots=True)
class KeepProofs:
    """The proofs changed: write them to their file (:meth:`tunnel.mobility.proofs.Proofs.dump`)."""


REASONS = (
    "malformed",  # no mobility message
    "unrecognised",  # of a type that we do not speak
    "flood",  # more than three of a type in a second
    "sequence",  # an old or replayed BU
    "care_of",  # the Alternate Care-of Address is not the endpoint it came from
    "not_unicast",
    "home_registration",  # H, but this is no home agent, or not for this host
    "full",  # no room for another binding
    "unregistered",  # AOTO of a mobile without a binding
    "nonce",  # no such test is open for this address, or its nonce is another one
    "unasked",  # BA or AOTS that answers nothing
    "stranger",  # not from a peer that the owner has made known
    "home",  # a peer was asked at its home address in vain (:class:`HomeSilent`)
)
"""Why a message is not heeded; counted by these names."""

Command: TypeAlias = (
    Send
    | SendMobility
    | UseEndpoint
    | DropBinding
    | Accepted
    | Invited
    | Refused
    | Registered
    | NotRegistered
    | EarlyProof
    | Unheard
    | HomeProven
    | HomeSilent
    | HomeBound
    | HomeUnbound
    | KeepProofs
)
