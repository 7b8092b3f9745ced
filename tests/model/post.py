"""Messages on their way between the machines of a world, and what may happen to each of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fastpath.types import Endpoint
from tunnel.mobility.header import Message

Action = tuple[object, ...]


@dataclass
class Letter:
    """One on its way."""

    sender: str
    source: Endpoint
    destination: Endpoint
    message: Message


def fates(letters: list[Letter], budget: dict[str, int]) -> Iterator[Action]:
    """Each may arrive, get lost, or arrive and stay on its way as long as the budget lasts."""
    for number in range(len(letters)):
        yield "bring", number
        yield "lose", number
        if budget.get("repeat"):
            yield "repeat", number


def arriving(
    letters: list[Letter], budget: dict[str, int], action: Action
) -> tuple[Letter, ...] | None:
    """What arrives by this action; ``None`` if it is not one of :func:`fates`."""
    match action:
        case ("bring", int(number)):
            return (letters.pop(number),)
        case ("lose", int(number)):
            del letters[number]
            return ()
        case ("repeat", int(number)):
            budget["repeat"] -= 1
            return (letters[number],)
        case _:
            return None
