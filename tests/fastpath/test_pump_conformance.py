"""Both pumps behave alike: a pair of sockets stands in for TUN, UDP is real, on loopback."""

from __future__ import annotations

import contextlib
import itertools
import select
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fastpath.reference.esp import InboundSa, OutboundSa
from fastpath.types import (
    EVENT_QUEUE_PACKETS,
    EVENT_QUEUE_STRANGERS,
    UNKNOWN_SPI_EVENTS_PER_SECOND,
    AcquireEvent,
    ControlEvent,
    Drop,
    Endpoint,
    Event,
    Mode,
    NewSourceEvent,
    Offload,
    OffloadState,
    Opened,
    Pump,
    Queue,
    SaParams,
    Suite,
    UnknownSpiEvent,
)
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
from tunnel.io.portable_pump import PortablePump

PATIENCE = 60.0  # seconds until a test gives up; nothing waits for it to pass
OUTBOUND_KEY = bytes(range(100, 136))


def udp(family: socket.AddressFamily = socket.AF_INET) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1" if family is socket.AF_INET else "::1", 0))
    sock.setblocking(False)
    return sock


def share(first: socket.socket) -> socket.socket:
    """One more socket of the same port, as several queues have it."""
    first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    another = socket.socket(first.family, socket.SOCK_DGRAM)
    another.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    another.bind(first.getsockname())
    another.setblocking(False)
    return another


def endpoint_of(sock: socket.socket) -> Endpoint:
    host, port = sock.getsockname()[:2]
    return host, port


def threads() -> int:
    """Threads of this process, also those that Python does not know."""
    return len(list(Path("/proc/self/task").iterdir()))


def readable(fd: int, seconds: float = PATIENCE) -> bool:
    return bool(select.select([fd], [], [], seconds)[0])


class Tuns:
    """The far ends of all queues of TUN: a flow keeps to its queue, as the kernel has it."""

    def __init__(self, ends: list[socket.socket]) -> None:
        self.ends = {end.fileno(): end for end in ends}
        self._any = select.epoll()
        for fd in self.ends:
            self._any.register(fd, select.EPOLLIN)

    def send(self, packet: bytes) -> None:
        """Addresses choose the queue."""
        place = zlib.crc32(packet[8:40]) % len(self.ends)
        list(self.ends.values())[place].send(packet)

    def recv(self, octets: int, seconds: float = 0.0) -> bytes:
        """The next packet of any queue; TimeoutError when there is none."""
        for fd, _ in self._any.poll(seconds):
            return self.ends[fd].recv(octets)
        raise TimeoutError("nothing came to TUN")

    def fileno(self) -> int:
        """Readable when :meth:`recv` has something."""
        return self._any.fileno()

    def close(self) -> None:
        self._any.close()
        for end in self.ends.values():
            end.close()


