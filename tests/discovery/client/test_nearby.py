"""What is called out on a local network: members understand it, strangers learn nothing from it."""

from __future__ import annotations

import os
from base64 import b64decode, b64encode
from ipaddress import IPv6Address

import pytest

from discovery.nearby import FRESH, Call, NearbyError, seal, unseal
from discovery.types import HostRecords

DOMAIN = "alice.example"
KEY, UNIX = bytes(range(32)), 1_800_000_000
DESK = HostRecords(
    "desk",
    IPv6Address("fd01::1"),
    "AutoTunnel-" + "-".join(["01"] * 8),
    (("192.168.1.7", 4500), ("2001:db8::7", 4500), ("10.0.0.7", 4500)),
)


def test_a_member_understands_a_call() -> None:
    strings = seal(Call(DESK, UNIX), KEY, os.urandom)
    assert all(len(key) + 1 + len(value) <= 255 for key, value in strings.items())
    assert unseal(strings, KEY, DOMAIN, UNIX) == Call(DESK, UNIX)


def test_a_stranger_reads_neither_names_nor_ids_nor_the_same_words_twice() -> None:
    first, second = (seal(Call(DESK, UNIX), KEY, os.urandom) for _ in range(2))
    assert not set(first.values()) & set(second.values())
    octets = b64decode("".join(first.values()))
    for secret in (b"desk", b"alice", b"AutoTunnel", DESK.host_id.packed, b"fd01"):
        assert secret not in octets and secret not in repr(first).encode()
    assert unseal(first, bytes(32), DOMAIN, UNIX) is None


def test_names_of_other_lengths_look_alike() -> None:
    short = HostRecords("a", DESK.host_id, DESK.target, DESK.endpoints)
    sizes = {len("".join(seal(Call(one, UNIX), KEY, os.urandom).values())) for one in (DESK, short)}
    assert len(sizes) == 1


@pytest.mark.parametrize("off", [FRESH + 1, -FRESH - 1])
def test_an_old_call_is_ignored(off: int) -> None:
    strings = seal(Call(DESK, UNIX), KEY, os.urandom)
    assert unseal(strings, KEY, DOMAIN, UNIX + off) is None


def test_what_is_too_long_is_not_sent() -> None:
    long = HostRecords("x" * 63, DESK.host_id, "y" * 900, DESK.endpoints)
    with pytest.raises(NearbyError):
        seal(Call(long, UNIX), KEY, os.urandom)


@pytest.mark.parametrize(
    "strings",
    [
        {},
        {"s0": ""},
        {"s0": "***"},
        {"s0": b64encode(bytes(5)).decode()},
        {"s0": b64encode(bytes(64)).decode()},
        {f"s{number}": "A" * 240 for number in range(9)},
        {"s1": "AAAA", "path": "/"},
    ],
)
def test_what_strangers_send_is_ignored(strings: dict[str, str]) -> None:
    assert unseal(strings, KEY, DOMAIN, UNIX) is None
