"""Merging packets into large frames loses, changes and reorders nothing (issue 3, GRO).

The pump gets a whole batch at once, writes frames with virtio headers, and the reference cuts
them: out must come, flow by flow, the very octets that went in.
"""

from __future__ import annotations

import random
import select
import socket
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pytest

from fastpath.reference.esp import InboundSa, OutboundSa
from fastpath.reference.inner import wrap
from fastpath.reference.segment import GSO_NONE, VNET_OCTETS, Vnet, cut
from fastpath.types import Mode, Opened
from tests.fastpath.inner_flows import (
    ACK,
    CWR,
    PSH,
    flow_of,
    icmp,
    ip,
    large,
    tcp,
    traffic,
    udp,
)
from tests.fastpath.support import OUR_ID, PEER_ID, SPI, native_module, params

PATIENCE = 60.0
TUN_BUFFER = 4 * 2**20
SO_SNDBUFFORCE, SO_RCVBUFFORCE = 32, 33  # as root: a whole batch must wait in the sockets


class VnetRig:
    """A pump with virtio headers between a pair of sockets as TUN and a real UDP socket."""

    def __init__(self, mode: Mode = Mode.TUNNEL) -> None:
        self.near, self.tun = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.udp, self.far = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
        for sock in (self.udp, self.far):
            sock.bind(("127.0.0.1", 0))
            sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, TUN_BUFFER)
        for sock in (self.near, self.tun):
            sock.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, TUN_BUFFER)
        for sock in (self.near, self.tun, self.udp, self.far):
            sock.setblocking(False)
        make = native_module("_pump").NativePump
        self.pump = make(self.near.fileno(), self.udp.fileno(), None, OUR_ID, vnet_hdr=True)
        inbound = params(mode=mode)
        outbound = params(spi=SPI + 1, mode=mode)
        self.pump.install_inbound(inbound)
        self.pump.install_outbound(outbound)
        self.pump.set_flow(PEER_ID, SPI + 1, self.far.getsockname())
        self.peer_out, self.peer_in = OutboundSa(inbound), InboundSa(outbound)

    def send(self, packets: list[bytes]) -> None:
        for packet in packets:
            datagram = self.peer_out.seal(*wrap(self.peer_out.params, packet))
            self.far.sendto(datagram, self.udp.getsockname())

    def frames(self, packets: int) -> list[bytes]:
        """Frames until they hold so many packets."""
        frames: list[bytes] = []
        while packets > 0:
            assert select.select([self.tun], [], [], PATIENCE)[0], self.pump.counters()
            frames.append(self.tun.recv(70_000))
            packets -= len(cut(frames[-1], 65535))
        assert packets == 0
        return frames

    def close(self) -> None:
        self.pump.stop()
        for sock in (self.near, self.tun, self.udp, self.far):
            sock.close()


@pytest.fixture(params=[Mode.TUNNEL, Mode.TRANSPORT])
def rig(request: pytest.FixtureRequest) -> Iterator[VnetRig]:
    rig = VnetRig(request.param)
    yield rig
    rig.close()


@pytest.fixture
def tunnel_rig() -> Iterator[VnetRig]:
    rig = VnetRig()
    yield rig
    rig.close()


def by_flow(packets: list[bytes]) -> dict[bytes, list[bytes]]:
    flows: dict[bytes, list[bytes]] = defaultdict(list)
    for packet in packets:
        flows[flow_of(packet)].append(packet)
    return flows


def packets_of(frames: list[bytes]) -> list[bytes]:
    return [packet for frame in frames for packet in cut(frame, 65535)]


def merged(rig: VnetRig, packets: list[bytes]) -> list[int]:
    """How many packets each frame holds, when all come in one batch."""
    rig.send(packets)
    rig.pump.start()
    frames = rig.frames(len(packets))
    assert by_flow(packets_of(frames)) == by_flow(packets)
    return [len(cut(frame, 65535)) for frame in frames]


def stream(count: int, size: int = 1000, **header: Any) -> list[bytes]:
    dice = random.Random(count)
    return [tcp(dice.randbytes(size), 5 + n * size, **header) for n in range(count)]


def test_a_run_of_tcp_becomes_one_frame(tunnel_rig: VnetRig) -> None:
    assert merged(tunnel_rig, stream(30)) == [30]


def test_a_run_of_tcp_in_transport_mode_becomes_one_frame() -> None:
    rig = VnetRig(Mode.TRANSPORT)
    try:
        assert merged(rig, stream(30)) == [30]
    finally:
        rig.close()


def test_a_frame_never_passes_64_kib(tunnel_rig: VnetRig) -> None:
    assert merged(tunnel_rig, stream(60, 1328)) == [49, 11]


def test_datagrams_of_one_size_become_one_frame_and_a_short_one_ends_it(
    tunnel_rig: VnetRig,
) -> None:
    datagrams = [udp(bytes([n]) * (40 if n != 5 else 30)) for n in range(12)]
    assert merged(tunnel_rig, datagrams) == [6, 6]


def test_a_pushed_segment_ends_its_run(tunnel_rig: VnetRig) -> None:
    packets = stream(10)
    packets[4] = tcp(packets[4][72:], 4005, flags=ACK | PSH)
    assert merged(tunnel_rig, packets) == [5, 5]


def test_a_pure_ack_of_another_flow_does_not_break_a_run(tunnel_rig: VnetRig) -> None:
    packets = stream(10)
    packets.insert(5, tcp(b"", port=9))
    packets.insert(7, icmp(b"ping", source=PEER_ID))
    counts = merged(tunnel_rig, packets)
    assert sorted(counts) == [1, 1, 4, 6]  # without ports, ICMP may be of the run


