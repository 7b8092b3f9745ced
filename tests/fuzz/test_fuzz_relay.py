"""What an authentic host may write into a relay SA: anything. Nothing wrong leaves or comes in."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from itertools import islice

import pytest

from fastpath.reference import relay
from fastpath.reference.datapath import SendDatagram
from fastpath.reference.inner import length_of
from fastpath.types import Drop, Opened
from tests.fastpath.relays import (
    A_TO_B,
    A_TO_H,
    AGENT,
    B_TO_A,
    B_TO_H,
    FIRST_WORD,
    H_TO_B,
    HOST_A,
    HOST_B,
    HOSTILE,
    IKE,
    esp_packet,
    nested,
    nested_ike,
    relay_sa,
)
from tests.fastpath.support import native_module
from tests.fastpath.test_pump_conformance import Rig, endpoint_of
from tests.fastpath.test_relay_agrees import Both
from tests.fastpath.test_relay_pumps import as_agent, as_host
from tests.fuzz.mutate import mutants

INPUTS = 100_000
BATCH = 60

SEEDS = [
    *(nested(esp_packet(body=bytes(length))) for length in (0, 3, 40)),
    *(nested_ike(message=message) for message in (IKE, FIRST_WORD)),
    nested(esp_packet(B_TO_A, HOST_B, HOST_A), 50, HOST_B, HOST_A),
    *(packet for _, packet, _ in HOSTILE),
]


def test_any_payload_is_a_nested_packet_or_has_a_reason() -> None:
    found: Counter[str] = Counter()
    for payload in mutants(SEEDS, INPUTS):
        got = relay.read(Opened(payload, 41, 1))
        if isinstance(got, Drop):
            found[got.name] += 1
            continue
        found["nested"] += 1
        assert payload.startswith(got.packet)
        assert length_of(got.packet) == len(got.packet)
        assert got.packet.endswith(got.body)
        assert got.packet[6] == (17 if got.is_ike else 50)
    assert set(found) == {"nested", "MALFORMED", "NOT_RELAYED"}
    assert min(found.values()) > INPUTS // 20


@pytest.fixture
def both(request: pytest.FixtureRequest) -> Iterator[Both]:
    """The law and a native pump, of the host id that is the parameter."""
    rig = Rig(native_module("_pump").NativePump, host_id=request.param)
    rig.pump.start()
    with contextlib.closing(rig):
        yield Both(rig, request.param)


@pytest.mark.parametrize("both", [AGENT], indirect=True, ids=["agent"])
def test_a_home_agent_forwards_nothing_wrong(both: Both) -> None:
    """Both engines; what they forward is of the sender, and for the other host."""
    for table in both.tables:
        as_agent(table, endpoint_of(both.rig.far), endpoint_of(both.rig.far6))
    _feed(both, A_TO_H, HOST_A, AGENT)
    sent = [output for output in both.outputs if isinstance(output, SendDatagram)]
    assert {output.endpoint for output in sent} == {endpoint_of(both.rig.far6)}
    assert both.law.counters()["relayed_packets"] == len(sent) > INPUTS // 40


@pytest.mark.parametrize("both", [HOST_B], indirect=True, ids=["host"])
def test_a_host_takes_nothing_wrong(both: Both) -> None:
    spis = B_TO_H, H_TO_B, B_TO_A, A_TO_B
    for table in both.tables:
        as_host(table, HOST_B, HOST_A, spis, endpoint_of(both.rig.far))
    _feed(both, H_TO_B, AGENT, HOST_B)
    assert both.law.counters()["rx_packets"] <= 3, "each honest packet passes at most once"
    assert not [output for output in both.outputs if isinstance(output, SendDatagram)]


def _feed(both: Both, spi: int, sender: bytes, receiver: bytes) -> None:
    """Half of the inputs, sealed as an authentic host does it."""
    sealing = native_module("_esp").OutboundSa(relay_sa(spi, sender, receiver, inbound=False))
    inputs = mutants(SEEDS, INPUTS // 2)
    while batch := list(islice(inputs, BATCH)):
        for payload in batch:
            both.came(sealing.seal(payload, 41))
        both.settle()
        both.same_events()
