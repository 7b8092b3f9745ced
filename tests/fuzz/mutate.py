"""Hostile octets made of valid messages: a few octets changed, cut, doubled, or all random."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Sequence

SEED = int(os.environ.get("FUZZ_SEED", "6281"))

_TELLING = (0x00, 0x01, 0x0C, 0x3F, 0x40, 0x7F, 0x80, 0xC0, 0xFF)


def mutants(seeds: Sequence[bytes], count: int, seed: int = SEED) -> Iterator[bytes]:
    """Yield ``count`` inputs; the seed is printed, and pytest shows it when a test fails."""
    print(f"FUZZ_SEED={seed}")
    chance = random.Random(seed)
    for _ in range(count):
        if chance.random() < 0.05:
            yield chance.randbytes(chance.randrange(200))
            continue
        octets = bytearray(chance.choice(seeds))
        for _ in range(chance.randrange(1, 5)):
            _mutate(octets, chance)
        yield bytes(octets)


def _mutate(octets: bytearray, chance: random.Random) -> None:
    if not octets:
        return
    at = chance.randrange(len(octets))
    way = chance.randrange(6)
    if way == 0:
        octets[at] = chance.randrange(256)
    elif way == 1:
        octets[at] = chance.choice(_TELLING)
    elif way == 2:
        octets[at] ^= 1 << chance.randrange(8)
    elif way == 3:
        del octets[at : at + chance.randrange(1, 9)]
    elif way == 4:
        octets[at:at] = chance.randbytes(chance.randrange(1, 9))
    else:
        octets[at:at] = octets[at : at + chance.randrange(1, 40)]
