"""Who serves TUN (decision 0030): one thread while little happens, two under load."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastpath.types import Opened
from tests.fastpath.support import OUR_ID, PEER_ID, ipv6, native_module
from tests.fastpath.test_pump_conformance import PATIENCE, Rig

BURST = 400  # packets, and TUN's stand-in holds fewer: both ends work at once
QUIET_ROUNDS = 500  # more than end a load


def ours(number: int, octets: int = 40) -> bytes:
    return ipv6(OUR_ID, PEER_ID, number.to_bytes(4, "big") + bytes(octets))


def theirs(number: int, octets: int = 40) -> bytes:
    return ipv6(PEER_ID, OUR_ID, number.to_bytes(4, "big") + bytes(octets))


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig(native_module("_pump").NativePump)
    rig.with_sas()
    rig.pump.start()
    try:
        yield rig
    finally:
        rig.close()


def facts_of(name: str) -> dict[str, str]:
    """What the kernel tells of the thread of this name; nothing before the thread has it."""
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # another one has ended
            lines = (task / "status").read_text().splitlines()
            facts = dict(line.split(":\t") for line in lines)
            if facts["Name"] == name:
                return facts
    return {}


def sleeps(name: str) -> int:
    """How often the thread of this name went to sleep so far."""
    return int(facts_of(name)["voluntary_ctxt_switches"])


def until_asleep(name: str) -> int:
    """Waits until the thread sleeps where it always does, in its wait; its count of sleeps. (Some
    of them are of before it had its name, when it waited for Python's lock.)"""
    deadline = time.monotonic() + PATIENCE
    while not (facts := facts_of(name)).get("State", "").startswith("S"):
        assert time.monotonic() < deadline, f"{name} never sleeps"
    return int(facts["voluntary_ctxt_switches"])


def round_trip(rig: Rig, number: int) -> None:
    """A question comes, and the answer leaves."""
    rig.to_pump(rig.peer_out.seal(theirs(number)))
    assert rig.from_tun() == theirs(number)
    rig.tun.send(ours(number))
    opened = rig.peer_in.open(rig.from_udp())
    assert isinstance(opened, Opened)
    assert opened.payload == ours(number)


def burst(rig: Rig) -> None:
    """More than one thread should do: packets leave as fast as TUN gives them, in order."""
    got: list[bytes] = []
    for number in range(BURST):
        rig.tun.send(ours(number, 1000))
        if number % 8 == 7:
            got += [opened(rig) for _ in range(8)]
    assert got == [ours(number, 1000) for number in range(BURST)]


def opened(rig: Rig) -> bytes:
    found = rig.peer_in.open(rig.from_udp())
    assert isinstance(found, Opened)
    return found.payload


def test_one_thread_is_woken_for_a_packet_at_rest(rig: Rig) -> None:
    before = until_asleep("autotunnel-out")
    for number in range(200):
        round_trip(rig, number)
    assert sleeps("autotunnel-out") == before


def test_a_load_wakes_the_other_thread_and_its_end_lets_it_sleep(rig: Rig) -> None:
    before = until_asleep("autotunnel-out")
    deadline = time.monotonic() + PATIENCE
    while sleeps("autotunnel-out") == before:
        assert time.monotonic() < deadline, "bursts wake the second thread"
        burst(rig)
    for number in range(QUIET_ROUNDS):
        round_trip(rig, number)
    calm = until_asleep("autotunnel-out")
    for number in range(100):
        round_trip(rig, number)
    assert sleeps("autotunnel-out") == calm


def test_nothing_is_lost_or_overtaken_while_it_changes_again_and_again(rig: Rig) -> None:
    for _ in range(5):
        burst(rig)
        for number in range(80):
            round_trip(rig, number)
    counters = rig.pump.counters()
    assert counters["tx_packets"] == 5 * (BURST + 80)
    assert counters["rx_packets"] == 5 * 80
    assert not [name for name in counters if name.startswith("drop_")]
