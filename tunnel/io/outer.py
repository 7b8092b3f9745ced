"""Our own outer endpoints, as others reach us: at most one of each family (B5).

For now: the address from which the kernel sends towards the rendezvous, else along the default
route, and the port that we listen on. Behind a NAT that is not the truth; NAT mapping (RFC 6281
§4) will put the mapped endpoint in its place, here.
"""

from __future__ import annotations

import socket
from ipaddress import IPv6Address, ip_address

from fastpath.types import Endpoint
from tunnel.io.sockets import source_towards


def outer_endpoints(
    port: int, rendezvous: str | None, peers: tuple[str, ...], host_id: IPv6Address
) -> tuple[Endpoint, ...]:
    """(address, ``port``) for IPv4 and IPv6, as far as there is a route.

    ``rendezvous`` is the server's address if it is known, ``peers`` those of static peers, which
    decide where there is neither a rendezvous nor a default route. Our own ``host_id`` is never an
    outer address, though the kernel may choose it as a source.
    """
    found = []
    for family, version in ((socket.AF_INET, 4), (socket.AF_INET6, 6)):
        known = (rendezvous, None, *peers)
        targets = [one for one in known if one is None or ip_address(one).version == version]
        for target in targets:
            address = source_towards(target, family)
            if address is not None and address != str(host_id):
                found.append((address, port))
                break
    return tuple(found)
