"""What is the portable pump's own: its queue, its signal on any system, its frames."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Iterator

import pytest

from fastpath.types import (
    EVENT_QUEUE_OCTETS,
    EVENT_QUEUE_PACKETS,
    AcquireEvent,
    ControlEvent,
    LifetimeEvent,
)
from tests.fastpath.support import OUR_ID, PEER_ID, SPI, params, tunnelled_out
from tunnel.io import portable_pump
from tunnel.io.portable_pump import EventQueue, PortablePump, Signal


def readable(fd: int) -> bool:
    return bool(select.select([fd], [], [], 0)[0])


@pytest.fixture(params=["eventfd", "socketpair"])
def signal(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Signal]:
    if request.param == "socketpair":
        monkeypatch.delattr(os, "eventfd")  # as on macOS and Windows
    made = Signal()
    yield made
    made.close()


def test_a_signal_is_readable_from_set_to_clear(signal: Signal) -> None:
    signal.clear()
    assert not readable(signal.fileno())
    for _ in range(3):
        signal.set()
    assert readable(signal.fileno())
    signal.clear()
    assert not readable(signal.fileno())


def test_a_signal_that_is_set_very_often_does_not_block(signal: Signal) -> None:
    for _ in range(100_000):
        signal.set()
    signal.clear()
    assert not readable(signal.fileno())


def test_the_queue_is_bounded_by_count() -> None:
    queue = EventQueue()
    assert all(queue.put(LifetimeEvent(spi)) for spi in range(EVENT_QUEUE_PACKETS))
    assert not queue.put(LifetimeEvent(0))
    assert queue.drain() == [LifetimeEvent(spi) for spi in range(EVENT_QUEUE_PACKETS)]
    assert queue.put(LifetimeEvent(0))
    queue.close()


def test_the_queue_is_bounded_by_octets() -> None:
    queue = EventQueue()
    big = 65_000
    source = ("192.0.2.1", 4500)
    taken = 0
    while queue.put(ControlEvent(bytes(big), source, True)):
        taken += 1
    assert taken == EVENT_QUEUE_OCTETS // big
    assert not queue.put(AcquireEvent(bytes(big)))
    assert queue.put(LifetimeEvent(1)), "what has no payload still fits"
    queue.drain()
    assert queue.put(AcquireEvent(bytes(big)))
    queue.close()


def test_frames_with_a_virtio_header_lose_and_get_it() -> None:
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    near.setblocking(False)
    pump = PortablePump(near.fileno(), None, None, OUR_ID, vnet_hdr=True)
    pump.start()
    try:
        far.send(bytes(10) + tunnelled_out())
        assert select.select([pump.event_fd()], [], [], 60)[0]
        assert pump.drain() == [AcquireEvent(tunnelled_out())]
        pump.deliver(b"packet")
        assert far.recv(100) == bytes(10) + b"packet"
    finally:
        pump.stop()
        near.close()
        far.close()


def test_stopping_is_safe_before_the_start_and_twice() -> None:
    near, far = socket.socketpair()
    pump = PortablePump(near.fileno(), None, None, OUR_ID)
    pump.stop()
    pump.stop()
    near.close()
    far.close()


def test_a_pump_is_started_once() -> None:
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    near.setblocking(False)
    pump = PortablePump(near.fileno(), None, None, OUR_ID)
    pump.start()
    with pytest.raises(RuntimeError, match="once"):
        pump.start()
    pump.stop()
    near.close()
    far.close()


def test_link_local_endpoints_keep_their_scope() -> None:
    """An outer address fe80::… is worth nothing without the interface it is on."""
    index = socket.if_nametoindex("lo")
    endpoint = portable_pump._endpoint(("fe80::1%lo", 4500, 0, index))
    assert endpoint == (f"fe80::1%{index}", 4500)
    family, address = portable_pump._socket_address(endpoint)
    assert (family, address) == (socket.AF_INET6, ("fe80::1", 4500, 0, index))
    assert portable_pump._socket_address(("fe80::1%lo", 1))[1][3] == index
    assert portable_pump._endpoint(("2001:db8::1", 4500, 0, 0)) == ("2001:db8::1", 4500)


def test_a_datagram_that_is_too_big_for_the_link_is_counted_as_such() -> None:
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", 0))
        udp.setblocking(False)
        pump = PortablePump(near.fileno(), udp.fileno(), None, OUR_ID)
        pump.install_outbound(params())
        pump.set_flow(PEER_ID, SPI, udp.getsockname())
        pump.send(bytes(65_508), udp.getsockname())
        pump.inject(tunnelled_out(bytes(65_495)))
        assert pump.counters()["drop_too_big"] == 2
        pump.stop()
    near.close()
    far.close()
