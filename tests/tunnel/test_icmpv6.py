"""ICMPv6 errors to applications (RFC 4443 §3.1, §3.2, §2.4), judged by scapy."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import UDP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoRequest,
    ICMPv6PacketTooBig,
    ICMPv6TimeExceeded,
    IPv6,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
)
from scapy.packet import Raw

from tunnel.icmpv6 import checksum, destination_unreachable, packet_too_big

US, PEER = "fd01::1", "fd02::2"


def packet(payload: object, source: str = US, to: str = PEER) -> bytes:
    return bytes(IPv6(src=source, dst=to) / payload)


def test_it_comes_from_the_peer_says_address_unreachable_and_quotes_the_packet() -> None:
    sent = packet(UDP(sport=1, dport=2) / Raw(b"hello"))
    error = destination_unreachable(sent)
    assert error is not None
    read = IPv6(error)
    assert (read.src, read.dst, read.plen) == (PEER, US, len(error) - 40)
    assert read[ICMPv6DestUnreach].code == 3
    assert error[48:] == sent
    given = read[ICMPv6DestUnreach].cksum
    del read[ICMPv6DestUnreach].cksum
    assert IPv6(bytes(read))[ICMPv6DestUnreach].cksum == given


def test_it_never_exceeds_the_minimum_mtu() -> None:
    error = destination_unreachable(packet(UDP() / Raw(bytes(1400))))
    assert error is not None and len(error) == 1280


def test_echo_requests_are_answered_but_errors_never() -> None:
    assert destination_unreachable(packet(ICMPv6EchoRequest())) is not None
    assert destination_unreachable(packet(ICMPv6TimeExceeded())) is None
    assert destination_unreachable(packet(IPv6ExtHdrHopByHop() / ICMPv6DestUnreach())) is None


def test_later_fragments_and_odd_addresses_are_not_answered() -> None:
    assert destination_unreachable(packet(IPv6ExtHdrFragment(offset=10) / Raw(b"x"))) is None
    assert destination_unreachable(packet(IPv6ExtHdrFragment() / UDP())) is not None
    assert destination_unreachable(packet(UDP(), to="ff02::1")) is None
    assert destination_unreachable(packet(UDP(), source="::")) is None


@pytest.mark.parametrize("size", range(49))
def test_what_is_too_short_is_no_packet(size: int) -> None:
    whole = packet(ICMPv6EchoRequest())
    if size < 40:
        assert destination_unreachable(whole[:size]) is None
    assert destination_unreachable(b"\x45" + bytes(size)) is None


def test_rfc_1071_checksum_of_its_own_example() -> None:
    assert checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0xFFFF ^ 0xDDF2


def test_packet_too_big_names_the_mtu_and_quotes_enough_for_linux() -> None:
    """RFC 4443 §3.2; from the peer, since Linux believes no error from the receiver itself."""
    error = packet_too_big(packet(UDP() / Raw(bytes(1400))), 1338)
    assert error is not None and len(error) == 1280
    read = IPv6(error)
    assert (read.src, read.dst) == (PEER, US)
    assert (read[ICMPv6PacketTooBig].code, read[ICMPv6PacketTooBig].mtu) == (0, 1338)
    assert len(error) - 48 >= 512
    assert packet_too_big(packet(ICMPv6TimeExceeded()), 1338) is None


@given(st.binary(max_size=80))
def test_the_checksum_is_the_sum_of_words_in_ones_complement(octets: bytes) -> None:
    words = octets + bytes(len(octets) & 1)
    total = sum(int.from_bytes(words[at : at + 2]) for at in range(0, len(words), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    assert checksum(octets) == total ^ 0xFFFF
