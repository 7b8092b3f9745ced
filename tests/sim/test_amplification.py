"""Strangers cannot make a host shout: what it sends to an address that somebody invented is little
more than what came from there, and under a flood less (RFC 7296 §2.6, BCP 38's reason to be)."""

from __future__ import annotations

import itertools
from functools import partial

import pytest

from tests.sim.scenes import two
from tests.sim.watch import watched
from tests.sim.world import SimHost, Way, World

VICTIM = ("192.0.2.66", 4500)
MARKER = bytes(4)
IP_UDP = 28  # octets of the headers around a datagram
NOTIFY, NONCE = 41, 40  # RFC 7296 §3.2


def first_word(world: World, desk: SimHost, laptop: SimHost) -> bytes:
    """The shortest IKE_SA_INIT that is answered, made of a real one: no notifications, and the
    least nonce."""
    began = len(world.wire)
    desk.reach("laptop")
    world.run(1)
    (data, *_) = [one for _, one in world.wire[began:] if one[:4] == MARKER]
    kind, rest, kept = data[4 + 16], data[4 + 28 :], list[tuple[int, bytes]]()
    while kind:
        following, length = rest[0], int.from_bytes(rest[2:4])
        if kind != NOTIFY:
            body = rest[4:length][: 16 if kind == NONCE else None]
            kept.append((kind, body))
        kind, rest = following, rest[length:]
    chain = b""
    for (_, body), (following, _) in itertools.zip_longest(kept, kept[1:], fillvalue=(0, b"")):
        chain += bytes((following, 0)) + (4 + len(body)).to_bytes(2) + body
    head = data[4:20] + bytes((kept[0][0],)) + data[21:28]
    return MARKER + head + (28 + len(chain)).to_bytes(4) + chain


def flooded(world: World, host: SimHost, datagrams: list[bytes]) -> tuple[int, int]:
    """Octets that came from the victim's address, it seems, and that went there within a minute."""
    sent = 0

    class Watch:
        def sent(self, who: SimHost, data: bytes, target: tuple[str, int]) -> None:
            nonlocal sent
            sent += (IP_UDP + len(data)) * (target == VICTIM)

        def came(self, *_: object) -> None:
            """Nothing is to be known of what comes."""

    world.watch = Watch()
    for number, data in enumerate(datagrams):
        way = Way(VICTIM, host.endpoint, forged=True)
        world.at(world.now + number / 100, partial(world.arrive, data, way, None))
    world.run(60 + len(datagrams) / 100)
    return sum(IP_UDP + len(data) for data in datagrams), sent


def with_spi(message: bytes, number: int) -> bytes:
    return message[:4] + number.to_bytes(8) + message[12:]


def test_a_first_word_is_worth_less_than_two() -> None:
    world = watched(1)
    desk, laptop = two(world)
    came, went = flooded(world, laptop, [first_word(world, desk, laptop)])
    assert 0 < went < 2 * came, "one answer, never repeated by itself"


def test_a_flood_of_first_words_is_answered_with_less() -> None:
    """From the seventeenth on with a cookie alone, and those twenty times a second."""
    world = watched(2)
    desk, laptop = two(world)
    word = first_word(world, desk, laptop)
    came, went = flooded(world, laptop, [with_spi(word, number + 1) for number in range(1000)])
    assert 0 < went < came / 2


@pytest.mark.parametrize(
    "data",
    [
        b"\x12\x34\x56\x78" + bytes(200),
        MARKER + b"\x11" * 16 + bytes((46, 0x20, 37, 8)) + bytes(4) + (28).to_bytes(4),
        MARKER + b"\x11" * 16 + bytes((46, 0x30, 37, 8)) + bytes(4) + (28).to_bytes(4),
        MARKER + bytes(28),
        b"\xff",
        b"",
        MARKER + b"\x00\x01\x00\x00\x21\x12\xa4\x42" + bytes(12),
    ],
    ids=["ESP", "IKE", "another version", "nothing", "a keepalive", "empty", "STUN"],
)
def test_whatever_else_strangers_say_is_answered_with_less(data: bytes) -> None:
    world = watched(3)
    _, laptop = two(world)
    came, went = flooded(world, laptop, [data] * 500)
    assert went < came / 2
