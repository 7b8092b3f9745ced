"""Gateways and STUN servers may say anything: the machines keep their mind."""

from __future__ import annotations

import random as pseudo
import struct

from discovery.nat import natpmp, pcp, stun
from discovery.nat.types import Doubted, Mapped, NotMapped, OtherVersion, SendNat
from tests.fuzz.mutate import SEED, mutants

GATEWAY, LOCAL = "192.168.1.1", ("192.168.1.10", 4500)
SERVER = (GATEWAY, 5351)
ROUNDS = 100_000
KNOWN = (SendNat, Mapped, NotMapped, OtherVersion, Doubted)


def test_no_datagram_of_a_gateway_breaks_a_machine() -> None:
    rng = pseudo.Random(SEED)
    elder = natpmp.NatPmpClient(GATEWAY, LOCAL, rng.randbytes)
    newer = pcp.PcpClient(GATEWAY, LOCAL, rng.randbytes)
    (ask,) = newer.start(0.0)
    assert isinstance(ask, SendNat)
    map_reply = struct.pack("!BBBBII", 2, 0x81, 0, 0, 7200, 1000) + bytes(12) + ask.data[24:60]
    seeds = [
        struct.pack("!BBHI4B", 0, 0x80, 0, 1000, 203, 0, 113, 9),
        struct.pack("!BBHIHHI", 0, 0x81, 0, 1000, 4500, 4500, 7200),
        struct.pack("!BBBBII", 2, 0x80, 0, 0, 0, 1) + bytes(12),
        map_reply,
    ]
    elder.start(0.0)
    now = 0.0
    for data in mutants(seeds, ROUNDS):
        now += rng.random() * 10
        for machine in (elder, newer):
            out = machine.receive(data, SERVER, now) + machine.advance(now)
            assert all(isinstance(one, KNOWN) for one in out)
            assert len(out) <= 4
            if machine.mapping is not None:
                assert 0 < machine.mapping.external[1] < 65536
                assert machine.next_timer() is not None


def test_no_datagram_breaks_stun() -> None:
    ask = stun.Message(stun.REQUEST, bytes(12), ((0x8022, b"test"),)).pack()
    later = stun.delayed(bytes(12), 60)
    reply = stun.answer(ask, ("192.0.2.7", 61000))
    assert reply is not None
    for data in mutants((ask, reply, later), ROUNDS):
        message = stun.read(data)
        if message is not None:
            stun.mapped_address(message)
        assert 0 <= stun.delay_of(data) <= stun.LONGEST_DELAY
        answer = stun.answer(data, ("192.0.2.7", 61000))
        assert answer is None or len(answer) <= max(100, len(data) + 80)
