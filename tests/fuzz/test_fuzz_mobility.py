"""Peers may say anything in a Mobility Header: it is read, or refused with one error."""

from __future__ import annotations

from ipaddress import IPv6Address

from tests.fuzz.mutate import mutants
from tunnel.mobility import header, options
from tunnel.mobility.header import Aotc, Aots, BindingAck, BindingError, BindingUpdate, Message
from tunnel.mobility.options import (
    AlternateCareOf,
    Ipv4CareOf,
    Ipv4Home,
    MobilityError,
    NatDetection,
    Port,
    RefreshAdvice,
)

S = IPv6Address("fd01:203:405:607:22:69ff:fe8e:342a")
D = IPv6Address("fd11:1213:1415:1617:22:69ff:fe00:1")
ROUNDS = 100_000

SAID: list[Message] = [
    Aotc(bytes(8)),
    Aots(1),
    BindingError(2, S),
    BindingAck(0, 7, 600, (NatDetection(110, True), RefreshAdvice(300))),
    BindingUpdate(
        *(9, 600),
        (
            *(AlternateCareOf(options.mapped("198.51.100.7")), Port(4500)),
            *(Ipv4CareOf(options.IPv4Address("10.0.0.2")),),
            *(Ipv4Home(32, options.IPv4Address("0.0.0.0")),),
        ),
    ),
]


def test_no_octets_break_the_codec() -> None:
    seeds = [header.pack(one, S, D) for one in SAID]
    read = 0
    for data in mutants(seeds, ROUNDS):
        if len(data) >= 8:  # the right checksum, so that what follows it is reached
            check = header._checksum(data[:4] + bytes(2) + data[6:], S, D)
            data = data[:4] + check.to_bytes(2) + data[6:]
        try:
            message = header.read(data, S, D)
        except MobilityError:
            continue
        read += 1
        if not isinstance(message, header.Unrecognised):
            again = header.pack(message, S, D)
            assert header.read(again, S, D) == message
    assert read > ROUNDS // 10