class Rig:
    """A pump between far ends of its TUN stand-in and a far end of its UDP sockets."""

    def __init__(
        self, make: Callable[..., Pump], queues: int = 1, *, host_id: bytes = OUR_ID
    ) -> None:
        pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(queues)]
        self.near_tuns = [near for near, _ in pairs]
        for end in itertools.chain(*pairs):
            end.setblocking(False)
        self.tun = Tuns([far for _, far in pairs])
        self.near_udp, self.near_udp6 = udp(), udp(socket.AF_INET6)
        more = [(share(self.near_udp), share(self.near_udp6)) for _ in self.near_tuns[1:]]
        self._sockets = [*itertools.chain(*more), self.near_udp, self.near_udp6]
        self.far, self.far6 = udp(), udp(socket.AF_INET6)
        first, *others = (
            Queue(tun.fileno(), four.fileno(), six.fileno())
            for tun, (four, six) in zip(
                self.near_tuns, [(self.near_udp, self.near_udp6), *more], strict=True
            )
        )
        self.pump = make(*first, host_id, **({"more": others} if others else {}))
        self.stopped = False

    def with_sas(self, suite: Suite = Suite.AES128GCM16, mode: Mode = Mode.TUNNEL) -> None:
        self.inbound = params(suite, mode=mode)
        key = OUTBOUND_KEY[: suite.key_octets + 4]
        self.outbound = params(suite, spi=SPI + 1, key=key, mode=mode)
        self.pump.install_inbound(self.inbound)
        self.pump.install_outbound(self.outbound)
        self.pump.set_flow(PEER_ID, SPI + 1, endpoint_of(self.far))
        self.peer_out = OutboundSa(self.inbound)
        self.peer_in = InboundSa(self.outbound)

    def to_pump(self, datagram: bytes, sender: socket.socket | None = None) -> None:
        (sender or self.far).sendto(datagram, endpoint_of(self.near_udp))

    def from_tun(self) -> bytes:
        assert readable(self.tun.fileno()), f"nothing came to TUN; {self.pump.counters()}"
        return self.tun.recv(70_000)

    def from_udp(self, sock: socket.socket | None = None) -> bytes:
        sock = sock or self.far
        assert readable(sock.fileno()), f"nothing came to UDP; {self.pump.counters()}"
        return sock.recv(70_000)

    def events(self, count: int = 1) -> list[Event]:
        """At least ``count`` events."""
        events: list[Event] = []
        while len(events) < count:
            assert readable(self.pump.event_fd()), f"no event; {self.pump.counters()} {events}"
            events += self.pump.drain()
        return events

    def until(self, name: str, value: int) -> None:
        """Waits until a counter stands at ``value``."""
        deadline = time.monotonic() + PATIENCE
        while self.pump.counters().get(name, 0) < value:
            assert time.monotonic() < deadline, f"{name}: {self.pump.counters()}"
            select.select([], [], [], 0.002)
        assert self.pump.counters()[name] == value

    def stop(self) -> None:
        if not self.stopped:
            self.stopped = True
            self.pump.stop()

    def close(self) -> None:
        self.stop()
        for sock in (*self.near_tuns, *self._sockets, self.far, self.far6):
            sock.close()
        self.tun.close()


WAYS = [("reference", 1), ("native", 1), ("reference", 2), ("native", 2), ("native", 4)]


@pytest.fixture(params=WAYS, ids=[f"{engine}-{queues}" for engine, queues in WAYS])
def way(request: pytest.FixtureRequest) -> Any:
    """An engine and a number of queues."""
    return request.param


@pytest.fixture
def make_pump(way: tuple[str, int]) -> Any:
    return PortablePump if way[0] == "reference" else native_module("_pump").NativePump


@pytest.fixture
def rig(make_pump: Any, way: tuple[str, int]) -> Iterator[Rig]:
    rig = Rig(make_pump, way[1])
    rig.pump.start()
    try:
        yield rig
    finally:
        rig.close()


def test_it_says_which_help_of_the_kernel_it_uses(rig: Rig) -> None:
    states = rig.pump.offloads()
    assert states.pop(Offload.TUN_USO) is OffloadState.OFF  # frames without a virtio header
    udp = {name for name in Offload if name.startswith("udp_")}
    native = rig.pump.engine == "native"
    assert states == dict.fromkeys(udp, OffloadState.ON if native else OffloadState.OFF)


def test_a_family_without_a_socket_has_no_help(make_pump: Any) -> None:
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with near, far:
        states = make_pump(near.fileno(), None, None, OUR_ID).offloads()
    del states[Offload.TUN_USO]
    assert set(states.values()) == {OffloadState.ABSENT}


def test_it_says_what_it_is(rig: Rig) -> None:
    assert rig.pump.engine in ("native", "reference")
    assert any(digit in rig.pump.aead for digit in "0123456789"), "name and version of the AEAD"


@pytest.mark.parametrize("suite", SUITES)
def test_packets_pass_both_ways(rig: Rig, suite: Suite) -> None:
    rig.with_sas(suite)
    for length in (0, 1, 2, 3, 1400):
        rig.tun.send(tunnelled_out(bytes(length)))
        opened = rig.peer_in.open(rig.from_udp())
        assert isinstance(opened, Opened)
        assert opened.payload == tunnelled_out(bytes(length))
        rig.to_pump(rig.peer_out.seal(tunnelled_in(bytes(length))))
        assert rig.from_tun() == tunnelled_in(bytes(length))


