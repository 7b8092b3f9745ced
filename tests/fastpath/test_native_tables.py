"""The native pump's tables against a plain dict: growth, collisions, removal (DESIGN §4)."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest

from fastpath.types import SaCounters, Suite
from tests.fastpath.support import OUR_ID, native_module, params

UNUSED = SaCounters(0, 0, None, {})


@pytest.fixture
def pump() -> Iterator[Any]:
    """A pump that was never started and has no descriptors."""
    made = native_module("_pump").NativePump(-1, None, None, OUR_ID)
    yield made
    made.stop()


@pytest.mark.parametrize("direction", ["inbound", "outbound"])
def test_thousands_of_sas_come_and_go(pump: Any, direction: str) -> None:
    install = getattr(pump, f"install_{direction}")
    remove = getattr(pump, f"remove_{direction}")
    counters = getattr(pump, f"{direction}_counters")
    dice = random.Random(7)
    spis = [*range(256, 700), *(dice.randrange(700, 2**32) for _ in range(1500))]
    there: set[int] = set()
    for step in range(6000):
        spi = dice.choice(spis)
        if dice.random() < (0.7 if step < 3000 else 0.3):
            install(params(Suite.CHACHA20POLY1305, spi=spi))
            there.add(spi)
        else:
            remove(spi)
            there.discard(spi)
    for spi in spis:
        assert counters(spi) == (UNUSED if spi in there else None)


def test_thousands_of_flows_come_and_go(pump: Any) -> None:
    """A flow without its SA asks for one; so only the acquire events tell them apart."""
    pump.install_outbound(params(spi=300))
    dice = random.Random(8)
    peers = [b"\xfd" + dice.randbytes(15) for _ in range(800)]
    for peer in peers:
        pump.set_flow(peer, 300, ("192.0.2.1", 4500))
    for peer in peers[::2]:
        pump.clear_flow(peer)
        pump.clear_flow(peer)
    for peer in peers:
        header = bytes((0x60, 0, 0, 0, 0, 0, 59, 64))
        if peer[0] != 0xFF and peer[:2] != b"\xfe\x80":
            pump.inject(header + OUR_ID + peer)
    asked = {event.packet[24:40] for event in pump.drain()}
    assert asked == set(peers[::2])


def test_a_bad_sa_leaves_the_old_one(pump: Any) -> None:
    pump.install_inbound(params(spi=300))
    for bad in (params(spi=255), params(spi=300, key=b"short"), params(spi=300, replay_window=1)):
        with pytest.raises(ValueError, match="not"):
            pump.install_inbound(bad)
    assert pump.inbound_counters(300) == UNUSED
    assert pump.inbound_counters(255) is None


@pytest.mark.parametrize(
    "endpoint",
    [("host.example", 4500), ("192.0.2.1", 0), ("192.0.2.1", 65536), ("", 1), ("192.0.2", 9)],
)
def test_a_bad_endpoint_is_refused_and_no_name_is_looked_up(pump: Any, endpoint: Any) -> None:
    for call in (
        lambda: pump.set_flow(OUR_ID, 300, endpoint),
        lambda: pump.send(b"x", endpoint),
        lambda: pump.send_dummy(300, endpoint),
    ):
        with pytest.raises(ValueError, match=r"port|address"):
            call()


def test_bad_host_ids_are_refused(pump: Any) -> None:
    with pytest.raises(ValueError, match="16 octets"):
        native_module("_pump").NativePump(-1, None, None, b"short")
    with pytest.raises(ValueError, match="16 octets"):
        pump.set_flow(b"short", 300, ("192.0.2.1", 4500))


def test_a_pump_is_started_once(pump: Any) -> None:
    pump.stop()
    with pytest.raises(RuntimeError, match="once"):
        pump.start()
