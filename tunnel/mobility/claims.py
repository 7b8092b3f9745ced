"""What a binding update says of its sender's endpoint, beside the one that it came from (I12).

The Alternate Care-of Address is a promise: a message with another source address is not accepted.
The IPv4 care-of address option (RFC 5555 §3.1.2) is what the sender itself knows, before any NAT;
where it differs, or the port does, a NAT stands between, and the observed endpoint is the one to
prove and to bind.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, ip_address

from fastpath.types import Endpoint
from tunnel.mobility.options import (
    AlternateCareOf,
    Ipv4CareOf,
    Option,
    Port,
    first,
    mapped,
    unmapped,
)


@dataclass(frozen=True, slots=True)
class Claim:
    """``address`` and ``port`` as others should see them, ``None`` where the sender does not know;
    ``local`` its own IPv4 address, ``None`` on IPv6."""

    address: str | None = None
    port: int | None = None
    local: str | None = None

    @classmethod
    def read(cls, options: Sequence[Option]) -> Claim:
        """What these options say."""
        alternate, port = first(options, AlternateCareOf), first(options, Port)
        local = first(options, Ipv4CareOf)
        return cls(
            unmapped(alternate.address) if alternate else None,
            port.port if port else None,
            str(local.address) if local else None,
        )

    @classmethod
    def at(cls, endpoint: Endpoint, local: str | None = None) -> Claim:
        """Of a host that others see at ``endpoint``; it is behind a NAT if ``local`` is another
        address. Without ``local``, ``endpoint`` is its own."""
        if local is None and isinstance(ip_address(endpoint[0]), IPv4Address):
            local = endpoint[0]
        return cls(endpoint[0], endpoint[1], local)

    @property
    def options(self) -> tuple[Option, ...]:
        """The same as options."""
        said: list[Option] = []
        if self.address is not None:
            said.append(AlternateCareOf(mapped(self.address)))
        if self.port is not None:
            said.append(Port(self.port))
        if self.local is not None:
            said.append(Ipv4CareOf(IPv4Address(self.local)))
        return tuple(said)

    @property
    def endpoint(self) -> Endpoint | None:
        """The whole endpoint, if it is said."""
        if self.address is None or self.port is None:
            return None
        return self.address, self.port

    @property
    def may_be_wrong(self) -> bool:
        """Whether an address is promised that is not our own, but a NAT's. Only such a promise is
        ever taken back (:meth:`without_address`): else who changes it on the way had his will."""
        return self.address is not None and self.local not in (None, self.address)

    def without_address(self) -> Claim:
        """The same without the promise: what is observed shall count."""
        return replace(self, address=None)

    def holds(self, source: Endpoint) -> bool:
        """Whether the promise agrees with the endpoint that the message came from."""
        return self.address is None or self.address == source[0]

    def passed_nat(self, source: Endpoint) -> bool:
        """Whether a NAT changed something on the way."""
        said = ((self.address, source[0]), (self.local, source[0]), (self.port, source[1]))
        return any(claimed is not None and claimed != seen for claimed, seen in said)