@pytest.mark.parametrize(
    "other",
    [
        tcp(b"x" * 1000, 9999),  # a gap
        tcp(b"x" * 1000, 5005, acknowledged=78),
        tcp(b"x" * 1000, 5005, window=501),
        tcp(b"x" * 1000, 5005, flags=ACK | CWR),
        tcp(b"x" * 1000, 5005, options=b"\x01" * 12),
        tcp(b"x" * 1000, 5005, traffic_class=3),  # congestion was experienced
        tcp(b"x" * 1000, 5005, hop_limit=63),
        tcp(b"x" * 1001, 5005),  # larger than the run's
        tcp(b"x" * 1000, 5005, flow=5),
        tcp(b"x" * 999, 5005)[:-1] + b"y",  # a wrong checksum must stay wrong
        ip(44, bytes(100)),
    ],
    ids=lambda packet: packet[40:60].hex(),
)
def test_what_is_not_alike_is_not_merged(tunnel_rig: VnetRig, other: bytes) -> None:
    packets = [*stream(5), other]
    assert merged(tunnel_rig, packets) == [5, 1]


def test_a_wrong_checksum_in_the_middle_is_handed_on_as_it_is(tunnel_rig: VnetRig) -> None:
    packets = stream(9)
    packets[4] = packets[4][:-1] + bytes([packets[4][-1] ^ 1])
    assert merged(tunnel_rig, packets) == [4, 1, 4]


def test_forged_packets_between_leave_the_run_whole(tunnel_rig: VnetRig) -> None:
    packets = stream(10)
    for number, packet in enumerate(packets):
        datagram = tunnel_rig.peer_out.seal(packet)
        tunnel_rig.far.sendto(datagram[:-1] + b"x", tunnel_rig.udp.getsockname())
        tunnel_rig.far.sendto(datagram, tunnel_rig.udp.getsockname())
        if number % 2:
            tunnel_rig.far.sendto(datagram, tunnel_rig.udp.getsockname())
    tunnel_rig.pump.start()
    assert packets_of(tunnel_rig.frames(10)) == packets
    counters = tunnel_rig.pump.counters()
    assert (counters["drop_authentication"], counters["drop_replay"]) == (10, 5)


@pytest.mark.parametrize("seed", range(12))
def test_random_traffic_comes_out_as_it_went_in(rig: VnetRig, seed: int) -> None:
    print(f"seed {seed}")
    packets = traffic(random.Random(seed), 250)
    if rig.peer_out.params.mode is Mode.TRANSPORT:  # whose headers are rebuilt (DESIGN §4)
        packets = [b"\x60\0\0\0" + p[4:7] + b"\x40" + p[8:] for p in packets]
    rig.send(packets)
    rig.pump.start()
    frames = rig.frames(len(packets))
    assert by_flow(packets_of(frames)) == by_flow(packets)
    assert len(frames) < len(packets)


def test_large_frames_leave_in_packets_of_the_mtu(rig: VnetRig) -> None:
    rig.pump.set_mtu(1280)
    payload = random.Random(9).randbytes(50_000)
    packet = tcp(payload, source=OUR_ID, destination=PEER_ID)
    frame = large(packet, 1328)
    rig.tun.send(frame)
    datagrams = large(udp(payload[:500], source=OUR_ID, destination=PEER_ID), 60)
    rig.tun.send(datagrams)
    rig.pump.start()
    for expected in [*cut(frame, 1280), *cut(datagrams, 1280)]:
        assert select.select([rig.far], [], [], PATIENCE)[0]
        opened = rig.peer_in.open(rig.far.recv(70_000))
        assert isinstance(opened, Opened)
        whole = opened.payload == expected
        assert whole or opened.payload == expected[40:]


def test_a_large_frame_without_a_flow_asks_with_whole_packets(tunnel_rig: VnetRig) -> None:
    tunnel_rig.pump.clear_flow(PEER_ID)
    frame = large(tcp(b"z" * 5000, source=OUR_ID, destination=PEER_ID), 1328)
    tunnel_rig.tun.send(frame)
    tunnel_rig.pump.start()
    asked: list[bytes] = []
    while len(asked) < 4:
        assert select.select([tunnel_rig.pump.event_fd()], [], [], PATIENCE)[0]
        asked += [event.packet for event in tunnel_rig.pump.drain()]
    assert asked == cut(frame, 1400)


def test_broken_virtio_headers_are_counted(tunnel_rig: VnetRig) -> None:
    packet = tcp(b"z" * 5000, source=OUR_ID, destination=PEER_ID)
    tunnel_rig.tun.send(b"short")
    tunnel_rig.tun.send(Vnet(1, 7, 0, 100, 40, 16).pack() + packet)
    tunnel_rig.tun.send(Vnet().pack() + packet)
    tunnel_rig.pump.start()
    assert select.select([tunnel_rig.far], [], [], PATIENCE)[0]
    assert tunnel_rig.pump.counters()["drop_malformed"] == 2


def test_a_delivered_packet_has_an_empty_virtio_header(tunnel_rig: VnetRig) -> None:
    tunnel_rig.pump.deliver(icmp(b"unreachable"))
    frame = tunnel_rig.tun.recv(70_000)
    assert frame == Vnet(0, GSO_NONE).pack() + icmp(b"unreachable")
    assert len(Vnet().pack()) == VNET_OCTETS


@pytest.mark.parametrize("mtu", [0, 1279, 65536])
def test_an_mtu_below_that_of_ipv6_is_refused(tunnel_rig: VnetRig, mtu: int) -> None:
    with pytest.raises(ValueError, match="1280"):
        tunnel_rig.pump.set_mtu(mtu)
