"""Words of NAT traversal: a mapping, and the commands of the machines that ask for one."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Literal, TypeAlias

Endpoint: TypeAlias = tuple[str, int]
"""An outer (address text, UDP port)."""

Method: TypeAlias = Literal["pcp", "nat-pmp", "upnp"]

SERVER_PORT = 5351
"""Where gateways answer NAT-PMP and PCP (RFC 6886 §3.1, RFC 6887 §19.2)."""
CLIENT_PORT = 5350
"""Where they announce, to 224.0.0.1 and ff02::1 (B32)."""

UNSPECIFIED = str(IPv4Address(0))

_SHARED = (ip_network("100.64.0.0/10"), ip_network("192.0.0.0/29"), ip_network("198.18.0.0/15"))
"""Carrier-grade NAT (RFC 6598), DS-Lite (RFC 6333), benchmarks: nobody outside can send there."""
_RFC1918 = tuple(map(ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")))


def is_behind_nat(address: str) -> bool:
    """Whether an interface's IPv4 ``address`` is one that NATs hand out (B22, RFC 6598)."""
    where = ip_address(address)
    return where.version == 4 and any(where in net for net in (*_RFC1918, _SHARED[0]))


def is_reachable(address: str) -> bool:
    """Whether an external ``address`` can be reached from outside; if not, there is a second NAT
    behind the first (B33)."""
    where = ip_address(address)
    if isinstance(where, IPv4Address):
        unusable = (*_RFC1918, *_SHARED)
        if any(where in net for net in unusable):
            return False
    return not (
        where.is_unspecified or where.is_loopback or where.is_link_local or where.is_multicast
    ) and not (isinstance(where, IPv6Address) and where in ip_network("fc00::/7"))


@dataclass(frozen=True, slots=True)
class Mapping:
    """What a gateway granted: datagrams to ``external`` come to ``internal``.

    ``lifetime`` is in seconds from its grant; 0: until it is deleted (UPnP only). ``gateway`` is
    the address that granted it.
    """

    method: Method
    gateway: str
    internal: Endpoint
    external: Endpoint
    lifetime: int

    @property
    def double_nat(self) -> bool:
        """Whether the external address is itself private or shared, so that nobody outside can
        reach it (B33)."""
        return not is_reachable(self.external[0])


@dataclass(frozen=True, slots=True)
class SendNat:
    """Send this datagram to a gateway or a STUN server, from the socket that asks them."""

    data: bytes
    to: Endpoint


@dataclass(frozen=True, slots=True)
class Mapped:
    """There is a mapping: a new one, a changed one, or the same, renewed."""

    mapping: Mapping


@dataclass(frozen=True, slots=True)
class NotMapped:
    """There is none, or none any more; ``reason`` is one clear sentence.

    ``silent``: nobody answered, so that this is perhaps not a gateway that knows the protocol.
    The machine goes on by itself where its protocol says so.
    """

    method: Method
    gateway: str
    reason: str
    silent: bool = False


@dataclass(frozen=True, slots=True)
class OtherVersion:
    """A PCP request was answered by a gateway that speaks NAT-PMP (RFC 6887 §9): ask it so."""

    gateway: str


@dataclass(frozen=True, slots=True)
class Doubted:
    """The gateway says that it restarted, so that its mapping may be gone and its address another
    one. The mapping is made again soon; until then this is all that is known."""

    gateway: str


@dataclass(frozen=True, slots=True)
class UpnpCall:
    """Ask the gateway's WAN connection service for an action; the answer names ``ticket``."""

    ticket: int
    action: str
    arguments: tuple[tuple[str, str | int | bool], ...] = ()


NatCommand: TypeAlias = SendNat | Mapped | NotMapped | OtherVersion | Doubted | UpnpCall