def test_outer_ipv6_carries_the_same(rig: Rig) -> None:
    rig.with_sas()
    rig.pump.set_flow(PEER_ID, SPI + 1, endpoint_of(rig.far6))
    rig.tun.send(tunnelled_out())
    opened = rig.peer_in.open(rig.from_udp(rig.far6))
    assert isinstance(opened, Opened)
    rig.far6.sendto(rig.peer_out.seal(tunnelled_in()), endpoint_of(rig.near_udp6))
    assert rig.from_tun() == tunnelled_in()
    assert NewSourceEvent(SPI, endpoint_of(rig.far6)) in rig.events()


def test_transport_mode_passes_both_ways(rig: Rig) -> None:
    rig.with_sas(mode=Mode.TRANSPORT)
    rig.tun.send(ipv6(OUR_ID, PEER_ID, b"segment", 6))
    opened = rig.peer_in.open(rig.from_udp())
    assert opened == Opened(b"segment", 6, 1)
    rig.to_pump(rig.peer_out.seal(b"answer", 6))
    assert rig.from_tun() == ipv6(PEER_ID, OUR_ID, b"answer", 6)


def test_a_packet_without_a_flow_is_an_acquire_event(rig: Rig) -> None:
    rig.tun.send(tunnelled_out())
    assert rig.events() == [AcquireEvent(tunnelled_out())]
    assert not readable(rig.pump.event_fd(), 0), "drained means not readable"


@pytest.mark.parametrize("start", ["fe7f", "fec0", "fd00", "2001"])
def test_what_is_not_link_local_asks(rig: Rig, start: str) -> None:
    """Link-local is fe80::/10 and no more (RFC 4291 §2.4)."""
    within = ipv6(OUR_ID, bytes.fromhex("febf" + "11" * 14))
    packet = ipv6(OUR_ID, bytes.fromhex(start + "11" * 14))
    rig.tun.send(within)
    rig.tun.send(packet)
    assert rig.events() == [AcquireEvent(packet)]


def test_a_cleared_flow_asks_again_and_a_removed_sa_too(rig: Rig) -> None:
    rig.with_sas()
    rig.pump.clear_flow(PEER_ID)
    rig.tun.send(tunnelled_out())
    assert rig.events() == [AcquireEvent(tunnelled_out())]
    rig.pump.set_flow(PEER_ID, SPI + 1, endpoint_of(rig.far))
    rig.pump.remove_outbound(SPI + 1)
    rig.tun.send(tunnelled_out(b"again"))
    assert rig.events() == [AcquireEvent(tunnelled_out(b"again"))]


def test_an_injected_packet_takes_the_way_of_the_others(rig: Rig) -> None:
    rig.with_sas()
    rig.pump.inject(tunnelled_out(b"held"))
    assert rig.peer_in.open(rig.from_udp()) == Opened(tunnelled_out(b"held"), 41, 1)
    rig.pump.clear_flow(PEER_ID)
    rig.pump.inject(tunnelled_out(b"held"))
    assert rig.events() == [AcquireEvent(tunnelled_out(b"held"))]


def test_a_delivered_packet_comes_out_of_tun(rig: Rig) -> None:
    rig.pump.deliver(tunnelled_in(b"icmp"))
    assert rig.from_tun() == tunnelled_in(b"icmp")


def test_ike_is_handed_over_with_and_without_its_marker(rig: Rig) -> None:
    rig.to_pump(bytes(4) + IKE_HEADER)
    assert rig.events() == [ControlEvent(IKE_HEADER, endpoint_of(rig.far), True)]
    rig.to_pump(BARE_IKE)
    assert rig.events() == [ControlEvent(BARE_IKE, endpoint_of(rig.far), False)]


