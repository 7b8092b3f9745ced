"""Hosts of the simulation that stand in several networks at once, and move between them."""

from __future__ import annotations

from fastpath.types import Endpoint, Source
from tests.sim.nat import STUN
from tests.sim.world import SimHost


def join(host: SimHost, endpoint: Endpoint, index: int = 2) -> Source:
    """``host`` is in one more network, whose route is not the preferred one."""
    source = (endpoint[0], index)
    host.others[source] = endpoint
    host.world.hosts[endpoint] = host
    host.tell(host.node.set_other_ways, tuple(host.others), STUN)
    return source


def leave(host: SimHost, source: Source) -> None:
    """The other network is gone. What was on its way there is lost."""
    del host.world.hosts[host.others.pop(source)]
    host.tell(host.node.set_other_ways, tuple(host.others), STUN)


def switch(host: SimHost, to: Source, *, lost: bool) -> Source | None:
    """The routes prefer the other network now; what its driver says is what a real one says, in
    that order. ``lost``: the first one is gone, else that is the other one from now on."""
    before, after = host.endpoint, host.others.pop(to)
    back = None if lost else (before[0], to[1] + 1)
    if lost:
        del host.world.hosts[before]
    host.endpoint = after
    host.tell(host.node.set_local, (after,))
    host.tell(host.node.moved)
    if back is not None:
        host.others[back] = before
    host.tell(host.node.set_other_ways, tuple(host.others), STUN)
    if host.config.account and host.world.zone_up:
        host.reconnect()
    if after[0] in host.world.nats:
        host.tell(host.node.look_outside, STUN)
    else:
        host.tell(host.node.set_endpoints, (after,))
    return back
