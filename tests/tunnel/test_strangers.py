"""Strangers' first messages: who is looked at first, and what a flood of them may not drive out."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from fastpath.types import AcquireEvent, ControlEvent, Endpoint, Event
from tunnel import commands as do
from tunnel.io.driver import MARKER, Driver
from tunnel.io.strangers import AT_ONCE, in_turn


def request(number: int, *, cookie: bool = False) -> bytes:
    """An IKE_SA_INIT request, as far as its header."""
    first = 41 if cookie else 33
    head = bytes([first, 0x20, 34, 8]) + bytes(4) + (28).to_bytes(4, "big")
    return (number + 1).to_bytes(8, "big") + bytes(8) + head


def first_word(number: int, source: str, *, cookie: bool = False) -> ControlEvent:
    return ControlEvent(request(number, cookie=cookie), (source, 4500), True)


def test_who_brings_a_cookie_comes_first_then_who_asked_least() -> None:
    flood = [first_word(number, "198.51.100.1") for number in range(3)]
    honest = first_word(8, "203.0.113.8")
    proven = first_word(9, "198.51.100.1", cookie=True)
    assert in_turn([*flood, honest, proven]) == [proven, flood[0], honest, *flood[1:]]


def test_a_source_of_ipv6_is_a_64() -> None:
    flood = [first_word(number, f"2001:db8::{number:x}") for number in range(3)]
    other = first_word(7, "2001:db8:0:1::1")
    assert in_turn([*flood, other]) == [flood[0], other, *flood[1:]]
    assert in_turn([first_word(1, "fe80::1"), first_word(2, "::1")])


def test_one_who_floods_does_not_crowd_out_another() -> None:
    flood = [first_word(number, "198.51.100.1") for number in range(2 * AT_ONCE)]
    honest = first_word(9999, "203.0.113.8")
    heard = in_turn([*flood, honest])
    assert len(heard) == AT_ONCE
    assert honest in heard
    assert in_turn([]) == []


class _Node:
    """Answers each datagram, as the real one asks for a cookie."""

    def __init__(self) -> None:
        self.heard: list[bytes | Endpoint] = []
        self.look_after = float("inf")

    def datagram(self, data: bytes, source: Endpoint, now: float, unix: int) -> list[do.Command]:
        self.heard.append(source)
        return [do.SendIke(b"answer", source)]

    def acquire(self, packet: bytes, now: float, unix: int) -> list[do.Command]:
        self.heard.append(packet)
        return []

    def next_timer(self) -> float | None:
        return None


class _Pump:
    """Holds what it is given to tell, and what it is told to send."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.sent: list[tuple[bytes, Endpoint]] = []

    def drain(self) -> list[Event]:
        events, self.events = self.events, []
        return events

    def send(self, datagram: bytes, endpoint: Endpoint) -> None:
        self.sent.append((datagram, endpoint))


def test_a_flood_comes_last_and_drives_out_nothing_that_is_known() -> None:
    """More invented sources without a marker than framings are kept; a peer that leaves it out,
    as strongSwan does from port 500, is answered alike afterwards."""

    async def play() -> None:
        node, pump = _Node(), _Pump()
        driver = Driver(
            cast(Any, node),
            cast(Any, pump),
            cast(Any, None),
            ike_pair=None,
            send_zone=lambda _: None,
            answer=lambda _: None,
        )
        driver._running = True
        peer = ("203.0.113.8", 500)
        pump.events = [ControlEvent(b"\x01" * 28, peer, False)]
        driver._drain()
        flood = 5000
        for start in range(0, flood, 250):
            sources = [(f"198.51.{number >> 8}.{number & 255}", 1) for number in range(250)]
            pump.events = [ControlEvent(request(start), source, False) for source in sources]
            pump.events.append(AcquireEvent(b"packet"))
            node.heard.clear()
            driver._drain()
            assert node.heard == [b"packet", *sources]
        assert driver.unheard == 0
        pump.events = [first_word(n, "198.51.100.1") for n in range(AT_ONCE + 5)]
        driver._drain()
        assert driver.unheard == 5
        driver._carry_out([do.SendIke(b"rekey", peer), do.SendIke(b"x", ("198.51.0.1", 1))])
        assert pump.sent[-2:] == [(b"rekey", peer), (MARKER + b"x", ("198.51.0.1", 1))]
        assert (b"answer", ("198.51.0.1", 1)) in pump.sent
        driver._running = False
        assert driver._timer is not None
        driver._timer.cancel()

    asyncio.run(play())
