"""Where a peer may be, in the order in which its endpoints get their start (RFC 8305 in spirit).

::

    both behind one NAT:   on the local network, IPv6, IPv4
    else:                  IPv6, IPv4, and on the local network, if we are in one, too

A host with a private address publishes it beside its endpoint, as a TXT string
``lan=address:port``: two hosts behind the same NAT, which often cannot be met at its outside from
within, talk with each other directly. In another network somebody else may have that address, who
gets an IKE_SA_INIT, in which there is nobody's name, and cannot prove to be the peer. Only the
account reads these strings; who else learns that a host is 192.168.1.5 at home, learns little.
"""

from __future__ import annotations

from ipaddress import ip_address

from discovery.nat.types import is_behind_nat
from fastpath.types import Endpoint
from tunnel.core import Core
from tunnel.peers import Peer

LAN = "lan="
MOST = 4  # addresses on the local network, ours and a peer's


def about_lan(core: Core) -> tuple[str, ...]:
    """The strings that say where we are on our local network, if that is another place than the
    one where the outside reaches us."""
    inner = [one for one in core.local if is_private(one) and one not in core.endpoints]
    return tuple(f"{LAN}{host}:{port}" for host, port in inner[:MOST])


def lan_of(peer: Peer) -> tuple[Endpoint, ...]:
    """Where ``peer`` says that it is on its local network; what is no private address is not."""
    found = (_read(one.removeprefix(LAN)) for one in peer.info if one.startswith(LAN))
    return tuple(dict.fromkeys(one for one in found if one is not None))[:MOST]


def on_our_lan(core: Core, peer: Peer) -> tuple[Endpoint, ...]:
    """Where ``peer`` may be on *our* local network: nowhere, unless we have such an address, too.
    What is an address of our own is not the peer's."""
    ours = {host for host, _ in core.local}
    if not any(is_private(one) for one in core.local):
        return ()
    return tuple(one for one in lan_of(peer) if one[0] not in ours and one not in peer.endpoints)


def share_a_nat(core: Core, peer: Peer) -> bool:
    """Whether the outside sees both of us at the same IPv4 address."""
    ours = {host for host, _ in core.endpoints if ":" not in host and not is_behind_nat(host)}
    return any(host in ours for host, _ in peer.endpoints)


def in_order(core: Core, peer: Peer) -> list[Endpoint]:
    """All endpoints of ``peer``, the first to be tried first. Those of a family that we do not have
    ourselves are last; those that the zone names, and that are neither, stand as it has them. What
    names a host id as its endpoint has none there (I50)."""
    families = {":" in host for host, _ in core.endpoints}

    def rank(one: Endpoint) -> tuple[bool, bool]:
        six = ":" in one[0]
        return bool(families) and six not in families, not six

    outer = sorted((one for one in peer.endpoints if not core.is_host(one[0])), key=rank)
    lan = on_our_lan(core, peer)
    return [*lan, *outer] if share_a_nat(core, peer) else [*outer, *lan]


def is_private(endpoint: Endpoint) -> bool:
    """Whether it is an IPv4 endpoint of a local network (B22)."""
    return ":" not in endpoint[0] and is_behind_nat(endpoint[0])


def _read(text: str) -> Endpoint | None:
    host, _, port = text.rpartition(":")
    try:
        endpoint = (str(ip_address(host)), int(port))
    except ValueError:
        return None
    return endpoint if 0 < endpoint[1] < 65_536 and is_private(endpoint) else None