def test_strangers_leave_room_for_others_in_the_queue(rig: Rig) -> None:
    """Nobody drains it: half of its places are for what is not a first word."""
    rig.with_sas()
    rig.pump.clear_flow(PEER_ID)
    for number in range(EVENT_QUEUE_STRANGERS + 40):
        rig.to_pump(bytes(4) + number.to_bytes(8, "big") + IKE_HEADER[8:])
        if number % 32 == 0:  # not faster than a small socket buffer
            rig.to_pump(b"\xff")
            rig.until("drop_keepalive", number // 32 + 1)
    rig.until("drop_queue_full", 40)
    known = bytes(4) + IKE_HEADER[:8] + b"responds" + IKE_HEADER[16:]
    rig.to_pump(known)
    rig.to_pump(b"\xff")
    rig.until("drop_keepalive", (EVENT_QUEUE_STRANGERS + 39) // 32 + 2)
    rig.pump.inject(tunnelled_out(b"ours"))
    *strangers, other, ours = rig.pump.drain()
    assert len(strangers) == EVENT_QUEUE_STRANGERS
    assert other == ControlEvent(known[4:], endpoint_of(rig.far), True)
    assert ours == AcquireEvent(tunnelled_out(b"ours"))
    rig.to_pump(bytes(4) + IKE_HEADER)
    assert rig.events() == [ControlEvent(IKE_HEADER, endpoint_of(rig.far), True)]


def test_raw_datagrams_are_sent_as_they_are(rig: Rig) -> None:
    rig.pump.send(b"\xff", endpoint_of(rig.far))
    assert rig.from_udp() == b"\xff"
    rig.pump.send(bytes(4) + IKE_HEADER, endpoint_of(rig.far6))
    assert rig.from_udp(rig.far6) == bytes(4) + IKE_HEADER


def test_a_keepalive_is_counted_and_forgotten(rig: Rig) -> None:
    rig.to_pump(b"\xff")
    rig.until("drop_keepalive", 1)
    assert rig.pump.drain() == []


def test_a_dummy_packet_is_sealed_and_a_received_one_is_dropped(rig: Rig) -> None:
    rig.with_sas()
    rig.pump.send_dummy(SPI + 1, endpoint_of(rig.far6))
    assert rig.peer_in.open(rig.from_udp(rig.far6)) is Drop.DUMMY
    rig.to_pump(rig.peer_out.seal(b"", 59))
    rig.until("drop_dummy", 1)
    assert rig.events() == [NewSourceEvent(SPI, endpoint_of(rig.far))]


@pytest.mark.parametrize(
    ("inner", "next_header", "reason"),
    [
        (ipv6(STRANGER_ID, OUR_ID), 41, "selector"),
        (ipv6(PEER_ID, STRANGER_ID), 41, "selector"),
        (tunnelled_in(), 4, "selector"),
        (tunnelled_in()[:-1], 41, "malformed"),
        (b"", 41, "malformed"),
    ],
    ids=["source", "destination", "ipv4", "cut", "empty"],
)
def test_authentic_packets_outside_the_selectors_are_dropped(
    rig: Rig, inner: bytes, next_header: int, reason: str
) -> None:
    """RFC 4303 §3.4.4: the inner source is the peer's host id, the destination ours."""
    rig.with_sas()
    rig.to_pump(rig.peer_out.seal(inner, next_header))
    rig.until(f"drop_{reason}", 1)
    counters = rig.pump.inbound_counters(SPI)
    assert counters is not None
    assert counters.drops == {reason: 1}
    assert not readable(rig.tun.fileno(), 0)


def test_replayed_and_forged_packets_are_dropped_by_reason(rig: Rig) -> None:
    rig.with_sas()
    packet = rig.peer_out.seal(tunnelled_in())
    rig.to_pump(packet)
    assert rig.from_tun() == tunnelled_in()
    rig.to_pump(packet)
    rig.until("drop_replay", 1)
    forged = rig.peer_out.seal(tunnelled_in())[:-1] + b"\x00"
    rig.to_pump(forged)
    rig.until("drop_authentication", 1)
    rig.to_pump(packet[:20])
    rig.until("drop_malformed", 1)


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (ipv6(STRANGER_ID, PEER_ID), "foreign_source"),
        (b"\x45" + tunnelled_out()[1:], "malformed"),
        (tunnelled_out()[:39], "malformed"),
        (ipv6(OUR_ID, bytes.fromhex("ff02" + "00" * 14)), "no_flow"),
        (ipv6(bytes.fromhex("fe80" + "22" * 14), bytes.fromhex("ff02" + "00" * 14)), "no_flow"),
    ],
    ids=["foreign", "ipv4", "cut", "multicast", "link-local"],
)
def test_what_must_not_leave_is_dropped(rig: Rig, packet: bytes, reason: str) -> None:
    rig.with_sas()
    rig.tun.send(packet)
    rig.until(f"drop_{reason}", 1)
    assert rig.pump.drain() == []
    assert not readable(rig.far.fileno(), 0)


