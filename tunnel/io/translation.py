"""IPv4 endpoints on a network without IPv4: by the NAT64 that it has (RFC 6052).

Done where datagrams leave and come, so that whoever decides about paths knows nothing of it: a peer
at an IPv4 endpoint stays there, whatever network we are in.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

from discovery.nat import nat64
from fastpath.types import Endpoint


class Translation:
    """``prefix`` is the NAT64's; ``None`` changes nothing."""

    def __init__(self) -> None:
        self.prefix: IPv6Network | None = None

    def out(self, endpoint: Endpoint) -> Endpoint:
        """Where to send what is for ``endpoint``."""
        if self.prefix is None or ":" in endpoint[0]:
            return endpoint
        try:
            address = IPv4Address(endpoint[0])
        except ValueError:
            return endpoint  # no address at all: whoever sends there says so
        return (str(nat64.embed(self.prefix, address)), endpoint[1])

    def into(self, source: Endpoint) -> Endpoint:
        """Who sent what came from ``source``."""
        if self.prefix is None or ":" not in source[0]:
            return source
        address = IPv6Address(source[0].partition("%")[0])
        inside = nat64.extract(self.prefix, address)
        return source if inside is None else (str(inside), source[1])

    def address(self, host: str) -> str:
        """As :meth:`out`, for an address or a name without a port."""
        try:
            ip_address(host)
        except ValueError:
            return host
        return self.out((host, 0))[0]
