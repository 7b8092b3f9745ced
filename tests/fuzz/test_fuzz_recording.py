"""A recording file may be anything: it is read, or refused in one way."""

from __future__ import annotations

import contextlib
from pathlib import Path

import msgspec

from tests.fuzz.mutate import mutants
from tests.sim.test_recording import recorded
from tests.sim.world import Config, World
from tunnel.io.recording import Reading, RecordingError, RecordingFile
from tunnel.recording import Call, ReplayError, play

FILES = 100_000
CALLS = 5_000
SECRET = bytes(32)


def test_100_000_hostile_files_are_read_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.recording"
    file = RecordingFile(path, SECRET)
    for number in range(20):
        file.write(bytes(number))
    file.end("enough")
    outcomes = {"read": 0, "refused": 0}
    for octets in mutants([path.read_bytes()], FILES):
        try:
            list(Reading(path, octets, SECRET).items())
            outcomes["read"] += 1
        except RecordingError:
            outcomes["refused"] += 1
    assert outcomes["refused"] > FILES / 10


def test_hostile_calls_of_somebody_with_the_secret_are_played_or_refused() -> None:
    """Whoever has the secret may write what he likes; it still ends in one error."""
    world = World(1)
    desk, items, make = recorded(world, Config("desk", ("198.51.100.1", 4500)))
    desk.start()
    world.run(3)
    calls = [msgspec.msgpack.decode(item, type=Call) for item in items[1:6]]
    methods = ("reach", "activity", "nearby", "ask_zone", "__init__", *(c.method for c in calls))
    arguments = mutants([call.arguments for call in calls], CALLS)
    for number, octets in enumerate(arguments):
        call, method = calls[number % len(calls)], methods[number % len(methods)]
        changed = msgspec.structs.replace(call, method=method, arguments=octets)
        with contextlib.suppress(ReplayError):
            list(play(make, [items[0], msgspec.msgpack.encode(changed)]))
