"""Our own outer endpoints, as others reach us: at most one of each family (B5).

For now: the address from which the kernel sends towards the rendezvous, else along the default
route, and the port that we listen on. Behind a NAT that is not the truth; NAT mapping (RFC 6281
§4) will put the mapped endpoint in its place, here.
"""

from __future__ import annotations

import socket
from ipaddress import IPv6Address, ip_address

from fastpath.types import MINIMUM_MTU, Endpoint, Source
from tunnel.config import HostConfig
from tunnel.early import MOST
from tunnel.io.netlink import WayOut
from tunnel.io.sockets import mtu_towards, source_towards

_HEADERS = {socket.AF_INET: 20 + 8, socket.AF_INET6: 40 + 8}  # IP and UDP
_ESP = 8 + 8 + 16  # SPI and sequence number, IV, ICV; the same in every suite
_TRAILER = 2  # pad length and next header, in the last four octets of what is sealed
_USUAL = 1500  # of a link, where there is none yet
_MOST = 9000  # loopback and some virtual links take 64 KB, but no path does


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


def in_use(ways: tuple[WayOut, ...], endpoints: tuple[Endpoint, ...]) -> dict[int, int]:
    """The interface by which each IP version leaves: the one that has our endpoint, else that of
    the preferred route."""
    ours, found = {host for host, _ in endpoints}, dict[int, int]()
    for way in sorted(ways, key=lambda way: way.source not in ours):
        found.setdefault(way.version, way.index)
    return found


def other_ways(
    ways: tuple[WayOut, ...], endpoints: tuple[Endpoint, ...], host_id: IPv6Address
) -> tuple[Source, ...]:
    """Other networks that we could leave by: of each further interface with a default route its
    address, if it is one that a peer could answer. Tunnels are none, our own among them; and
    nothing goes around a tunnel that somebody has sent all traffic into."""
    used, found = in_use(ways, endpoints), dict[Source, None]()
    through = {way.version for way in ways if way.tunnel and way.index == used[way.version]}
    taken = {str(host_id), *(host for host, _ in endpoints)}
    for way in ways:
        if way.source is None or way.source in taken or way.index == used[way.version]:
            continue
        if way.tunnel or way.version in through:
            continue
        address = ip_address(way.source)
        if not (address.is_link_local or address.is_loopback or address.is_unspecified):
            found[way.source, way.index] = None
    return tuple(found)[:MOST]


def device_mtu(config: HostConfig) -> int:
    """``host.mtu``; for "auto", the inner packet that our own links take whole, IPv4 and IPv6."""
    if config.host.mtu != "auto":
        return config.host.mtu
    server = config.rendezvous.endpoint
    known = [None if server is None else server[0], None, *(p.address[0] for p in config.peers)]
    found = [
        _inner(mtu, family)
        for family in _HEADERS
        if (mtu := next(filter(None, (_mtu(one, family) for one in known)), None)) is not None
    ]
    return min(found, default=_inner(_USUAL, socket.AF_INET6))


def _mtu(remote: str | None, family: int) -> int | None:
    try:
        version = 4 if remote is None else ip_address(remote).version
    except ValueError:
        return None  # a name, which is not looked up for this
    if remote is not None and version != (4 if family == socket.AF_INET else 6):
        return None
    return mtu_towards(remote, family)


def _inner(link: int, family: int) -> int:
    sealed = min(link, _MOST) - _HEADERS[socket.AddressFamily(family)] - _ESP
    return max(sealed // 4 * 4 - _TRAILER, MINIMUM_MTU)