def test_unknown_spis_are_told_at_a_limited_rate_and_all_counted(rig: Rig) -> None:
    started = time.monotonic()
    for _ in range(100):
        rig.to_pump(b"\x12\x34\x56\x78" + bytes(60))
    rig.until("drop_unknown_spi", 100)
    seconds = int(time.monotonic() - started) + 2
    events = rig.events()
    assert set(events) == {UnknownSpiEvent(0x12345678, endpoint_of(rig.far))}
    assert len(events) <= UNKNOWN_SPI_EVENTS_PER_SECOND * seconds


def test_the_newest_packet_moves_the_source_and_an_older_one_does_not(rig: Rig) -> None:
    rig.with_sas()
    first, late, newest = (rig.peer_out.seal(tunnelled_in()) for _ in range(3))
    elsewhere = udp()
    with contextlib.closing(elsewhere):
        rig.to_pump(first)
        assert rig.events() == [NewSourceEvent(SPI, endpoint_of(rig.far))]
        rig.to_pump(newest, elsewhere)
        assert rig.events() == [NewSourceEvent(SPI, endpoint_of(elsewhere))]
        rig.to_pump(late)
        rig.until("rx_packets", 3)
        rig.to_pump(first)
        rig.until("drop_replay", 1)
        assert rig.pump.drain() == []


def test_counters_hold_inner_octets_and_when(rig: Rig) -> None:
    rig.with_sas()
    for _ in range(3):
        rig.tun.send(tunnelled_out())
        rig.from_udp()
    rig.to_pump(rig.peer_out.seal(tunnelled_in()))
    rig.from_tun()
    rig.until("tx_packets", 3)
    rig.until("rx_packets", 1)
    totals = rig.pump.counters()
    assert (totals["tx_octets"], totals["rx_octets"]) == (3 * 45, 45)
    sent, received = rig.pump.outbound_counters(SPI + 1), rig.pump.inbound_counters(SPI)
    assert sent is not None
    assert received is not None
    assert (sent.packets, sent.octets, sent.drops) == (3, 135, {})
    assert (received.packets, received.octets, received.drops) == (1, 45, {})
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    for used in (sent.last_used, received.last_used):
        assert used is not None
        assert now - PATIENCE < used <= now + 0.1
    assert rig.pump.inbound_counters(0x9999) is None
    assert rig.pump.outbound_counters(0x9999) is None


def test_an_unused_sa_was_never_used(rig: Rig) -> None:
    rig.with_sas()
    counters = rig.pump.inbound_counters(SPI)
    assert counters is not None
    assert (counters.packets, counters.last_used) == (0, None)


def test_a_replaced_sa_starts_anew(rig: Rig) -> None:
    rig.with_sas()
    packet = rig.peer_out.seal(tunnelled_in())
    for _ in range(2):
        rig.to_pump(packet)
        assert rig.from_tun() == tunnelled_in()
        rig.pump.install_inbound(rig.inbound)


