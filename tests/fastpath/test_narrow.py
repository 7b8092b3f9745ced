"""Several SAs with one peer: which packets go on which, and which are taken from which."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fastpath.reference.datapath import Datapath, SendDatagram, WritePacket
from fastpath.reference.esp import OutboundSa
from fastpath.reference.traffic import Upper, holds, upper_of
from fastpath.types import NARROW_WAYS, Drop, Mode, SaParams, Suite, Traffic
from tests.fastpath.support import OUR_ID, PEER_ID, SPI, ipv6, native_module
from tests.fastpath.test_pump_conformance import Rig, endpoint_of
from tests.fuzz.mutate import SEED
from tunnel.io.portable_pump import PortablePump

ICMPV6 = Traffic(58)
ECHO_REQUEST = Traffic(58, local_ports=(128 << 8, 128 << 8))
DNS = Traffic(17, peer_ports=(53, 53))
WEB = Traffic(6, local_ports=(80, 443))
WAYS = (ECHO_REQUEST, DNS, WEB, ICMPV6)


def ports(source: int, target: int) -> bytes:
    return struct.pack(">HH", source, target) + bytes(16)


def options(following: int, blocks: int = 0) -> bytes:
    return bytes((following, blocks)) + bytes(6 + 8 * blocks)


def fragment(following: int, offset: int) -> bytes:
    return struct.pack(">BBHI", following, 0, offset << 3 | 1, 7)


@pytest.mark.parametrize(
    ("next_header", "payload", "upper"),
    [
        (17, ports(1024, 53), Upper(17, (1024, 53))),
        (6, ports(80, 9), Upper(6, (80, 9))),
        (58, b"\x80\x01" + bytes(6), Upper(58, (0x8001, 0x8001))),
        (135, bytes((59, 1, 5, 0)) + bytes(4), Upper(135, (0x500, 0x500))),
        (60, options(135) + bytes((59, 1, 5, 0)), Upper(135, (0x500, 0x500))),
        (0, options(43, 1) + options(17) + ports(7, 8), Upper(17, (7, 8))),
        (44, fragment(17, 0) + ports(7, 8), Upper(17, (7, 8))),
        (44, fragment(17, 9) + ports(7, 8), Upper(17, None, later=True)),
        (17, b"\x01\x02\x03", Upper(17, None)),
        (59, b"", Upper(59, None)),
        (60, b"\x11\x00", Upper(60, None)),
        (60, options(60) * 8 + ports(1, 2), Upper(60, None)),
    ],
)
def test_the_upper_layer_is_found(next_header: int, payload: bytes, upper: Upper) -> None:
    assert upper_of(ipv6(OUR_ID, PEER_ID, payload, next_header)) == upper


def test_ports_are_seen_from_both_ends() -> None:
    asked = Upper(17, (1024, 53))
    assert holds(DNS, asked, outgoing=True)
    assert not holds(DNS, asked, outgoing=False)
    assert holds(DNS, Upper(17, (53, 1024)), outgoing=False)
    assert not holds(DNS, Upper(6, (1024, 53)), outgoing=True)
    assert not holds(DNS, Upper(17, None), outgoing=False)
    later = Upper(17, None, later=True)
    assert holds(DNS, later, outgoing=False)
    assert not holds(DNS, later, outgoing=True)
    assert holds(Traffic(17), later, outgoing=True)
    assert holds(Traffic(), Upper(99, None), outgoing=True)


def sa(number: int, traffic: Traffic | None = None, mode: Mode = Mode.TUNNEL) -> SaParams:
    key = bytes([number]) * 20
    return SaParams(
        SPI + number, Suite.AES128GCM16, key, OUR_ID, PEER_ID, True, mode, traffic=traffic
    )


@pytest.fixture(params=["native", "portable"])
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    make: Callable[..., Any] = PortablePump
    if request.param == "native":
        make = native_module("_pump").NativePump
    rig = Rig(make)
    rig.pump.start()
    try:
        yield rig
    finally:
        rig.close()


def fill(table: Rig | Datapath, far: tuple[str, int]) -> None:
    """The peer's first SA, one for each of :data:`WAYS`, and the flow that names them all."""
    pump = table.pump if isinstance(table, Rig) else table
    for number, traffic in enumerate((None, *WAYS)):
        mode = Mode.TRANSPORT if traffic is WEB else Mode.TUNNEL
        pump.install_inbound(sa(number, traffic, mode))
        pump.install_outbound(sa(number, traffic, mode))
    narrow = [(traffic, SPI + 1 + number) for number, traffic in enumerate(WAYS)]
    pump.set_flow(PEER_ID, SPI, far, narrow=narrow)


