"""The native pump decides as the law does: the same hostile stream through both, counted alike.

Datagrams go to the native pump through a real socket, in batches that its buffer holds, and to
:class:`Datapath` by call; afterwards packets, events and every counter must be the same.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator
from itertools import islice

import pytest

from fastpath.reference.datapath import Datapath, Output, SendDatagram, WritePacket
from fastpath.reference.esp import OutboundSa
from fastpath.types import Mode, UnknownSpiEvent
from tests.fastpath.support import (
    OUR_ID,
    PEER_ID,
    SPI,
    STRANGER_ID,
    SUITES,
    ipv6,
    native_module,
    params,
    tunnelled_in,
    tunnelled_out,
)
from tests.fastpath.test_datapath import BARE_IKE, IKE_HEADER
from tests.fastpath.test_pump_conformance import PATIENCE, Rig, endpoint_of, readable
from tests.fuzz.test_fuzz_esp import SEED, mutations

ROUNDS, BATCH = 60, 50


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig(native_module("_pump").NativePump)
    rig.pump.start()
    try:
        yield rig
    finally:
        rig.close()


def sum_of_drops(counters: dict[str, int]) -> int:
    return sum(count for name, count in counters.items() if name.startswith("drop_"))


def test_hostile_datagrams_end_alike(rig: Rig) -> None:
    print(f"seed {SEED}; FUZZ_SEED=… picks another")
    law = Datapath(OUR_ID)
    valid = [b"\xff", bytes(4) + IKE_HEADER, BARE_IKE, bytes(4), bytes(10)]
    for index, (suite, mode) in enumerate((s, m) for s in SUITES for m in Mode):
        sa = params(suite, spi=0x2000 + index, mode=mode)
        for table in (law, rig.pump):
            table.install_inbound(sa)
        peer = OutboundSa(sa)
        for length in range(30):
            valid.append(peer.seal(tunnelled_in(bytes(length)), 41))
        valid += [peer.seal(tunnelled_in() + bytes(9), 41), peer.seal(tunnelled_in()[:-1], 41)]
        valid += [peer.seal(b"", 59), peer.seal(ipv6(STRANGER_ID, OUR_ID), 41)]
        valid += [peer.seal(b"segment", 6), peer.seal(b"", 41), peer.seal(tunnelled_in(), 4)]
    source = endpoint_of(rig.far)
    stream = list(islice(mutations(valid, SEED), ROUNDS * BATCH))
    random.Random(SEED).shuffle(valid)
    stream += valid  # the honest ones too, in any order
    outputs: list[Output] = []
    written: list[bytes] = []
    events: Counter[object] = Counter()
    for start in range(0, len(stream), BATCH):
        for datagram in stream[start : start + BATCH]:
            rig.to_pump(datagram)
            outputs += law.inbound(datagram, source, start / 10)
        settle(rig, law, outputs, events)
        while readable(rig.tun.fileno(), 0):
            written.append(rig.tun.recv(70_000))
    assert rig.pump.counters() == law.counters()
    expected = Counter(o for o in outputs if not isinstance(o, WritePacket | UnknownSpiEvent))
    assert without_unknown(events) == expected
    assert written == [o.packet for o in outputs if isinstance(o, WritePacket)]
    for index in range(len(SUITES) * len(Mode)):
        ours, native = (t.inbound_counters(0x2000 + index) for t in (law, rig.pump))
        assert ours is not None
        assert native is not None
        assert (ours.packets, ours.octets, ours.drops) == (
            native.packets,
            native.octets,
            native.drops,
        )


def settle(rig: Rig, law: Datapath, outputs: list[Output], events: Counter[object]) -> None:
    """Waits until the native pump has finished with as many datagrams as the law."""
    wanted = len([o for o in outputs if not isinstance(o, WritePacket | UnknownSpiEvent)])
    goal = law.counters()["rx_packets"] + sum_of_drops(law.counters())
    deadline = time.monotonic() + PATIENCE
    while True:
        events.update(rig.pump.drain())
        counters = rig.pump.counters()
        done = counters["rx_packets"] + sum_of_drops(counters)
        if done >= goal and without_unknown(events).total() >= wanted:
            return
        assert time.monotonic() < deadline, (counters, law.counters())
        readable(rig.pump.event_fd(), 0.002)


def without_unknown(events: Counter[object]) -> Counter[object]:
    """How many of those pass depends on the clock; the conformance suite holds their rate."""
    return Counter({e: n for e, n in events.items() if not isinstance(e, UnknownSpiEvent)})


@pytest.mark.parametrize("mode", list(Mode))
def test_hostile_inner_packets_end_alike(rig: Rig, mode: Mode) -> None:
    """Whatever a process writes to the TUN device leaves sealed alike, or is dropped alike."""
    law = Datapath(OUR_ID)
    sa = params(spi=SPI, mode=mode)
    for table in (law, rig.pump):
        table.install_outbound(sa)
        table.set_flow(PEER_ID, SPI, endpoint_of(rig.far))
    valid = [tunnelled_out(bytes(length)) for length in range(30)]
    valid += [ipv6(STRANGER_ID, PEER_ID), ipv6(OUR_ID, STRANGER_ID), ipv6(OUR_ID, b"\xff" * 16)]
    stream = [packet for packet in islice(mutations(valid, SEED), ROUNDS * BATCH) if packet]
    for start in range(0, len(stream), BATCH):
        outputs: list[Output] = []
        for packet in stream[start : start + BATCH]:
            rig.tun.send(packet)
            outputs += law.outbound(packet, 1.0)
        for output in outputs:
            if isinstance(output, SendDatagram):
                assert rig.from_udp() == output.data
        expected = Counter(o for o in outputs if not isinstance(o, SendDatagram))
        events = Counter(rig.events(expected.total())) if expected else Counter()
        assert events == expected
    deadline = time.monotonic() + PATIENCE
    while sum_of_drops(rig.pump.counters()) < sum_of_drops(law.counters()):
        assert time.monotonic() < deadline, (rig.pump.counters(), law.counters())
        readable(rig.pump.event_fd(), 0.002)
    assert rig.pump.counters() == law.counters()
