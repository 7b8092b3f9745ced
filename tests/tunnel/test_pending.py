"""What waits is bounded by count, octets and time, and nothing is lost or kept by mistake."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tunnel.pending import Bucket, PacketQueues
from tunnel.settings import NodeSettings

SMALL = NodeSettings(
    queue_packets=3, queue_octets=100, queues_packets=5, queues_octets=150, queue_wait=10.0
)


def test_packets_come_back_in_order_and_only_once() -> None:
    queues = PacketQueues(SMALL)
    assert all(queues.put("a", bytes([n]), 0.0) for n in range(3))
    assert queues.take("a") == [b"\0", b"\1", b"\2"]
    assert queues.take("a") == []
    assert len(queues) == 0


def test_a_full_queue_refuses_the_newest_and_counts_it() -> None:
    queues = PacketQueues(SMALL)
    assert [queues.put("a", b"x", 0.0) for _ in range(4)] == [True, True, True, False]
    assert not queues.put("b", bytes(101), 0.0)  # octets of one queue
    assert queues.put("b", bytes(90), 0.0)
    assert not queues.put("c", bytes(60), 0.0)  # octets of all
    assert queues.put("c", b"x", 0.0)
    assert not queues.put("d", b"x", 0.0)  # packets of all
    assert queues.refused == 4


def test_a_packet_that_waited_too_long_is_given_back() -> None:
    queues = PacketQueues(SMALL)
    queues.put("a", b"old", 0.0)
    queues.put("a", b"new", 5.0)
    assert queues.next_timer() == 10.0
    assert queues.expire(10.0) == [b"old"]
    assert queues.next_timer() == 15.0
    assert queues.take("a") == [b"new"]
    assert queues.next_timer() is None and not queues.has("a")


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 120), st.booleans())))
def test_the_bounds_hold_whatever_happens(steps: list[tuple[str, int, bool]]) -> None:
    queues, held = PacketQueues(SMALL), dict[str, list[bytes]]()
    for now, (key, size, take) in enumerate(steps):
        if take:
            assert queues.take(key) == held.pop(key, [])
        elif queues.put(key, bytes(size), float(now) / 1000):
            held.setdefault(key, []).append(bytes(size))
        every = [packet for packets in held.values() for packet in packets]
        assert len(queues) == len(every) <= SMALL.queues_packets
        assert sum(map(len, every)) <= SMALL.queues_octets


def test_a_bucket_allows_its_rate_and_refills() -> None:
    bucket = Bucket(10)
    assert sum(bucket.allows(100.0) for _ in range(50)) == 10
    assert sum(bucket.allows(100.5) for _ in range(50)) == 5
    assert sum(bucket.allows(1000.0) for _ in range(50)) == 10
