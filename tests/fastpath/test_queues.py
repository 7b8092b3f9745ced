"""Several queues (decision 0031): what is sent stays in order, what is received is right."""

from __future__ import annotations

import socket
import threading
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pytest

from fastpath.reference.esp import InboundSa
from fastpath.types import NewSourceEvent, Opened
from tests.fastpath.support import OUR_ID, PEER_ID, SPI, ipv6, native_module, params
from tests.fastpath.test_pump_conformance import (
    OUTBOUND_KEY,
    Rig,
    endpoint_of,
    readable,
    udp,
)

FLOW_PACKETS = 1500  # of each queue
UNDER_WAY = 64  # packets of all queues that the smallest socket buffer holds
SMALLEST_WINDOW = 32  # packets; what strongSwan's peers have by default


@pytest.fixture(params=[2, 4])
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    rig = Rig(native_module("_pump").NativePump, request.param)
    rig.with_sas()
    rig.pump.start()
    try:
        yield rig
    finally:
        rig.close()


def numbered(flow: int, number: int) -> bytes:
    return ipv6(OUR_ID, PEER_ID, flow.to_bytes(4, "big") + number.to_bytes(4, "big") + bytes(60))


def test_all_queues_seal_with_one_sa_and_a_small_window_takes_it_all(rig: Rig) -> None:
    """Numbers leave in order, whichever thread seals, and so does every flow."""
    inbound = params(
        spi=SPI + 1,
        key=OUTBOUND_KEY[: rig.outbound.suite.key_octets + 4],
        replay_window=SMALLEST_WINDOW,
    )
    opener, seen = InboundSa(inbound), defaultdict[int, list[int]](list)
    under_way = threading.Semaphore(UNDER_WAY)
    senders = [
        threading.Thread(target=_send, args=(end, flow, under_way), daemon=True)
        for flow, end in enumerate(rig.tun.ends.values())
    ]
    for sender in senders:
        sender.start()
    highest = 0
    for _ in range(FLOW_PACKETS * len(senders)):
        opened = opener.open(rig.from_udp())
        under_way.release()
        assert isinstance(opened, Opened)
        assert opened.sequence > highest
        highest = opened.sequence
        body = opened.payload[40:]
        seen[int.from_bytes(body[:4], "big")].append(int.from_bytes(body[4:8], "big"))
    for sender in senders:
        sender.join()
    assert set(seen) == set(range(len(senders)))
    assert all(numbers == list(range(FLOW_PACKETS)) for numbers in seen.values())


def _send(end: socket.socket, flow: int, under_way: threading.Semaphore) -> None:
    end.setblocking(True)
    for number in range(FLOW_PACKETS):
        under_way.acquire()
        end.send(numbered(flow, number))


def test_a_packet_is_taken_once_through_whichever_queue_it_comes(rig: Rig) -> None:
    """Many sources, so that the copies of a packet meet different sockets of the port."""
    sources = [udp() for _ in range(16)]
    for number in range(300):
        inner = ipv6(PEER_ID, OUR_ID, number.to_bytes(4, "big"))
        sealed = rig.peer_out.seal(inner)
        for source in sources:
            rig.to_pump(sealed, source)
        rig.until("rx_packets", number + 1)
        rig.until("drop_replay", (number + 1) * (len(sources) - 1))
        assert rig.from_tun() == inner
    assert not readable(rig.tun.fileno(), 0)
    counters = rig.pump.inbound_counters(SPI)
    assert counters is not None
    assert counters.packets == 300
    for source in sources:
        source.close()


def test_a_peer_that_moves_to_another_queue_is_told_as_ever(rig: Rig) -> None:
    sources = [udp() for _ in range(16)]
    for number, source in enumerate(sources):
        inner = ipv6(PEER_ID, OUR_ID, number.to_bytes(4, "big"))
        rig.to_pump(rig.peer_out.seal(inner), source)
        assert rig.from_tun() == inner
        assert NewSourceEvent(SPI, endpoint_of(source)) in rig.events()
        source.close()


def test_an_idle_queue_costs_no_packet_of_the_others_its_order(rig: Rig) -> None:
    """One queue only: what one thread would do."""
    for number in range(500):
        rig.tun.send(numbered(0, number))
        opened = rig.peer_in.open(rig.from_udp())
        assert isinstance(opened, Opened)
        assert opened.sequence == number + 1
    assert rig.pump.counters()["tx_packets"] == 500


@pytest.mark.parametrize("queues", [65, 200])
def test_more_queues_than_there_is_room_for_are_refused(queues: int) -> None:
    make: Any = native_module("_pump").NativePump
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with near, far, pytest.raises(ValueError, match=r"1\.\.64"):
        make(near.fileno(), None, None, OUR_ID, more=[(near.fileno(), None, None)] * (queues - 1))
