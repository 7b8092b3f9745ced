"""Hostile datagrams against both engines' open() and the data path: 100,000 inputs each."""

from __future__ import annotations

import os
import random
from collections import Counter
from typing import Any

import pytest

from fastpath.reference.datapath import Datapath, WritePacket
from fastpath.reference.esp import OutboundSa
from fastpath.types import ControlEvent, Drop, NewSourceEvent, Opened, UnknownSpiEvent
from tests.fastpath.support import (
    ENGINES,
    OUR_ID,
    PEER_ID,
    SUITES,
    esp_engine,
    params,
    tunnelled_in,
)

INPUTS = 100_000
SEED = int(os.environ.get("FUZZ_SEED", "6281"))


def mutations(valid: list[bytes], seed: int) -> Any:
    """``INPUTS`` datagrams: valid ones cut, grown, spliced and flipped, and plain noise."""
    dice = random.Random(seed)
    for _ in range(INPUTS):
        packet = bytearray(dice.choice(valid))
        match dice.randrange(6):
            case 0:
                packet = bytearray(dice.randbytes(dice.randrange(120)))
            case 1:
                del packet[dice.randrange(len(packet) + 1) :]
            case 2:
                packet += dice.randbytes(dice.randrange(1, 40))
            case 3:
                for _ in range(dice.randrange(1, 5)):
                    packet[dice.randrange(len(packet))] ^= 1 << dice.randrange(8)
            case 4:
                other = dice.choice(valid)
                cut = dice.randrange(len(packet))
                packet = packet[:cut] + other[cut:]
            case 5:
                packet[4:8] = dice.randbytes(4)
        yield bytes(packet)


@pytest.mark.parametrize("name", ENGINES)
def test_open_survives_hostile_packets(name: str) -> None:
    print(f"seed {SEED}; FUZZ_SEED=… picks another")
    engine = esp_engine(name)
    verdicts: Counter[str] = Counter()
    for esn in (True, False):
        sender = OutboundSa(params(esn=esn))
        valid = [
            sender.seal(tunnelled_in(bytes(n)), kind)
            for n, kind in zip(range(40), [41, 59, 6, 0] * 10, strict=True)
        ]
        honest = set(valid)
        receiver = engine.InboundSa(params(esn=esn))
        for packet in mutations(valid, SEED + esn):
            verdict = receiver.open(packet)
            if isinstance(verdict, Opened):
                assert packet in honest, f"forged: {packet.hex()}"
                honest.remove(packet)
            verdicts[verdict.name if isinstance(verdict, Drop) else "opened"] += 1
        assert receiver.sequence <= 40, "a forged packet moved the window"
    assert verdicts["AUTHENTICATION"] > INPUTS // 4
    assert verdicts["MALFORMED"] > 0
    assert verdicts["REPLAY"] > 0


def test_the_data_path_survives_hostile_datagrams() -> None:
    print(f"seed {SEED}; FUZZ_SEED=… picks another")
    machine = Datapath(OUR_ID)
    valid = [b"\xff", bytes(4) + b"\x11" * 16 + bytes([33, 0x20, 34, 8, 0, 0, 0, 0, 0, 0, 0, 28])]
    valid.append(valid[1][4:])
    for index, suite in enumerate(SUITES):
        machine.install_inbound(params(suite, spi=0x2000 + index))
        peer = OutboundSa(params(suite, spi=0x2000 + index, local_id=PEER_ID, peer_id=OUR_ID))
        valid += [peer.seal(tunnelled_in(bytes(n))) for n in range(10)]
        valid += [peer.seal(b"", 59), peer.seal(tunnelled_in(), 4), peer.seal(b"short", 41)]
    allowed = (WritePacket, ControlEvent, NewSourceEvent, UnknownSpiEvent)
    written = 0
    for index, datagram in enumerate(mutations(valid, SEED)):
        outputs = machine.inbound(datagram, ("203.0.113.5", 1 + index % 65_535), index / 1000)
        assert all(isinstance(output, allowed) for output in outputs)
        written += sum(isinstance(output, WritePacket) for output in outputs)
    assert written <= 10 * len(SUITES), "each honest packet passes at most once"
    counters = machine.counters()
    assert sum(n for key, n in counters.items() if key.startswith("drop_")) > INPUTS // 2


def test_the_data_path_survives_hostile_inner_packets() -> None:
    """What comes from the TUN device is the kernel's, but any local process can write there."""
    machine = Datapath(OUR_ID)
    valid = [tunnelled_in(bytes(n)) for n in range(20)]
    for packet in mutations(valid, SEED):
        machine.outbound(packet)
    assert machine.counters()["drop_malformed"] > 0