def test_tables_are_replaced_while_traffic_flows(rig: Rig) -> None:
    """A rekey under load: after each change the next packet is sealed with the new SA."""
    rig.with_sas()
    running = threading.Event()
    running.set()

    def flood() -> None:
        while running.is_set():
            with contextlib.suppress(BlockingIOError):
                rig.tun.send(tunnelled_out(b"flood"))
                rig.to_pump(b"\x12\x34\x56\x78" + bytes(60))

    thread = threading.Thread(target=flood)
    thread.start()
    try:
        for round_ in range(1, 21):
            rekey(rig, SPI + 100 * round_)
    finally:
        running.clear()
        thread.join()


def rekey(rig: Rig, spi: int) -> None:
    new: SaParams = params(spi=spi, key=bytes([spi & 0xFF] * 20))
    rig.pump.install_outbound(new)
    rig.pump.install_inbound(new)
    rig.pump.set_flow(PEER_ID, spi, endpoint_of(rig.far))
    receiver = InboundSa(new)
    while True:
        packet = rig.from_udp()
        if packet[:4] == spi.to_bytes(4, "big"):
            break
    assert isinstance(receiver.open(packet), Opened)
    sender, inner = OutboundSa(new), tunnelled_in(spi.to_bytes(4, "big"))
    deadline = time.monotonic() + PATIENCE
    received = b""
    while received != inner:  # the flood may crowd one out of the socket, or an older one is late
        assert time.monotonic() < deadline, rig.pump.counters()
        rig.to_pump(sender.seal(inner))
        if readable(rig.tun.fileno(), 0.05):
            received = rig.tun.recv(70_000)
    rig.pump.remove_inbound(spi)
    assert rig.pump.inbound_counters(spi) is None


def test_the_event_queue_is_bounded(rig: Rig) -> None:
    total = EVENT_QUEUE_PACKETS + 50
    for _ in range(total):
        rig.to_pump(bytes(4) + IKE_HEADER)
        if _ % 64 == 0:
            select.select([], [], [], 0.001)  # let it read; a full socket buffer is not the point
    deadline = time.monotonic() + PATIENCE
    while not rig.pump.counters().get("drop_queue_full"):
        assert time.monotonic() < deadline, rig.pump.counters()
        rig.to_pump(bytes(4) + IKE_HEADER)
    events = rig.pump.drain()
    assert 0 < len(events) <= EVENT_QUEUE_PACKETS
    rig.to_pump(bytes(4) + IKE_HEADER)
    assert rig.events(), "it goes on after it was full"


def test_an_endpoint_without_a_socket_is_counted(make_pump: Any) -> None:
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    near.setblocking(False)
    only4 = udp()
    pump = make_pump(near.fileno(), only4.fileno(), None, OUR_ID)
    pump.start()
    try:
        pump.send(b"x", ("::1", 9))
        assert pump.counters()["drop_udp_send"] == 1
    finally:
        pump.stop()
        for sock in (near, far, only4):
            sock.close()


@pytest.mark.parametrize("bad", [("desk.example", 4500), ("", 1), ("127.0.0.1", 65_536)])
def test_a_flow_endpoint_must_be_an_address(rig: Rig, bad: Endpoint) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        rig.pump.set_flow(PEER_ID, SPI, bad)


def test_it_stops_at_once_joins_its_threads_and_leaves_descriptors_open(rig: Rig) -> None:
    rig.with_sas()
    rig.tun.send(tunnelled_out())
    rig.from_udp()
    before = threads()
    rig.stop()
    deadline = time.monotonic() + PATIENCE
    while threads() >= before:  # the kernel lists a joined thread a moment longer
        assert time.monotonic() < deadline, "a thread of the pump is still there"
    rig.near_udp.getsockname()
    rig.tun.send(tunnelled_out())
    unread = select.select(rig.near_tuns, [], [], PATIENCE)[0]
    assert unread, "nobody reads it any more, and it is open"


def test_it_survives_a_tun_device_that_goes_away(rig: Rig) -> None:
    rig.with_sas()
    rig.tun.close()
    rig.to_pump(rig.peer_out.seal(tunnelled_in()))
    rig.until("drop_tun_write", 1)
