"""When the driver asks the node for its next timer, which with many peers takes long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from tunnel import commands as do
from tunnel.io import driver as driver_module
from tunnel.io.driver import Driver


class Node:
    """Whose next timer takes ``cost`` seconds to find."""

    def __init__(self, cost: float) -> None:
        self.now, self.cost, self.due = 1000.0, cost, 1005.0
        self.looks, self.advances = 0, 0
        self.look_after = float("inf")

    def clock(self) -> float:
        return self.now

    def next_timer(self) -> float:
        self.looks += 1
        self.now += self.cost
        return self.due

    def advance(self, now: float, unix: int) -> list[do.Command]:
        self.advances += 1
        self.due = now + 5.0
        return []

    def happened(self, now: float, unix: int) -> list[do.Command]:
        return []


def play(
    node: Node,
    monkeypatch: pytest.MonkeyPatch,
    events: int,
    pause: float,
    resumed: Callable[[], None] = lambda: None,
) -> Driver:
    """So many events, ``pause`` seconds between two; every timer of ours that is due is served."""
    monkeypatch.setattr(driver_module, "boottime", node.clock)

    async def run() -> Driver:
        driver = Driver(
            *(cast(Any, node), cast(Any, None), cast(Any, None)),
            ike_pair=None,
            send_zone=lambda _: None,
            answer=lambda _: None,
            resumed=resumed,
        )
        driver._running = True
        for _ in range(events):
            driver.tell(node.happened)
            node.now += pause
            driver._tick()
        assert driver._timer is not None
        driver._timer.cancel()
        return driver

    return asyncio.run(run())


def test_with_few_peers_every_event_is_followed_by_a_look(monkeypatch: pytest.MonkeyPatch) -> None:
    node = Node(cost=0.00002)
    play(node, monkeypatch, events=500, pause=0.001)
    assert node.looks == 500


def test_with_many_peers_looking_takes_a_tenth_of_the_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    node = Node(cost=0.02)
    play(node, monkeypatch, events=2000, pause=0.001)
    assert 0.08 < node.looks * node.cost / (node.now - 1000.0) < 0.11


def test_what_is_due_is_done_soon_however_much_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    node = Node(cost=0.02)
    node.due = 1000.5
    play(node, monkeypatch, events=1000, pause=0.001)
    assert node.advances == 1
    assert node.due - 5.0 - 1000.5 < 0.02 * 11 + 0.001


def test_nothing_happens_so_nothing_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    node = Node(cost=0.0)
    driver = play(node, monkeypatch, events=1, pause=0.001)
    for _ in range(100):
        node.now += 0.001
        driver._look(node.now)
    assert node.looks == 1


def test_a_machine_that_has_slept_is_noticed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """CLOCK_BOOTTIME went on while the monotonic clock stood still."""
    node, woke = Node(cost=0.0), []
    play(node, monkeypatch, events=50, pause=0.001, resumed=lambda: woke.append(node.now))
    assert woke == []
    play(node, monkeypatch, events=2, pause=3600.0, resumed=lambda: woke.append(node.now))
    assert len(woke) == 2
    play(node, monkeypatch, events=50, pause=0.001, resumed=lambda: woke.append(node.now))
    assert len(woke) == 2
