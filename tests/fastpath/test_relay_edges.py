"""Nested packets at their edges: shortest, longest, and what a checksum hides (I47, I48)."""

from __future__ import annotations

import struct

from fastpath.reference import relay, segment
from fastpath.reference.esp import MIN_PACKET_OCTETS
from fastpath.types import RELAY_BURST_OCTETS, RELAY_SHARES, Drop, Opened
from tests.fastpath.relays import HOST_A, HOST_B, IKE, nested, nested_ike

_UDP_LENGTH, _UDP_CHECKSUM = 44, 46  # octets of a nested packet at which they stand


def read(packet: bytes) -> relay.Nested | Drop:
    return relay.read(Opened(packet, 41, 1))


def with_checksum(packet: bytes) -> bytes:
    """The same UDP packet, its checksum right again."""
    bare = packet[:_UDP_CHECKSUM] + bytes(2) + packet[_UDP_CHECKSUM + 2 :]
    right = segment.checksum(bare[8:40] + struct.pack(">II", len(bare) - 40, 17) + bare[40:])
    return bare[:_UDP_CHECKSUM] + right.to_bytes(2) + bare[_UDP_CHECKSUM + 2 :]


def test_the_shortest_esp_packet_is_one() -> None:
    body = b"\x01" * MIN_PACKET_OCTETS
    assert read(nested(body)) == relay.Nested(nested(body), is_ike=False, body=body)
    assert read(nested(body[1:])) is Drop.MALFORMED


def test_the_longest_nested_packet_is_made_and_read() -> None:
    packet = relay.around_esp(HOST_A, HOST_B, bytes(65_000))
    assert packet[:8] == bytes.fromhex("60000000 fde8 32 40")
    assert read(packet) == relay.Nested(packet, is_ike=False, body=bytes(65_000))


def test_only_a_probe_has_a_flow_label() -> None:
    """It tells the home agent not to fragment it; nothing of IKE is one (RFC 8899)."""
    assert relay.around_ike(HOST_A, HOST_B, IKE)[:4] == bytes.fromhex("60000000")
    assert relay.around_esp(HOST_A, HOST_B, bytes(40), whole=True)[:4] == bytes.fromhex("60000001")


def test_ike_of_another_length_than_its_udp_says_is_malformed() -> None:
    """Whatever its checksum: what stands behind it would be nobody's."""
    right = nested_ike()
    assert read(with_checksum(right)) == read(right)
    for octets in (8 + len(IKE) - 1, 8 + len(IKE) + 1, 0):
        wrong = right[:_UDP_LENGTH] + octets.to_bytes(2) + right[_UDP_LENGTH + 2 :]
        assert read(with_checksum(wrong)) is Drop.MALFORMED


def test_ike_without_a_checksum_is_malformed() -> None:
    """RFC 8200 §8.1: not even where the sum is zero, which is sent as all ones."""
    zero = with_checksum(nested_ike(message=IKE[:-2] + bytes(2)))[_UDP_CHECKSUM:][:2]
    packet = nested_ike(message=IKE[:-2] + zero)
    assert packet[_UDP_CHECKSUM:][:2] == b"\xff\xff"
    assert isinstance(read(packet), relay.Nested)
    assert read(packet[:_UDP_CHECKSUM] + bytes(2) + packet[_UDP_CHECKSUM + 2 :]) is Drop.MALFORMED


def test_a_checksum_of_one_is_one() -> None:
    first = with_checksum(nested_ike(message=IKE[:-2] + bytes(2)))[_UDP_CHECKSUM:][:2]
    last = (int.from_bytes(first) - 1) % 0xFFFF
    packet = nested_ike(message=IKE[:-2] + last.to_bytes(2))
    assert packet[_UDP_CHECKSUM:][:2] == b"\x00\x01"
    assert isinstance(read(packet), relay.Nested)


def test_without_a_limit_all_pass() -> None:
    limit = relay.Limit()
    assert all(limit.allows(1 << 30, 0.0) for _ in range(3))


def test_the_limit_to_the_octet() -> None:
    """Half of it is for hosts that took no more than their share; what is not used is not saved."""
    burst, rate = RELAY_BURST_OCTETS, 10 * RELAY_BURST_OCTETS
    assert relay.Limit(rate).allows(burst, 0.0)
    assert not relay.Limit(rate).allows(burst + 1, 0.0)
    assert relay.Limit(2 * rate).allows(2 * burst, 0.0), "a tenth of a second of it"
    limit = relay.Limit(rate)
    assert limit.allows(2 * burst, 0.0, relay.Share())
    assert not limit.allows(2 * burst + 1, 1000.0, relay.Share())
    assert limit.allows(2 * burst, 1000.0, relay.Share())


def test_a_share_is_modest_to_the_octet_and_soon_again() -> None:
    """Whatever a host took at once, a share of it counts when it is heard again."""
    burst, rate = RELAY_BURST_OCTETS, 10 * RELAY_BURST_OCTETS
    part = burst // RELAY_SHARES
    limit, share = relay.Limit(rate), relay.Share()
    assert limit.allows(part, 0.0, share)
    assert limit.allows(2 * burst - part, 0.0, share), "as much as its share is modest"
    assert limit.allows(1, 0.25, share), "of the half that is everybody's"
    assert not limit.allows(burst + 1, 0.25, share)
    assert limit.allows(2 * burst, 0.5, share)
