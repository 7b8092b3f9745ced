"""Several SAs with one peer, from the configuration to the packets: which travel on which."""

from __future__ import annotations

from ipaddress import IPv6Address

from keys.ike.settings import IkeSettings
from keys.ike.types import ChildPolicy, Traffic
from tests.sim.conftest import Make
from tests.sim.scenes import DESK, LAPTOP
from tests.sim.world import Config, SimHost, World, numbers, udp_packet
from tunnel.peers import StaticPeer
from tunnel.settings import NodeSettings

PSK = b"a key of theirs alone"
ECHO = Traffic(17, (12345, 12345), (9, 9))  # what udp_packet makes
MOBILITY = Traffic(135)
SHORT = NodeSettings(ike=IkeSettings(child_lifetime=6.0, ike_lifetime=25.0))


def hosts(world: World, settings: NodeSettings | None = None) -> tuple[SimHost, SimHost]:
    """``left`` asks for two children beside the first one."""
    settings = settings or NodeSettings()
    more = (ChildPolicy(MOBILITY), ChildPolicy(ECHO, "transport"))
    mode = (ChildPolicy(Traffic(17, ECHO.peer_ports, ECHO.local_ports), "transport"),)
    left = StaticPeer("left.example", IPv6Address("fd00::1"), DESK, PSK, more=mode)
    right = StaticPeer("right.example", IPv6Address("fd00::2"), LAPTOP, PSK, more=more)
    made = []
    for own, other, at in ((left, right, DESK), (right, left, LAPTOP)):
        config = Config(own.name, at, static=(other,), account=False, host_id=own.host_id)
        config.settings = settings
        made.append(SimHost(world, config).start())
    return made[0], made[1]


def carried(host: SimHost, peer: str) -> dict[str, tuple[int, int]]:
    """Packets received and sent, by what the child is for."""
    children = host.peer(peer)["children"]
    assert isinstance(children, list)
    return {one["traffic"]: (one["rx_packets"], one["tx_packets"]) for one in children}


def test_packets_travel_on_the_narrowest_child_that_is_for_them(world_of: Make) -> None:
    world = world_of(401)
    left, right = hosts(world)
    left.reach("right.example")
    assert world.run(5, lambda: len(carried(left, "right.example")) == 3)
    assert len(carried(right, "left.example")) == 3
    for number in range(3):
        left.send(right.host_id, number)
    back = udp_packet(right.host_id, left.host_id, 7)
    right.from_application(back[:40] + back[42:44] + back[40:42] + back[44:])  # ports swapped
    for number in range(5):
        right.send(left.host_id, 100 + number)
    assert world.run(5, lambda: len(left.received) == 6 and len(right.received) == 3)
    world.run(2)
    assert numbers(right.received) == [0, 1, 2]
    narrow = "protocol 17 from port 12345 to port 9"
    assert carried(left, "right.example") == {
        "everything": (5, 0),
        "protocol 135": (0, 0),
        narrow: (1, 3),
    }
    children = left.peer("right.example")["children"]
    assert isinstance(children, list)
    assert {one["traffic"]: one["mode"] for one in children} == {
        "everything": "tunnel",
        "protocol 135": "tunnel",
        narrow: "transport",
    }
    assert not {"selector", "unknown_spi"} & set(left.peer("right.example")["drops"])


def test_each_is_rekeyed_on_its_own_and_nothing_is_lost(world_of: Make) -> None:
    world = world_of(402)
    left, right = hosts(world, SHORT)
    left.reach("right.example")
    assert world.run(5, lambda: len(carried(right, "left.example")) == 3)
    for number in range(80):
        left.send(right.host_id, number)
        right.send(left.host_id, number)
        world.run(0.5)
    world.run(2)
    for host in (left, right):
        assert numbers(host.received) == list(range(80))
        assert "unknown_spi" not in host.datapath.counters()
        assert "drop_selector" not in host.datapath.counters()


def test_all_of_them_end_with_the_peer(world_of: Make) -> None:
    world = world_of(403)
    left, right = hosts(world)
    left.reach("right.example")
    assert world.run(5, lambda: len(carried(right, "left.example")) == 3)
    left.shutdown()
    assert world.run(5, lambda: right.peer("left.example")["state"] != "up")
    assert carried(right, "left.example") == {}
    assert not right.node.spis()[0]
    assert right.node._core.peers.named("left.example").narrow == {}


def test_a_child_too_many_for_the_flow_goes_unused(world_of: Make) -> None:
    """Its packets travel with all others: nothing is lost for want of room."""
    world = world_of(404)
    left, right = hosts(world)
    peer = left.node._core.peers.named("right.example")
    assert peer is not None
    many = tuple(ChildPolicy(Traffic(6, peer_ports=(n, n))) for n in range(1, 6))
    peer.more = (*many, ChildPolicy(Traffic(17)))
    left.reach("right.example")
    assert world.run(10, lambda: len(carried(left, "right.example")) == 7)
    left.send(right.host_id, 5)
    assert world.run(5, lambda: numbers(right.received) == [5])
    world.run(2)
    assert carried(left, "right.example")["everything"][1] == 1
