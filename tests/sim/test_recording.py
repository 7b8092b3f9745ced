"""A recorded session is played again on a fresh node, which gives the same commands."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from discovery.client import ClientSettings, ZoneClient
from discovery.types import TsigKey
from keys.account import Account
from keys.ike.endpoint import IkeSettings
from tests.sim.nat import STUN, Nat
from tests.sim.scenes import LAPTOP, delivers
from tests.sim.world import DOMAIN, SECRET, Config, SimHost, Weather, World
from tunnel.node import Node
from tunnel.recording import Call, Player, Recorder, ReplayError, play
from tunnel.settings import NodeSettings

ROOT = Path(__file__).resolve().parents[2]
PLAY_AGAIN = "from tests.sim.test_recording import play_a_stormy_session; play_a_stormy_session()"


def recorded(world: World, config: Config) -> tuple[SimHost, list[bytes], Callable[[Player], Node]]:
    """A host that is recorded, what was recorded, and how a node like its own is made."""
    items: list[bytes] = []
    config.recorder = Recorder(world.random.randbytes, items.append)
    host = SimHost(world, config)

    def make(player: Player) -> Node:
        account = Account(DOMAIN, SECRET)
        zone = ZoneClient(
            domain=DOMAIN,
            label=config.label,
            key=TsigKey(account.tsig_name, account.tsig_secret),
            random=player.random,
            settings=ClientSettings(reliable=True, secure=True),
        )
        return Node(
            host.node.identity,
            zone=zone,
            random=player.random,
            settings=config.settings,
            encapsulate=player.encapsulate,
        )

    return host, items, make


def stormy_session(seed: int) -> tuple[SimHost, list[bytes], Callable[[Player], Node]]:
    """Bad weather, NATs, a move, a restart and the rendezvous away: then the recording."""
    world = World(seed, Weather(latency=0.04, jitter=0.1, loss=0.1, duplication=0.1))
    ike = IkeSettings(additional=("mlkem768",), child_lifetime=60.0)
    settings = replace(NodeSettings(), ike=ike)
    desk, items, make = recorded(world, Config("desk", ("192.168.2.10", 4500), settings=settings))
    world.behind("192.168.2.10", Nat("203.0.113.2", "restricted"))
    desk.start()
    desk.tell(desk.node.look_outside, STUN)
    laptop = SimHost(world, Config("laptop", LAPTOP, settings=settings)).start()
    world.run(10)
    desk.reach("laptop")
    delivers(world, laptop, desk, 1, within=60)
    laptop.move(("203.0.113.99", 4500))
    delivers(world, laptop, desk, 2, within=60)
    world.set_zone(False)
    world.nats["192.168.2.10"].reboot()
    delivers(world, desk, laptop, 3, within=60)
    world.set_zone(True)
    laptop = laptop.restart(reboot=True)
    world.run(10)
    desk.reach("laptop")
    desk.ping("laptop")
    desk.lookup("laptop")
    delivers(world, laptop, desk, 4, within=60)
    desk.ask(desk.node.browse, "_ssh._tcp")
    world.run(90)
    desk.shutdown()
    world.run(10)
    return desk, items, make


def play_a_stormy_session() -> None:
    """In a process of its own: another order of sets must change nothing."""
    desk, items, make = stormy_session(7)
    for _ in play(make, items):
        pass
    print(len(items), desk.finished)


@pytest.mark.parametrize("seed", range(4))
def test_a_stormy_session_is_played_again_to_the_last_command(seed: int) -> None:
    desk, items, make = stormy_session(seed)
    calls = list(play(make, items))
    assert len(calls) == len(items) - 1 > 200
    assert {"datagram", "zone_message", "activity", "advance", "removed"} <= {
        one.call.method for _, one in calls
    }
    node, last = calls[-1]
    assert [type(one).__name__ for one in last.commands] or last.call.method
    before, again = (
        desk.node.explain("laptop", last.call.now),
        node.explain("laptop", last.call.now),
    )
    assert before == again


def test_it_is_the_same_in_another_process() -> None:
    """The order of sets differs from process to process."""
    said = set()
    for seed in ("1", "2"):
        env = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, "-c", PLAY_AGAIN], capture_output=True, text=True, env=env, check=False
        )
        assert done.returncode == 0, done.stderr
        said.add(done.stdout)
    assert len(said) == 1


def test_another_outcome_is_told_with_its_call() -> None:
    world = World(1)
    desk, items, make = recorded(world, Config("desk", ("198.51.100.1", 4500)))
    desk.start()
    world.run(5)
    calls = [msgspec.msgpack.decode(item, type=Call) for item in items]
    second = msgspec.structs.replace(calls[2], digest=bytes(16))
    changed = [*items[:2], msgspec.msgpack.encode(second), *items[3:]]
    with pytest.raises(ReplayError, match=rf"call 2 \({second.method}\) gave other commands"):
        list(play(make, changed))


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (Call("status", 1.0, 1, b"\x90", (), b""), "changes nothing"),
        (Call("_turn", 1.0, 1, b"\x90", (), b""), "no such method"),
        (Call("nothing", 1.0, 1, b"\x90", (), b""), "no such method"),
        (Call("datagram", 1.0, 1, b"\x90", (), b""), "cannot be read"),
        (Call("datagram", 1.0, 1, b"\xc1", (), b""), "cannot be read"),
    ],
)
def test_what_is_no_recording_is_refused(call: Call, said: str) -> None:
    world = World(1)
    _, items, make = recorded(world, Config("desk", ("198.51.100.1", 4500)))
    with pytest.raises(ReplayError, match=said):
        list(play(make, [items[0], msgspec.msgpack.encode(call)]))
    with pytest.raises(ReplayError, match="does not begin"):
        list(play(make, [msgspec.msgpack.encode(call)]))
    with pytest.raises(ReplayError, match="no call"):
        list(play(make, [b"\xff\xff"]))
