"""Ways through home agents: in which relay SA goes what is for a host id (I47, I48).

::

    flow or IKE, to (host id of B, 500)          the relay endpoint of B
        └─> IPv6(our host id -> B) | ESP or IKE  a nested packet
              └─> relay SA with the carrier ───> the carrier's endpoint

The *carrier* is the home agent that relays for us; at the home agent itself it is B, and what comes
for B out of the relay SAs of other hosts goes that way, too. The engine's table is kept true to
where the carriers are and to their SAs as these are rekeyed: :attr:`tunnel.core.Core.stirred` names
the peers of whom one of the two has changed.

A relay endpoint without a way here must never be sent to: it would be a host id on the wire (I50),
so that a way that has lost its SA stays in the engine, where it leads nowhere.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from ipaddress import IPv6Address

from tunnel.commands import ClearRelay, SetRelay
from tunnel.core import Core
from tunnel.peers import RELAYED, Peer

MOST = 65_536
"""Ways at a time: as many as a table of peers may have entries."""


@dataclass(slots=True)
class _Way:
    carrier: Peer
    forward: bool
    said: SetRelay | None = None  # as the engine has it


class Relays:
    """All ways, by host id."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._ways: dict[IPv6Address, _Way] = {}
        self._carried: dict[str, set[IPv6Address]] = {}  # by the carrier's name

    def use(self, host_id: IPv6Address, carrier: Peer, *, forward: bool = False) -> bool:
        """What goes to ``host_id`` by relay goes through ``carrier`` from now on, if it can."""
        way = self._ways.get(host_id)
        if way is None:
            if len(self._ways) >= MOST:
                return False
            way = self._ways[host_id] = _Way(carrier, forward)
        elif way.carrier is not carrier:
            self._left(way.carrier, host_id)
        way.carrier, way.forward = carrier, forward
        owner = self._core.peers.owner(host_id)
        if owner is not None:
            owner.carrier = None if forward else carrier.name
        self._carried.setdefault(carrier.name, set()).add(host_id)
        self._say(host_id, way)
        return self.stands(host_id)

    def clear(self, host_id: IPv6Address) -> None:
        """Nothing goes to ``host_id`` by relay any more."""
        way = self._ways.pop(host_id, None)
        if way is None:
            return
        self._left(way.carrier, host_id)
        self._core.relayed.discard(str(host_id))
        if way.said is None:
            return
        if self._core.peers.owner(host_id) is None and not way.said.forward:
            # The engine keeps in mind that a host id is no outer address, unless it was forwarded
            # to. Of those that are nobody's there may be any number.
            self._core.emit(replace(way.said, forward=True))
        self._core.emit(ClearRelay(host_id))

    def withdraw(self, name: str, but: IPv6Address | None = None) -> None:
        """Nothing is forwarded to this host any more, at whatever host ids it had; ``but`` this."""
        for host_id in self._carried.get(name, set()) - {but}:
            if self._ways[host_id].forward:
                self.clear(host_id)

    def carrier(self, host_id: IPv6Address | None) -> Peer | None:
        """Through whom it goes, if there is a way."""
        way = None if host_id is None else self._ways.get(host_id)
        return None if way is None else way.carrier

    def carried(self, carrier: Peer) -> list[IPv6Address]:
        """The host ids that are reached through this one."""
        return sorted(self._carried.get(carrier.name, ()))

    def stands(self, host_id: IPv6Address | None) -> bool:
        """Whether there is a way, and an SA for it."""
        carrier = self.carrier(host_id)
        return carrier is not None and _place(carrier) is not None

    def follow(self, names: set[str]) -> None:
        """Of these carriers something has changed."""
        for name in names & self._carried.keys():
            for host_id in self._carried[name]:
                self._say(host_id, self._ways[host_id])

    def _left(self, carrier: Peer, host_id: IPv6Address) -> None:
        carried = self._carried.get(carrier.name, set())
        carried.discard(host_id)
        if not carried:
            self._carried.pop(carrier.name, None)  # hosts come under any number of names

    def _say(self, host_id: IPv6Address, way: _Way) -> None:
        place = _place(way.carrier)
        if place is None:
            return  # what the engine has leads to an SA that is gone: nothing leaves
        said = SetRelay(host_id, *place, way.forward)
        if said != way.said:
            way.said = said
            self._core.relayed.add(str(host_id))
            self._core.emit(said)


def _place(carrier: Peer) -> tuple[int, tuple[str, int]] | None:
    """The carrier's relay SA and where it is; not one that is reached by relay itself, since a
    nested packet holds none."""
    child = carrier.narrow.get(RELAYED)
    if child is None or carrier.endpoint is None or carrier.is_relayed:
        return None
    return child.spi_out, carrier.endpoint
