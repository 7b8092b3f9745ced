"""``autotunnel lab`` as it is asked for; what it builds: tests/namespaces/test_lab_command.py."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.support import Person
from tunnel.config.base import ConfigError
from tunnel.io.lab.scenario import KINDS, SCENARIOS, Event, Network, load
from tunnel.io.lab.wire import Chances, Wire

FILE = """
about = "a laptop leaves the office while the rendezvous is away"
[left]
kind = "mapped"
timeout = 30
[links]
delay_ms = 20
loss = 1.5
[[event]]
at = 1
do = "away"
[[event]]
at = 2
do = "move"
who = "left"
kind = "symmetric"
[[event]]
at = 9
do = "back"
"""


def test_all_scenarios_and_kinds_are_named(person: Person) -> None:
    done = person.run("lab", "--list")
    assert done.returncode == 0
    told = json.loads(person.run("lab", "--list", "--json").stdout)
    assert told["schema"] == "autotunnel/lab/v1"
    for name in (*SCENARIOS, *KINDS):
        assert name in done.stdout
    assert (set(told["scenarios"]), set(told["kinds"])) == (set(SCENARIOS), set(KINDS))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nonesuch"], "there is no scenario 'nonesuch'"),
        (["--left", "purple"], "use one of public, mapped"),
        (["double", "--left", "mapped"], "a scenario says itself"),
        (["double", "--loss", "101"], "links: loss: expected"),
        (["double", "--mtu", "576"], "links: mtu: expected"),
    ],
)
def test_what_cannot_be_meant_is_exit_code_2(
    person: Person, arguments: list[str], said: str
) -> None:
    done = person.run("lab", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in " ".join(done.stderr.split())


def test_a_file_says_the_same(tmp_path: Path) -> None:
    path = tmp_path / "office.toml"
    path.write_text(FILE)
    scenario = load(path)
    assert scenario.left == Network("mapped", 30.0)
    assert scenario.in_order()[1] == Event("move", 2.0, "left", "symmetric")
    assert scenario.at_last("left").kind == "symmetric"
    assert scenario.has_path
    assert (scenario.links.delay_ms, scenario.links.plain) == (20.0, False)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ('kindd = "mapped"', 'did you mean "kind"?'),
        ("[[event]]\ndo = 'move'\nwho = 'left'", "add kind, one of public"),
        ("[[event]]\ndo = 'away'\nwho = 'left'", "remove it"),
        ("[[event]]\ndo = 'reboot'", 'add who = "left" or "right"'),
        ("[links]\nloss = 101", "links.loss"),
    ],
)
def test_a_wrong_file_says_where_and_what_to_do(tmp_path: Path, wrong: str, said: str) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(f"[left]\n{wrong}\n")
    with pytest.raises(ConfigError) as told:
        load(path)
    assert said in str(told.value)


def test_a_wire_delays_loses_and_doubles_by_its_seed() -> None:
    bad = Chances(delay=0.03, jitter=0.01, loss=0.1, duplicate=0.05)

    def carried(seed: int) -> list[tuple[int, bytes]]:
        wire = Wire(bad, seed)
        for number in range(1000):
            wire.take(number.to_bytes(2), 7, number / 1000)
        assert wire.due(0.029) == []
        assert wire.wait(0.029) is not None
        return wire.due(2.0)

    frames = [int.from_bytes(frame) for end, frame in carried(1) if end == 7]
    assert 850 < len(set(frames)) < 950
    assert 20 < len(frames) - len(set(frames)) < 80
    assert frames != sorted(frames)  # the later overtakes
    assert carried(1) == carried(1) != carried(2)


def test_a_plain_wire_carries_all_in_order() -> None:
    wire = Wire(Chances(0.0, 0.0, 0.0, 0.0), 1)
    for number in range(100):
        wire.take(bytes([number]), 3, 0.0)
    assert [frame[0] for _, frame in wire.due(0.0)] == list(range(100))
    assert wire.wait(0.0) is None
