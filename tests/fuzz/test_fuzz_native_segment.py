"""100,000 broken frames of TUN: both engines cut them alike, or refuse them alike."""

from __future__ import annotations

import random
from collections.abc import Callable

from fastpath.reference.segment import cut as law
from tests.fastpath.inner_flows import TIMESTAMPS, icmp, large, tcp, udp
from tests.fastpath.support import native_module

INPUTS = 100_000
SEED = 6281


def outcome(cut: Callable[[bytes, int], list[bytes]], frame: bytes, mtu: int) -> list[bytes] | None:
    try:
        return cut(frame, mtu)
    except ValueError:
        return None


def test_broken_frames_are_cut_alike_or_refused_alike() -> None:
    print(f"seed {SEED}")
    dice = random.Random(SEED)
    native = native_module("_segment").cut
    frames = [
        large(tcp(b"payload" * 9), 20),
        large(tcp(b"payload" * 9, options=TIMESTAMPS), 0),
        large(udp(b"datagram" * 5), 16),
        bytes(10) + icmp(b"ping"),
    ]
    refused = 0
    for number in range(INPUTS):
        frame = bytearray(dice.choice(frames))
        for _ in range(dice.randrange(1, 4)):
            # Mostly where it hurts: virtio header, IPv6 length, TCP offset and flags.
            place = dice.choice([*range(16), 45, 46, 47, dice.randrange(len(frame))])
            frame[place] = dice.choice([0, 1, 4, 5, 40, 80, 255, dice.randrange(256)])
        if number % 5 == 0:
            del frame[dice.randrange(len(frame)) :]
        elif number % 97 == 0:
            frame = bytearray(dice.randbytes(dice.randrange(120)))
        mtu = dice.choice([1280, 70, 104])
        cut = outcome(native, bytes(frame), mtu)
        assert cut == outcome(law, bytes(frame), mtu), (number, bytes(frame).hex())
        refused += cut is None
    assert INPUTS // 20 < refused < INPUTS * 19 // 20