def test_each_packet_goes_on_the_first_way_that_holds_it(rig: Rig) -> None:
    fill(rig, endpoint_of(rig.far))
    for number, next_header, payload in (
        (0, 17, ports(53, 1024)),
        (2, 17, ports(1024, 53)),
        (3, 6, ports(443, 1024)),
        (1, 58, bytes((128, 0, 9, 9))),
        (4, 60, options(58) + bytes((129, 0, 9, 9))),
        (0, 44, fragment(17, 9) + ports(1024, 53)),
    ):
        rig.pump.inject(ipv6(OUR_ID, PEER_ID, payload, next_header))
        assert int.from_bytes(rig.from_udp()[:4], "big") == SPI + number
    rig.pump.remove_outbound(SPI + 1)
    rig.pump.inject(ipv6(OUR_ID, PEER_ID, bytes((128, 0, 9, 9)), 58))
    assert int.from_bytes(rig.from_udp()[:4], "big") == SPI + 4
    rig.pump.set_flow(PEER_ID, SPI, endpoint_of(rig.far))
    rig.pump.inject(ipv6(OUR_ID, PEER_ID, ports(1024, 53), 17))
    assert int.from_bytes(rig.from_udp()[:4], "big") == SPI


def test_an_sa_takes_nothing_that_it_is_not_for(rig: Rig) -> None:
    """RFC 4301 §5.2 step 4."""
    fill(rig, endpoint_of(rig.far))
    answer = ipv6(PEER_ID, OUR_ID, ports(53, 1024), 17)
    peer = OutboundSa(sa(2))
    rig.to_pump(peer.seal(ipv6(PEER_ID, OUR_ID, ports(54, 1024), 17)))
    rig.to_pump(peer.seal(ipv6(PEER_ID, OUR_ID, ports(53, 1024), 6)))
    rig.to_pump(peer.seal(answer))
    assert rig.from_tun() == answer
    web = OutboundSa(sa(3, mode=Mode.TRANSPORT))
    rig.to_pump(web.seal(ports(9, 80), 17))
    rig.to_pump(web.seal(ports(9, 80), 6))
    assert rig.from_tun()[6] == 6
    assert rig.pump.counters()["drop_selector"] == 3


def test_too_many_narrow_ways_are_refused(rig: Rig) -> None:
    many = [(ICMPV6, SPI)] * (NARROW_WAYS + 1)
    with pytest.raises(ValueError, match="narrow ways"):
        rig.pump.set_flow(PEER_ID, SPI, endpoint_of(rig.far), narrow=many)
    with pytest.raises(ValueError, match="narrow ways"):
        Datapath(OUR_ID).set_flow(PEER_ID, SPI, endpoint_of(rig.far), narrow=many)


def odd_packet(rng: random.Random, source: bytes, target: bytes, odd: int = 135) -> bytes:
    """Chains of headers, often cut or wrong, with ports near those of the ways."""
    kind = rng.choice((0, 6, 17, 43, 44, 58, 59, 60, 132, odd))
    first, body = kind, b""
    while kind in (0, 43, 44, 60) and len(body) < 120:
        following = rng.choice((0, 6, 17, 43, 44, 60, 60, odd))
        if kind == 44:
            body += fragment(following, rng.choice((0, 0, 3)))
        else:
            body += options(following, rng.randrange(2))
        kind = following
    body += struct.pack(">HH", *rng.choices((53, 80, 443, 0x8000, 0x8100, 9), k=2))
    body += bytes(rng.randrange(8))
    if rng.random() < 0.3:
        body = body[: rng.randrange(len(body) + 1)]
    return ipv6(source, target, body, first)


def test_fuzz_any_packet_has_an_upper_layer() -> None:
    """Whatever stands behind a whole IPv6 header."""
    print(f"FUZZ_SEED={SEED}")
    rng = random.Random(SEED)
    for number in range(100_000):
        packet = odd_packet(rng, OUR_ID, PEER_ID)
        if number % 2:
            packet = packet[:6] + rng.randbytes(1) + packet[7:40] + rng.randbytes(rng.randrange(40))
        upper = upper_of(packet)
        assert 0 <= upper.protocol <= 255
        assert upper.ports is None or all(0 <= port <= 0xFFFF for port in upper.ports)


def test_fuzz_both_engines_choose_alike() -> None:
    print(f"FUZZ_SEED={SEED}")
    rng = random.Random(SEED)
    rig, law = Rig(native_module("_pump").NativePump), Datapath(OUR_ID)
    rig.pump.start()
    try:
        far = endpoint_of(rig.far)
        fill(rig, far)
        fill(law, far)
        peers = [
            OutboundSa(sa(n, None, Mode.TRANSPORT if n == 3 else Mode.TUNNEL)) for n in range(5)
        ]
        for _ in range(10_000):
            (sent,) = law.outbound(packet := odd_packet(rng, OUR_ID, PEER_ID, 58))
            rig.pump.inject(packet)
            assert isinstance(sent, SendDatagram)
            assert rig.from_udp() == sent.data, packet.hex()
        arrived = 0
        for _ in range(3_000):
            number = rng.randrange(5)
            packet = odd_packet(rng, PEER_ID, OUR_ID, 58)
            sealed = (
                peers[number].seal(packet[40:], packet[6])
                if number == 3
                else peers[number].seal(packet)
            )
            wanted = [
                one.packet for one in law.inbound(sealed, far) if isinstance(one, WritePacket)
            ]
            rig.to_pump(sealed)
            if wanted:
                arrived += 1
                assert rig.from_tun() == wanted[0], packet.hex()
        selector = law.counters()[f"drop_{Drop.SELECTOR.name.lower()}"]
        rig.until("drop_selector", selector)
        assert arrived > 500
    finally:
        rig.close()
