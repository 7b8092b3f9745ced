"""The zone client against a rendezvous gone mad: mutated answers, signed with the right key."""

from __future__ import annotations

import random
from collections.abc import Iterator

from discovery import tsig
from discovery.client import _Pending
from discovery.lookup import Question
from discovery.types import HostFound, HostRecords, SendZone
from tests.discovery.client.test_client import DESK, KEY, World, of
from tests.fuzz.mutate import SEED, mutants

INPUTS = 40_000  # its two parsers get 100,000 each (test_fuzz_tsig, test_fuzz_records)
BOTH = HostRecords(
    "desk", DESK.host_id, DESK.target, (*DESK.endpoints, ("2001:db8::1", 4500)), DESK.info
)


def test_no_answer_signed_or_not_breaks_the_client() -> None:
    world = World()
    world.up()
    world.publish(BOTH)
    streams = answers(world)
    chance = random.Random(SEED)
    handed = 0
    while handed < INPUTS:
        if not world.client._pending:
            world.client.lookup("desk", world.now, world.unix)
            if chance.random() < 0.05:  # the dear one
                world.client.publish(BOTH, world.now, world.unix)
        for pending in list(world.client._pending.values()):
            handed += 1
            wire = hostile(pending, streams, chance, world.unix)
            world.client.receive(wire, world.now, world.unix)
        if chance.random() < 0.3:  # what came to nothing runs out
            world.now += 20
            world.client.advance(world.now, world.unix)
        assert len(world.client._pending) <= 20
        assert len(world.client._told) <= 50
    assert world.client.counters["answered"] > INPUTS // 50
    assert world.client.counters["foreign"] > INPUTS // 10
    world.advance(100)  # and after all this it works as before
    world.publish(BOTH)
    assert of(HostFound, world.lookup("desk")) == [HostFound(BOTH)]


def hostile(
    pending: _Pending,
    streams: dict[Question | None, Iterator[bytes]],
    chance: random.Random,
    unix: int,
) -> bytes:
    """A mutant of the true answer, mostly with a good signature."""
    # A mutated SRV leads to targets that the true zone does not have.
    stream = streams.get(pending.question) or streams[None]
    wire = pending.request.wire[:2] + next(stream)[2:]
    if len(wire) >= 12 and chance.random() < 0.9:
        wire, _ = tsig.sign(wire, KEY, unix, request_mac=pending.request.mac)
    return wire


def answers(world: World) -> dict[Question | None, Iterator[bytes]]:
    """Endless mutants of the true answer to each question; ``None`` is the UPDATE's."""
    found: dict[Question | None, Iterator[bytes]] = {}
    queue = world.client.lookup("desk", world.now, world.unix)
    queue += world.client.publish(BOTH, world.now, world.unix)
    while queue:
        command = queue.pop(0)
        if not isinstance(command, SendZone):
            continue
        pending = world.client._pending[int.from_bytes(command.wire[:2])]
        (answer,) = world.zone.handle(command.wire, ("192.0.2.1", 1), "tls", world.unix)
        verdict = tsig.verify(answer, lambda n, a: KEY, world.unix, request_mac=pending.request.mac)
        assert isinstance(verdict, tsig.Verified)
        found[pending.question] = mutants([verdict.message], INPUTS, SEED + len(found))
        queue += world.client.receive(answer, world.now, world.unix)
    assert len(found) == 7
    return found
