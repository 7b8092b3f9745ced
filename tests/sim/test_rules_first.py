"""What packets follow stands before the first of them (I40): the order of what the node says."""

from __future__ import annotations

from keys.ike.settings import IkeSettings
from tests.sim.scenes import delivers
from tests.sim.test_home_agent import gateway, host, settled
from tests.sim.watch import watched
from tests.sim.world import SimHost
from tunnel import commands as do
from tunnel.settings import NodeSettings


def listen(one: SimHost) -> list[do.Command]:
    """All that the node tells the engine from now on, in order."""
    said: list[do.Command] = []
    carry_out = one._carry_out

    def heard(command: do.Command) -> None:
        said.append(command)
        carry_out(command)

    one._carry_out = heard
    return said


def flows_before_their_sa(said: list[do.Command]) -> tuple[int, list[do.SetFlow]]:
    """How many flows were set, and those that named an SA that was not there, either way."""
    out: set[int] = set()
    into: set[bytes] = set()
    count, early = 0, []
    for command in said:
        match command:
            case do.InstallInbound(sa):
                into.add(sa.peer_id)
            case do.InstallOutbound(sa):
                out.add(sa.spi)
            case do.RemoveOutbound(spi):
                out.discard(spi)
            case do.SetFlow(host_id, spi, _, _, _, narrow):
                count += 1
                named = {spi, *(one for _, one in narrow)}
                if not named <= out or host_id.packed not in into:
                    early.append(command)
    return count, early


def test_a_flow_names_only_sas_that_stand_i40() -> None:
    """At first, and while everything is rekeyed: a packet that came between would find nothing."""
    world = watched(840)
    gateway(world)
    short = NodeSettings(ike=IkeSettings(child_lifetime=6.0))
    laptop, desk = host(world, "laptop", 1, None, short), host(world, "desk", 2, None, short)
    said = listen(laptop), listen(desk)
    assert settled(world, laptop, desk)
    assert delivers(world, laptop, desk, 1, within=15)
    for number in range(100, 130):
        laptop.send(desk.host_id, number)
        world.run(1)
    for commands in said:
        count, early = flows_before_their_sa(commands)
        assert count > 5 and early == []
