"""Words of discovery: what a host publishes, what it learns of a peer, and the client's commands.

The client machine (:mod:`discovery.client`) and the server machine (:mod:`discovery.zone`) are
pure: messages are DNS wire format in bytes, ``now`` is monotonic seconds, ``unix`` is the wall
clock in whole seconds, which only TSIG needs (RFC 8945 §5.2.3).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv6Address
from typing import TypeAlias

import dns.name
import dns.rdata

Endpoint: TypeAlias = tuple[str, int]
"""An outer (address text, UDP port)."""


@dataclass(frozen=True, slots=True)
class TsigKey:
    """A TSIG key (RFC 8945): its name as text, its secret, and its algorithm name."""

    name: str
    secret: bytes = field(repr=False)
    algorithm: str = "hmac-sha256"


@dataclass(frozen=True, slots=True)
class Service:
    """A service of a host for the others of the account (RFC 6763): ``type`` like ``_ssh._tcp``,
    ``name`` for people, ``texts`` as ``key=value``. :mod:`discovery.services` checks them."""

    type: str
    name: str
    port: int
    texts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class HostRecords:
    """All that the zone says of one host (RFC 6281 §3, §5.2; DESIGN "Records").

    ``label`` is the host label below the domain, ``target`` the ``AutoTunnel-<EUI64>`` label.
    ``endpoints`` holds at most one IPv4 and one IPv6 outer endpoint. ``info`` are the TXT strings.
    ``services`` are what the owner advertises; those in ``withdrawn`` shall stand no more.
    ``home_agents`` are the host ids of the home agents that relay for it; as read, in their order.
    """

    label: str
    host_id: IPv6Address
    target: str
    endpoints: tuple[Endpoint, ...]
    info: tuple[str, ...] = ()
    services: tuple[Service, ...] = ()
    withdrawn: tuple[Service, ...] = ()
    home_agents: tuple[IPv6Address, ...] = ()


# --- Commands of the client machine ---------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SendZone:
    """Send this DNS message (signed wire format) to the rendezvous over the zone transport."""

    wire: bytes


@dataclass(frozen=True, slots=True)
class Published:
    """Our records stand in the zone. ``lease`` is the granted lease in seconds, ``None`` if the
    server knows no leases. ``records`` are what stands there now."""

    lease: int | None
    records: HostRecords | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """Our records are gone from the zone."""


@dataclass(frozen=True, slots=True)
class HostFound:
    """The zone's present word on one host."""

    records: HostRecords


@dataclass(frozen=True, slots=True)
class HostNotFound:
    """The zone knows no such host, or the question failed; ``reason`` is one clear sentence.

    ``definite`` is true when the zone itself said that the name is not there.
    """

    label: str
    reason: str
    definite: bool


@dataclass(frozen=True, slots=True)
class HostsListed:
    """The labels of all hosts of the account, sorted."""

    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TextsFound:
    """The messages at a name below the domain; ``reason`` says why they could not be read."""

    prefix: str
    messages: tuple[bytes, ...]
    reason: str = ""


@dataclass(frozen=True, slots=True)
class TextsChanged:
    """A change of messages was made, or not: then ``reason`` says why."""

    ticket: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class RecordsFound:
    """What stands at a name for a type; ``exists``: there is such a name, if not such a record.
    ``reason`` says why it could not be learnt."""

    name: dns.name.Name
    rdtype: int
    answer: tuple[dns.rdata.Rdata, ...]
    exists: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class FoundService:
    """A service that the zone knows, and the label of its host."""

    service: Service
    label: str


@dataclass(frozen=True, slots=True)
class ServicesFound:
    """All services of one type, or of all where ``type`` is empty, sorted by type and name;
    ``reason`` says why they could not be learnt."""

    type: str
    services: tuple[FoundService, ...]
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Changed:
    """What stands at a subscribed name for its type: ``records`` now, and how that differs from
    what was told before. The first one of a subscription tells what there is, also if nothing."""

    name: dns.name.Name
    rdtype: int
    added: tuple[dns.rdata.Rdata, ...]
    removed: tuple[dns.rdata.Rdata, ...]
    records: tuple[dns.rdata.Rdata, ...]


@dataclass(frozen=True, slots=True)
class DropZone:
    """Leave the connection to the rendezvous at once, and make a new one after ``pause`` seconds:
    the server sends us away, broke the rules of a session (RFC 8490 §5.1), or stays silent."""

    reason: str
    pause: float = 0.0


@dataclass(frozen=True, slots=True)
class ZoneProblem:
    """Something is wrong between us and the zone (wrong secret, clock skew, refused, no answer);
    ``reason`` says cause and fix. Given once per change, not per packet. ``kind`` is ``secret`` or
    ``clock`` where the server refuses our signature: no patience of ours will mend that."""

    reason: str
    kind: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class ZoneFine:
    """The problem told before is over."""


ClientCommand: TypeAlias = (
    SendZone
    | Published
    | Withdrawn
    | HostFound
    | HostNotFound
    | HostsListed
    | TextsFound
    | TextsChanged
    | RecordsFound
    | ServicesFound
    | Changed
    | DropZone
    | ZoneProblem
    | ZoneFine
)
