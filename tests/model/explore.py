"""Breadth first through all worlds; what is wrong is said with the shortest way to it."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, field

from tests.model.copying import copied
from tests.model.post import Action
from tests.model.worlds import UnsafeError, World


class WrongError(AssertionError):
    """A property does not hold; the text is the way there."""


@dataclass
class Found:
    """What an exploration saw."""

    states: int = 0
    steps: int = 0
    by_depth: list[int] = field(default_factory=list)
    longest: int = 0  # steps without loss until both had found each other
    distances: dict[int, int] = field(default_factory=dict)  # such steps left, by world
    complete: bool = False  # there was nothing new any more before the depth was reached


def explore(world: World, depth: int) -> Found:
    """All worlds that ``depth`` actions lead to. Raises :exc:`WrongError`."""
    found = Found(states=1, by_depth=[1])
    seen = {hash(world.key())}
    level: list[tuple[bytes, tuple[Action, ...]]] = [(_packed(world), ())]
    _arrives(world, (), found)
    for further in reversed(range(depth)):
        following: list[tuple[bytes, tuple[Action, ...]]] = []
        before = found.states
        for packed, way in level:
            start: World = pickle.loads(packed)
            for action in list(start.actions()):
                after = copied(start)
                found.steps += 1
                _take(after, action, way)
                key = hash(after.key())
                if key in seen:
                    continue
                seen.add(key)
                found.states += 1
                if further:
                    following.append((_packed(after), (*way, action)))
                _arrives(after, (*way, action), found)
        level = following
        if found.states == before:
            found.complete = True
            break
        found.by_depth.append(found.states - before)
    return found


def _packed(world: World) -> bytes:
    return pickle.dumps(world, pickle.HIGHEST_PROTOCOL)


def _take(world: World, action: Action, way: tuple[Action, ...]) -> None:
    try:
        world.take(action)
    except UnsafeError as error:
        raise WrongError(f"{error}, after {_told((*way, action))}") from None


def _arrives(world: World, way: tuple[Action, ...], found: Found) -> None:
    """No dead end: without loss from here on, both find each other in a few steps. What is known
    is remembered of the worlds in which nothing is on its way."""
    trial, passed = world, dict[int, int]()
    for steps in range(world.goal + 1):
        left = 0 if trial.arrived() else None
        if left is None and trial.quiet():
            key = hash(trial.key())
            left = found.distances.get(key)
            passed.setdefault(key, steps)
        if left is not None:
            for key, at in passed.items():
                found.distances[key] = steps + left - at
            found.longest = max(found.longest, steps + left)
            return
        trial = copied(world) if trial is world else trial
        try:
            trial.step_without_loss()
        except UnsafeError as error:
            raise WrongError(f"{error}, without loss after {_told(way)}") from None
    raise WrongError(f"a dead end after {_told(way)}")


def _told(way: tuple[Action, ...]) -> str:
    return " · ".join(" ".join(map(str, action)) for action in way) or "the beginning"
