"""``explain``: what a node says of how the path to a peer came to be."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from tests.sim.nat import STUN, Nat
from tests.sim.scenes import DESK, LAPTOP, connected, delivers, two
from tests.sim.world import DOMAIN, Config, SimHost, Weather, World
from tunnel.cli.explain import story
from tunnel.commands import NotReached


def of(host: SimHost, label: str) -> dict[str, Any]:
    found = host.node.explain(label, host.world.now)
    assert found is not None
    return found


def words(facts: dict[str, Any], what: str) -> list[str]:
    """All sentences and facts of one kind, in order."""
    events = [event for event in facts["events"] if event["what"] == what]
    return [f"{event['why']} {event['fields']}" for event in events]


def test_a_path_is_explained_from_the_records_to_the_data() -> None:
    world = World(1)
    desk, _ = connected(world)
    world.run(5)
    facts = of(desk, "laptop")
    assert facts["name"] == f"laptop.{DOMAIN}"
    assert facts["state"] == "up"
    assert facts["path"]["kind"] == "direct"
    assert facts["path"]["endpoint"] == f"{LAPTOP[0]}:{LAPTOP[1]}"
    assert 4 < facts["path"]["since_s"] < 60
    assert facts["records"]["endpoints"] == [f"{LAPTOP[0]}:{LAPTOP[1]}"]
    assert facts["ours"]["endpoints"] == [f"{DESK[0]}:{DESK[1]}"]
    kinds = [event["what"] for event in facts["events"] if event["about"] == "peer"]
    assert max(kinds.index("records"), kinds.index("wanted")) < kinds.index("candidate")
    assert kinds.index("candidate") < kinds.index("path")
    assert any(LAPTOP[0] in one for one in words(facts, "candidate"))
    ages = [event["ago_s"] for event in facts["events"]]
    assert ages == sorted(ages, reverse=True)


def test_why_a_peer_cannot_be_reached_is_explained() -> None:
    world = World(2, Weather())
    desk, laptop = two(world)
    laptop.kill()
    ticket = desk.reach("laptop")
    assert world.run(90, lambda: ticket in desk.answers)
    assert isinstance(desk.answers[ticket], NotReached)
    facts = of(desk, "laptop")
    assert facts["state"] == "failed"
    assert facts["path"] is None
    assert any("cannot be reached" in one for one in words(facts, "failed"))
    assert facts["reason"] in words(facts, "failed")[-1]


def test_a_move_and_its_proof_are_explained() -> None:
    world = World(3)
    desk, laptop = connected(world)
    laptop.move(("203.0.113.99", 4500))
    assert delivers(world, laptop, desk, 7, within=20)
    assert world.run(20, lambda: desk.peer("laptop")["endpoint"] == "203.0.113.99:4500")
    facts = of(desk, "laptop")
    assert any("'new': '203.0.113.99:4500'" in one for one in words(facts, "moved"))
    assert facts["path"]["endpoint"] == "203.0.113.99:4500"
    ours = of(laptop, "desk")
    assert any("203.0.113.99" in one for one in words(ours, "network"))


def test_calls_and_what_the_outside_sees_are_explained() -> None:
    world = World(4)
    hosts = []
    for number, label in ((1, "laptop"), (2, "desk")):
        inside = f"192.168.{number}.10"
        world.behind(inside, Nat(f"203.0.113.{number}", "restricted"))
        hosts.append(SimHost(world, Config(label, (inside, 4500))).start())
        hosts[-1].tell(hosts[-1].node.look_outside, STUN)
    laptop, desk = hosts
    assert world.run(60, lambda: {"desk", "laptop"} <= world.labels_in_zone())
    world.run(5)
    ticket = laptop.reach("desk")
    assert world.run(10, lambda: ticket in laptop.answers)
    caller, called = of(laptop, "desk"), of(desk, "laptop")
    assert words(caller, "call")
    assert words(called, "call")
    assert any("203.0.113.1" in one for one in words(caller, "outside"))
    assert caller["ours"]["mapping"] == "independent"
    assert caller["counts"]["call"] >= 1


def test_nobody_is_explained_who_is_not_known() -> None:
    world = World(5)
    desk, _ = two(world)
    world.run(5)
    assert desk.node.explain("stranger", world.now) is None
    facts = of(desk, "laptop")
    assert facts["state"] == "idle"
    assert facts["path"] is None


def test_it_is_shown_to_a_person() -> None:
    world = World(6)
    desk, _ = connected(world)
    console = Console(width=160)
    with console.capture() as capture:
        console.print(story(of(desk, "laptop")))
    text = capture.get()
    assert f"direct to {LAPTOP[0]}:{LAPTOP[1]}" in text
    assert "data goes there from now on" in text
    assert "our endpoints" in text
