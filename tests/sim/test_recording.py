"""A recorded session is played again on a fresh node, which gives the same commands."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from discovery.client import ClientSettings, ZoneClient
from discovery.types import TsigKey
from keys.account import Account
from keys.ike.endpoint import IkeSettings
from keys.issuer import Issuer, Ledger
from tests.sim.nat import STUN, Nat
from tests.sim.scenes import LAPTOP, delivers, delivers_after_reach
from tests.sim.test_certificates import LIFETIME, SETTINGS, enrolled, make_issuer
from tests.sim.test_certificates import host as make_host
from tests.sim.world import DOMAIN, SECRET, Config, SimHost, Weather, World
from tunnel import recording
from tunnel.credentials import Credentials
from tunnel.node import Node
from tunnel.recording import Call, Player, Recorder, ReplayError, play
from tunnel.settings import HomeAgentSettings, NodeSettings

ROOT = Path(__file__).resolve().parents[2]
STORMY = replace(NodeSettings(), ike=IkeSettings(additional=("mlkem768",), child_lifetime=60.0))

Recorded = tuple[SimHost, list[bytes], Callable[[Player], Node]]


def recorded(world: World, config: Config) -> Recorded:
    """A host that is recorded, what was recorded, and how a node like its own is made."""
    items: list[bytes] = []
    config.recorder = Recorder(world.random.randbytes, items.append)
    own, authority, issuer = None, None, config.issuer
    ledger = "" if issuer is None else issuer.ledger.to_json()
    if issuer is not None:
        config.issuer = Issuer(issuer.authority, issuer.ledger, config.recorder.random, LIFETIME)
    if config.credentials is not None:
        own, authority = config.credentials.own, config.credentials.authority
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
        again = None
        if issuer is not None:
            papers = Ledger.from_json(ledger)
            again = Issuer(issuer.authority, papers, player.random, LIFETIME)
        return Node(
            host.node.identity,
            zone=zone,
            random=player.random,
            credentials=None if own is None else Credentials(DOMAIN, own, authority),
            issuer=again,
            settings=config.settings,
            encapsulate=player.encapsulate,
        )

    return host, items, make


def stormy_session(seed: int) -> Recorded:
    """Bad weather, NATs, a move, a restart and the rendezvous away: then the recording."""
    world = World(seed, Weather(latency=0.04, jitter=0.1, loss=0.1, duplication=0.1))
    desk, items, make = recorded(world, Config("desk", ("192.168.2.10", 4500), settings=STORMY))
    world.behind("192.168.2.10", Nat("203.0.113.2", "restricted"))
    desk.start()
    desk.tell(desk.node.look_outside, STUN)
    laptop = SimHost(world, Config("laptop", LAPTOP, settings=STORMY)).start()
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


def relayed_hosts(world: World, who: str) -> tuple[dict[str, SimHost], Recorded]:
    """A home agent and two hosts that cannot meet; ``who`` of them is recorded."""
    agent = replace(STORMY, home_agent=HomeAgentSettings())
    places = {"gateway": "198.51.100.7", "laptop": "192.168.1.10", "desk": "192.168.2.10"}
    hosts, found = {}, None
    for number, (label, address) in enumerate(places.items()):
        settings = agent if label == "gateway" else STORMY
        config = Config(label, (address, 4500), settings=settings)
        if label != "gateway":
            world.behind(address, Nat(f"203.0.113.{number}", "symmetric"))
        if label == who:
            found = recorded(world, config)
        hosts[label] = SimHost(world, config) if found is None or label != who else found[0]
    assert found is not None
    return hosts, found


def relayed_session(seed: int, who: str) -> Recorded:
    """They register, reach each other by relay, meet when one moves, and part."""
    world = World(seed, Weather(latency=0.03, jitter=0.05, loss=0.05))
    hosts, found = relayed_hosts(world, who)
    for label, host in hosts.items():
        host.start()
        if label != "gateway":
            host.tell(host.node.look_outside, STUN)
    laptop, desk = hosts["laptop"], hosts["desk"]
    world.run(20)
    laptop.reach("desk")
    assert delivers(world, laptop, desk, 1, within=60)
    laptop.move(("203.0.113.50", 4500))
    assert delivers(world, desk, laptop, 2, within=60)
    world.run(60)
    found[0].shutdown()
    world.run(10)
    return found


def record_into(path: str) -> None:
    """The first half of a test over two processes."""
    _, stormy, _ = stormy_session(7)
    _, relayed, _ = relayed_session(7, "laptop")
    Path(path).write_bytes(msgspec.msgpack.encode([stormy, relayed]))


def play_from(path: str) -> None:
    """The second half: hosts like the first one's, and the calls of the other process."""
    config = Config("desk", ("192.168.2.10", 4500), settings=STORMY)
    _, _, stormy = recorded(World(7), config)
    _, (_, _, relayed) = relayed_hosts(World(7), "laptop")
    sessions = msgspec.msgpack.decode(Path(path).read_bytes(), type=list[list[bytes]])
    for make, items in zip((stormy, relayed), sessions, strict=True):
        print(len(list(play(make, items))))


@pytest.mark.parametrize("who", ["gateway", "laptop", "desk"])
def test_a_home_agent_and_whom_it_carries_are_played_again(who: str) -> None:
    _, items, make = relayed_session(3, who)
    assert len(list(play(make, items))) == len(items) - 1 > 200


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


def test_an_issuer_is_played_again_with_all_that_it_signs() -> None:
    """Certificates that are shown, renewed and listed; the keys themselves are not recorded."""
    world = World(5)
    issuer = make_issuer(world)
    config = Config("desk", ("198.51.100.1", 4500), settings=SETTINGS, issuer=issuer)
    config.credentials = enrolled(world, issuer, "desk")
    laptop = make_host(world, issuer, "laptop", LAPTOP)  # enrolled before: the ledger is shared
    desk, items, make = recorded(world, config)
    desk.start()
    world.run(10)
    assert delivers_after_reach(world, laptop, desk, 1)
    world.run(LIFETIME * 1.5)
    assert "ledger" in desk.kept
    assert "certificate" in laptop.kept
    *_, (node, _) = play(make, items)
    assert node.status(world.now)["certificate"] == desk.node.status(world.now)["certificate"]
    assert own_key(desk) not in b"".join(items)


def own_key(host: SimHost) -> bytes:
    assert host.config.credentials is not None
    key = host.config.credentials.key
    assert isinstance(key, Ed25519PrivateKey)
    return key.private_bytes_raw()


def test_it_is_the_same_in_another_process(tmp_path: Path) -> None:
    """The order of sets differs from process to process."""
    file = str(tmp_path / "items")
    for order, name in (("1", "record_into"), ("2", "play_from"), ("3", "play_from")):
        env = {**os.environ, "PYTHONHASHSEED": order, "PYTHONPATH": str(ROOT)}
        program = f"from tests.sim.test_recording import {name}; {name}({file!r})"
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
        assert done.returncode == 0, done.stderr
    assert [int(count) > 200 for count in done.stdout.split()] == [True, True]


def test_whatever_can_change_a_node_can_be_recorded() -> None:
    """A new method whose arguments could not be read back would be noticed only at a replay."""
    count = 0
    for name, method in inspect.getmembers(Node, inspect.isfunction):
        if name.startswith("_") or method.__annotations__["return"] != "list[Command]":
            continue
        types, timed = recording._signature(name)
        assert timed, name
        msgspec.msgpack.Decoder(types, dec_hook=recording._decoded)
        count += 1
    assert count > 25


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
